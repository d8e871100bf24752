//! A YAML document as a tree that knows where each field stands, so that every problem can name its line, and
//! fields that nobody reads are found, all of them. Pure.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;
use serde_saphyr::Spanned;

/// Line and column, from 1.
type Place = (u64, u64);

/// One thing that is wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The field, such as `fleets[0].path`; empty for the whole document.
    pub at: String,
    /// Line and column, from 1, where they are known.
    pub place: Option<(u64, u64)>,
    /// What is wrong, and what to write instead.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.place {
            write!(f, "line {line}, column {column}: ")?;
        }
        if !self.at.is_empty() {
            write!(f, "{}: ", self.at)?;
        }
        f.write_str(&self.message)
    }
}

/// A value of the document.
pub struct Tree {
    place: Place,
    shape: Shape,
}

enum Shape {
    Leaf,
    Map(Vec<(String, Place, Tree)>),
    List(Vec<Tree>),
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(ShapeVisitor)
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Shape>::deserialize(d)?;
        Ok(Self { place: place(&spanned.referenced), shape: spanned.value })
    }
}

fn place(location: &serde_saphyr::Location) -> Place {
    (location.line(), location.column())
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Shape, E> {
        Ok(Shape::Leaf)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Shape, E> {
        Ok(Shape::Leaf)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Shape, E> {
        Ok(Shape::Leaf)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Shape, E> {
        Ok(Shape::Leaf)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Shape, E> {
        Ok(Shape::Leaf)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Shape, E> {
        Ok(Shape::Leaf)
    }

    fn visit_str<E>(self, _: &str) -> Result<Shape, E> {
        Ok(Shape::Leaf)
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Shape, E> {
        Ok(Shape::Leaf)
    }

    fn visit_unit<E>(self) -> Result<Shape, E> {
        Ok(Shape::Leaf)
    }

    fn visit_none<E>(self) -> Result<Shape, E> {
        Ok(Shape::Leaf)
    }

    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Shape, D::Error> {
        d.deserialize_any(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let at = place(&key.referenced);
            fields.push((key.value, at, map.next_value()?));
        }
        Ok(Shape::Map(fields))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Shape, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Shape::List(items))
    }
}

impl Tree {
    /// Reads a document. An empty one is a tree without fields.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let tree: Self = serde_saphyr::from_str(text).map_err(|error| Problem::from(&error))?;
        if matches!(tree.shape, Shape::List(_)) {
            let message = "must be a mapping of fields, and is a list".to_owned();
            return Err(Problem { at: String::new(), place: Some(tree.place), message });
        }
        Ok(tree)
    }

    /// Where a field such as `fleets[0].path` stands; where it is absent, what is nearest around it.
    pub fn place(&self, path: &str) -> Option<Place> {
        let (mut tree, mut place) = (self, None);
        for step in path.split(['.', '[']).filter(|s| !s.is_empty()) {
            let next = match (&tree.shape, step.strip_suffix(']')) {
                (Shape::List(items), Some(index)) => {
                    index.parse::<usize>().ok().and_then(|i| items.get(i)).map(|item| (item.place, item))
                }
                (Shape::Map(fields), None) => {
                    fields.iter().find(|(key, ..)| key == step).map(|(_, at, inner)| (*at, inner))
                }
                _ => None,
            };
            let Some((at, inner)) = next else { break };
            (place, tree) = (Some(at), inner);
        }
        place
    }

    /// Fields that the schema does not have.
    pub fn unknown_fields(&self, schema: &Value) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.walk(schema, "", &mut problems);
        problems
    }

    fn walk(&self, schema: &Value, path: &str, problems: &mut Vec<Problem>) {
        match &self.shape {
            Shape::Leaf => {}
            Shape::List(items) => {
                for (i, item) in items.iter().enumerate() {
                    item.walk(of_type(schema, "items"), &format!("{path}[{i}]"), problems);
                }
            }
            Shape::Map(fields) => {
                let known = &of_type(schema, "properties");
                for (key, at, inner) in fields {
                    let here = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    match known.get(key) {
                        Some(schema) => inner.walk(schema, &here, problems),
                        None if known.is_object() => {
                            problems.push(Problem {
                                at: here,
                                place: Some(*at),
                                message: unknown(key, known),
                            });
                        }
                        // Not a mapping at all: the types will say so.
                        None => {}
                    }
                }
            }
        }
    }
}

/// A part of a schema; that of an optional field stands among alternatives.
fn of_type<'a>(schema: &'a Value, part: &str) -> &'a Value {
    let inner = schema["anyOf"].as_array().into_iter().flatten().find(|s| s.get(part).is_some());
    inner.map_or(&schema[part], |s| &s[part])
}

fn unknown(key: &str, known: &Value) -> String {
    let names: Vec<&str> = known.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    let near = names.iter().map(|name| (distance(&key.to_lowercase(), &name.to_lowercase()), name)).min();
    match near.filter(|(d, name)| *d <= name.len().div_ceil(3)) {
        Some((_, name)) => format!("there is no such field; did you mean {name}?"),
        None => format!("there is no such field; there are {}", names.join(", ")),
    }
}

/// Letters to change, add or leave out to make one of the other (Levenshtein); of texts up to 64 bytes.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// What the parser says, with its place apart.
impl From<&serde_saphyr::Error> for Problem {
    fn from(error: &serde_saphyr::Error) -> Self {
        let place = error.location().map(|l| place(&l)).filter(|(line, _)| *line > 0);
        // The first line says what is wrong; a picture of the text follows.
        let text = error.without_snippet().to_string();
        let text = text.lines().next().unwrap_or_default();
        let message = match (text.find(" at line "), place) {
            (Some(end), Some(_)) => text[..end].to_owned(),
            _ => text.to_owned(),
        };
        Self { at: String::new(), place, message }
    }
}

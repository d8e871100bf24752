//! Label selectors in the form of a query, as `k8s.io/apimachinery/pkg/labels` reads them. Pure.

use std::collections::BTreeSet;

use kube::core::{Expression, Selector};

/// No label selector.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no label selector; write such as `app=web`, `app!=web`, `tier in (a, b)`, `tier notin (a)`, `app` or `!app`, \
     separated by commas"
)]
pub(super) struct InvalidSelector(String);

/// Most requirements of one selector.
const MAX_REQUIREMENTS: usize = 64;

/// Reads a selector; the empty one selects everything.
pub(super) fn parse(text: &str) -> Result<Selector, InvalidSelector> {
    let wrong = || InvalidSelector(text.chars().take(100).collect());
    let parts = split(text);
    if parts.len() > MAX_REQUIREMENTS {
        return Err(wrong());
    }
    if parts.iter().all(|part| part.trim().is_empty()) && parts.len() == 1 {
        return Ok(Selector::default());
    }
    parts.into_iter().map(|part| requirement(part.trim()).ok_or_else(wrong)).collect()
}

/// At the commas outside of parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    text.split(|c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    })
    .collect()
}

fn requirement(text: &str) -> Option<Expression> {
    if let Some(key) = text.strip_prefix('!') {
        return Some(Expression::DoesNotExist(word(key)?));
    }
    if let Some((key, value)) = text.split_once("!=") {
        return Some(Expression::NotEqual(word(key)?, value_of(value)?));
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Some(Expression::Equal(word(key)?, value_of(value)?));
    }
    let Some((key, rest)) = text.split_once(char::is_whitespace) else {
        return Some(Expression::Exists(word(text)?));
    };
    let rest = rest.trim_start();
    let (is_in, set) = match (rest.strip_prefix("notin"), rest.strip_prefix("in")) {
        (Some(set), _) => (false, set),
        (None, Some(set)) => (true, set),
        (None, None) => return None,
    };
    let set = set.trim().strip_prefix('(')?.strip_suffix(')')?;
    let values = set.split(',').map(value_of).collect::<Option<BTreeSet<_>>>()?;
    let key = word(key)?;
    Some(if is_in { Expression::In(key, values) } else { Expression::NotIn(key, values) })
}

fn word(text: &str) -> Option<String> {
    let text = text.trim();
    let is_word = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    (!text.is_empty() && text.chars().all(is_word)).then(|| text.to_owned())
}

/// As [`word`], or empty.
fn value_of(text: &str) -> Option<String> {
    if text.trim().is_empty() { Some(String::new()) } else { word(text) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::SelectorExt as _;
    use std::collections::BTreeMap;

    #[test]
    fn selects_as_kubernetes_does() {
        let labels: BTreeMap<String, String> =
            [("app", "web"), ("mcpfleet.io/tier", "b")].map(|(k, v)| (k.into(), v.into())).into();
        for (text, selected) in [
            ("", true),
            (" ", true),
            ("app=web", true),
            ("app==web", true),
            ("app = web", true),
            ("app=api", false),
            ("app!=api", true),
            ("other!=x", true),
            ("app", true),
            ("other", false),
            ("!other", true),
            ("!app", false),
            ("mcpfleet.io/tier in (a, b)", true),
            ("mcpfleet.io/tier in (a)", false),
            ("mcpfleet.io/tier notin (a,b)", false),
            ("other notin (a)", true),
            ("app=web,mcpfleet.io/tier in (a,b),!other", true),
            ("app=web,mcpfleet.io/tier in (c,d)", false),
        ] {
            assert_eq!(parse(text).unwrap().matches(&labels), selected, "{text}");
        }
    }

    #[test]
    fn what_is_no_selector() {
        for text in ["app=web,", ",", "a b", "a in b", "a in (b", "(a)", "a=b=c", "!", "=x", "ä=b"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(&"a,".repeat(100)).is_err());
    }
}

//! Helpers for reading JSON that others wrote: a value of another shape than expected is "not there", not an
//! error, so that a message which only its server may judge still gets to the server.

use std::{borrow::Cow, fmt, marker::PhantomData, ops::Range};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::value::RawValue;

/// A JSON string of a message: what it says, and where it stands, quotes included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text<'a> {
    /// Without quotes and escapes.
    pub value: Cow<'a, str>,
    /// In the bytes of the message.
    pub range: Range<usize>,
}

impl<'a> Text<'a> {
    /// `raw` has to be borrowed from `body`; `None` where it is no string.
    pub(super) fn of(raw: Option<&'a RawValue>, body: &str) -> Option<Self> {
        let raw = raw?;
        Some(Self { value: string(raw)?, range: range(raw, body)? })
    }
}

/// Where a raw value stands in the text that it was borrowed from.
pub(super) fn range(raw: &RawValue, body: &str) -> Option<Range<usize>> {
    let start = (raw.get().as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
    let range = start..start + raw.get().len();
    (range.end <= body.len()).then_some(range)
}

/// What a raw value says, if it is a string.
pub(super) fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Escaped<'a>(#[serde(borrow)] Cow<'a, str>);
    let text = raw.get();
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str::<Escaped<'_>>(text).ok().map(|escaped| escaped.0)
}

/// An object, or nothing: any other shape is skipped.
pub(super) struct Object<T>(pub(super) Option<T>);

impl<T> Default for Object<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Look<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Look<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any JSON")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|value| Object(Some(value)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Object(None))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(Object(None))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(Object(None))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
                Ok(Object(None))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(Object(None))
            }

            fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
                Ok(Object(None))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Object(None))
            }
        }

        deserializer.deserialize_any(Look(PhantomData))
    }
}

/// Set as soon as the key is there, whatever its value, `null` included.
#[derive(Clone, Copy, Default)]
pub(super) struct There(pub(super) bool);

impl<'de> Deserialize<'de> for There {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self(true))
    }
}

/// For `deserialize_with`: the raw text of a value, `null` included.
pub(super) fn raw<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

//! `!reset` and `!override`: what a later file takes back or replaces (compose-spec, 13-merge.md).
//!
//! Between reading and merging, a value with such a tag is a mapping of one key that no file can
//! have.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Tagged;

const RESET: &str = "\0reset";
const OVERRIDE: &str = "\0override";

/// A value whose tags are kept.
pub struct Node(pub Value);

/// What a tag says of a value that is laid over another.
pub enum Meaning {
    /// The other goes, and nothing takes its place.
    Reset,
    /// This takes its place as a whole.
    Override(Value),
    /// They are merged.
    Merge(Value),
}

/// The meaning of a value.
pub fn meaning(value: Value) -> Meaning {
    match value {
        Value::Object(mut map) if map.len() == 1 => {
            if map.contains_key(RESET) {
                return Meaning::Reset;
            }
            match map.remove(OVERRIDE) {
                Some(value) => Meaning::Override(value),
                None => Meaning::Merge(Value::Object(map)),
            }
        }
        value => Meaning::Merge(value),
    }
}

/// Whether a value has a tag.
pub fn is_tagged(value: &Value) -> bool {
    value.get(RESET).is_some() || value.get(OVERRIDE).is_some()
}

/// What stands behind the tag, if there is one.
pub fn inner(value: &mut Value) -> &mut Value {
    match value.get(OVERRIDE) {
        Some(_) => &mut value[OVERRIDE],
        None => value,
    }
}

/// A value with nothing below it: what is reset is not there, the rest is as if it had no tag. None if
/// it is reset itself.
pub fn alone(value: Value) -> Option<Value> {
    let value = match meaning(value) {
        Meaning::Reset => return None,
        Meaning::Override(value) | Meaning::Merge(value) => value,
    };
    Some(match value {
        Value::Array(items) => items.into_iter().filter_map(alone).collect(),
        Value::Object(map) => Value::Object(
            map.into_iter().filter_map(|(key, value)| Some((key, alone(value)?))).collect(),
        ),
        value => value,
    })
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        let Tagged(Plain(value), tag) = Tagged::deserialize(deserializer)?;
        let wrapped = |key: &str, value| Value::Object(Map::from_iter([(key.to_owned(), value)]));
        Ok(Node(match tag.as_deref() {
            Some("!reset") => wrapped(RESET, Value::Null),
            Some("!override") => wrapped(OVERRIDE, value),
            _ => value,
        }))
    }
}

/// A value whose own tag has been read.
struct Plain(Value);

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Plain, D::Error> {
        deserializer.deserialize_any(Build).map(Plain)
    }
}

struct Build;

impl<'de> Visitor<'de> for Build {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of YAML")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Node(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some((key, Node(value))) = pairs.next_entry::<String, Node>()? {
            if key.starts_with('\0') {
                return Err(de::Error::custom("a key starts with the byte 0"));
            }
            all.insert(key, value);
        }
        Ok(Value::Object(all))
    }
}

//! YAML from outside, within limits.
//!
//! serde-saphyr parses without an intermediate tree and counts what it does (events, aliases, copies
//! of anchors) against a budget, so that a small file can't become a large value. serde_yaml has been
//! archived by its author.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Error;

/// Largest file that is read, in bytes.
pub const MAX_BYTES: u64 = 16 << 20;
/// Deepest nesting of values.
const MAX_DEPTH: usize = 64;
/// Most values in one file, those that aliases repeat included.
const MAX_EVENTS: usize = 250_000;
/// Most values that aliases may repeat.
const MAX_REPLAYED: usize = 25_000;

/// Reads a file of bounded size as text.
pub fn read_text(path: &Path) -> Result<String, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    text(file, &path.display().to_string())
}

/// Reads a stream of bounded size as text.
pub fn text(stream: impl Read, name: &str) -> Result<String, Error> {
    let mut text = String::new();
    let failed = |source| Error::Read { path: name.into(), source };
    stream.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(Error::TooLarge { name: name.to_owned(), limit: MAX_BYTES });
    }
    Ok(text)
}

/// Every document of a stream; empty ones are skipped. `yes` and `off` are truth values, as Kubernetes
/// reads them.
pub fn documents(text: &str, name: &str) -> Result<Vec<Value>, Error> {
    parse(text, name, false)
}

/// The same as Docker Compose reads it: only `true` and `false` are truth values.
pub fn documents_of_compose<T: DeserializeOwned>(text: &str, name: &str) -> Result<Vec<T>, Error> {
    parse(text, name, true)
}

fn parse<T: DeserializeOwned>(
    text: &str,
    name: &str,
    strict_booleans: bool,
) -> Result<Vec<T>, Error> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_events: MAX_EVENTS,
            max_nodes: MAX_EVENTS,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_REPLAYED,
        },
        strict_booleans: strict_booleans,
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| Error::Yaml { name: name.to_owned(), text: error.to_string() })
}

/// Where in which file a value stands, for messages.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// The file.
    pub name: &'a str,
    /// Keys that lead to the value.
    pub path: String,
}

impl<'a> Place<'a> {
    /// The top of a file.
    pub fn top(name: &'a str) -> Place<'a> {
        Place { name, path: String::new() }
    }

    /// One key further down.
    pub fn key(&self, key: impl std::fmt::Display) -> Place<'a> {
        let path = match self.path.as_str() {
            "" => key.to_string(),
            path => format!("{path}.{key}"),
        };
        Place { name: self.name, path }
    }

    /// An error about the value here.
    pub fn error(&self, text: impl Into<String>) -> Error {
        Error::Value { name: self.name.to_owned(), place: self.path.clone(), text: text.into() }
    }
}

/// Text, or what YAML took for a number or a truth value and its reader takes for text.
pub fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

/// Text at `key`, if there is any.
pub fn opt_text(value: &Value, key: &str, place: &Place<'_>) -> Result<Option<String>, Error> {
    match value.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(found) => scalar(found)
            .map(Some)
            .ok_or_else(|| place.key(key).error("a single value is expected here")),
    }
}

/// A truth value at `key`; absent is false. Compose takes text for one as well.
pub fn flag(value: &Value, key: &str, place: &Place<'_>) -> Result<bool, Error> {
    match value.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(truth)) => Ok(*truth),
        Some(Value::String(text)) => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" | "" => Ok(false),
            _ => Err(place.key(key).error(format!("`{text}` is neither true nor false"))),
        },
        Some(_) => Err(place.key(key).error("true or false is expected here")),
    }
}

/// The list at `key`; absent is empty.
pub fn list<'v>(value: &'v Value, key: &str, place: &Place<'_>) -> Result<&'v [Value], Error> {
    match value.get(key) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(place.key(key).error("a list is expected here")),
    }
}

/// The list of texts at `key`; a single one counts as a list.
pub fn texts(value: &Value, key: &str, place: &Place<'_>) -> Result<Vec<String>, Error> {
    match value.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| scalar(item).ok_or_else(|| place.key(key).error("texts are expected here")))
            .collect(),
        Some(single) => scalar(single)
            .map(|text| vec![text])
            .ok_or_else(|| place.key(key).error("a text or a list of texts is expected here")),
    }
}

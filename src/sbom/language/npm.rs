//! npm: a `package.json` in every directory of `node_modules` (npm documentation, `package.json`).

use serde_json::Value;

use super::super::Found;
use super::super::purl::Purl;
use crate::plan::root::{base, parent};

/// Whether a `package.json` is a package's own: `node_modules/NAME/` or `node_modules/@SCOPE/NAME/`.
/// Packages have further ones inside, which describe parts of them.
pub fn is_installed(path: &[u8]) -> bool {
    let above = parent(parent(path));
    base(above) == b"node_modules"
        || (base(above).starts_with(b"@") && base(parent(above)) == b"node_modules")
}

pub fn read(text: Option<&str>, path: &[u8], found: &mut Found) {
    let Some(value) = text.and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
        return;
    };
    let (Some(full), Some(version)) = (value["name"].as_str(), value["version"].as_str()) else {
        return;
    };
    let (namespace, name) = match full.split_once('/') {
        Some((scope, name)) if scope.starts_with('@') => (scope, name),
        _ => ("", full),
    };
    // Older packages have an object, or a list of them.
    let license = ["license", "licenses"].iter().find_map(|key| match &value[key] {
        Value::String(text) => Some(text.clone()),
        Value::Object(object) => object.get("type")?.as_str().map(str::to_owned),
        Value::Array(list) => {
            let names = list.iter().filter_map(|item| item["type"].as_str().or(item.as_str()));
            Some(names.collect::<Vec<_>>().join(" OR "))
        }
        _ => None,
    });
    found.add(&Purl::plain("npm", namespace, name, version), full, path, license);
}

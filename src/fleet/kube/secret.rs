//! Values of Secrets, for whoever runs what needs them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::causes;
use crate::fleet::Manifest;
use crate::fleet::yaml;

/// The value of a key of the Secret `name`.
///
/// # Errors
/// In words, without anything of the value.
pub fn read(manifest: &Manifest, name: &str, key: &str) -> Result<Vec<u8>, String> {
    let Manifest { file, namespace } = manifest;
    let shown = file.display();
    let text = yaml::read_text(file).map_err(|error| {
        format!("the Secret `{name}` is read where it runs: {}", causes::line(&error))
    })?;
    let documents = yaml::documents(&text, &shown.to_string())
        .map_err(|_| format!("`{shown}` is no longer understood as YAML"))?;
    let documents: Vec<super::Document> =
        documents.into_iter().map(|value| (String::new(), value)).collect();
    let mut objects = Vec::new();
    for (file, value) in &documents {
        super::flatten(file, value, &mut objects, 0).map_err(|error| error.to_string())?;
    }
    let secret = objects.iter().map(|(_, object)| *object).find(|object| {
        super::kind(object) == "Secret"
            && super::name(object) == name
            && super::namespace(object) == *namespace
    });
    let secret = secret.ok_or_else(|| format!("`{shown}` has no Secret `{name}` any more"))?;
    // What stands as a text goes before the encoded (Secret v1, `stringData`).
    if let Some(text) = secret.get("stringData").and_then(|data| data.get(key)) {
        return yaml::scalar(text)
            .map(String::into_bytes)
            .ok_or_else(|| format!("key `{key}` of the Secret `{name}` is no text"));
    }
    match secret.get("data").and_then(|data| data.get(key)).and_then(Value::as_str) {
        Some(text) => {
            let text: String = text.split_whitespace().collect();
            let bad = |_| format!("key `{key}` of the Secret `{name}` is not in base64");
            STANDARD.decode(text).map_err(bad)
        }
        None => Err(format!("the Secret `{name}` has no key `{key}`")),
    }
}

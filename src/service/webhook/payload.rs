//! What webhooks say, by their senders' documentation. Hostile input: everything is checked, nothing
//! is believed that the configuration knows better.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::{Kind, Push, Webhook};
use crate::source::Digest;

/// Pushes in one message.
const MAX_PUSHES: usize = 1000;
/// Media types of what can be converted; others are blobs, charts, signatures.
const IMAGES: [&str; 4] = [
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
];

/// Reads a message that has been proved. Messages about other things than pushes give none.
///
/// # Errors
/// Says what is malformed.
pub fn read(webhook: &Webhook, headers: &HeaderMap, body: &[u8]) -> Result<Vec<Push>, String> {
    let value: Value =
        serde_json::from_slice(body).map_err(|error| format!("it is not JSON: {error}"))?;
    if !value.is_object() {
        return Err("it is not an object".to_owned());
    }
    let registry = webhook.registry.as_str();
    let pushes = match webhook.kind {
        Kind::Distribution | Kind::Gitlab => distribution(registry, &value),
        Kind::Harbor => harbor(registry, headers, value),
        Kind::DockerHub => docker_hub(registry, &value),
        Kind::Github => github(registry, headers, &value),
        Kind::Quay => quay(registry, &value),
        Kind::Zot => zot(registry, headers, value),
        Kind::Ecr => ecr(registry, &value),
        Kind::Acr => acr(registry, &value),
        Kind::ArtifactRegistry => artifact_registry(registry, &value),
    }?;
    if pushes.len() > MAX_PUSHES {
        return Err(format!("it tells of more than {MAX_PUSHES} pushes"));
    }
    Ok(pushes)
}

/// A text that must be there.
fn text<'a>(value: &'a Value, pointer: &str) -> Result<&'a str, String> {
    maybe(value, pointer)?.ok_or_else(|| format!("it lacks `{pointer}`"))
}

/// A text that may be there; empty ones count as absent.
fn maybe<'a>(value: &'a Value, pointer: &str) -> Result<Option<&'a str>, String> {
    match value.pointer(pointer) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
        Some(_) => Err(format!("`{pointer}` is no text")),
    }
}

fn digest(text: Option<&str>) -> Result<Option<Digest>, String> {
    text.map(|text| text.parse().map_err(|error| format!("{error}"))).transpose()
}

fn list<'a>(value: &'a Value, pointer: &str) -> Result<&'a [Value], String> {
    match value.pointer(pointer) {
        Some(Value::Array(items)) => Ok(items),
        _ => Err(format!("`{pointer}` is no list")),
    }
}

/// Distribution, "Work with notifications": an envelope of events.
fn distribution(registry: &str, value: &Value) -> Result<Vec<Push>, String> {
    let mut pushes = Vec::new();
    for event in list(value, "/events")? {
        if text(event, "/action")? == "push" {
            pushes.extend(target(registry, event)?);
        }
    }
    Ok(pushes)
}

/// Distribution's and Azure's `target`.
fn target(registry: &str, event: &Value) -> Result<Option<Push>, String> {
    let media_type = maybe(event, "/target/mediaType")?;
    if media_type.is_some_and(|media_type| !IMAGES.contains(&media_type)) {
        return Ok(None);
    }
    let repository = text(event, "/target/repository")?;
    let digest = digest(maybe(event, "/target/digest")?)?;
    Push::new(registry, repository, maybe(event, "/target/tag")?, digest).map(Some)
}

/// Azure, "Container registry webhook reference".
fn acr(registry: &str, value: &Value) -> Result<Vec<Push>, String> {
    match text(value, "/action")? {
        "push" => Ok(target(registry, value)?.into_iter().collect()),
        _ => Ok(Vec::new()),
    }
}

/// Harbor, "Configure webhook notifications": its own form, or CloudEvents.
fn harbor(registry: &str, headers: &HeaderMap, value: Value) -> Result<Vec<Push>, String> {
    let (kind, data) = match value.get("specversion").is_some() || headers.contains_key("ce-type") {
        true => cloud_event(headers, value)?,
        false => (text(&value, "/type")?.to_owned(), value["event_data"].clone()),
    };
    // Before version 2 it was called an image.
    if !["PUSH_ARTIFACT", "pushImage", "harbor.artifact.pushed"].contains(&kind.as_str()) {
        return Ok(Vec::new());
    }
    let repository = match maybe(&data, "/repository/repo_full_name")? {
        Some(name) => name.to_owned(),
        None => {
            format!(
                "{}/{}",
                text(&data, "/repository/namespace")?,
                text(&data, "/repository/name")?
            )
        }
    };
    list(&data, "/resources")?
        .iter()
        .map(|resource| {
            // What was pushed by digest has that for a tag.
            let tag = maybe(resource, "/tag")?.filter(|tag| !tag.contains(':'));
            Push::new(registry, &repository, tag, digest(maybe(resource, "/digest")?)?)
        })
        .collect()
}

/// Docker Hub, "Webhooks". It tells no digest.
fn docker_hub(registry: &str, value: &Value) -> Result<Vec<Push>, String> {
    let tag = text(value, "/push_data/tag")?;
    Ok(vec![Push::new(registry, text(value, "/repository/repo_name")?, Some(tag), None)?])
}

/// GitHub, "Webhook events and payloads": `package` and `registry_package`.
fn github(registry: &str, headers: &HeaderMap, value: &Value) -> Result<Vec<Push>, String> {
    let event = headers.get("x-github-event").and_then(|event| event.to_str().ok());
    let package = match event {
        Some("package") => &value["package"],
        Some("registry_package") => &value["registry_package"],
        Some(_) => return Ok(Vec::new()),
        None => return Err("no `X-GitHub-Event`".to_owned()),
    };
    if !["published", "updated"].contains(&text(value, "/action")?) {
        return Ok(Vec::new());
    }
    let container = |pointer: &str| {
        maybe(package, pointer)
            .map(|kind| kind.is_some_and(|k| k.eq_ignore_ascii_case("container")))
    };
    if !(container("/package_type")? || container("/ecosystem")?) {
        return Ok(Vec::new());
    }
    let owner = match maybe(package, "/namespace")? {
        Some(namespace) => namespace,
        None => text(package, "/owner/login")?,
    };
    // Repositories are in lower case there whatever the account's name is.
    let repository = format!("{owner}/{}", text(package, "/name")?).to_ascii_lowercase();
    let version = &package["package_version"];
    let tag = maybe(version, "/container_metadata/tag/name")?;
    let named = match maybe(version, "/container_metadata/tag/digest")? {
        Some(digest) => Some(digest),
        None => maybe(version, "/version")?.filter(|text| text.starts_with("sha256:")),
    };
    Ok(vec![Push::new(registry, &repository, tag, digest(named)?)?])
}

/// Quay, "Repository notifications". Tags come as a list, or with image IDs (which are no digests).
fn quay(registry: &str, value: &Value) -> Result<Vec<Push>, String> {
    let tags: Vec<&str> = match &value["updated_tags"] {
        Value::Array(tags) => tags
            .iter()
            .map(|tag| tag.as_str().ok_or("a tag is no text"))
            .collect::<Result<_, _>>()?,
        Value::Object(tags) => tags.keys().map(String::as_str).collect(),
        // Builds, scans and so on.
        Value::Null => return Ok(Vec::new()),
        _ => return Err("`updated_tags` is no list".to_owned()),
    };
    let repository = text(value, "/repository")?;
    tags.into_iter().map(|tag| Push::new(registry, repository, Some(tag), None)).collect()
}

/// Zot, "Event support". The prefix of its types can be configured.
fn zot(registry: &str, headers: &HeaderMap, value: Value) -> Result<Vec<Push>, String> {
    let (kind, data) = cloud_event(headers, value)?;
    if !kind.ends_with(".image.updated") {
        return Ok(Vec::new());
    }
    if maybe(&data, "/mediaType")?.is_some_and(|media_type| !IMAGES.contains(&media_type)) {
        return Ok(Vec::new());
    }
    let tag = maybe(&data, "/reference")?.filter(|reference| !reference.contains(':'));
    let digest = digest(maybe(&data, "/digest")?)?;
    Ok(vec![Push::new(registry, text(&data, "/name")?, tag, digest)?])
}

/// Type and data of an event (CloudEvents 1.0, "HTTP Protocol Binding"): in binary mode the body is the
/// data, in structured mode it holds it.
fn cloud_event(headers: &HeaderMap, mut value: Value) -> Result<(String, Value), String> {
    if let Some(kind) = headers.get("ce-type") {
        let kind = kind.to_str().map_err(|_| "`ce-type` is no text")?;
        return Ok((kind.to_owned(), value));
    }
    let kind = text(&value, "/type")?.to_owned();
    if let Some(encoded) = maybe(&value, "/data_base64")? {
        let bytes = STANDARD.decode(encoded).map_err(|_| "`data_base64` is not base64")?;
        let data = serde_json::from_slice(&bytes).map_err(|_| "`data_base64` is not JSON")?;
        return Ok((kind, data));
    }
    match value["data"].take() {
        // JSON in a text, as some senders have it.
        Value::String(json) => {
            Ok((kind, serde_json::from_str(&json).map_err(|_| "`data` is not JSON".to_owned())?))
        }
        data => Ok((kind, data)),
    }
}

/// Amazon, "Amazon ECR events and EventBridge".
fn ecr(registry: &str, value: &Value) -> Result<Vec<Push>, String> {
    let is = |pointer, expected| Ok::<_, String>(maybe(value, pointer)? == Some(expected));
    if !(is("/source", "aws.ecr")? && is("/detail-type", "ECR Image Action")?) {
        return Ok(Vec::new());
    }
    if !(is("/detail/action-type", "PUSH")? && is("/detail/result", "SUCCESS")?) {
        return Ok(Vec::new());
    }
    let media_type = maybe(value, "/detail/manifest-media-type")?;
    if media_type.is_some_and(|media_type| !IMAGES.contains(&media_type)) {
        return Ok(Vec::new());
    }
    let repository = text(value, "/detail/repository-name")?;
    let digest = digest(maybe(value, "/detail/image-digest")?)?;
    Ok(vec![Push::new(registry, repository, maybe(value, "/detail/image-tag")?, digest)?])
}

/// Google, "Configure Pub/Sub notifications" and "Push subscriptions": a message with base64 in it.
fn artifact_registry(registry: &str, value: &Value) -> Result<Vec<Push>, String> {
    let bytes = STANDARD.decode(text(value, "/message/data")?);
    let bytes = bytes.map_err(|_| "`/message/data` is not base64")?;
    let data: Value =
        serde_json::from_slice(&bytes).map_err(|_| "`/message/data` is not JSON".to_owned())?;
    if text(&data, "/action")? != "INSERT" {
        return Ok(Vec::new());
    }
    let (mut repository, mut tag, mut found) = (None, None, None);
    if let Some(name) = maybe(&data, "/digest")? {
        let (name, text) = name.split_once('@').ok_or("`/digest` has no digest")?;
        repository = Some(name);
        found = digest(Some(text))?;
    }
    if let Some(name) = maybe(&data, "/tag")? {
        let (name, text) = name.rsplit_once(':').ok_or("`/tag` has no tag")?;
        if repository.is_some_and(|repository| repository != name) {
            return Err("digest and tag are of two repositories".to_owned());
        }
        repository = Some(name);
        tag = Some(text);
    }
    let repository = repository.ok_or("it has neither digest nor tag")?;
    let (host, repository) = repository.split_once('/').ok_or("a repository without a host")?;
    // One topic is for all registries of a project.
    if host != registry {
        return Ok(Vec::new());
    }
    Ok(vec![Push::new(registry, repository, tag, found)?])
}

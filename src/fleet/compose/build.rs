//! From a service's `build` to how its image is built (compose-spec, build.md).

use serde_json::Value;

use super::load::{Project, Service};
use super::service::origin;
use crate::fleet::yaml::{self, Place};
use crate::fleet::{Build, Error, Image, Note, Origin, Severity};

/// Keys that change nothing about what is built here.
const WITHOUT_EFFECT: &str = "cache_from cache_to labels no_cache_filter provenance pull sbom tags";
/// Keys that steps may miss, with why.
const MISSED: &[(&str, &str)] = &[
    ("entitlements", "steps of a build get no rights beyond their sandbox"),
    ("extra_hosts", "steps of a build see the names that this machine knows"),
    ("isolation", "steps of a build run in namespaces"),
    ("privileged", "steps of a build get no rights beyond their sandbox"),
    ("shm_size", "steps of a build have this machine's /dev/shm"),
    ("ulimits", "steps of a build have this process's limits"),
];

/// How to build the image of a service, whose `build` is in its long form.
pub fn image(
    value: &Value,
    service: &Service,
    project: &Project,
    place: &Place<'_>,
    notes: &mut Vec<Note>,
) -> Result<Image, Error> {
    let directory = &service.directory;
    let text = |key: &str| yaml::opt_text(value, key, place);
    let context = text("context")?.unwrap_or_else(|| ".".to_owned());
    if is_address(&context) {
        return Err(place.key("context").error(format!(
            "`{context}` is not on this machine: clone it, and name the directory"
        )));
    }
    let mut build = Build {
        context: directory.join(context),
        dockerfile: text("dockerfile")?.map(Into::into),
        inline: text("dockerfile_inline")?,
        target: text("target")?,
        args: args(value, service),
        contexts: contexts(value, service, place)?,
        secrets: secrets(value, service, project, place)?,
        ssh: yaml::texts(value, "ssh", place)?,
        offline: false,
        no_cache: yaml::flag(value, "no_cache", place)?,
    };
    if build.inline.is_some() && build.dockerfile.is_some() {
        let text = "either `dockerfile` or `dockerfile_inline` says what to build, not both";
        return Err(place.key("dockerfile_inline").error(text));
    }
    match text("network")?.as_deref() {
        None | Some("default" | "host" | "bridge") => {}
        Some("none") => build.offline = true,
        Some(other) => {
            let text =
                format!("`{other}` is no network that a build here can have: `host` or `none`");
            return Err(place.key("network").error(text));
        }
    }
    let platforms = yaml::texts(value, "platforms", place)?;
    if !platforms.is_empty() && !platforms.iter().any(|one| one.starts_with("linux/amd64")) {
        let text = "VMs are for `linux/amd64`, and it is built for others";
        return Err(place.key("platforms").error(text));
    }
    for key in value.as_object().into_iter().flat_map(|map| map.keys()) {
        let missed = MISSED.iter().find(|(known, _)| known == key);
        let read = "additional_contexts args context dockerfile dockerfile_inline network no_cache \
            platforms secrets ssh target";
        let known = |keys: &str| keys.split_whitespace().any(|known| known == key);
        let text = match missed {
            Some((_, why)) => format!("`build.{key}` is not carried over: {why}"),
            None if known(read) || known(WITHOUT_EFFECT) || key.starts_with("x-") => continue,
            None => format!("`build.{key}` is no key that Compose has here: it is left out"),
        };
        notes.push(Note { severity: Severity::Warning, text });
    }
    Ok(Image::Build(Box::new(build)))
}

/// Whether a context is somewhere else: a URL, or git's `user@host:path`.
pub fn is_address(text: &str) -> bool {
    let first = text.split('/').next().unwrap_or_default();
    text.contains("://") || first.contains('@') && first.contains(':')
}

fn args(value: &Value, service: &Service) -> Vec<String> {
    let args = value.get("args").and_then(Value::as_object);
    let pairs = args.into_iter().flatten().filter_map(|(name, value)| {
        // A bare name takes its value from the environment.
        let value = match value {
            Value::Null => service.variables.get(name).cloned()?,
            value => yaml::scalar(value)?,
        };
        Some(format!("{name}={value}"))
    });
    pairs.collect()
}

fn contexts(value: &Value, service: &Service, place: &Place<'_>) -> Result<Vec<String>, Error> {
    let place = place.key("additional_contexts");
    let mut found = Vec::new();
    let given = value.get("additional_contexts").and_then(Value::as_object);
    for (name, value) in given.into_iter().flatten() {
        let place = place.key(name);
        let value = yaml::scalar(value).ok_or_else(|| place.error("a text is expected here"))?;
        if let Some(other) = value.strip_prefix("service:") {
            return Err(place.error(format!(
                "the image of the service `{other}` can't be a context: give its Dockerfile a stage, or \
                 name an image by `docker-image://`"
            )));
        }
        found.push(match is_address(&value) {
            true => format!("{name}={value}"),
            false => format!("{name}={}", service.directory.join(value).display()),
        });
    }
    Ok(found)
}

fn secrets(
    value: &Value,
    service: &Service,
    project: &Project,
    place: &Place<'_>,
) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    for item in yaml::list(value, "secrets", place)? {
        let place = place.key("secrets");
        let (source, target) = match item {
            Value::String(name) => (name.clone(), None),
            item => (
                yaml::opt_text(item, "source", &place)?
                    .ok_or_else(|| place.error("a `source` is expected here"))?,
                yaml::opt_text(item, "target", &place)?,
            ),
        };
        let from = match origin(project, "secrets", &source, service, &place)? {
            Some(Origin::File(path)) => format!("src={}", path.display()),
            Some(Origin::Variable(name)) => format!("env={name}"),
            _ => {
                return Err(place.key(source).error(
                    "for a build it has to be a `file` or a variable of the `environment`",
                ));
            }
        };
        let id = target
            .as_deref()
            .map_or(source.as_str(), |path| path.rsplit('/').next().unwrap_or(path));
        if from.contains(',') || id.contains(',') {
            return Err(place.key(source).error("there is a comma in its name or path"));
        }
        found.push(format!("id={id},{from}"));
    }
    Ok(found)
}

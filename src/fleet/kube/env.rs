//! Variables of a container.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Cluster;
use crate::fleet::yaml::{self, Place};
use crate::fleet::{Error, Severity, Value as EnvValue, Variable, Workload};

/// Sets the variables of `container`: `envFrom` first, then `env` in its order.
pub fn set(
    workload: &mut Workload,
    container: &Value,
    namespace: &str,
    cluster: &Cluster<'_>,
    place: &Place<'_>,
) -> Result<(), Error> {
    let mut all: Vec<Variable> = Vec::new();
    for source in yaml::list(container, "envFrom", place)? {
        let place = place.key("envFrom");
        let prefix = yaml::opt_text(source, "prefix", &place)?.unwrap_or_default();
        if let Some(reference) = source.get("configMapRef") {
            let name = yaml::opt_text(reference, "name", &place)?.unwrap_or_default();
            let optional = yaml::flag(reference, "optional", &place)?;
            match cluster.config_maps.get(&(namespace.to_owned(), name.clone())) {
                Some(map) => {
                    for (key, value) in data(map) {
                        put(&mut all, format!("{prefix}{key}"), EnvValue::Text(value));
                    }
                }
                None if optional => {}
                None => workload.note(
                    Severity::Warning,
                    format!("its variables come from the ConfigMap `{name}`, which is not given"),
                ),
            }
        }
        if let Some(reference) = source.get("secretRef") {
            let name = yaml::opt_text(reference, "name", &place)?.unwrap_or_default();
            let manifest = cluster.manifest(namespace, &name);
            let of = |key: String| EnvValue::Secret {
                name: name.clone(),
                key,
                manifest: manifest.clone(),
            };
            match cluster.secrets.get(&(namespace.to_owned(), name.clone())) {
                // The names of the keys are no secret, their values are.
                Some((_, secret)) => {
                    for key in keys(secret) {
                        put(&mut all, format!("{prefix}{key}"), of(key.clone()));
                    }
                }
                None if yaml::flag(reference, "optional", &place)? => {}
                None => put(&mut all, format!("{prefix}*"), of(String::new())),
            }
        }
    }
    for item in yaml::list(container, "env", place)? {
        let place = place.key("env");
        let name = yaml::opt_text(item, "name", &place)?
            .ok_or_else(|| place.error("a variable has no name"))?;
        let value = match item.get("valueFrom").filter(|from| !from.is_null()) {
            None => {
                let text = yaml::opt_text(item, "value", &place.key(&name))?.unwrap_or_default();
                EnvValue::Text(expand(&text, &all))
            }
            Some(from) => match value_from(from, namespace, cluster, &place.key(&name))? {
                Some(value) => value,
                None => continue,
            },
        };
        put(&mut all, name, value);
    }
    workload.env = all;
    Ok(())
}

fn put(all: &mut Vec<Variable>, name: String, value: EnvValue) {
    match all.iter_mut().find(|variable| variable.name == name) {
        Some(old) => old.value = value,
        None => all.push(Variable { name, value }),
    }
}

fn value_from(
    from: &Value,
    namespace: &str,
    cluster: &Cluster<'_>,
    place: &Place<'_>,
) -> Result<Option<EnvValue>, Error> {
    if let Some(reference) = from.get("secretKeyRef") {
        let name = yaml::opt_text(reference, "name", place)?.unwrap_or_default();
        let key = yaml::opt_text(reference, "key", place)?.unwrap_or_default();
        let optional = yaml::flag(reference, "optional", place)?;
        let manifest = cluster.manifest(namespace, &name);
        if optional && manifest.is_none() {
            return Ok(None);
        }
        return Ok(Some(EnvValue::Secret { name, key, manifest }));
    }
    if let Some(reference) = from.get("configMapKeyRef") {
        let name = yaml::opt_text(reference, "name", place)?.unwrap_or_default();
        let key = yaml::opt_text(reference, "key", place)?.unwrap_or_default();
        let map = cluster.config_maps.get(&(namespace.to_owned(), name.clone()));
        return Ok(match map.and_then(|map| data(map).remove(&key)) {
            Some(value) => Some(EnvValue::Text(value)),
            None if yaml::flag(reference, "optional", place)? => None,
            None => Some(EnvValue::Runtime(format!("key `{key}` of the ConfigMap `{name}`"))),
        });
    }
    if let Some(field) = from.get("fieldRef") {
        let path = yaml::opt_text(field, "fieldPath", place)?.unwrap_or_default();
        return Ok(Some(match path.as_str() {
            "metadata.namespace" => EnvValue::Text(namespace.to_owned()),
            _ => EnvValue::Runtime(path),
        }));
    }
    if let Some(field) = from.get("resourceFieldRef") {
        let resource = yaml::opt_text(field, "resource", place)?.unwrap_or_default();
        return Ok(Some(EnvValue::Runtime(resource)));
    }
    Err(place.error("its `valueFrom` names no known source"))
}

/// The texts of a ConfigMap.
pub fn data(map: &Value) -> BTreeMap<String, String> {
    let Some(Value::Object(data)) = map.get("data") else { return BTreeMap::new() };
    data.iter().filter_map(|(key, value)| Some((key.clone(), yaml::scalar(value)?))).collect()
}

/// The keys of a Secret.
pub fn keys(secret: &Value) -> impl Iterator<Item = &String> {
    let of = |key: &str| secret.get(key).and_then(Value::as_object).into_iter();
    of("data").chain(of("stringData")).flat_map(|map| map.keys())
}

/// Expands `$(NAME)` by variables that are texts and stand before; `$$` is one dollar sign, and
/// what is unknown stays (Kubernetes, "Define dependent environment variables").
pub fn expand(text: &str, known: &[Variable]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$") {
            out.push('$');
            rest = after;
            continue;
        }
        let name = rest.strip_prefix("$(").and_then(|tail| tail.split_once(')'));
        let value = name.and_then(|(name, _)| {
            known.iter().find(|variable| variable.name == name).and_then(|variable| match &variable
                .value
            {
                EnvValue::Text(text) => Some(text),
                _ => None,
            })
        });
        match (name, value) {
            (Some((_, after)), Some(value)) => {
                out.push_str(value);
                rest = after;
            }
            _ => {
                out.push('$');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

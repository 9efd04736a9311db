//! One service over another: several files, and `extends` (compose-spec, 13-merge.md).

use serde_json::{Map, Value};

use super::tags::{self, Meaning};

/// Sequences that are replaced as a whole.
const REPLACED: [&str; 3] = ["command", "entrypoint", "test"];
/// Lists of `NAME=VALUE` that mean a mapping.
const ASSIGNMENTS: [&str; 7] = [
    "environment",
    "labels",
    "annotations",
    "args",
    "sysctls",
    "driver_opts",
    "additional_contexts",
];

/// Puts every short form of a service into its long one, so that two services can be merged.
pub fn normalise(service: &mut Value) {
    let Value::Object(map) = service else { return };
    for key in ASSIGNMENTS {
        if let Some(value) = map.get_mut(key).map(tags::inner) {
            assignments(value);
        }
    }
    if let Some(Value::Object(build)) = map.get_mut("build").map(tags::inner) {
        for key in ASSIGNMENTS {
            if let Some(value) = build.get_mut(key).map(tags::inner) {
                assignments(value);
            }
        }
    }
    if let Some(build @ Value::String(_)) = map.get_mut("build").map(tags::inner) {
        let context = build.take();
        *build = Value::Object(Map::from_iter([("context".to_owned(), context)]));
    }
    if let Some(value) = map.get_mut("depends_on").map(tags::inner) {
        keyed(value, || {
            Value::Object(Map::from_iter([("condition".to_owned(), "service_started".into())]))
        });
    }
    if let Some(value) = map.get_mut("networks").map(tags::inner) {
        keyed(value, || Value::Null);
    }
    for key in ["env_file", "tmpfs", "dns", "dns_search"] {
        if let Some(value @ Value::String(_)) = map.get_mut(key).map(tags::inner) {
            let single = value.take();
            *value = Value::Array(vec![single]);
        }
    }
}

/// A list of `NAME=VALUE` and `NAME` becomes a mapping; a bare name has no value.
fn assignments(value: &mut Value) {
    let Value::Array(items) = value else { return };
    let pairs = items.iter().filter_map(|item| {
        let text = item.as_str()?;
        Some(match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), Value::String(value.to_owned())),
            None => (text.to_owned(), Value::Null),
        })
    });
    *value = Value::Object(pairs.collect());
}

/// A list of names becomes a mapping.
fn keyed(value: &mut Value, default: impl Fn() -> Value) {
    let Value::Array(items) = value else { return };
    let pairs = items.iter().filter_map(|item| Some((item.as_str()?.to_owned(), default())));
    *value = Value::Object(pairs.collect());
}

/// Lays `over` over `base`. Both are in normal form, and `base` has no tags any more.
pub fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                member(base, key, value);
            }
        }
        (base, over) => *base = tags::alone(over).unwrap_or_default(),
    }
}

/// Lays a value over that of a mapping's key.
pub fn member(base: &mut Map<String, Value>, key: String, over: Value) {
    let value = match tags::meaning(over) {
        Meaning::Reset => {
            base.remove(&key);
            return;
        }
        Meaning::Override(value) => value,
        Meaning::Merge(value) => match base.get_mut(&key) {
            Some(old) if !value.is_null() => return both(&key, old, value),
            _ => value,
        },
    };
    base.extend(tags::alone(value).map(|value| (key, value)));
}

fn both(key: &str, base: &mut Value, over: Value) {
    match (base, over) {
        (base @ Value::Array(_), over @ Value::Array(_)) if REPLACED.contains(&key) => *base = over,
        (Value::Array(base), Value::Array(over)) => {
            for item in over.into_iter().filter_map(tags::alone) {
                // Of two mounts at one place the later one counts.
                let same = |old: &Value| match (mount_target(key, old), mount_target(key, &item)) {
                    (Some(old), Some(new)) => old == new,
                    _ => *old == item,
                };
                match base.iter().position(same) {
                    Some(at) => base[at] = item,
                    None => base.push(item),
                }
            }
        }
        (base, over) => merge(base, over),
    }
}

fn mount_target(key: &str, item: &Value) -> Option<String> {
    if !matches!(key, "volumes" | "devices") {
        return None;
    }
    match item {
        Value::String(text) => {
            let mut parts = text.split(':');
            let first = parts.next()?;
            Some(parts.next().unwrap_or(first).to_owned())
        }
        item => item.get("target")?.as_str().map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_later_file_wins_where_it_speaks() {
        let mut base = json!({
            "image": "a", "command": ["x", "y"], "environment": ["A=1", "B=2"],
            "ports": ["80:80"], "volumes": ["data:/data", "/etc/x:/x:ro"],
            "depends_on": ["db"], "build": ".",
        });
        let mut over = json!({
            "image": "b", "command": ["z"], "environment": {"B": "3", "C": null},
            "ports": ["80:80", "443:443"], "volumes": [{"type": "bind", "source": "./d", "target": "/data"}],
            "depends_on": {"db": {"condition": "service_healthy"}, "cache": {"condition": "service_started"}},
            "build": {"target": "prod"},
        });
        normalise(&mut base);
        normalise(&mut over);
        merge(&mut base, over);
        assert_eq!(
            base,
            json!({
                "image": "b", "command": ["z"],
                "environment": {"A": "1", "B": "3", "C": null},
                "ports": ["80:80", "443:443"],
                "volumes": [{"type": "bind", "source": "./d", "target": "/data"}, "/etc/x:/x:ro"],
                "depends_on": {
                    "db": {"condition": "service_healthy"},
                    "cache": {"condition": "service_started"},
                },
                "build": {"context": ".", "target": "prod"},
            })
        );
    }
}

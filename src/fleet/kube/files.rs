//! Volumes of a pod: what is mounted where, files of ConfigMaps and Secrets one by one.

use std::path::{Component, Path};

use serde_json::Value;

use super::{Cluster, env};
use crate::fleet::yaml::{self, Place};
use crate::fleet::{Error, Mount, MountKind, Origin, Severity, Workload, quantity};

/// Permissions of files in ConfigMaps and Secrets that say none.
const MODE: u32 = 0o644;

/// A file of a volume.
struct File {
    /// Relative to where the volume is mounted.
    path: String,
    kind: MountKind,
    /// The ConfigMap or Secret.
    source: String,
    origin: Option<Origin>,
    mode: u32,
}

/// What a volume is.
enum Volume {
    /// One thing.
    Whole(MountKind, String),
    /// Files; none of them are there if what they are made of is optional and missing.
    Files(Vec<File>),
}

/// Adds what a container mounts.
pub fn mounts(
    pod: &Value,
    item: &Value,
    namespace: &str,
    cluster: &Cluster<'_>,
    place: &Place<'_>,
    workload: &mut Workload,
) -> Result<(), Error> {
    let volumes = yaml::list(pod, "volumes", place)?;
    for mount in yaml::list(item, "volumeMounts", place)? {
        let place = place.key("volumeMounts");
        let name = yaml::opt_text(mount, "name", &place)?
            .ok_or_else(|| place.error("a mount has no `name`"))?;
        let target = yaml::opt_text(mount, "mountPath", &place)?
            .ok_or_else(|| place.error(format!("the mount `{name}` has no `mountPath`")))?;
        let target = match target.trim_end_matches('/') {
            "" => target.as_str(),
            target => target,
        };
        let volume = volumes
            .iter()
            .find(|volume| volume.get("name").and_then(Value::as_str) == Some(name.as_str()));
        let sub = yaml::opt_text(mount, "subPath", &place)?.filter(|sub| !sub.is_empty());
        if mount.get("subPathExpr").is_some_and(|expr| !expr.is_null()) {
            let text = format!("`subPathExpr` of the mount at `{target}` is not followed");
            workload.note(Severity::Warning, text);
        }
        match read(volume, &name, target, namespace, cluster, &place, workload)? {
            Volume::Whole(kind, source) => {
                if sub.is_some() && kind == MountKind::Volume {
                    let text = format!(
                        "a directory of the volume `{source}` is mounted at `{target}`; as a VM it \
                         gets the whole volume there"
                    );
                    workload.note(Severity::Warning, text);
                }
                let read_only = yaml::flag(mount, "readOnly", &place)?
                    || matches!(kind, MountKind::Config | MountKind::Secret);
                let target = target.to_owned();
                let (origin, mode) = (None, None);
                workload.mounts.push(Mount { kind, source, target, read_only, origin, mode });
            }
            Volume::Files(files) => {
                let before = workload.mounts.len();
                let many = !files.is_empty();
                for file in files {
                    add(file, target, sub.as_deref(), workload);
                }
                if many && workload.mounts.len() == before {
                    let sub = sub.unwrap_or_default();
                    return Err(place.error(format!("the volume `{name}` has no file `{sub}`")));
                }
            }
        }
    }
    Ok(())
}

/// Mounts a file, if it is the one that `sub` names, or below it.
fn add(file: File, target: &str, sub: Option<&str>, workload: &mut Workload) {
    let File { path, kind, source, mut origin, mode } = file;
    let target = match sub.map(|sub| (sub, path.strip_prefix(sub))) {
        None => format!("{}/{path}", target.trim_end_matches('/')),
        Some((_, Some(""))) => target.to_owned(),
        Some((_, Some(rest))) if rest.starts_with('/') => format!("{target}{rest}"),
        Some(_) => return,
    };
    if let Some(Origin::Secret { directory, .. }) = &mut origin
        && sub.is_some()
    {
        *directory = None;
    }
    let mode = Some(mode);
    workload.mounts.push(Mount { kind, source, target, read_only: true, origin, mode });
}

/// What a volume of the pod is; notes say what becomes of the unusual ones.
fn read(
    volume: Option<&Value>,
    name: &str,
    target: &str,
    namespace: &str,
    cluster: &Cluster<'_>,
    place: &Place<'_>,
    workload: &mut Workload,
) -> Result<Volume, Error> {
    let place = &place.key(name);
    let text = |pointer: &str| {
        volume.and_then(|volume| volume.pointer(pointer)).and_then(Value::as_str).map(str::to_owned)
    };
    let part = |key: &str| volume.and_then(|volume| volume.get(key)).filter(|of| !of.is_null());
    let own = || name.to_owned();
    let from = From { namespace, target, cluster, place };
    Ok(if part("emptyDir").is_some() || part("ephemeral").is_some() {
        Volume::Whole(MountKind::Scratch, own())
    } else if let Some(map) = part("configMap") {
        from.config_map(map, MODE, workload)?
    } else if let Some(secret) = part("secret") {
        from.secret(secret, "secretName", MODE)?
    } else if part("persistentVolumeClaim").is_some() {
        let claim = text("/persistentVolumeClaim/claimName").unwrap_or_else(own);
        Volume::Whole(MountKind::Volume, claim)
    } else if part("hostPath").is_some() {
        let path = text("/hostPath/path").unwrap_or_else(own);
        workload.note(
            Severity::Blocker,
            format!("it works on `{path}` of its node at `{target}`, which a VM can't reach"),
        );
        Volume::Whole(MountKind::Host, path)
    } else if let Some(projected) = part("projected") {
        let mode = quantity::mode(projected, "defaultMode", place)?.unwrap_or(MODE);
        let mut all = Vec::new();
        for source in yaml::list(projected, "sources", place)? {
            let made = if let Some(map) = source.get("configMap") {
                from.config_map(map, mode, workload)?
            } else if let Some(secret) = source.get("secret") {
                from.secret(secret, "name", mode)?
            } else {
                from.made_by_node(workload);
                continue;
            };
            match made {
                Volume::Files(files) => all.extend(files),
                whole @ Volume::Whole(..) => return Ok(whole),
            }
        }
        Volume::Files(all)
    } else if part("downwardAPI").is_some() {
        from.made_by_node(workload);
        Volume::Whole(MountKind::Config, own())
    } else {
        // A claim template of a StatefulSet, or a driver that is not known here.
        Volume::Whole(MountKind::Volume, own())
    })
}

/// Where a volume's files come from.
struct From<'a> {
    namespace: &'a str,
    target: &'a str,
    cluster: &'a Cluster<'a>,
    place: &'a Place<'a>,
}

impl From<'_> {
    fn made_by_node(&self, workload: &mut Workload) {
        let target = self.target;
        workload.note(
            Severity::Warning,
            format!("the files at `{target}` are made by the node and have to be made otherwise"),
        );
    }

    fn config_map(&self, of: &Value, mode: u32, workload: &mut Workload) -> Result<Volume, Error> {
        let name = yaml::opt_text(of, "name", self.place)?.unwrap_or_default();
        let key = (self.namespace.to_owned(), name.clone());
        let Some(map) = self.cluster.config_maps.get(&key) else {
            if yaml::flag(of, "optional", self.place)? {
                return Ok(Volume::Files(Vec::new()));
            }
            let text = format!(
                "the files at `{}` come from the ConfigMap `{name}`, which is not given",
                self.target
            );
            workload.note(Severity::Warning, text);
            return Ok(Volume::Whole(MountKind::Config, name));
        };
        let mut found: Vec<(String, Origin)> =
            env::data(map).into_iter().map(|(key, text)| (key, Origin::Text(text))).collect();
        let bytes = map.get("binaryData").and_then(Value::as_object).into_iter().flatten();
        found.extend(bytes.filter_map(|(key, bytes)| {
            Some((key.clone(), Origin::Bytes(bytes.as_str()?.to_owned())))
        }));
        self.chosen(of, MountKind::Config, &name, found, mode)
    }

    fn secret(&self, of: &Value, name: &str, mode: u32) -> Result<Volume, Error> {
        let name = yaml::opt_text(of, name, self.place)?.unwrap_or_default();
        let given = self.cluster.secrets.get(&(self.namespace.to_owned(), name.clone()));
        let origin = |key: &str| Origin::Secret {
            key: key.to_owned(),
            manifest: self.cluster.manifest(self.namespace, &name),
            directory: Some(self.target.to_owned()),
        };
        let found: Vec<(String, Origin)> = match given {
            Some((_, secret)) => env::keys(secret).map(|key| (key.clone(), origin(key))).collect(),
            None if yaml::flag(of, "optional", self.place)? => {
                return Ok(Volume::Files(Vec::new()));
            }
            // Those that are named are known to be there.
            None => {
                let items = yaml::list(of, "items", self.place)?;
                let keys = items.iter().filter_map(|item| item.get("key")?.as_str());
                keys.map(|key| (key.to_owned(), origin(key))).collect()
            }
        };
        if found.is_empty() {
            return Ok(Volume::Whole(MountKind::Secret, name));
        }
        self.chosen(of, MountKind::Secret, &name, found, mode)
    }

    /// All files, or those that `items` name.
    fn chosen(
        &self,
        of: &Value,
        kind: MountKind,
        source: &str,
        found: Vec<(String, Origin)>,
        mode: u32,
    ) -> Result<Volume, Error> {
        let place = self.place;
        let mode = quantity::mode(of, "defaultMode", place)?.unwrap_or(mode);
        let file = |path: String, origin: Origin, mode: u32| {
            let inside = |part: Component<'_>| matches!(part, Component::Normal(_));
            if path.is_empty() || !Path::new(&path).components().all(inside) {
                return Err(place.error(format!("`{path}` is not below the volume")));
            }
            let (source, origin) = (source.to_owned(), Some(origin));
            Ok(File { path, kind, source, origin, mode })
        };
        let items = yaml::list(of, "items", place)?;
        if items.is_empty() {
            let all = found.into_iter().map(|(key, origin)| file(key, origin, mode));
            return Ok(Volume::Files(all.collect::<Result<_, Error>>()?));
        }
        let mut all = Vec::new();
        for item in items {
            let place = place.key("items");
            let key = yaml::opt_text(item, "key", &place)?.unwrap_or_default();
            let path = yaml::opt_text(item, "path", &place)?.unwrap_or_else(|| key.clone());
            let mode = quantity::mode(item, "mode", &place)?.unwrap_or(mode);
            match found.iter().find(|(known, _)| *known == key) {
                Some((_, origin)) => all.push(file(path, origin.clone(), mode)?),
                None if yaml::flag(of, "optional", &place)? => {}
                None => return Err(place.error(format!("`{source}` has no key `{key}`"))),
            }
        }
        Ok(Volume::Files(all))
    }
}

//! Kubernetes manifests: files, directories, and what Helm prints.
//!
//! 1. Documents of all files are collected, `List`s taken apart, by kind.
//! 2. [`pod`]: each pod template becomes one [`Workload`](super::Workload) per container.
//! 3. [`env`], [`files`]: variables and files are resolved against the ConfigMaps among the documents;
//!    Secrets are kept by reference. [`secret`] reads one where it is needed, and nobody else does.
//! 4. [`service`]: names and ports by which pods reach each other.

mod env;
mod files;
mod pod;
pub mod secret;
mod service;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::Value;

use super::yaml::{self, Place};
use super::{Error, Kind, Manifest, Schedule, Severity, Workload};

/// Documents that other documents refer to.
#[derive(Default)]
struct Cluster<'a> {
    /// By namespace and name.
    config_maps: BTreeMap<(String, String), &'a Value>,
    /// With the files that they are in.
    secrets: BTreeMap<(String, String), (&'a str, &'a Value)>,
    services: Vec<(String, &'a Value)>,
}

/// One document and the file that it is from.
pub type Document = (String, Value);

/// Whether a document looks like a Kubernetes object.
pub fn is_object(value: &Value) -> bool {
    value.get("apiVersion").is_some_and(Value::is_string)
        && value.get("kind").is_some_and(Value::is_string)
}

/// The workloads of all documents.
///
/// # Errors
/// Names the file, the keys that lead to the value, and what is wrong with it.
pub fn workloads(documents: &[Document]) -> Result<Vec<Workload>, Error> {
    let mut objects: Vec<(&str, &Value)> = Vec::new();
    for (file, value) in documents {
        flatten(file, value, &mut objects, 0)?;
    }
    let mut cluster = Cluster::default();
    for (file, object) in &objects {
        let key = || (namespace(object), name(object));
        match kind(object) {
            "ConfigMap" => drop(cluster.config_maps.insert(key(), object)),
            "Secret" => drop(cluster.secrets.insert(key(), (file, object))),
            // Knative has another.
            "Service" if object.get("apiVersion").is_some_and(|version| version == "v1") => {
                cluster.services.push((namespace(object), object));
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    for (file, object) in objects {
        found.extend(of_object(file, object, &cluster)?);
    }
    Ok(found)
}

impl Cluster<'_> {
    /// Where a Secret is, if it is given by a file.
    fn manifest(&self, namespace: &str, name: &str) -> Option<Manifest> {
        let (file, _) = self.secrets.get(&(namespace.to_owned(), name.to_owned()))?;
        Some(Manifest { file: (*file).into(), namespace: namespace.to_owned() })
    }
}

/// Deepest nesting of `List`s.
const MAX_LISTS: usize = 4;

fn flatten<'a>(
    file: &'a str,
    value: &'a Value,
    objects: &mut Vec<(&'a str, &'a Value)>,
    depth: usize,
) -> Result<(), Error> {
    if !is_object(value) {
        // Values files and the like lie among manifests.
        return Ok(());
    }
    if kind(value).ends_with("List") && value.get("items").is_some() {
        if depth >= MAX_LISTS {
            let (name, what) = (file.to_owned(), "List".to_owned());
            return Err(Error::Nesting { name, what, limit: MAX_LISTS });
        }
        for item in yaml::list(value, "items", &Place::top(file))? {
            flatten(file, item, objects, depth + 1)?;
        }
        return Ok(());
    }
    objects.push((file, value));
    Ok(())
}

fn kind(object: &Value) -> &str {
    object.get("kind").and_then(Value::as_str).unwrap_or_default()
}

fn name(object: &Value) -> String {
    let metadata = object.get("metadata").unwrap_or(&Value::Null);
    let name = metadata.get("name").or_else(|| metadata.get("generateName"));
    name.and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn namespace(object: &Value) -> String {
    let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str);
    namespace.unwrap_or("default").to_owned()
}

/// When a CronJob is started.
fn schedule(object: &Value, top: &Place<'_>) -> Result<Schedule, Error> {
    let (spec, place) = (object.get("spec").unwrap_or(&Value::Null), top.key("spec"));
    let policy = yaml::opt_text(spec, "concurrencyPolicy", &place)?;
    Ok(Schedule {
        cron: yaml::opt_text(spec, "schedule", &place)?
            .ok_or_else(|| place.error("it has no `schedule`"))?,
        time_zone: yaml::opt_text(spec, "timeZone", &place)?,
        suspended: yaml::flag(spec, "suspend", &place)?,
        replaces: policy.as_deref() == Some("Replace"),
    })
}

/// Whether an object has a template of pods, whatever its kind.
fn has_pods(object: &Value) -> bool {
    let containers = object.pointer("/spec/template/spec/containers").and_then(Value::as_array);
    containers.is_some_and(|all| all.iter().any(|one| one.get("image").is_some()))
}

fn of_object(file: &str, object: &Value, cluster: &Cluster<'_>) -> Result<Vec<Workload>, Error> {
    let (kind, spec) = match kind(object) {
        "Pod" => (Kind::Pod, ""),
        "Deployment" => (Kind::Deployment, "/spec/template"),
        "StatefulSet" => (Kind::StatefulSet, "/spec/template"),
        "DaemonSet" => (Kind::DaemonSet, "/spec/template"),
        "ReplicaSet" | "ReplicationController" => (Kind::ReplicaSet, "/spec/template"),
        "Job" => (Kind::Job, "/spec/template"),
        "CronJob" => (Kind::CronJob, "/spec/jobTemplate/spec/template"),
        // Operators' own kinds that hold pods as Deployments do: Rollout, DeploymentConfig, Knative's.
        _ if has_pods(object) => (Kind::Deployment, "/spec/template"),
        _ => return Ok(Vec::new()),
    };
    let (name, namespace) = (name(object), namespace(object));
    let top = Place::top(file).key(format!("{} {namespace}/{name}", self::kind(object)));
    if name.is_empty() {
        return Err(top.error("it has no `metadata.name`"));
    }
    let template = object
        .pointer(spec)
        .ok_or_else(|| top.error(format!("`{}` is missing", spec[1..].replace('/', "."))))?;
    let pod = template.get("spec").ok_or_else(|| top.error("the pod has no `spec`"))?;
    let labels = template.pointer("/metadata/labels").unwrap_or(&Value::Null);
    let owner = pod::Owner {
        file,
        kind,
        prefix: format!("{namespace}/{}/{name}", self::kind(object).to_lowercase()),
        namespace,
        labels,
        place: top.clone(),
    };
    let mut workloads = pod::workloads(&owner, pod, cluster)?;
    let replicas = match object.pointer("/spec/replicas") {
        None | Some(Value::Null) => 1,
        Some(count) => count
            .as_u64()
            .and_then(|count| u32::try_from(count).ok())
            .ok_or_else(|| top.key("spec.replicas").error("a number is expected here"))?,
    };
    let known = matches!(
        self::kind(object),
        "Deployment"
            | "Pod"
            | "StatefulSet"
            | "DaemonSet"
            | "Job"
            | "CronJob"
            | "ReplicaSet"
            | "ReplicationController"
    );
    for workload in &mut workloads {
        if !known {
            let version = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
            workload.note(
                Severity::Warning,
                format!(
                    "a `{}` of `{version}` is taken as a Deployment: what else its controller does is \
                     not carried over",
                    self::kind(object)
                ),
            );
        }
        match kind {
            Kind::DaemonSet => {
                workload.replicas = 0;
                workload.note(
                    Severity::Warning,
                    "it runs once on every node, mostly to work on the node itself; check that its \
                     own VM is what it should work on",
                );
            }
            Kind::CronJob => {
                workload.replicas = 0;
                let schedule = schedule(object, &top)?;
                workload.note(
                    Severity::Info,
                    format!(
                        "it runs at `{}`; the platform's scheduler starts the VM",
                        schedule.cron
                    ),
                );
                workload.schedule = Some(schedule);
            }
            Kind::Job => {
                let count = object.pointer("/spec/parallelism").and_then(Value::as_u64);
                workload.replicas = count.and_then(|count| count.try_into().ok()).unwrap_or(1);
            }
            _ => workload.replicas = replicas,
        }
    }
    if kind == Kind::StatefulSet {
        pod::claims(object, &top, &mut workloads)?;
    }
    Ok(workloads)
}

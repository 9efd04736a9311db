//! What machines are called.

use std::collections::BTreeMap;

use super::{Error, Kind, Workload};
use crate::template::quote;

/// Whether a workload is described by a manifest of Kubernetes.
pub fn of_kubernetes(workload: &Workload) -> bool {
    !matches!(workload.kind, Kind::ComposeService | Kind::Container | Kind::Reference)
}

/// The name that others know a workload by: of `namespace/kind/name/container` the object's, unless
/// its pod has several containers.
pub fn object(workload: &Workload, all: &[Workload]) -> String {
    let parts: Vec<&str> = workload.name.split('/').collect();
    let [namespace, kind, name, container] = parts[..] else { return workload.name.clone() };
    if !of_kubernetes(workload) {
        return workload.name.clone();
    }
    let pod = format!("{namespace}/{kind}/{name}/");
    match all.iter().filter(|other| other.name.starts_with(&pod)).count() {
        1 => name.to_owned(),
        _ => format!("{name}-{container}"),
    }
}

/// Gives workloads of Kubernetes names as hosts have them, also where others depend on them.
///
/// # Errors
/// With two workloads that would have one name.
pub fn shorten(workloads: &mut [Workload]) -> Result<(), Error> {
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for workload in workloads.iter() {
        let short = match of_kubernetes(workload) {
            true => quote::label(&object(workload, workloads)),
            false => workload.name.clone(),
        };
        if let Some((other, _)) = names.iter().find(|(_, taken)| **taken == short) {
            let (one, other) = (other.clone(), workload.name.clone());
            return Err(Error::Names { one, other, name: short });
        }
        names.insert(workload.name.clone(), short);
    }
    for workload in workloads {
        let needs = workload.depends_on.iter_mut().map(|dependency| &mut dependency.name);
        for name in needs.chain([&mut workload.name]) {
            if let Some(short) = names.get(name) {
                name.clone_from(short);
            }
        }
    }
    Ok(())
}

/// The number of an instance in its name: pods of a StatefulSet are counted from 0.
pub fn ordinal(workload: &Workload, number: u32) -> u32 {
    if workload.kind == Kind::StatefulSet { number - 1 } else { number }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{Condition, Dependency, Image};

    #[test]
    fn names_become_short_where_others_need_them_as_well() {
        let pod = |name: &str| {
            let image = Image::Reference("i".into());
            Workload::new(name.into(), Kind::Deployment, "m.yaml".into(), image)
        };
        let mut all = vec![
            pod("shop/deployment/web/init"),
            pod("shop/deployment/web/Main_1"),
            pod("shop/statefulset/db/db"),
        ];
        let (name, condition) = (all[0].name.clone(), Condition::Completed);
        all[1].depends_on.push(Dependency { name, condition, required: true });
        shorten(&mut all).unwrap();
        let names: Vec<_> = all.iter().map(|workload| workload.name.as_str()).collect();
        assert_eq!(names, ["web-init", "web-main-1", "db"]);
        assert_eq!(all[1].depends_on[0].name, "web-init");
        let mut twice = vec![pod("a/deployment/web/c"), pod("b/deployment/web/c")];
        let error = shorten(&mut twice).unwrap_err().to_string();
        let expected = "`a/deployment/web/c` and `b/deployment/web/c` would both be called `web`";
        assert_eq!(error, expected);
    }
}

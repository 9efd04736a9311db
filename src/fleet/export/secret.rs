//! Secrets, by reference: what is exported says where they are, and never what they are.
//!
//! A machine gets them as files that the host shows it under a tag. Its boot record says where each
//! of these directories is mounted, and which variables are made of files in it. How it is shown is
//! the target's matter: as a directory by virtio-9p (libvirt, Nomad, Terraform for libvirt), or as a
//! small disk in ISO 9660 with the tag as its label, which is what KubeVirt makes of a Secret, and
//! `start.sh` of a directory. The kernel takes either.

use dock2uni_format::record;
use serde::Serialize;

use super::super::convert::Order;
use super::super::{Mount, Origin, Value, Workload};
use super::{Error, Machine, Settings, Target, wrong};
use crate::template::quote;

/// Where Docker has them.
const SECRETS: &str = "/run/secrets";

/// A directory of secrets that a machine is shown.
#[derive(Clone, Debug, Serialize)]
pub struct Share {
    /// Tag of its device, or label of its disk.
    pub tag: String,
    /// Its name on the host, below the fleet's.
    pub name: String,
    /// Where it is mounted; empty for what variables are made of.
    pub path: String,
    /// The Secret of Kubernetes with these files.
    pub object: String,
    /// Whether that Secret is the source's own, or is to be made for this machine.
    pub given: bool,
    /// What is in it.
    pub secrets: Vec<Secret>,
}

/// A secret that comes as a file.
#[derive(Clone, Debug, Serialize)]
pub struct Secret {
    /// Name of the file.
    pub file: String,
    /// Name of the secret.
    pub source: String,
    /// The same in letters, digits and underscores.
    pub item: String,
}

/// Adds the file of a mount.
pub fn file(
    workload: &Workload,
    mount: &Mount,
    settings: &Settings,
    machine: &mut Machine,
) -> Result<(), Error> {
    let what = || format!("the secret `{}` is mounted at `{}`", mount.source, mount.target);
    check_target(workload, settings.target, what)?;
    let (path, key) = match &mount.origin {
        Some(Origin::Secret { directory, key, .. }) => (directory.as_deref(), Some(key.as_str())),
        _ => (Some(SECRETS), None),
    };
    let place = path.and_then(|path| {
        let file = mount.target.strip_prefix(path)?.strip_prefix('/')?;
        (!file.is_empty()).then_some((path, file))
    });
    let Some((path, file)) = place.filter(|(path, file)| *path != SECRETS || !file.contains('/'))
    else {
        return Err(wrong(
            workload,
            format!("the secret `{}` is to be at `{}`", mount.source, mount.target),
            "have it below /run/secrets, or mount the whole Secret as a directory",
        ));
    };
    add(workload, settings, machine, "secrets", path, (&mount.source, key, file))
}

/// Adds the files that variables are made of.
pub fn variables(
    workload: &Workload,
    settings: &Settings,
    machine: &mut Machine,
    order: &mut Order,
) -> Result<(), Error> {
    for variable in &workload.env {
        let (secret, key) = match &variable.value {
            Value::Text(_) => continue,
            Value::Secret { name, key, .. } => (name, key),
            Value::Runtime(what) => {
                return Err(wrong(
                    workload,
                    format!("its variable `{}` is known at run time only: {what}", variable.name),
                    "give it a value",
                ));
            }
        };
        let what = || format!("its variable `{}` is of the secret `{secret}`", variable.name);
        check_target(workload, settings.target, what)?;
        if key.is_empty() {
            return Err(wrong(
                workload,
                format!("its variables `{}` are all of the secret `{secret}`", variable.name),
                "give the Secret among the sources, which names them (its values are not read)",
            ));
        }
        // One directory for each Secret: no two of their keys are the same then.
        let path = "";
        add(workload, settings, machine, "variables", path, (secret, Some(key), key))?;
        let share = machine.shares.iter().find(|share| share.is_of(path, secret));
        let tag = share.map(|share| share.tag.clone()).unwrap_or_default();
        let (name, file) = (variable.name.clone(), key.clone());
        order.variables.push(record::Variable { name, tag, file });
    }
    Ok(())
}

fn check_target(
    workload: &Workload,
    target: Target,
    what: impl Fn() -> String,
) -> Result<(), Error> {
    match target {
        Target::TerraformGoogle => Err(wrong(
            workload,
            what(),
            "the guest's kernel drives none of Google's disks, and an instance's metadata is shown to \
             whoever may see the instance: have the application fetch it from Secret Manager, or \
             export to libvirt or nomad for a host there with nested virtualization",
        )),
        _ => Ok(()),
    }
}

impl Share {
    /// Whether it is the one for files at a path, or for variables of a Secret.
    fn is_of(&self, path: &str, secret: &str) -> bool {
        self.path == path && (!path.is_empty() || self.object == secret)
    }
}

/// Adds a file: a key of a secret, or a secret without any.
fn add(
    workload: &Workload,
    settings: &Settings,
    machine: &mut Machine,
    prefix: &str,
    path: &str,
    (name, key, file): (&str, Option<&str>, &str),
) -> Result<(), Error> {
    let source = match key {
        Some(key) => format!("{name}/{key}"),
        None => name.to_owned(),
    };
    // A Secret as a whole is shown by its own name, with its keys for names.
    let whole = key == Some(file);
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if settings.target == Target::KubeVirt && !whole && !file.chars().all(fits) {
        return Err(wrong(
            workload,
            format!("the secret `{name}` is to have the name `{file}`"),
            "keys of Kubernetes' Secrets, by which files are named there, consist of letters, digits \
             and `-._`: give the file such a name",
        ));
    }
    let item = quote::restricted(&source, "_").replace('-', "_");
    let secret = Secret { file: file.to_owned(), source, item };
    let number = machine.shares.len() + 1;
    let numbered = |name: &str| match number {
        1 => name.to_owned(),
        _ => format!("{name}-{number}"),
    };
    let own = quote::label(&format!("{}-{}", settings.name, numbered(&machine.service)));
    match machine.shares.iter_mut().find(|share| share.is_of(path, name)) {
        Some(share) => {
            if share.given && !(whole && share.object == name) {
                // Of several Secrets, or by other names: one is to be made of them.
                (share.given, share.object) = (false, format!("{}-{}", settings.name, share.name));
                share.object = quote::label(&share.object);
            }
            if !share.secrets.iter().any(|known| known.file == secret.file) {
                share.secrets.push(secret);
            }
        }
        None => machine.shares.push(Share {
            tag: numbered(prefix),
            name: numbered(&machine.service),
            path: path.to_owned(),
            object: if whole { name.to_owned() } else { own },
            given: whole,
            secrets: vec![secret],
        }),
    }
    Ok(())
}

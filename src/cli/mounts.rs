//! What `run` mounts: `--volume`, `--volumes`, `--tmpfs`.

use std::fs::File;

use dock2uni_format::record::{Mount, MountKind, Record};

use super::args::{BootType, RunArgs};
use super::{Failure, exit};
use crate::vmm::{Disk, Share};
use crate::volume::{Error, Source, Spec, Volumes};

/// What the machine gets for it.
#[derive(Debug, Default)]
pub struct Mounted {
    /// Disks of volumes.
    pub volumes: Vec<Disk>,
    /// Directories of the host.
    pub shares: Vec<Share>,
    /// Files that carry the volumes' locks.
    pub held: Vec<File>,
}

/// Takes volumes into use and enters everything into the boot record.
pub fn prepare(args: &RunArgs, record: &mut Record) -> Result<Mounted, Failure> {
    let mut specs = args.mounts.volume.clone();
    let declared: Vec<String> =
        record.volumes.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
    let taken = |specs: &[Spec], path: &str| {
        specs.iter().any(|spec| spec.path == path)
            || args.mounts.tmpfs.iter().any(|tmpfs| tmpfs.path == path)
    };
    for path in &declared {
        if taken(&specs, path) {
            continue;
        }
        match &args.mounts.volumes {
            Some(prefix) => specs.push(Spec::of_image_volume(prefix, path)?),
            None if args.quiet => {}
            None => eprintln!(
                "note: `{path}`, a VOLUME of the image, is in memory and goes with the VM; \
                 `-v NAME:{path}` keeps it"
            ),
        }
    }
    if specs.is_empty() && args.mounts.tmpfs.is_empty() {
        return Ok(Mounted::default());
    }
    if args.machine.boot == BootType::Disk {
        return Err(Failure::new(
            exit::USAGE,
            "a machine that boots from its disk has its mounts settled there",
            Some("use `--boot direct` with volumes"),
        ));
    }
    let mut mounted = Mounted::default();
    for spec in &specs {
        let kind = match &spec.source {
            Source::Volume(name) => {
                let held = Volumes::open_default()?.hold(name, spec.read_only)?;
                let read_only = spec.read_only;
                mounted.volumes.push(Disk { path: held.path, read_only });
                mounted.held.push(held.file);
                MountKind::Volume { uuid: held.uuid }
            }
            Source::Host(path) => {
                let failed =
                    |error| Failure::io(format!("cannot share `{}`", path.display()), error);
                let real = path.canonicalize().map_err(failed)?;
                if !real.is_dir() {
                    return Err(Failure::new(
                        exit::USAGE,
                        format!("`{}` is not a directory", path.display()),
                        Some("share the directory that it is in"),
                    ));
                }
                let tag = format!("share{}", mounted.shares.len());
                let read_only = spec.read_only;
                mounted.shares.push(Share { path: real, tag: tag.clone(), read_only });
                MountKind::Host { tag }
            }
        };
        let path = spec.path.clone().into_bytes();
        record.mounts.push(Mount { path, read_only: spec.read_only, kind });
    }
    for tmpfs in &args.mounts.tmpfs {
        let kind = MountKind::Tmpfs { options: tmpfs.options.clone() };
        let path = tmpfs.path.clone().into_bytes();
        record.mounts.push(Mount { path, read_only: false, kind });
    }
    // What lies in another mount comes after it.
    record.mounts.sort_by(|a, b| a.path.cmp(&b.path));
    if let Some(pair) = record.mounts.windows(2).find(|pair| pair[0].path == pair[1].path) {
        return Err(Error::Twice(String::from_utf8_lossy(&pair[0].path).into_owned()).into());
    }
    Ok(mounted)
}

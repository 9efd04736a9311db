//! From what is to be mounted to devices of a machine and entries of its boot record.

use std::fs::File;

use dock2uni_format::record::{Mount, MountKind, Record};

use super::{Error, Source, Spec, Tmpfs, Volumes};
use crate::vmm::{Disk, Share};

/// What a machine gets for its mounts.
#[derive(Debug, Default)]
pub struct Mounted {
    /// Disks of volumes.
    pub volumes: Vec<Disk>,
    /// Directories of the host.
    pub shares: Vec<Share>,
    /// Files that carry the volumes' locks.
    pub held: Vec<File>,
}

/// Takes volumes into use, making those that are not there, and enters everything into the record.
/// `volumes` is called if there is one among them.
///
/// # Errors
/// If a volume cannot be had, a directory is none, or two things are mounted at one place.
pub fn mount(
    volumes: &dyn Fn() -> Result<Volumes, Error>,
    specs: &[Spec],
    tmpfs: &[Tmpfs],
    record: &mut Record,
) -> Result<Mounted, Error> {
    let mut mounted = Mounted::default();
    for Spec { source, path, read_only } in specs {
        let read_only = *read_only;
        let kind = match source {
            Source::Volume(name) => {
                let held = volumes()?.hold(name, read_only)?;
                mounted.volumes.push(Disk { path: held.path, read_only });
                mounted.held.push(held.file);
                MountKind::Volume { uuid: held.uuid }
            }
            Source::Host(path) => {
                let real = path.canonicalize().map_err(Error::io("cannot share", path))?;
                if !real.is_dir() {
                    return Err(Error::NotADirectory(path.clone()));
                }
                let tag = format!("share{}", mounted.shares.len());
                mounted.shares.push(Share { path: real, tag: tag.clone(), read_only });
                MountKind::Host { tag }
            }
        };
        record.mounts.push(Mount { path: path.clone().into_bytes(), read_only, kind });
    }
    for Tmpfs { path, options } in tmpfs {
        let kind = MountKind::Tmpfs { options: options.clone() };
        let path = path.clone().into_bytes();
        record.mounts.push(Mount { path, read_only: false, kind });
    }
    // What lies in another mount comes after it.
    record.mounts.sort_by(|a, b| a.path.cmp(&b.path));
    match record.mounts.windows(2).find(|pair| pair[0].path == pair[1].path) {
        Some(pair) => Err(Error::Twice(String::from_utf8_lossy(&pair[0].path).into_owned())),
        None => Ok(mounted),
    }
}

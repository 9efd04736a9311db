//! What `run` mounts: `--volume`, `--volumes`, `--tmpfs`.

use dock2uni_format::record::Record;

use super::args::{BootType, RunArgs};
use super::{Failure, exit};
use crate::volume::{self, Mounted, Spec, Volumes};

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
    Ok(volume::mount(&Volumes::open_default, &specs, &args.mounts.tmpfs, record)?)
}

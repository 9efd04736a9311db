//! `dock2uni push`: a disk image to a registry.

use serde_json::json;

use super::args::target::{PushArgs, PushKind};
use super::progress::Display;
use super::{Failure, exit, size};
use crate::artifact::{self, Kind};
use crate::disk::Disk;
use crate::source::{Options, Reference, Store};

impl From<PushKind> for Kind {
    fn from(kind: PushKind) -> Kind {
        match kind {
            PushKind::ContainerDisk => Kind::ContainerDisk,
            PushKind::KernelBoot => Kind::KernelBoot,
            PushKind::Urunc => Kind::Urunc,
            PushKind::Disk => Kind::Disk,
        }
    }
}

pub fn push(args: &PushArgs) -> Result<u8, Failure> {
    // A path that is there already is no reason to read it as a source.
    let to: Reference = args.to.parse()?;
    let disk = Disk::open(&args.file).map_err(|error| match error {
        crate::disk::Error::Io(source) => {
            Failure::io(format!("cannot read `{}`", args.file.display()), source)
        }
        other => other.into(),
    })?;
    let display = Display::new(args.quiet || args.json);
    let made = artifact::build(&disk, args.r#as.into())?;
    let mut options = Options::from_env();
    options.insecure_registries.extend(args.plain_http.iter().cloned());
    if args.ca_file.is_some() {
        options.ca_file.clone_from(&args.ca_file);
    }
    let store = Store::open_default()?;
    let result = artifact::push(&made, &to, &options, &store, &display);
    display.clear();
    result?;
    let total: u64 = made.blobs.iter().map(|blob| blob.size).sum();
    if args.json {
        let blobs: Vec<_> = made
            .blobs
            .iter()
            .map(|blob| json!({ "digest": blob.digest.to_string(), "size": blob.size }))
            .collect();
        let value = json!({
            "reference": to.to_string(),
            "digest": made.digest.to_string(),
            "provenance": made.provenance.as_ref().map(|made| made.digest.to_string()),
            "blobs": blobs,
        });
        println!("{value:#}");
    } else if !args.quiet {
        println!("pushed   {to} ({})", size::bytes(total));
        println!("digest   {}", made.digest);
    }
    Ok(exit::OK)
}

//! `dock2uni template`.

use std::io::Write;

use dock2uni_format::record::Proto;

use super::args::target::TemplateArgs;
use super::{Failure, exit};
use crate::atomic::Aside;
use crate::disk::Disk;
use crate::template::{self, Params};

pub fn template(args: &TemplateArgs) -> Result<u8, Failure> {
    let disk = Disk::open(&args.file).map_err(|error| match error {
        crate::disk::Error::Io(source) => {
            Failure::io(format!("cannot read `{}`", args.file.display()), source)
        }
        other => other.into(),
    })?;
    let stem = args.file.file_name().map(|name| name.to_string_lossy().into_owned());
    let stem = stem.and_then(|name| name.split('.').next().map(str::to_owned));
    let name = args.name.clone().or(stem).filter(|name| !name.is_empty());
    let boot = args
        .boot_files
        .as_ref()
        .map(|dir| dir.canonicalize().unwrap_or_else(|_| dir.clone()).display().to_string());
    let ports = args.publish.iter().flat_map(|published| published.0.iter());
    let ports = ports.map(|publish| {
        let proto = publish.guest.proto;
        (publish.host.unwrap_or(publish.guest.port), publish.guest.port, proto)
    });
    let params = Params {
        name: name.unwrap_or_else(|| "vm".into()),
        memory: args.memory,
        cpus: args.cpus,
        ports: ports.filter(|(_, _, proto)| *proto != Proto::Sctp).collect(),
        boot,
        reference: args.reference.clone(),
        tap: args.tap.clone(),
        network: args.network.clone(),
        uefi: args.uefi,
    };
    let text = template::render(args.target, &disk, &args.file, &params)?;
    match &args.output {
        Some(path) => {
            let failed = |error| Failure::io(format!("cannot write `{}`", path.display()), error);
            let aside = Aside::beside(path).map_err(failed)?;
            aside.file().write_all(text.as_bytes()).map_err(failed)?;
            aside.publish(path).map_err(failed)?;
        }
        None => print!("{text}"),
    }
    Ok(exit::OK)
}

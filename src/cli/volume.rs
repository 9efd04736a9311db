//! `dock2uni volume`.

use std::time::SystemTime;

use serde_json::json;

use super::args::{VolumeArgs, VolumeCommand};
use super::{Failure, exit, size};
use crate::volume::{Volume, Volumes};

pub fn volume(args: &VolumeArgs) -> Result<u8, Failure> {
    let volumes = Volumes::open_default()?;
    match &args.command {
        VolumeCommand::Create { name, size } => {
            volumes.create(name, *size)?;
            println!("{name}");
        }
        VolumeCommand::Ls { json, quiet } => list(&volumes.list()?, *json, *quiet),
        VolumeCommand::Inspect { names } => {
            let all = names.iter().map(|name| volumes.inspect(name));
            let all = all.collect::<Result<Vec<_>, _>>()?;
            println!("{:#}", all.iter().map(as_json).collect::<serde_json::Value>());
        }
        VolumeCommand::Rm { names } => {
            for name in names {
                volumes.remove(name)?;
                println!("{name}");
            }
        }
    }
    Ok(exit::OK)
}

fn list(all: &[Volume], json: bool, quiet: bool) {
    if json {
        println!("{:#}", all.iter().map(as_json).collect::<serde_json::Value>());
        return;
    }
    if quiet {
        all.iter().for_each(|volume| println!("{}", volume.name));
        return;
    }
    let width = all.iter().map(|volume| volume.name.len()).max().unwrap_or(0).max(4);
    println!("{:<width$}  {:>8}  {:>8}  STATE", "NAME", "SIZE", "ON DISK");
    for volume in all {
        let state = if volume.in_use { "in use" } else { "idle" };
        let (size, allocated) = (size::bytes(volume.size), size::bytes(volume.allocated));
        println!("{:<width$}  {size:>8}  {allocated:>8}  {state}", volume.name);
    }
}

fn as_json(volume: &Volume) -> serde_json::Value {
    let created = volume.created.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    json!({
        "name": volume.name,
        "path": volume.path,
        "size": volume.size,
        "allocated": volume.allocated,
        "uuid": uuid::Uuid::from_bytes(volume.uuid).to_string(),
        "created": created.map(|since| since.as_secs()),
        "in_use": volume.in_use,
    })
}

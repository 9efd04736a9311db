//! `dock2uni system`: what the store takes, and making room.

use serde_json::{Value, json};

use super::args::target::{SystemArgs, SystemCommand};
use super::{Failure, exit, size};
use crate::dockerfile;
use crate::source::Store;
use crate::source::clean::{self, Item, Kind, Prune};

const KINDS: [(Kind, &str); 8] = [
    (Kind::Referenced, "layers and manifests of known references"),
    (Kind::Unreferenced, "layers and manifests that none leads to"),
    (Kind::Unfinished, "downloads that broke off"),
    (Kind::Roots, "root filesystems that `run` made"),
    (Kind::Images, "disk images that `run` made"),
    (Kind::BuildSteps, "results of build steps"),
    (Kind::BuildTrees, "images that builds have unpacked"),
    (Kind::BuildCaches, "caches of RUN --mount=type=cache"),
];

pub fn system(args: &SystemArgs) -> Result<u8, Failure> {
    let store = Store::open_default()?;
    match &args.command {
        SystemCommand::Df { json } => {
            let mut items = clean::items(&store)?;
            items.extend(dockerfile::clean::items(&store)?);
            report(&store, &items, "total", *json);
        }
        SystemCommand::Prune { all, older_than, dry_run, json } => {
            let what = Prune { all: *all, older_than: older_than.0 };
            let builds = dockerfile::clean::prune(&store, what, *dry_run, &dockerfile::keeper())?;
            if builds.busy {
                eprintln!("a build is running: what builds have left stays");
            }
            let mut removed = clean::prune(&store, what, *dry_run)?;
            removed.extend(builds.removed);
            let word = if *dry_run { "to free" } else { "freed" };
            report(&store, &removed, word, *json);
        }
    }
    Ok(exit::OK)
}

fn report(store: &Store, items: &[Item], word: &str, as_json: bool) {
    let sum = |kind: Kind| {
        let of = items.iter().filter(|item| item.kind == kind);
        (of.clone().count(), of.map(|item| item.size).sum::<u64>())
    };
    let total: u64 = items.iter().map(|item| item.size).sum();
    if as_json {
        let kinds: Vec<Value> = KINDS
            .iter()
            .map(|(kind, _)| {
                let (files, bytes) = sum(*kind);
                json!({ "kind": kind, "files": files, "bytes": bytes })
            })
            .collect();
        println!("{:#}", json!({ "store": store.root(), "kinds": kinds, "bytes": total }));
        return;
    }
    println!("store    {}", store.root().display());
    for (kind, about) in KINDS {
        let (files, bytes) = sum(kind);
        if files > 0 {
            println!("{:>10}  {files:>6} files  {about}", size::bytes(bytes));
        }
    }
    println!("{:>10}  {word}", size::bytes(total));
}

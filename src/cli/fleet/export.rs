//! `dock2uni fleet export`.

use std::path::{Path, PathBuf};

use super::super::progress::Display;
use super::super::{Failure, exit, target};
use super::convert::{Shown, jobs};
use super::images::FromStore;
use super::{ExportArgs, up};
use crate::fleet::export::{self, Settings, Target};
use crate::fleet::{self, Kind, Plan, Workload, compose_files};
use crate::source::Store;

pub fn export(args: &ExportArgs) -> Result<u8, Failure> {
    let store = Store::open_default()?;
    let (input, how) = (&args.input, &args.input.how);
    let mut workloads: Vec<Workload> = Vec::new();
    let mut sources = Vec::new();
    for source in &input.sources {
        match Plan::read(source.as_ref())? {
            Some(plan) => workloads.extend(plan.items.into_iter().map(|item| item.workload)),
            None => sources.push(source.clone()),
        }
    }
    if !sources.is_empty() {
        let from = target::options(&how.source)?;
        let found = fleet::read(&input.detect(&sources)?, &how.inputs(), &from, &store)?;
        workloads.extend(found.workloads);
    }
    if args.to == Target::Systemd
        && let Some(other) = workloads
            .iter()
            .find(|w| w.kind != Kind::ComposeService && !fleet::name::of_kubernetes(w))
    {
        return Err(Failure::new(
            exit::UNSUPPORTED,
            format!("`{}` is of {}, which describes no fleet", other.name, other.source),
            Some("the unit runs `fleet up`; `--to libvirt` takes others"),
        ));
    }
    let first = Path::new(&input.sources[0]);
    let files = sources.iter().flat_map(|source| match Path::new(source) {
        path if path.is_dir() && !compose_files(path).is_empty() => compose_files(path),
        path => vec![path.to_owned()],
    });
    let files: Vec<PathBuf> = files.collect();
    let settings = Settings {
        target: args.to,
        name: up::project(args.project.as_deref(), first, &how.inputs())?,
        out: args.output.clone(),
        registry: args.registry.clone(),
        memory_mib: args.memory,
        jobs: jobs(args.jobs),
        files,
    };
    let display = Display::new(args.quiet);
    let images =
        FromStore { build: how.build, source: &how.source, store: &store, display: &display };
    let shown = Shown::new(&display, workloads.len());
    let exported = export::export(&workloads, &settings, &images, &store, &shown);
    display.clear();
    let exported = exported?;
    if !args.quiet {
        for file in &exported.files {
            println!("{}", file.display());
        }
    }
    Ok(exit::OK)
}

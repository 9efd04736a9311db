//! What an image will run, and whether it will: found out without booting it.
//!
//! [`report`] answers for an image, with all that supports the answer. It looks at nothing but the
//! image: its configuration, its files, and the kernel's own table of system calls.
//!
//! ```no_run
//! use dock2uni::config::Overrides;
//! use dock2uni::source::{self, Options, Quiet, Reference, Store};
//!
//! let store = Store::open_default()?;
//! let reference = Reference::detect("nginx:1.27")?;
//! let image = source::resolve(&reference, &Options::from_env(), &store, &Quiet)?;
//! let report = dock2uni::plan::report(&image, &Overrides::default())?;
//! println!("{}: {}", report.image, report.verdict);
//! for finding in &report.findings {
//!     println!("- {}", finding.text);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How
//! The command is followed through scripts, wrappers and supervisors ([`start`], [`shell`]) to
//! programs; their libraries are found as the loader finds them ([`elf`]); runtimes are asked for
//! their modules ([`modules`]), the package database for who owns what ([`packages`]), and the
//! machine code for the system calls that it can make ([`syscalls`]). [`needs`] knows what some
//! programs take that a unikernel does not have.

mod compose;
pub mod elf;
mod modules;
pub mod needs;
pub mod packages;
pub mod remote;
pub mod report;
pub mod root;
pub mod shell;
pub mod slim;
pub mod start;
pub mod syscalls;

use std::collections::BTreeSet;
use std::fs::File;
use std::io;

use dock2uni_format::record::Record;

pub use report::{Finding, Report, Severity, VARIABLE, Verdict};

use self::elf::{Builder, Closure, How};
use self::modules::Runtime;
use self::packages::Database;
use self::root::{Root, base, show};
use self::start::{Role, Started};
use crate::config::{self, Overrides};
use crate::convert::Rootfs;
use crate::erofs::{ReadAt, ReadError};
use crate::rootfs;
use crate::source::image::Image;

/// Why nothing can be said about an image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its layers.
    #[error(transparent)]
    Rootfs(#[from] rootfs::Error),
    /// A root that was written before.
    #[error(transparent)]
    Root(#[from] ReadError),
    /// Its configuration is no configuration, or its files cannot be read.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The root needs a place while it is looked at.
    #[error("a temporary file cannot be made")]
    Temporary(#[source] io::Error),
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Error::Rootfs(error) => error.hint(),
            Error::Config(error) => error.hint(),
            Error::Root(_) => Some("remove the file and convert again"),
            Error::Temporary(_) => {
                Some("set TMPDIR to a directory with room for the image's files")
            }
        }
    }
}

/// Says what `image` will run and whether it will, with these options. The root filesystem is made
/// in a temporary file; with a root at hand, use [`examine`].
///
/// # Errors
/// If the layers are damaged or there is no room. What is wrong with an image that can be read is
/// not an error but a finding.
pub fn report(image: &Image, overrides: &Overrides) -> Result<Report, Error> {
    let file = tempfile::tempfile().map_err(Error::Temporary)?;
    let options = rootfs::Options::default();
    let made = rootfs::build(&image.layers, &options, &file, 0, &|_| {})?;
    report_on(image, overrides, &file, made.start)
}

/// As [`report`], with the image's root filesystem in `file` from byte `start` on.
///
/// # Errors
/// As [`report`].
pub fn report_on(
    image: &Image,
    overrides: &Overrides,
    file: &File,
    start: u64,
) -> Result<Report, Error> {
    let root = Root::open(file as &dyn ReadAt, start)?;
    Ok(examine(image, overrides, &root)?.report)
}

/// A report and all that it was made of.
pub struct Plan {
    /// For people and programs.
    pub report: Report,
    /// The boot record, if the configuration allows one.
    pub record: Option<Record>,
    /// Programs and scripts.
    pub started: Started,
    /// Machine code that is loaded.
    pub closure: Closure,
    /// Runtimes and their modules.
    pub runtimes: Vec<Runtime>,
    /// The distribution's packages.
    pub database: Option<Database>,
}

/// Looks at an image whose root filesystem is at hand.
///
/// # Errors
/// If the configuration is none, or the root cannot be read.
pub fn examine(image: &Image, overrides: &Overrides, root: &Root<'_>) -> Result<Plan, Error> {
    let files = Rootfs(root.reader());
    let id = image.config_digest.hex();
    let (record, refused) = match config::plan(&image.config_json, &id, overrides, &files) {
        Ok(record) => (Some(record), None),
        Err(error @ (config::Error::Json(_) | config::Error::Io(_))) => return Err(error.into()),
        Err(error) => (None, Some(error)),
    };
    let database = Database::read(root);
    let empty = Record::default();
    let seen = record.as_ref().unwrap_or(&empty);
    let started = if record.is_some() { start::follow(seen, root) } else { Started::default() };
    let env = |name: &str| {
        let value = seen
            .env
            .iter()
            .find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=").map(show));
        value.unwrap_or_default()
    };
    let runtimes = runtimes(root, seen, &started, &env);
    let (closure, running) = closure(root, &started, &runtimes, &env);
    let calls = syscalls::scan(&running, root);
    let mut plan =
        Plan { report: compose::empty(image), record, started, closure, runtimes, database };
    plan.report = compose::compose(image, &plan, &running, &calls, refused, root);
    Ok(plan)
}

fn runtimes(
    root: &Root<'_>,
    record: &Record,
    started: &Started,
    env: &dyn Fn(&str) -> String,
) -> Vec<Runtime> {
    let cwd = show(&record.cwd);
    let mut seen = BTreeSet::new();
    started
        .programs
        .iter()
        .filter(|program| program.role != Role::Helper)
        .filter(|program| seen.insert((program.found.path.clone(), program.argv.clone())))
        .take(8)
        .filter_map(|program| modules::look(root, program, &cwd, env))
        .collect()
}

/// Everything that is loaded, and of it what the programs themselves load, helpers left out.
fn closure(
    root: &Root<'_>,
    started: &Started,
    runtimes: &[Runtime],
    env: &dyn Fn(&str) -> String,
) -> (Closure, Closure) {
    let library_path = env("LD_LIBRARY_PATH");
    let build = |helpers: bool| {
        let mut builder = Builder::new(root, &library_path);
        for program in &started.programs {
            if helpers || program.role != Role::Helper {
                builder.add(&program.found, How::Start, "");
            }
        }
        for extension in runtimes.iter().flat_map(|runtime| &runtime.extensions) {
            if let Some(found) = root.file(extension) {
                builder.add(&found, How::Extension, "");
            }
        }
        preloaded(root, &mut builder, env);
        loaded_later(root, &mut builder);
        builder.finish()
    };
    (build(true), build(false))
}

fn preloaded(root: &Root<'_>, builder: &mut Builder<'_, '_>, env: &dyn Fn(&str) -> String) {
    let file = root.text(b"/etc/ld.so.preload", 64 << 10).unwrap_or_default();
    let list = format!("{} {file}", env("LD_PRELOAD"));
    for path in list.split([' ', ':', '\n', '\t']).filter(|path| path.starts_with('/')) {
        if let Some(found) = root.file(path.as_bytes()) {
            builder.add(&found, How::Preload, "");
        }
    }
}

/// Libraries that are loaded while the program runs: what looks like an argument of dlopen, and name
/// services.
fn loaded_later(root: &Root<'_>, builder: &mut Builder<'_, '_>) {
    const MAX_FILE: usize = 64 << 20;
    // What is loaded so may load more; a few rounds find all there is.
    let mut done: BTreeSet<Vec<u8>> = BTreeSet::new();
    for _ in 0..4 {
        let todo: Vec<Vec<u8>> = builder
            .closure()
            .members
            .keys()
            .filter(|path| !done.contains(*path))
            .cloned()
            .collect();
        if todo.is_empty() {
            return;
        }
        for path in todo {
            done.insert(path.clone());
            let Some(member) = builder.closure().members.get(&path) else { continue };
            let loads = |name: &str| member.object.imports.contains(name);
            let is_libc = syscalls::is_libc(&show(&path));
            let (dlopen, names) =
                (!is_libc && (loads("dlopen") || loads("dlmopen")), base(&path) == b"libc.so.6");
            if dlopen {
                let Some(found) = root.file(&path) else { continue };
                let bytes = root.contents(&found.node, MAX_FILE).unwrap_or_default();
                let candidates = member.object.dlopen_candidates(&bytes);
                for name in candidates {
                    builder.add_by_name(&name, &path, How::Dlopen);
                }
            }
            if names {
                for service in name_services(root) {
                    let name = format!("libnss_{service}.so.2");
                    builder.add_by_name(&name, &path, How::NameService);
                }
                // Loaded by libc itself for thread cancellation and backtraces.
                builder.add_by_name("libgcc_s.so.1", &path, How::Dlopen);
            }
        }
    }
}

/// Services in nsswitch.conf(5), or glibc's own choice.
fn name_services(root: &Root<'_>) -> BTreeSet<String> {
    let text = root.text(b"/etc/nsswitch.conf", 64 << 10);
    let text = text.unwrap_or_else(|| "hosts: files dns\npasswd: files".to_owned());
    let lines = text.lines().filter_map(|line| line.split('#').next()?.split_once(':'));
    let words = lines.flat_map(|(_, services)| services.split_whitespace());
    words
        .filter(|word| word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
        .map(str::to_owned)
        .collect()
}

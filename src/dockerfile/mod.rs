//! Dockerfiles as a source: from a Dockerfile and its build context to an image in the store.
//!
//! Nothing but this program takes part: no Docker, no BuildKit, no root. A Dockerfile is read as
//! BuildKit reads it ([`parse`]), its stages are built side by side ([`exec`]), and each step makes
//! a layer, or is found in the cache ([`cache`]).
//!
//! Only RUN needs files unpacked and a place to run ([`sandbox`]). All other instructions work on
//! trees of names and metadata ([`tree`]), which are put together from the layers' indexes, and
//! write tar streams: owners and permissions that this user may not give are no obstacle, and no
//! path leads out of the tree it is looked up in.
//!
//! ```no_run
//! use dock2uni::dockerfile::{self, Cancel, Options};
//! use dock2uni::source::{self, Quiet, Store};
//!
//! let options = Options::new("./app");
//! let store = Store::open_default()?;
//! let image =
//!     dockerfile::build(&options, &source::Options::from_env(), &store, &Quiet, &Cancel::default())?;
//! println!("{} has {} layers", image.name, image.layers.len());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod ast;
mod cache;
mod cancel;
pub mod clean;
mod context;
mod copy;
mod copying;
mod error;
mod exec;
mod image;
mod index;
mod layer;
mod log;
mod mode;
mod mounts;
mod owner;
mod parse;
mod pattern;
mod probe;
mod remote;
mod run;
mod sandbox;
mod text;
mod tree;
mod words;
mod work;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

pub use self::cancel::Cancel;
pub use self::error::{Error, Place};
pub use self::exec::is_context;
pub use self::log::Progress;
pub use self::probe::{Users, probe};

use crate::source::{self, Image, Store};

/// What to build, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The build context, a directory.
    pub context: PathBuf,
    /// The Dockerfile; `Dockerfile` in the context if there is none, and standard input for `-`.
    pub file: Option<PathBuf>,
    /// The text of the Dockerfile, in place of `file`.
    pub text: Option<String>,
    /// Name of the image, for messages.
    pub name: String,
    /// Stage to build, by name or number; the last one if there is none.
    pub target: Option<String>,
    /// `--build-arg`
    pub args: BTreeMap<String, String>,
    /// `--build-context`: name and value.
    pub contexts: Vec<(String, String)>,
    /// `--secret`, by their IDs.
    pub secrets: BTreeMap<String, Secret>,
    /// `--ssh`: sockets of agents, by their IDs.
    pub ssh: BTreeMap<String, PathBuf>,
    /// Look nothing up in the cache. What is built is remembered all the same.
    pub no_cache: bool,
    /// What RUN sees of the network unless it says so itself.
    pub network: Network,
    /// Time of everything that a build makes by itself, in seconds since 1970.
    pub epoch: i64,
    /// How to start the sandbox of RUN: this program with the subcommand for it.
    pub sandbox: Vec<PathBuf>,
}

/// A secret for `RUN --mount=type=secret`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// The contents of a file.
    File(PathBuf),
    /// The value of a variable of this process.
    Env(String),
}

/// What a command sees of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// This machine's.
    #[default]
    Host,
    /// A loopback device of its own.
    None,
}

impl Options {
    /// A build of `Dockerfile` in `context`.
    pub fn new(context: impl Into<PathBuf>) -> Options {
        let context = context.into();
        Options {
            name: context.display().to_string(),
            context,
            file: None,
            text: None,
            target: None,
            args: BTreeMap::new(),
            contexts: Vec::new(),
            secrets: BTreeMap::new(),
            ssh: BTreeMap::new(),
            no_cache: false,
            network: Network::default(),
            epoch: 0,
            sandbox: keeper(),
        }
    }

    /// The time as configurations have it.
    fn created(&self) -> String {
        let time = std::time::UNIX_EPOCH
            + std::time::Duration::from_secs(u64::try_from(self.epoch).unwrap_or_default());
        rfc3339(time)
    }
}

/// How this program starts the sandbox of RUN, see [`Options::sandbox`].
pub fn keeper() -> Vec<PathBuf> {
    match std::env::current_exe() {
        Ok(exe) => vec![exe, "__sandbox".into()],
        // Without a name there is nothing to start; RUN says so.
        Err(_) => Vec::new(),
    }
}

/// The hidden subcommand by which a build runs commands in isolation; returns an exit status.
pub fn sandbox(job: &Path, inside: bool) -> u8 {
    sandbox::main(job, inside)
}

/// For fuzzing: bytes as a Dockerfile.
pub(crate) fn parse_any(bytes: &[u8]) {
    let _ = parse::parse("Dockerfile", bytes);
}

/// Builds an image.
///
/// Blocks. Several builds may use one store at once, in several processes too. When it returns, no
/// process of it is left, nor anything it needed on the way.
///
/// # Errors
/// Every variant of [`Error`]; [`Error::hint`] advises.
pub fn build(
    options: &Options,
    source: &source::Options,
    store: &Store,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Image, Error> {
    let (name, path, bytes) = dockerfile(options)?;
    let file = parse::parse(&name, &bytes)?;
    if let Some(syntax) = &file.syntax
        && !syntax.starts_with("docker/dockerfile")
        && !syntax.starts_with("docker.io/docker/dockerfile")
    {
        return Err(Error::usage(
            format!("`{name}` is not a Dockerfile: it asks for the frontend `{syntax}`"),
            "dock2uni reads the language of `docker/dockerfile` alone",
        ));
    }
    if !options.context.is_dir() {
        let context = options.context.display();
        return Err(Error::usage(format!("the build context `{context}` is no directory"), None));
    }
    let builder =
        exec::Builder::new(options, source, store, progress, cancel.clone(), (file, path))?;
    run::sweep(&builder, builder.shop.left_over());
    let built = builder.build();
    run::sweep(&builder, vec![builder.shop.own.clone()]);
    built
}

/// Finds the Dockerfile: its name for messages, its path if it is a file, its text.
fn dockerfile(options: &Options) -> Result<(String, Option<PathBuf>, Vec<u8>), Error> {
    // One more than is accepted, so that too much is noticed.
    let limit = text::MAX_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    if let Some(text) = &options.text {
        return Ok(("inline Dockerfile".into(), None, text.clone().into_bytes()));
    }
    if options.file.as_deref() == Some(Path::new("-")) {
        let read = io::stdin().lock().take(limit).read_to_end(&mut bytes);
        read.map_err(|error| Error::io("read", Path::new("standard input"), error))?;
        return Ok(("-".into(), None, bytes));
    }
    let path = match &options.file {
        Some(file) => file.clone(),
        None => options.context.join("Dockerfile"),
    };
    let file = File::open(&path).map_err(|error| Error::io("read", &path, error))?;
    if file.metadata().is_ok_and(|meta| meta.is_dir()) {
        let source = io::Error::from(io::ErrorKind::IsADirectory);
        return Err(Error::io("read", &path, source));
    }
    file.take(limit).read_to_end(&mut bytes).map_err(|error| Error::io("read", &path, error))?;
    Ok((path.display().to_string(), Some(path), bytes))
}

/// A time as RFC 3339 writes it, in UTC and whole seconds.
pub(crate) fn rfc3339(time: std::time::SystemTime) -> String {
    let seconds = time.duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (days, rest) = (seconds / 86400, seconds % 86400);
    // Days to a date by the proleptic Gregorian calendar, in eras of 400 years from March on.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let at = |seconds| rfc3339(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_735_689_599), "2024-12-31T23:59:59Z");
    }
}

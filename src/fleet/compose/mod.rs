//! Compose files (compose-spec), as `docker compose config` reads them.
//!
//! 1. [`load`]: files are read, variables expanded, `include` and `extends` followed, several files
//!    merged, all as plain values.
//! 2. [`service`]: each service becomes a [`Workload`](super::Workload), and what it asks for that a
//!    VM has no counterpart for becomes notes.

mod build;
mod dotenv;
mod interpolate;
mod load;
mod merge;
mod service;
mod tags;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use super::yaml::Place;
use super::{Error, Workload};

pub use interpolate::Variables;

/// How Compose files are read.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Active profiles; `*` is all of them.
    pub profiles: Vec<String>,
    /// Files with variables in place of `.env` beside the Compose file.
    pub env_files: Vec<PathBuf>,
    /// This process's environment.
    pub environment: Variables,
}

/// The workloads of Compose files that are merged in their order.
///
/// # Errors
/// Names the file, the keys that lead to the value, and what is wrong with it.
pub fn read(files: &[PathBuf], options: &Options) -> Result<Vec<Workload>, Error> {
    let project = load::project(files, options)?;
    service::workloads(&project, options)
}

/// The name that Compose files give their project: the last one that says one.
///
/// # Errors
/// As [`read`].
pub fn name(files: &[PathBuf], options: &Options) -> Result<Option<String>, Error> {
    Ok(load::project(files, options)?.name)
}

/// What could not be expanded, as an error about its place.
fn fault(fault: interpolate::Fault, place: &Place<'_>) -> Error {
    match fault {
        interpolate::Fault::Required { name: variable, text } => Error::Required {
            name: place.name.to_owned(),
            place: place.path.clone(),
            variable,
            text,
        },
        interpolate::Fault::Syntax(text) => place.error(text),
    }
}

//! Finds QEMU.

use std::env;
use std::path::{Path, PathBuf};

use super::Error;
use crate::environment;

/// The program that is looked for.
pub const PROGRAM: &str = "qemu-system-x86_64";
/// Names another one.
pub const VARIABLE: &str = "DOCK2UNI_QEMU";

/// Finds QEMU: the one given, that of `DOCK2UNI_QEMU`, or the first in PATH.
///
/// # Errors
/// If there is none.
pub fn find(given: Option<&Path>) -> Result<PathBuf, Error> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    if let Some(path) = environment::path(VARIABLE) {
        return Ok(path);
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .map(|dir| dir.join(PROGRAM))
        .find(|file| file.is_file())
        .ok_or(Error::NoQemu(PROGRAM))
}

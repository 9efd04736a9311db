//! Lists of system calls: what a user writes, and what a run recorded.
//!
//! A list is a text file with the name or the number of one call on each line; `#` starts a
//! comment. Lists that `run --record-syscalls` makes are of the same form.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use dock2uni_format::syscalls::{COUNT, Set, name, number};

use crate::atomic::Aside;

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read or written.
    #[error("the list of system calls `{}` cannot be {what}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Not a call.
    #[error("{}:{line}: `{word}` is no system call of x86-64 Linux", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// Line number from 1.
        line: usize,
        /// What is there.
        word: String,
    },
    /// Nothing was recorded.
    #[error("no system calls of this image have been recorded")]
    NoRecording,
    /// `auto` without an image.
    #[error("recordings are kept by container image, and this is none")]
    NoImage,
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Error::Io { .. } => return None,
            Error::Unknown { .. } => "write one name on each line, such as `openat`",
            Error::NoRecording => {
                "run it with `--record-syscalls` first, and let it do all that it shall do later"
            }
            Error::NoImage => "name a file: `--lock-syscalls FILE`, `--record-syscalls=FILE`",
        })
    }
}

/// Reads a list: numbers, sorted, each once.
///
/// # Errors
/// Names the file, and the line that is wrong.
pub fn read(path: &Path) -> Result<Vec<u16>, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::Io {
        path: path.to_owned(),
        what: "read",
        source,
    })?;
    let mut calls = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let word = line.split('#').next().unwrap_or_default().trim();
        if word.is_empty() {
            continue;
        }
        let known = |call: &u16| usize::from(*call) < COUNT;
        let call = number(word)
            .and_then(|call| u16::try_from(call).ok())
            .or_else(|| word.parse().ok().filter(known));
        calls.push(call.ok_or_else(|| Error::Unknown {
            path: path.to_owned(),
            line: at + 1,
            word: word.to_owned(),
        })?);
    }
    calls.sort_unstable();
    calls.dedup();
    Ok(calls)
}

/// Adds what a run has made to the list in `path`, which need not exist.
///
/// # Errors
/// If the list that is there cannot be read, or the new one not be written.
pub fn add(path: &Path, made: &Set) -> Result<(), Error> {
    let failed = |source| Error::Io { path: path.to_owned(), what: "written", source };
    let mut calls = if path.exists() { read(path)? } else { Vec::new() };
    // Below 512, so it fits.
    calls.extend((0..COUNT).filter(|at| made[at / 64] >> (at % 64) & 1 != 0).map(|at| at as u16));
    calls.sort_unstable();
    calls.dedup();
    let mut text = String::from("# System calls that `dock2uni run --record-syscalls` has seen.\n");
    for call in calls {
        // Writing to a string does not fail.
        let _ = match name(call.into()) {
            Some(name) => writeln!(text, "{name}"),
            None => writeln!(text, "{call}"),
        };
    }
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        fs::create_dir_all(dir).map_err(failed)?;
    }
    let aside = Aside::beside(path).map_err(failed)?;
    aside.file().write_all(text.as_bytes()).map_err(failed)?;
    aside.publish(path).map_err(failed)
}

/// Where the recording of an image is kept: `config` is its configuration's digest in hexadecimal.
pub fn recording(store: &Path, config: &str) -> PathBuf {
    store.join("syscalls").join(config)
}

/// The recorded list of an image.
///
/// # Errors
/// If there is none.
pub fn recorded(store: &Path, config: &str) -> Result<Vec<u16>, Error> {
    let path = recording(store, config);
    if path.exists() { read(&path) } else { Err(Error::NoRecording) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recordings_add_up_and_lists_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        let path = recording(dir.path(), "abc");
        assert!(matches!(recorded(dir.path(), "abc"), Err(Error::NoRecording)));
        let mut made = Set::default();
        made[0] = 0b11;
        add(&path, &made).unwrap();
        made[6] = 1 << (435 - 384);
        made[7] = 1 << 63;
        add(&path, &made).unwrap();
        assert_eq!(recorded(dir.path(), "abc").unwrap(), [0, 1, 435, 511]);
        fs::write(&path, "read # comment\n\n  openat\n39\nread\n").unwrap();
        assert_eq!(read(&path).unwrap(), [0, 39, 257]);
        for bad in ["read\nopenatt\n", "\n512\n", "\n-1\n", "\nread write\n"] {
            fs::write(&path, bad).unwrap();
            let error = read(&path).unwrap_err();
            assert!(error.to_string().contains(":2: `"), "{error}");
        }
    }
}

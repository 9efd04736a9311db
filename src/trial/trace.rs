//! What a trace boot has seen: files and system calls, in a file that can be kept.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use dock2uni_format::status::{Use, escape, unescape};
use dock2uni_format::syscalls;
use serde::{Deserialize, Serialize};

use crate::atomic::Aside;

/// Raised when the file changes its shape.
pub const VERSION: u32 = 1;
/// Longest file that is read, in bytes.
const MAX_FILE: u64 = 64 << 20;

/// How a file was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Usage {
    /// Its name was looked up, or it is a link that was followed.
    Seen,
    /// It was opened.
    Opened,
    /// It was executed.
    Executed,
}

/// What was used while an image ran.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// Paths, links resolved, and the most that was done with each.
    pub files: BTreeMap<Vec<u8>, Usage>,
    /// Names of system calls.
    pub calls: BTreeSet<String>,
    /// Exposed TCP ports that answered.
    pub answered: BTreeSet<u16>,
}

/// A trace as JSON. Paths are text: bytes other than printable ASCII are written `\xNN`.
#[derive(Debug, Serialize, Deserialize)]
struct Document {
    /// [`VERSION`].
    version: u32,
    /// The image that was traced.
    image: String,
    /// Digest of its manifest.
    manifest: String,
    files: BTreeMap<String, Usage>,
    syscalls: BTreeSet<String>,
    #[serde(default)]
    answered: BTreeSet<u16>,
}

/// Why a trace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file.
    #[error("cannot read the trace `{path}`")]
    Read {
        /// Its path.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Its contents.
    #[error("`{path}` is not a trace")]
    Malformed {
        /// Its path.
        path: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// Another version's.
    #[error("the trace `{path}` has version {found}, not {VERSION}")]
    Version {
        /// Its path.
        path: String,
        /// Its version.
        found: u32,
    },
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        "make one with `dock2uni trace REFERENCE -o FILE`"
    }
}

impl Trace {
    pub(super) fn used(&mut self, how: Use, path: Vec<u8>) {
        let usage = match how {
            Use::Seen => Usage::Seen,
            Use::Opened => Usage::Opened,
            Use::Executed => Usage::Executed,
        };
        let known = self.files.entry(path).or_insert(usage);
        *known = (*known).max(usage);
    }

    pub(super) fn called(&mut self, number: u32) {
        let name = syscalls::name(number as usize);
        self.calls.insert(name.map_or_else(|| format!("#{number}"), str::to_owned));
    }

    /// The trace as JSON.
    pub fn to_json(&self, image: &str, manifest: &str) -> String {
        let document = Document {
            version: VERSION,
            image: image.to_owned(),
            manifest: manifest.to_owned(),
            files: self.files.iter().map(|(path, usage)| (escape(path), *usage)).collect(),
            syscalls: self.calls.clone(),
            answered: self.answered.clone(),
        };
        // Plain data: serialising it does not fail.
        serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
    }

    /// Writes the trace to a file, which appears whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, out: &Path, image: &str, manifest: &str) -> io::Result<()> {
        use std::io::Write as _;
        let aside = Aside::beside(out)?;
        aside.file().write_all(self.to_json(image, manifest).as_bytes())?;
        aside.publish(out)
    }

    /// Reads a trace that [`Trace::write`] wrote.
    ///
    /// # Errors
    /// If it is none.
    pub fn read(path: &Path) -> Result<Trace, Error> {
        use std::io::Read as _;
        let name = path.display().to_string();
        let failed = |source| Error::Read { path: name.clone(), source };
        let file = std::fs::File::open(path).map_err(failed)?;
        let mut text = String::new();
        file.take(MAX_FILE).read_to_string(&mut text).map_err(failed)?;
        let document: Document = serde_json::from_str(&text)
            .map_err(|source| Error::Malformed { path: name.clone(), source })?;
        if document.version != VERSION {
            return Err(Error::Version { path: name, found: document.version });
        }
        let files = document.files.iter().map(|(path, usage)| (unescape(path), *usage)).collect();
        Ok(Trace { files, calls: document.syscalls, answered: document.answered })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_read_back() {
        let mut trace = Trace::default();
        trace.used(Use::Opened, b"/a b\xff".to_vec());
        trace.used(Use::Seen, b"/a b\xff".to_vec());
        trace.used(Use::Executed, b"/x".to_vec());
        trace.called(257);
        trace.answered.insert(80);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t.json");
        trace.write(&file, "nginx", "sha256:x").unwrap();
        assert_eq!(Trace::read(&file).unwrap(), trace);
        assert_eq!(trace.files[&b"/a b\xff".to_vec()], Usage::Opened);
        assert!(trace.calls.contains("openat"));
        std::fs::write(&file, "{}").unwrap();
        assert!(matches!(Trace::read(&file), Err(Error::Malformed { .. })));
    }
}

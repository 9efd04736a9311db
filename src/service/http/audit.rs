//! Who asked for what: one JSON object a line, in a file that is only added to.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

/// The audit log.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    file: Mutex<File>,
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

impl Audit {
    /// Opens the file, which is made if there is none.
    ///
    /// # Errors
    /// If it can't be.
    pub fn open(path: &Path) -> io::Result<Audit> {
        Ok(Audit { path: path.to_owned(), file: Mutex::new(open(path)?) })
    }

    /// Opens the file anew, after it was moved away.
    ///
    /// # Errors
    /// If it can't be; the old one stays in use.
    pub fn reopen(&self) -> io::Result<()> {
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = open(&self.path)?;
        Ok(())
    }

    /// Writes down that `who`, at `peer`, did `action` to `what`, and how that ended.
    pub fn note(&self, who: &str, peer: Option<IpAddr>, action: &str, what: &str, outcome: &str) {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let at = u64::try_from(at).unwrap_or(u64::MAX);
        let mut line = json!({
            "at": at, "who": who, "peer": peer.map(|peer| peer.to_string()), "action": action,
            "what": what, "outcome": outcome,
        })
        .to_string();
        line.push('\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(line.as_bytes()) {
            tracing::error!(%error, path = %self.path.display(), "the audit log can't be written");
        }
    }
}

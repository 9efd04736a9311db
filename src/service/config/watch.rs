//! A configuration that changes while the service runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use super::{Config, Error};

/// The configuration in force, and the file it comes from.
#[derive(Debug)]
pub struct Current {
    path: PathBuf,
    config: RwLock<Arc<Config>>,
    /// The file as it was when it was last read, well or not.
    stamp: Mutex<Option<Stamp>>,
}

/// Tells one state of a file from another. The inode counts, too: Kubernetes replaces a file by
/// pointing a link elsewhere, with whatever times.
type Stamp = (Option<SystemTime>, u64, u64);

fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok(), meta.len(), meta.ino()))
}

impl Current {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn load(path: &Path) -> Result<Current, Error> {
        let stamp = stamp(path);
        let config = RwLock::new(Arc::new(Config::load(path)?));
        Ok(Current { path: path.to_owned(), config, stamp: Mutex::new(stamp) })
    }

    /// The configuration in force.
    pub fn get(&self) -> Arc<Config> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where it comes from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file is another one than when it was last read.
    pub fn has_changed(&self) -> bool {
        let now = stamp(&self.path);
        now.is_some() && *self.stamp.lock().unwrap_or_else(PoisonError::into_inner) != now
    }

    /// Reads the file again. The old configuration stays in force if that fails. Returns what of the
    /// change counts only after a restart.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn reload(&self) -> Result<Vec<&'static str>, Error> {
        *self.stamp.lock().unwrap_or_else(PoisonError::into_inner) = stamp(&self.path);
        let new = Config::load(&self.path)?;
        let old = self.get();
        let mut later = Vec::new();
        let mut fixed = |name, same: bool| {
            if !same {
                later.push(name);
            }
        };
        fixed("server.listen", old.server.listen == new.server.listen);
        fixed("server.state", old.server.state == new.server.state);
        fixed("server.connections", old.server.connections == new.server.connections);
        fixed("workers.count", old.workers.count == new.workers.count);
        fixed("queue.url", old.queue.url == new.queue.url);
        fixed("server.tls", old.server.tls.is_some() == new.server.tls.is_some());
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        Ok(later)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_file_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        let text = |count: u32| format!("[server]\nstate = \"s\"\n[workers]\ncount = {count}\n");
        std::fs::write(&path, text(1)).unwrap();
        let current = Current::load(&path).unwrap();
        assert!(!current.has_changed());
        std::fs::write(&path, "[workers]\ncount = many\n").unwrap();
        assert!(current.has_changed());
        assert!(current.reload().is_err());
        assert_eq!(current.get().workers.count, 1);
        assert!(!current.has_changed(), "it is complained about once");
        std::fs::write(&path, text(22) + "[server.tls]\ncertificate = \"a\"\nkey = \"b\"\n")
            .unwrap();
        assert!(current.has_changed());
        assert_eq!(current.reload().unwrap(), ["workers.count", "server.tls"]);
        assert_eq!(current.get().workers.count, 22);
    }
}

//! Files that appear whole or not at all.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, AtFlags, CWD, Mode, OFlags};

/// A file that has no name yet. Dropped, or left by a killed process, it leaves nothing behind
/// where the filesystem knows nameless files (`O_TMPFILE`), and a hidden file elsewhere.
#[derive(Debug)]
pub struct Aside {
    file: File,
    dir: PathBuf,
    /// The hidden name, where there must be one.
    named: Option<tempfile::TempPath>,
}

impl Aside {
    /// Makes an empty file, to be read and written, in the directory that `path` is in.
    ///
    /// # Errors
    /// If the directory does not exist or cannot be written to.
    pub fn beside(path: &Path) -> io::Result<Aside> {
        let dir = match path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
            _ => PathBuf::from("."),
        };
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::openat(CWD, &dir, flags, Mode::from_raw_mode(0o644)) {
            Ok(file) => Ok(Aside { file: file.into(), dir, named: None }),
            Err(error) if unsupported(error) => {
                let (file, path) =
                    tempfile::Builder::new().prefix(".dock2uni-").tempfile_in(&dir)?.into_parts();
                Ok(Aside { file, dir, named: Some(path) })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Brings the bytes to the disk and gives the file its name, in place of what had it.
    ///
    /// # Errors
    /// If the disk is full or fails; the old file is intact then.
    pub fn publish(mut self, path: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        let hidden = match self.named.take() {
            Some(path) => path,
            None => self.link()?,
        };
        fs::rename(&hidden, path)?;
        // It has moved away: there is nothing left to remove under the old name.
        let _ = hidden.keep();
        File::open(&self.dir)?.sync_all()
    }

    /// A nameless file cannot take a name that is in use, so it gets a hidden one first.
    fn link(&self) -> io::Result<tempfile::TempPath> {
        use std::os::fd::AsRawFd;
        let descriptor = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        for attempt in 0u32..1000 {
            let name = format!(".dock2uni-{}-{attempt}", std::process::id());
            let hidden = self.dir.join(name);
            match rustix::fs::linkat(CWD, &descriptor, CWD, &hidden, AtFlags::SYMLINK_FOLLOW) {
                Ok(()) => return tempfile::TempPath::try_from_path(hidden),
                Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

/// Lets the disk begin with bytes that were written, so that they are not all that a later sync waits
/// for.
pub(crate) fn push(file: &File, from: u64, len: u64) {
    // Linux starts to write what it would have to drop, and drops nothing that is not written yet
    // (posix_fadvise(2)). It is only advice, so nothing is wrong if it isn't taken.
    let len = std::num::NonZeroU64::new(len);
    let _ = rustix::fs::fadvise(file, from, len, Advice::DontNeed);
}

/// What filesystems without `O_TMPFILE` answer (open(2)); old kernels take it for a directory.
fn unsupported(error: rustix::io::Errno) -> bool {
    use rustix::io::Errno;
    matches!(error, Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_file_replaces_the_old_one_whole_and_leaves_nothing_when_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.img");
        fs::write(&path, "old").unwrap();
        let aside = Aside::beside(&path).unwrap();
        aside.file().write_all(b"half").unwrap();
        drop(aside);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        let aside = Aside::beside(&path).unwrap();
        aside.file().write_all(b"new").unwrap();
        aside.publish(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        assert!(Aside::beside(Path::new("/nonexistent/x")).is_err());
    }
}

//! Copies files out of an image.
//!
//! Every file is made relative to an open directory that was made or opened here, never by a path
//! that the image had a part in, and never through a link.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use dock2uni_format::erofs::FileType;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{Error, Image, PIECE, Root, walk};
use crate::erofs::Node;

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Copied {
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// Devices, FIFOs and sockets, which are left out.
    pub skipped: u64,
}

/// Feeds a file's contents to `each`.
pub(super) fn contents(
    root: &Root,
    node: &Node,
    each: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
) -> Result<u64, Error> {
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    while at < node.inode.size {
        let len = root.read_at(node, at, &mut buffer)?;
        each(&buffer[..len])?;
        at += len as u64;
    }
    Ok(at)
}

pub(super) fn copy(image: &Image, from: &[u8], to: &Path) -> Result<Copied, Error> {
    // What the user named may be a link; what lies below is taken as it is.
    let top = image.find(from)?;
    let into = to.is_dir();
    let mut target = to.to_owned();
    if into {
        let name = from.split(|byte| *byte == b'/').rfind(|part| !matches!(*part, b"" | b"."));
        match name {
            Some(name) => {
                walk::check_name(name)?;
                target.push(std::ffi::OsStr::from_bytes(name));
            }
            // The whole image into a directory that is there.
            None if std::fs::read_dir(to).is_ok_and(|mut dir| dir.next().is_none()) => {}
            None => return Err(Error::Exists(to.to_owned())),
        }
    }
    let dir = match target.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
        _ => PathBuf::from("."),
    };
    let failed = |source| Error::Write { path: target.clone(), source };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut copier = Copier { root: &image.root, done: Copied::default(), target: target.clone() };
    if top.is_dir() && target == to && into {
        let dir = rustix::fs::open(to, flags, Mode::empty()).map_err(|e| failed(e.into()))?;
        copier.tree(&top, dir)?;
        return Ok(copier.done);
    }
    let parent = rustix::fs::open(&dir, flags, Mode::empty()).map_err(|e| failed(e.into()))?;
    let name = target.file_name().ok_or_else(|| Error::Exists(target.clone()))?.as_bytes().to_vec();
    copier.file(parent.as_fd(), &name, &[], &top)?;
    if top.is_dir() {
        let dir = copier.open(parent.as_fd(), &name, &[])?;
        copier.tree(&top, dir)?;
        copier.permissions(parent.as_fd(), &name, &[], &top)?;
    }
    Ok(copier.done)
}

struct Copier<'i> {
    root: &'i Root,
    done: Copied,
    /// For messages.
    target: PathBuf,
}

impl Copier<'_> {
    /// What is below a directory into the directory `to`.
    fn tree(&mut self, top: &Node, to: OwnedFd) -> Result<(), Error> {
        // Open directories by their paths: few at a time, those from here to the top.
        let mut open: HashMap<Vec<u8>, OwnedFd> = HashMap::from([(Vec::new(), to)]);
        // Permissions come last: a directory may be closed even to its owner.
        let mut closed: Vec<(Vec<u8>, Node)> = Vec::new();
        let root = self.root;
        walk::walk(root, top, &mut |path, _, node| {
            let split = path.iter().rposition(|byte| *byte == b'/');
            let (parent, name) = match split {
                Some(at) => (&path[..at], &path[at + 1..]),
                None => (&b""[..], path),
            };
            // The walk goes down one branch at a time: others are done with.
            open.retain(|dir, _| dir.is_empty() || parent == &dir[..] || under(parent, dir));
            let at = open.get(parent).ok_or_else(|| Error::not_found(path))?;
            self.file(at.as_fd(), name, path, node)?;
            if node.is_dir() {
                let dir = self.open(at.as_fd(), name, path)?;
                open.insert(path.to_vec(), dir);
                closed.push((path.to_vec(), *node));
            }
            Ok(())
        })?;
        let Some(top) = open.remove(&b""[..]) else { return Ok(()) };
        for (path, node) in closed.iter().rev() {
            // Deeper ones first, each from the top by opening one name after the other.
            let mut at = rustix::io::fcntl_dupfd_cloexec(&top, 0)
                .map_err(|error| self.failed(path, error))?;
            let mut parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
            let name = parts.pop().unwrap_or_default();
            for part in parts {
                at = self.open(at.as_fd(), part, path)?;
            }
            self.permissions(at.as_fd(), name, path, node)?;
        }
        Ok(())
    }

    fn path(&self, path: &[u8]) -> PathBuf {
        if path.is_empty() {
            return self.target.clone();
        }
        self.target.join(std::ffi::OsString::from_vec(path.to_vec()))
    }

    fn failed(&self, path: &[u8], error: Errno) -> Error {
        match error {
            Errno::EXIST | Errno::LOOP => Error::Exists(self.path(path)),
            _ => Error::Write { path: self.path(path), source: error.into() },
        }
    }

    fn open(&self, at: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<OwnedFd, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(at, name, flags, Mode::empty()).map_err(|error| self.failed(path, error))
    }

    /// Makes one file; directories are made open to their owner.
    fn file(
        &mut self,
        at: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        node: &Node,
    ) -> Result<(), Error> {
        match node.file_type() {
            FileType::Directory => {
                rustix::fs::mkdirat(at, name, Mode::RWXU).map_err(|e| self.failed(path, e))?;
                self.done.directories += 1;
            }
            FileType::Symlink => {
                let target = self.root.read_link(node)?;
                rustix::fs::symlinkat(&target[..], at, name).map_err(|e| self.failed(path, e))?;
                self.done.symlinks += 1;
            }
            FileType::Regular => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let mode = Mode::from_raw_mode(u32::from(node.inode.mode) & 0o777);
                let file = rustix::fs::openat(at, name, flags | OFlags::NOFOLLOW, mode);
                let mut file = File::from(file.map_err(|error| self.failed(path, error))?);
                let failed = |source| Error::Write { path: self.path(path), source };
                self.done.bytes +=
                    contents(self.root, node, &mut |bytes| file.write_all(bytes).map_err(failed))?;
                self.done.files += 1;
            }
            _ => self.done.skipped += 1,
        }
        Ok(())
    }

    fn permissions(
        &self,
        at: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        node: &Node,
    ) -> Result<(), Error> {
        let dir = self.open(at, name, path)?;
        let mode = Mode::from_raw_mode(u32::from(node.inode.mode) & 0o777);
        rustix::fs::fchmod(dir, mode).map_err(|error| self.failed(path, error))
    }
}

/// Whether `path` lies below `dir`.
fn under(path: &[u8], dir: &[u8]) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.starts_with(b"/"))
}

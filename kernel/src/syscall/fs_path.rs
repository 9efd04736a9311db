//! From system call arguments to places: strings, directory descriptors, resolvers.

use crate::errno::{Errno, Result};
use crate::fs::inode::PATH_MAX;
use crate::fs::walk::{Resolve, Resolver};
use crate::fs::{File, Path};
use crate::io::{get_user, get_user_str};
use crate::task::{Creds, current};
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general::AT_FDCWD;

/// A path argument. ENAMETOOLONG if it is longer than `PATH_MAX`.
pub fn path_arg(addr: usize) -> Result<Vec<u8>> {
    get_user_str(addr, PATH_MAX, Errno::ENAMETOOLONG)
}

/// Whether a path argument is the empty string (or, as newer kernels allow, a null pointer).
pub fn is_empty_path(addr: usize) -> Result<bool> {
    Ok(addr == 0 || get_user::<u8>(addr)? == 0)
}

/// The file behind a descriptor, for input and output.
pub fn file(fd: i32) -> Result<Arc<File>> {
    current().with_files(|files| files.get(fd))
}

/// The place that a descriptor names. EBADF, or ENOTDIR if it has no name.
pub fn place_of(fd: i32) -> Result<Path> {
    if fd == AT_FDCWD {
        return Ok(current().fs().cwd());
    }
    current().with_files(|files| files.get_any(fd))?.path.clone().ok_or(Errno::ENOTDIR)
}

/// Calls `f` with a resolver for `name` relative to `dirfd`, with the caller's credentials.
pub fn at<R>(
    dirfd: i32,
    name: &[u8],
    resolve: Resolve,
    f: impl FnOnce(&Resolver<'_>) -> Result<R>,
) -> Result<R> {
    let creds = current().creds();
    at_as(&creds, dirfd, name, resolve, f)
}

/// As [`at`], with given credentials.
pub fn at_as<R>(
    creds: &Creds,
    dirfd: i32,
    name: &[u8],
    resolve: Resolve,
    f: impl FnOnce(&Resolver<'_>) -> Result<R>,
) -> Result<R> {
    if name.is_empty() {
        // Before the descriptor is looked at.
        return Err(Errno::ENOENT);
    }
    let context = current().fs();
    let root = context.root();
    let rooted = resolve.intersects(Resolve::IN_ROOT | Resolve::BENEATH);
    let start = if name.first() == Some(&b'/') && !rooted {
        root.clone()
    } else if dirfd == AT_FDCWD {
        context.cwd()
    } else {
        place_of(dirfd)?
    };
    f(&Resolver { root, start, who: creds, resolve })
}

/// The existing file that `name` means relative to `dirfd`; a link at the end is followed if
/// `follow`.
pub fn lookup(dirfd: i32, name: &[u8], follow: bool) -> Result<Path> {
    at(dirfd, name, Resolve::empty(), |resolver| resolver.lookup(name, follow))
}

/// What a call with `AT_EMPTY_PATH` means: a descriptor's own file, or a name.
pub enum Target {
    /// A place in the namespace.
    Place(Path),
    /// An open file without a name.
    File(Arc<File>),
}

/// The target of a call that takes a descriptor and a path. `empty`: `AT_EMPTY_PATH` was given.
pub fn target(dirfd: i32, addr: usize, empty: bool, follow: bool) -> Result<Target> {
    if empty && is_empty_path(addr)? {
        if dirfd == AT_FDCWD {
            return Ok(Target::Place(current().fs().cwd()));
        }
        let file = current().with_files(|files| files.get_any(dirfd))?;
        return Ok(match &file.path {
            Some(path) => Target::Place(path.clone()),
            None => Target::File(file),
        });
    }
    lookup(dirfd, &path_arg(addr)?, follow).map(Target::Place)
}

/// A place for an open file of any kind: files without a name get one of their own.
pub fn place_of_file(file: &Arc<File>) -> Path {
    match &file.path {
        Some(path) => path.clone(),
        None => crate::fs::anon::place(file.inode()),
    }
}

impl Target {
    /// The place, made up for a file without a name.
    pub fn path(&self) -> Path {
        match self {
            Target::Place(path) => path.clone(),
            Target::File(file) => place_of_file(file),
        }
    }
}

//! From path names to places (path_resolution(7), openat2(2)).

use super::dcache::Dentry;
use super::inode::{FileType, Inode, NAME_MAX, PATH_MAX};
use super::mount::{self, Path};
use super::perm::{self, Subject};
use crate::errno::{Errno, Result};
use crate::witness;
use alloc::borrow::Cow;
use alloc::sync::Arc;
use alloc::vec::Vec;
use dock2uni_format::status::Use;

/// Most symbolic links followed in one resolution.
const MAX_LINKS: u32 = 40;

bitflags::bitflags! {
    /// Restrictions of openat2(2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Resolve: u64 {
        /// Don't cross mount points.
        const NO_XDEV = 0x01;
        /// Don't follow links of /proc that aren't followed by their text.
        const NO_MAGICLINKS = 0x02;
        /// Don't follow links.
        const NO_SYMLINKS = 0x04;
        /// Don't leave the starting directory.
        const BENEATH = 0x08;
        /// Treat the starting directory as the root.
        const IN_ROOT = 0x10;
        /// Fail with EAGAIN instead of asking a filesystem.
        const CACHED = 0x20;
    }
}

/// Who resolves names, and from where.
pub struct Resolver<'a> {
    /// Root directory.
    pub root: Path,
    /// Where relative names start.
    pub start: Path,
    /// Whose permissions count.
    pub who: &'a dyn Subject,
    /// Restrictions.
    pub resolve: Resolve,
}

/// How the last component of a name was spelt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// An ordinary name.
    Name,
    /// `.`
    Dot,
    /// `..`
    DotDot,
    /// There was none: `/`.
    Root,
}

/// Where a name leads.
pub struct Found {
    /// The place. Its entry is negative if only the last component doesn't exist.
    pub path: Path,
    /// How the last component was spelt.
    pub last: Last,
    /// Whether slashes followed it.
    pub slash: bool,
}

impl Found {
    /// The file found. ENOENT if there is none.
    pub fn inode(&self) -> Result<&Arc<dyn Inode>> {
        self.path.inode()
    }
}

/// What following a link led to.
enum Followed {
    /// Continue with this text.
    Text(Vec<u8>),
    /// Continue from here.
    Place(Path),
}

impl<'a> Resolver<'a> {
    /// Names of the kernel's own, from the root of the namespace. ENOENT before the root is
    /// mounted.
    pub fn kernel() -> Result<Resolver<'static>> {
        let root = mount::root().ok_or(Errno::ENOENT)?;
        Ok(Resolver {
            root: root.clone(),
            start: root.clone(),
            who: &perm::Kernel,
            resolve: Resolve::empty(),
        })
    }

    /// The existing file of that name; a symbolic link at the end is followed if `follow`.
    pub fn lookup(&self, name: &[u8], follow: bool) -> Result<Path> {
        let found = self.find(name, follow)?;
        if found.path.dentry.is_negative() {
            return Err(Errno::ENOENT);
        }
        Ok(found.path)
    }

    /// As [`lookup`](Resolver::lookup), but the last component need not exist.
    pub fn find(&self, name: &[u8], follow: bool) -> Result<Found> {
        if super::dcache::crowded() {
            mount::sweep_names();
        }
        if name.is_empty() {
            return Err(Errno::ENOENT);
        }
        if name.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let mut text = Cow::Borrowed(name);
        let mut offset = 0;
        let mut links = 0;
        let mut at = if text[0] == b'/' { self.absolute()? } else { self.start.clone() };
        let mut last = Last::Root;
        loop {
            // One component: text[begin..end], followed by `slash` and, unless it is the last, by
            // more.
            let Some(skip) = text[offset..].iter().position(|&byte| byte != b'/') else {
                return self.finish(Found { path: at, last, slash: offset < text.len() });
            };
            let begin = offset + skip;
            let len = text[begin..].iter().position(|&byte| byte == b'/');
            let end = len.map_or(text.len(), |len| begin + len);
            let slash = end < text.len();
            let is_last = !slash || text[end..].iter().all(|&byte| byte == b'/');
            let component = &text[begin..end];

            let dir = at.inode()?;
            if !at.dentry.is_dir() {
                return Err(Errno::ENOTDIR);
            }
            perm::check(self.who, dir, perm::EXEC)?;
            offset = end;
            match component {
                b"." => {
                    last = Last::Dot;
                    continue;
                }
                b".." => {
                    last = Last::DotDot;
                    at = self.up(at)?;
                    continue;
                }
                _ if component.len() > NAME_MAX => return Err(Errno::ENAMETOOLONG),
                _ => last = Last::Name,
            }
            let child = self.child(&at.dentry, component)?;
            let Some(kind) = child.kind() else {
                if !is_last {
                    return Err(Errno::ENOENT);
                }
                return Ok(Found { path: Path { dentry: child, ..at }, last, slash });
            };
            if kind == FileType::Symlink && (!is_last || follow || slash) {
                links += 1;
                if links > MAX_LINKS || at.mount.own_flags().contains(mount::Flags::NOSYMFOLLOW) {
                    return Err(Errno::ELOOP);
                }
                if witness::on() {
                    let link = Path { dentry: child.clone(), ..at.clone() };
                    witness::file(&link, Use::Seen);
                }
                match self.follow(&child)? {
                    Followed::Place(place) => at = place,
                    Followed::Text(target) => {
                        if target.is_empty() {
                            return Err(Errno::ENOENT);
                        }
                        if target[0] == b'/' {
                            at = self.absolute()?;
                        }
                        let mut joined = target;
                        joined.extend_from_slice(&text[end..]);
                        text = Cow::Owned(joined);
                        offset = 0;
                    }
                }
                continue;
            }
            at.dentry = child;
            if at.dentry.is_mounted() {
                at = self.crossed(mount::descend(at.clone()), &at)?;
            }
        }
    }

    fn finish(&self, found: Found) -> Result<Found> {
        if witness::on() {
            witness::file(&found.path, Use::Seen);
        }
        if found.slash && found.last != Last::Root && !found.path.dentry.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        Ok(found)
    }

    fn child(&self, dir: &Arc<Dentry>, name: &[u8]) -> Result<Arc<Dentry>> {
        if self.resolve.contains(Resolve::CACHED) {
            return dir.cached_child(name).ok_or(Errno::EAGAIN);
        }
        dir.child(name)
    }

    fn absolute(&self) -> Result<Path> {
        if self.resolve.contains(Resolve::BENEATH) {
            return Err(Errno::EXDEV);
        }
        self.crossed(self.top().clone(), &self.start)
    }

    /// The directory above which `..` doesn't lead.
    fn top(&self) -> &Path {
        if self.resolve.contains(Resolve::IN_ROOT) { &self.start } else { &self.root }
    }

    fn crossed(&self, to: Path, from: &Path) -> Result<Path> {
        if self.resolve.contains(Resolve::NO_XDEV) && !Arc::ptr_eq(&to.mount, &from.mount) {
            return Err(Errno::EXDEV);
        }
        Ok(to)
    }

    fn up(&self, mut at: Path) -> Result<Path> {
        if self.resolve.contains(Resolve::BENEATH) && at.same(&self.start) {
            return Err(Errno::EXDEV);
        }
        let from = at.clone();
        loop {
            if at.same(self.top()) {
                return Ok(at);
            }
            if !at.is_mount_root() {
                break;
            }
            // The root of a mount: continue from the directory it covers.
            match at.mount.at() {
                Some(below) => at = below,
                None => return Ok(at),
            }
        }
        at.dentry = at.dentry.parent();
        if at.dentry.is_mounted() {
            at = mount::descend(at);
        }
        self.crossed(at, &from)
    }

    fn follow(&self, link: &Arc<Dentry>) -> Result<Followed> {
        if self.resolve.contains(Resolve::NO_SYMLINKS) {
            return Err(Errno::ELOOP);
        }
        let inode = link.inode()?;
        if let Some(place) = inode.magic_link() {
            if self.resolve.intersects(Resolve::NO_MAGICLINKS) {
                return Err(Errno::ELOOP);
            }
            if self.resolve.intersects(Resolve::BENEATH | Resolve::IN_ROOT) {
                return Err(Errno::EXDEV);
            }
            let place = place?;
            return Ok(Followed::Place(self.crossed(place, &self.start)?));
        }
        inode.read_link().map(Followed::Text)
    }
}

/// The name of a place as seen from `root` (getcwd(2), /proc/PID/exe). Places that aren't below
/// `root` start with `(unreachable)`; a file whose name was removed ends in ` (deleted)`.
pub fn name_of(path: &Path, root: &Path) -> Vec<u8> {
    if path.dentry.is_root() && !path.is_mount_root() {
        // A file that never had a name (memfd): what it calls itself.
        let mut name = path.dentry.name().to_vec();
        name.extend_from_slice(b" (deleted)");
        return name;
    }
    let mut parts: Vec<Arc<[u8]>> = Vec::new();
    let mut at = path.clone();
    let reachable = loop {
        if at.same(root) {
            break true;
        }
        if at.is_mount_root() {
            match at.mount.at() {
                Some(below) => {
                    at = below;
                    continue;
                }
                None => break false,
            }
        }
        if at.dentry.is_root() {
            break false;
        }
        parts.push(at.dentry.name());
        at.dentry = at.dentry.parent();
    };
    let mut name = Vec::new();
    if !reachable {
        name.extend_from_slice(b"(unreachable)");
    }
    for part in parts.iter().rev() {
        name.push(b'/');
        name.extend_from_slice(part);
    }
    if parts.is_empty() {
        name.push(b'/');
    }
    if path.dentry.is_deleted() {
        name.extend_from_slice(b" (deleted)");
    }
    name
}

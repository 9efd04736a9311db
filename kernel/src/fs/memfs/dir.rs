//! Directories: names of their own over the names of the image.

use super::inode::{Body, MemInode};
use crate::errno::{Errno, Result};
use crate::fs::dcache::NameHash;
use crate::fs::inode::{FileType, Rename};
use crate::map::Tree;
use crate::sync::{Mutex, MutexGuard};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use hashbrown::HashMap;

/// What a directory holds besides the names of the image.
pub struct Dir {
    /// Positions of names; [`HIDDEN`] for names of the image that are gone.
    names: HashMap<Arc<[u8]>, u64, NameHash>,
    /// Entries by the position that readdir(3) sees. Positions only grow, so a listing under way
    /// misses nothing.
    entries: Tree<Box<Entry>>,
    next: u64,
    /// Removed: nothing may be added any more.
    dead: bool,
}

struct Entry {
    name: Arc<[u8]>,
    inode: Arc<MemInode>,
}

/// No position: there is nothing of that name.
const HIDDEN: u64 = 0;
/// Positions of `.` and `..` come first.
const DOTS: u64 = 2;

impl Dir {
    /// An empty directory over one of the image whose positions end at `lower_end`.
    pub fn new(lower_end: u64) -> Dir {
        Dir {
            names: HashMap::with_hasher(NameHash),
            entries: Tree::new(),
            next: DOTS + lower_end + 1,
            dead: false,
        }
    }

    fn get(&self, name: &[u8]) -> Option<&Arc<MemInode>> {
        self.entries.get(u128::from(*self.names.get(name)?)).map(|entry| &entry.inode)
    }

    fn insert(&mut self, name: &[u8], inode: Arc<MemInode>) {
        let name: Arc<[u8]> = Arc::from(name);
        let at = self.next;
        self.next += 1;
        self.names.insert(name.clone(), at);
        self.entries.insert(u128::from(at), Box::new(Entry { name, inode }));
    }

    /// Takes a name out; one of the image stays to hide that.
    fn remove(&mut self, name: &[u8], in_image: bool) -> Option<Arc<MemInode>> {
        let at = if in_image {
            self.names.insert(Arc::from(name), HIDDEN)
        } else {
            self.names.remove(name)
        };
        self.entries.remove(u128::from(at?)).map(|entry| entry.inode)
    }

    /// Whether the image's entry of that name doesn't show.
    fn covers(&self, name: &[u8]) -> bool {
        self.names.contains_key(name)
    }

    /// Takes every entry out.
    pub fn take_all(&mut self) -> Vec<Arc<MemInode>> {
        self.names.clear();
        let mut all = Vec::new();
        while let Some((_, entry)) = self.entries.pop_first() {
            all.push(entry.inode);
        }
        all
    }
}

impl MemInode {
    fn dir(&self) -> Result<&Mutex<Dir>> {
        match &self.body {
            Body::Dir(dir) => Ok(dir),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// The directory, if names can still be added.
    fn live_dir(&self) -> Result<MutexGuard<'_, Dir>> {
        let dir = self.dir()?.lock();
        if dir.dead { Err(Errno::ENOENT) } else { Ok(dir) }
    }

    /// The file of that name.
    pub(super) fn find(&self, name: &[u8]) -> Result<Option<Arc<MemInode>>> {
        {
            let dir = self.dir()?.lock();
            if let Some(inode) = dir.get(name) {
                return Ok(Some(inode.clone()));
            }
            if dir.covers(name) {
                return Ok(None);
            }
        }
        let Some((image, node)) = self.below() else { return Ok(None) };
        match image.dir_find(node, name)? {
            Some(entry) => self.fs.instantiate(entry.nid).map(Some),
            None => Ok(None),
        }
    }

    /// Adds a name that doesn't exist.
    pub(super) fn insert(&self, name: &[u8], inode: Arc<MemInode>) -> Result<()> {
        let subdir = inode.is_dir();
        self.pin();
        self.live_dir()?.insert(name, inode);
        if subdir {
            self.nlink.fetch_add(1, Relaxed);
        }
        self.touch(true);
        Ok(())
    }

    /// Removes a name that exists. Links aren't counted here.
    pub(super) fn remove(&self, name: &[u8]) -> Result<()> {
        self.pin();
        let in_image = match self.below() {
            Some((image, node)) => image.dir_find(node, name)?.is_some(),
            None => false,
        };
        let mut dir = self.dir()?.lock();
        let removed = dir.remove(name, in_image);
        drop(dir);
        drop(removed);
        self.touch(true);
        Ok(())
    }

    /// Marks an empty directory as removed. ENOTEMPTY if it isn't empty.
    pub(super) fn bury(&self) -> Result<()> {
        let mut dir = self.dir()?.lock();
        let mut empty = dir.entries.is_empty();
        if empty && let Some((image, node)) = self.below() {
            image.dir_list(node, 0, &mut |name, _, _| {
                empty = dir.covers(name);
                empty
            })?;
        }
        if !empty {
            return Err(Errno::ENOTEMPTY);
        }
        dir.dead = true;
        Ok(())
    }

    /// rename(2) within this filesystem.
    pub(super) fn move_entry(&self, request: &Rename<'_>) -> Result<()> {
        let to = request.new_dir.downcast::<MemInode>().ok_or(Errno::EXDEV)?;
        let inode = request.inode.downcast::<MemInode>().ok_or(Errno::EXDEV)?.arc();
        let target = match request.target {
            Some(target) => Some(target.downcast::<MemInode>().ok_or(Errno::EXDEV)?.arc()),
            None => None,
        };
        let same = core::ptr::eq(self, to);
        drop(to.live_dir()?);
        if let (Some(target), true) = (&target, request.exchange) {
            self.remove(request.old_name)?;
            to.remove(request.new_name)?;
            self.put(request.old_name, target.clone())?;
            to.put(request.new_name, inode.clone())?;
            if !same && inode.is_dir() != target.is_dir() {
                let (less, more) = if inode.is_dir() { (self, to) } else { (to, self) };
                less.nlink.fetch_sub(1, Relaxed);
                more.nlink.fetch_add(1, Relaxed);
            }
            inode.touch(false);
            target.touch(false);
            return Ok(());
        }
        if let Some(target) = &target {
            if target.is_dir() {
                target.bury()?;
            }
            to.remove(request.new_name)?;
        }
        self.remove(request.old_name)?;
        to.put(request.new_name, inode.clone())?;
        if let Some(target) = target {
            if target.is_dir() {
                to.nlink.fetch_sub(1, Relaxed);
                target.drop_link(u32::MAX);
            } else {
                target.drop_link(1);
            }
        }
        if inode.is_dir() && !same {
            self.nlink.fetch_sub(1, Relaxed);
            to.nlink.fetch_add(1, Relaxed);
        }
        inode.touch(false);
        Ok(())
    }

    fn put(&self, name: &[u8], inode: Arc<MemInode>) -> Result<()> {
        self.pin();
        self.dir()?.lock().insert(name, inode);
        self.touch(true);
        Ok(())
    }

    /// getdents64(2): see [`crate::fs::FileOps::read_dir`]. `parent` is the inode number of `..`.
    pub(super) fn list(
        &self,
        offset: u64,
        parent: u64,
        emit: &mut dyn FnMut(u64, u64, u8, &[u8]) -> bool,
    ) -> Result<()> {
        let dir = self.dir()?.lock();
        if dir.dead {
            return Ok(());
        }
        let directory = FileType::Directory as u8;
        if offset == 0 && !emit(self.ino(), 1, directory, b".") {
            return Ok(());
        }
        if offset <= 1 && !emit(parent, 2, directory, b"..") {
            return Ok(());
        }
        let mut lower_end = DOTS;
        if let Some((image, node)) = self.below() {
            lower_end = DOTS + image.dir_end(node)?;
            if offset < lower_end {
                let mut more = true;
                let position = offset.max(DOTS) - DOTS;
                image.dir_list(node, position, &mut |name, entry, next| {
                    more = dir.covers(name)
                        || emit(entry.nid, DOTS + next, entry.file_type as u8, name);
                    more
                })?;
                if !more {
                    return Ok(());
                }
            }
        }
        for (at, entry) in dir.entries.from(u128::from(offset.max(lower_end))) {
            let (at, inode) = (at as u64, &entry.inode);
            let kind = FileType::of_mode(inode.mode()) as u8;
            if !emit(inode.ino(), at + 1, kind, &entry.name) {
                break;
            }
        }
        Ok(())
    }
}

//! Open files of the server, and mappings of them.

use super::inode::NineInode;
use super::proto::{Fid, Message, kind};
use crate::arch::PAGE_SIZE;
use crate::errno::{Errno, Result};
use crate::event::{Events, PollTable};
use crate::fs::{File, FileOps, FileType, Inode};
use crate::io::{IoDst, IoSrc};
use crate::mm::{PageCache, PageRef, Pager};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use linux_raw_sys::general::O_APPEND;

const PAGE: u64 = PAGE_SIZE as u64;
/// Pages written back at a time.
const BATCH: usize = 64;

/// An open file.
pub(super) struct NineFile {
    pub inode: Arc<NineInode>,
    pub fid: Arc<Fid>,
}

/// Fills the cache of a file that is mapped.
struct NinePager(Weak<NineInode>);

impl Pager for NinePager {
    fn read_page(&self, index: u64) -> Result<PageRef> {
        let inode = self.0.upgrade().ok_or(Errno::EIO)?;
        let fid = inode.handle.lock().clone().ok_or(Errno::EIO)?;
        let frame = PageRef::alloc(true)?;
        let mut done = 0;
        while done < PAGE_SIZE {
            let bytes = inode.read_piece(&fid, index * PAGE + done as u64, PAGE_SIZE - done)?;
            if bytes.is_empty() {
                break;
            }
            frame.write(done, &bytes);
            done += bytes.len();
        }
        Ok(frame)
    }

    fn writes_back(&self) -> bool {
        true
    }
}

impl NineInode {
    fn read_piece(&self, fid: &Fid, offset: u64, want: usize) -> Result<Vec<u8>> {
        let want = want.min(self.client().io_size());
        let read = Message::new(kind::READ).fid(fid).u64(offset).u32(want as u32);
        let mut answer = self.client().call(read)?;
        let count = answer.u32()? as usize;
        if count > want {
            return Err(Errno::EIO);
        }
        answer.take(count).map(Vec::from)
    }

    fn write_piece(&self, fid: &Fid, offset: u64, bytes: &[u8]) -> Result<usize> {
        let write = Message::new(kind::WRITE).fid(fid).u64(offset);
        let mut answer = self.client().call(write.u32(bytes.len() as u32).bytes(bytes))?;
        match answer.u32()? as usize {
            count if count <= bytes.len() => Ok(count),
            _ => Err(Errno::EIO),
        }
    }

    /// Sends pages that were written through mappings to the server.
    pub(super) fn write_back(&self) -> Result<()> {
        let Some(cache) = self.cache.get().filter(|cache| cache.is_dirty()) else {
            return Ok(());
        };
        let Some(fid) = self.handle.lock().clone() else { return Err(Errno::EIO) };
        let _writing = self.writing.lock();
        let mut from = 0;
        loop {
            let pages = cache.take_dirty(from, u64::MAX, BATCH)?;
            let Some(last) = pages.last() else { return Ok(()) };
            from = last.0 + 1;
            for (index, page) in &pages {
                let left = cache.len().saturating_sub(index * PAGE).min(PAGE) as usize;
                let mut bytes = alloc::vec![0; left];
                page.read(0, &mut bytes);
                let mut done = 0;
                while done < left {
                    match self.write_piece(&fid, index * PAGE + done as u64, &bytes[done..])? {
                        0 => return Err(Errno::EIO),
                        n => done += n,
                    }
                }
            }
        }
    }

    /// Pages for mappings, of what the file has now.
    fn pages(&self, file: &NineFile, writable: bool) -> Result<Arc<PageCache>> {
        self.write_back()?;
        let meta = self.attributes()?;
        {
            let mut handle = self.handle.lock();
            if handle.is_none() || writable {
                *handle = Some(file.fid.clone());
            }
        }
        let cache = self
            .cache
            .get_or_init(|| PageCache::backed(meta.size, Arc::new(NinePager(self.this.clone()))));
        let now = (meta.size, meta.mtime);
        let old = core::mem::replace(&mut *self.cached.lock(), now);
        if old != now {
            cache.discard(0, u64::MAX)?;
        }
        if cache.len() != meta.size {
            cache.truncate(meta.size)?;
        }
        Ok(cache.clone())
    }
}

impl FileOps for NineFile {
    fn seekable(&self) -> bool {
        true
    }

    fn read_at(&self, _file: &File, offset: u64, dst: &mut IoDst<'_>) -> Result<usize> {
        if self.inode.file_kind() == FileType::Directory {
            return Err(Errno::EISDIR);
        }
        self.inode.write_back()?;
        let mut done = 0;
        while dst.remaining() > 0 {
            let at = offset + done as u64;
            let bytes = match self.inode.read_piece(&self.fid, at, dst.remaining()) {
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
                Ok(bytes) if bytes.is_empty() => break,
                Ok(bytes) => bytes,
            };
            match dst.write(&bytes) {
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
                Ok(n) => done += n,
            }
        }
        Ok(done)
    }

    fn write_at(&self, file: &File, offset: u64, src: &mut IoSrc<'_>) -> Result<(usize, u64)> {
        self.inode.write_back()?;
        let append = file.flags() & O_APPEND != 0;
        let offset = if append { self.inode.attributes()?.size } else { offset };
        let mut done = 0;
        let mut bytes = alloc::vec![0; src.remaining().min(self.inode.client().io_size())];
        while src.remaining() > 0 {
            let want = src.remaining().min(bytes.len());
            let moved = src
                .read(&mut bytes[..want])
                .and_then(|n| self.inode.write_piece(&self.fid, offset + done as u64, &bytes[..n]));
            match moved {
                Err(error) if done == 0 => return Err(error),
                Err(_) | Ok(0) => break,
                Ok(n) => done += n,
            }
        }
        if let Some(cache) = self.inode.cache.get() {
            cache.discard(offset / PAGE, (offset + done as u64).div_ceil(PAGE))?;
            if offset + done as u64 > cache.len() {
                cache.truncate(offset + done as u64)?;
            }
        }
        Ok((done, offset + done as u64))
    }

    fn poll(&self, _file: &File, _table: &mut PollTable<'_>) -> Events {
        Events::IN | Events::OUT | Events::RDNORM | Events::WRNORM
    }

    fn pollable(&self) -> bool {
        false
    }

    fn mapping(&self, file: &File) -> Result<Arc<PageCache>> {
        if self.inode.file_kind() != FileType::Regular {
            return Err(Errno::ENODEV);
        }
        self.inode.pages(self, file.writable())
    }

    fn inode(&self) -> Arc<dyn Inode> {
        self.inode.clone()
    }

    fn read_dir(
        &self,
        file: &File,
        offset: u64,
        emit: &mut dyn FnMut(u64, u64, u8, &[u8]) -> bool,
    ) -> Result<()> {
        if self.inode.file_kind() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        let parent = file.path.as_ref().map_or(0, |path| path.parent_ino());
        let mut at = offset;
        loop {
            let count = self.inode.client().io_size() as u32;
            let read = Message::new(kind::READDIR).fid(&self.fid).u64(at).u32(count);
            let mut answer = self.inode.client().call(read)?;
            if answer.u32()? == 0 {
                return Ok(());
            }
            while !answer.is_at_end() {
                let ino = answer.qid()?.path;
                at = answer.u64()?;
                let kind = answer.u8()?;
                let name = answer.text()?;
                let ino = if name == b".." { parent } else { ino };
                if !emit(ino, at, kind, &name) {
                    return Ok(());
                }
            }
        }
    }

    fn sync(&self, _file: &File, data_only: bool) -> Result<()> {
        self.inode.write_back()?;
        let sync = Message::new(kind::FSYNC).fid(&self.fid).u32(data_only.into());
        self.inode.client().call(sync).map(drop)
    }

    fn release(&self, _file: &File) {
        // Whoever had to know has called fsync(2).
        let _ = self.inode.write_back();
    }
}

//! Directories of the host, by 9P2000.L over virtio.
//!
//! The host may change them at any time, so nothing is remembered: names and attributes are asked
//! for, and reads and writes go to the server. Only mappings have a page cache; pages written
//! through one go to the server before the next read(2), with fsync(2), and when the file is
//! closed.

mod file;
mod inode;
mod proto;

use super::inode::{FileSystem, Inode, StatFs, anonymous_dev};
use crate::drivers::virtio::ninep::Channel;
use crate::errno::Result;
use crate::map::Tree;
use crate::sync::{Once, SpinLock};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use inode::NineInode;
use proto::{Client, Message, kind};

const V9FS_MAGIC: u64 = 0x0102_1997;

/// A mounted share.
pub struct NineFs {
    client: Arc<Client>,
    dev: u64,
    /// Files in use, by the server's number, so that all users of one share its pages.
    known: SpinLock<Tree<Weak<NineInode>>>,
    root: Once<Arc<NineInode>>,
}

impl NineFs {
    /// Mounts a share.
    pub fn open(channel: Arc<Channel>) -> Result<Arc<NineFs>> {
        let (client, root) = Client::attach(channel)?;
        let fs = Arc::new(NineFs {
            client,
            dev: anonymous_dev(),
            known: SpinLock::new(Tree::new()),
            root: Once::new(),
        });
        let root = NineInode::new(&fs, root, 0)?;
        let _ = fs.root.set(root);
        Ok(fs)
    }

    fn inodes(&self) -> Vec<Arc<NineInode>> {
        self.known.lock().values().filter_map(Weak::upgrade).collect()
    }
}

impl FileSystem for NineFs {
    fn name(&self) -> &'static str {
        "9p"
    }

    fn root(&self) -> Arc<dyn Inode> {
        match self.root.get() {
            Some(root) => root.clone(),
            // `open` sets it.
            None => super::anon::AnonInode::new(super::inode::mode::S_IFDIR | 0o555),
        }
    }

    fn statfs(&self) -> StatFs {
        let ask = || -> Result<StatFs> {
            let Some(root) = self.root.get() else { return Ok(StatFs::default()) };
            let mut answer = self.client.call(Message::new(kind::STATFS).fid(&root.fid))?;
            answer.u32()?;
            let bsize = answer.u32()?.into();
            let (blocks, _free, bfree) = (answer.u64()?, answer.u64()?, answer.u64()?);
            let (files, ffree) = (answer.u64()?, answer.u64()?);
            Ok(StatFs { kind: V9FS_MAGIC, bsize, blocks, bfree, files, ffree })
        };
        ask().unwrap_or(StatFs { kind: V9FS_MAGIC, bsize: 4096, ..StatFs::default() })
    }

    fn dev(&self) -> u64 {
        self.dev
    }

    fn sync(&self) -> Result<()> {
        self.inodes().iter().map(|inode| inode.write_back()).fold(Ok(()), Result::and)
    }

    fn close(&self) -> Result<()> {
        self.sync()
    }
}

//! 9P2000.L messages (diod's protocol.md, QEMU `hw/9pfs/9p.c`) and the conversation with one
//! server.

use crate::drivers::virtio::ninep::Channel;
use crate::errno::{Errno, Result};
use crate::sync::SpinLock;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering::Relaxed};

/// Numbers of requests; answers have the next one.
pub mod kind {
    pub const STATFS: u8 = 8;
    pub const OPEN: u8 = 12;
    pub const CREATE: u8 = 14;
    pub const SYMLINK: u8 = 16;
    pub const MKNOD: u8 = 18;
    pub const READLINK: u8 = 22;
    pub const GETATTR: u8 = 24;
    pub const SETATTR: u8 = 26;
    pub const XATTRWALK: u8 = 30;
    pub const XATTRCREATE: u8 = 32;
    pub const READDIR: u8 = 40;
    pub const FSYNC: u8 = 50;
    pub const LINK: u8 = 70;
    pub const MKDIR: u8 = 72;
    pub const RENAMEAT: u8 = 74;
    pub const UNLINKAT: u8 = 76;
    pub const VERSION: u8 = 100;
    pub const ATTACH: u8 = 104;
    pub const WALK: u8 = 110;
    pub const READ: u8 = 116;
    pub const WRITE: u8 = 118;
    pub const CLUNK: u8 = 120;
}
const ERROR: u8 = 7;
/// Bytes of a message that are asked for; contents are less by the largest header.
const SIZE_MAX: u32 = 64 << 10;
const IO_HEADER: u32 = 24;
const NO_FID: u32 = u32::MAX;

/// A request being written.
pub struct Message(Vec<u8>);

impl Message {
    pub fn new(kind: u8) -> Message {
        Message(alloc::vec![0, 0, 0, 0, kind, 0, 0])
    }
    pub fn u16(self, value: u16) -> Self {
        self.bytes(&value.to_le_bytes())
    }
    pub fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }
    pub fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }
    pub fn fid(self, fid: &Fid) -> Self {
        self.u32(fid.number)
    }
    /// A string with its length before it; names are shorter than 65,536 bytes.
    pub fn text(self, text: &[u8]) -> Self {
        self.u16(text.len() as u16).bytes(text)
    }
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
}

/// An answer being read. What is cut off is EIO.
pub struct Answer {
    bytes: Vec<u8>,
    at: usize,
}

/// What the server calls a file: type, version, and a number that stays.
#[derive(Clone, Copy)]
pub struct Qid {
    pub path: u64,
}

impl Answer {
    pub fn take(&mut self, len: usize) -> Result<&[u8]> {
        let end = self.at.checked_add(len).ok_or(Errno::EIO)?;
        let bytes = self.bytes.get(self.at..end).ok_or(Errno::EIO)?;
        self.at = end;
        Ok(bytes)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| Errno::EIO)
    }
    pub fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }
    pub fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }
    pub fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }
    pub fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }
    pub fn qid(&mut self) -> Result<Qid> {
        self.take(5)?;
        Ok(Qid { path: self.u64()? })
    }
    pub fn text(&mut self) -> Result<Vec<u8>> {
        let len = self.u16()?;
        self.take(len.into()).map(Vec::from)
    }
    pub fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }
}

/// A conversation with a server.
pub struct Client {
    channel: Arc<Channel>,
    size: u32,
    next_tag: AtomicU16,
    next_fid: AtomicU32,
    /// Handles whose owners are gone; the server is told with the next request.
    dropped: SpinLock<Vec<u32>>,
    /// Numbers that can be used again.
    free: SpinLock<Vec<u32>>,
}

/// A handle on a file of the server.
pub struct Fid {
    client: Arc<Client>,
    pub number: u32,
}

impl Drop for Fid {
    fn drop(&mut self) {
        // Telling the server sleeps, which may not be done here.
        self.client.dropped.lock().push(self.number);
    }
}

impl Client {
    /// Agrees with the server on a version and attaches to the root of the share.
    pub fn attach(channel: Arc<Channel>) -> Result<(Arc<Client>, Fid)> {
        let mut client = Client {
            channel,
            size: SIZE_MAX,
            next_tag: AtomicU16::new(0),
            next_fid: AtomicU32::new(1),
            dropped: SpinLock::new(Vec::new()),
            free: SpinLock::new(Vec::new()),
        };
        let hello = Message::new(kind::VERSION).u32(SIZE_MAX).text(b"9P2000.L");
        let mut answer = client.send(hello, u16::MAX)?;
        client.size = answer.u32()?.min(SIZE_MAX);
        if answer.text()? != b"9P2000.L" || client.size < 4096 + IO_HEADER {
            return Err(Errno::EPROTONOSUPPORT);
        }
        let client = Arc::new(client);
        let root = client.new_fid();
        // As root: who may do what is decided here, by the owners that the server shows.
        let attach =
            Message::new(kind::ATTACH).fid(&root).u32(NO_FID).text(b"root").text(b"/").u32(0);
        client.call(attach)?;
        Ok((client, root))
    }

    /// A number that the server doesn't know yet.
    pub fn new_fid(self: &Arc<Self>) -> Fid {
        let used = self.free.lock().pop();
        let number = used.unwrap_or_else(|| self.next_fid.fetch_add(1, Relaxed));
        Fid { client: self.clone(), number }
    }

    /// Bytes of contents that one message takes.
    pub fn io_size(&self) -> usize {
        (self.size - IO_HEADER) as usize
    }

    /// Asks for something; an error of the server is its errno.
    pub fn call(&self, message: Message) -> Result<Answer> {
        let dropped = core::mem::take(&mut *self.dropped.lock());
        for number in dropped {
            // Nobody could do anything about a failure.
            let _ = self.request(Message::new(kind::CLUNK).u32(number));
            self.free.lock().push(number);
        }
        self.request(message)
    }

    fn request(&self, message: Message) -> Result<Answer> {
        // Fewer are in flight than the queue has places, so numbers in use don't come again.
        let tag = self.next_tag.fetch_add(1, Relaxed) & 0x7fff;
        self.send(message, tag)
    }

    fn send(&self, message: Message, tag: u16) -> Result<Answer> {
        let mut bytes = message.0;
        let kind = bytes[4];
        let len = bytes.len() as u32;
        bytes[..4].copy_from_slice(&len.to_le_bytes());
        bytes[5..7].copy_from_slice(&tag.to_le_bytes());
        let contents = matches!(kind, kind::READ | kind::READDIR | kind::READLINK);
        let room = if contents { self.size } else { 4096 };
        let bytes = self.channel.call(&bytes, room as usize)?;
        let mut answer = Answer { bytes, at: 0 };
        let len = answer.u32()? as usize;
        answer.bytes.truncate(len);
        let found = answer.u8()?;
        if answer.u16()? != tag {
            return Err(Errno::EIO);
        }
        match found {
            ERROR => {
                let number = answer.u32()?;
                Err(if (1..=133).contains(&number) { Errno(number as u16) } else { Errno::EIO })
            }
            found if found == kind + 1 => Ok(answer),
            _ => Err(Errno::EIO),
        }
    }

    /// A new handle on a file below another one, or on the same file.
    pub fn walk(self: &Arc<Self>, from: &Fid, name: Option<&[u8]>) -> Result<(Fid, Option<Qid>)> {
        let fid = self.new_fid();
        let mut walk = Message::new(kind::WALK).fid(from).fid(&fid).u16(name.is_some().into());
        if let Some(name) = name {
            walk = walk.text(name);
        }
        let mut answer = match self.call(walk) {
            Ok(answer) => answer,
            Err(error) => {
                self.never_was(fid);
                return Err(error);
            }
        };
        let count = answer.u16()?;
        if count != u16::from(name.is_some()) {
            self.never_was(fid);
            return Err(Errno::ENOENT);
        }
        let qid = if count > 0 { Some(answer.qid()?) } else { None };
        Ok((fid, qid))
    }

    /// The server doesn't know the handle: its number is free at once.
    pub fn never_was(&self, fid: Fid) {
        let number = fid.number;
        drop(fid);
        self.dropped.lock().retain(|&other| other != number);
        self.free.lock().push(number);
    }

    /// Lets go of a handle at once; what the server says counts.
    pub fn clunk(&self, fid: Fid) -> Result<()> {
        let number = fid.number;
        let result = self.call(Message::new(kind::CLUNK).u32(number));
        self.never_was(fid);
        result.map(drop)
    }
}

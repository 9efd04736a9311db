//! inotify(7).

use super::{Events, PollTable};
use crate::errno::{Errno, Result};
use crate::fs::inode::{dev_major, dev_minor, identity};
use crate::fs::notify::{self, Watcher};
use crate::fs::{File, FileOps, Inode};
use crate::io::{IoDst, put_user};
use crate::map::Sorted;
use crate::setting::Setting;
use crate::sync::{SpinLock, WaitMode, WaitQueue};
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use linux_raw_sys::general::*;

/// Most events that wait to be read (`fs.inotify.max_queued_events`).
pub static MAX_QUEUED: Setting = Setting::new(16_384, 0, i32::MAX as i64);
/// Instances of one user, and watches of all these (`max_user_instances`, `max_user_watches`).
pub static MAX_INSTANCES: Setting = Setting::new(128, 0, i32::MAX as i64);
/// See [`MAX_INSTANCES`].
pub static MAX_WATCHES: Setting = Setting::new(65_536, 0, i32::MAX as i64);
/// Instances and watches of each user that has some.
static USED: SpinLock<Sorted<u32, [usize; 2]>> = SpinLock::new(Sorted::new());
/// Length of `struct inotify_event` without a name.
const HEADER: usize = 16;

/// One event, as it will be read.
#[derive(Clone, PartialEq, Eq)]
struct Record {
    watch: i32,
    mask: u32,
    cookie: u32,
    name: Vec<u8>,
}

impl Record {
    fn padded_name(&self) -> usize {
        // At least one terminator, to a multiple of the header's length.
        if self.name.is_empty() { 0 } else { (self.name.len() + 1).next_multiple_of(HEADER) }
    }

    fn emit(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.padded_name());
        out.extend_from_slice(&self.watch.to_ne_bytes());
        out.extend_from_slice(&self.mask.to_ne_bytes());
        out.extend_from_slice(&self.cookie.to_ne_bytes());
        out.extend_from_slice(&(self.padded_name() as u32).to_ne_bytes());
        out.extend_from_slice(&self.name);
        out.resize(HEADER + self.padded_name(), 0);
        out
    }
}

#[derive(Default)]
struct Watches {
    by_number: Sorted<i32, (Arc<dyn Inode>, u32)>,
    last: i32,
}

/// Counts one more instance (0) or watch (1) of a user, unless there are `most`.
fn charge(user: u32, which: usize, most: &Setting) -> bool {
    let mut used = USED.lock();
    let mut counts = used.get(&user).copied().unwrap_or_default();
    if counts[which] >= most.size() {
        return false;
    }
    counts[which] += 1;
    used.insert(user, counts);
    true
}

fn discharge(user: u32, which: usize, count: usize) {
    let mut used = USED.lock();
    if let Some(counts) = used.get_mut(&user) {
        counts[which] = counts[which].saturating_sub(count);
        if *counts == [0; 2] {
            used.remove(&user);
        }
    }
}

/// A queue of events and the watches that fill it.
pub struct Inotify {
    this: Weak<Inotify>,
    /// Whose it is.
    user: u32,
    records: SpinLock<VecDeque<Record>>,
    watches: SpinLock<Watches>,
    queue: Arc<WaitQueue>,
}

impl Inotify {
    /// An instance of a user, without watches. EMFILE if the user has as many as may be.
    pub fn new(user: u32) -> Result<Arc<Inotify>> {
        if !charge(user, 0, &MAX_INSTANCES) {
            return Err(Errno::EMFILE);
        }
        Ok(Arc::new_cyclic(|this| Inotify {
            this: this.clone(),
            user,
            records: SpinLock::default(),
            watches: SpinLock::default(),
            queue: Arc::default(),
        }))
    }

    /// Watches an inode, or changes what is watched of it (inotify_add_watch(2)). Returns the
    /// watch's number.
    pub fn add(&self, inode: &Arc<dyn Inode>, mask: u32) -> Result<i32> {
        let (number, mask) = {
            let mut watches = self.watches.lock();
            let known =
                watches.by_number.iter().find(|(_, (other, _))| identity(other) == identity(inode));
            let (number, mask) = match known {
                Some(_) if mask & IN_MASK_CREATE != 0 => return Err(Errno::EEXIST),
                Some((&number, &(_, old))) if mask & IN_MASK_ADD != 0 => (number, mask | old),
                Some((&number, _)) => (number, mask),
                None => {
                    let number = watches.last.checked_add(1).ok_or(Errno::ENOSPC)?;
                    if !charge(self.user, 1, &MAX_WATCHES) {
                        return Err(Errno::ENOSPC);
                    }
                    (number, mask)
                }
            };
            watches.last = watches.last.max(number);
            watches.by_number.insert(number, (inode.clone(), mask));
            (number, mask)
        };
        let me: Arc<dyn Watcher> = self.this.upgrade().ok_or(Errno::EBADF)?;
        notify::watch(inode, &me, number, mask);
        Ok(number)
    }

    /// Ends a watch. EINVAL if there is none of that number.
    pub fn remove(&self, number: i32) -> Result<()> {
        let watch = self.watches.lock().by_number.remove(&number);
        let (inode, _) = watch.ok_or(Errno::EINVAL)?;
        discharge(self.user, 1, 1);
        notify::unwatch(&inode, self, number);
        self.push(Record { watch: number, mask: IN_IGNORED, cookie: 0, name: Vec::new() });
        Ok(())
    }

    fn push(&self, record: Record) {
        let mut records = self.records.lock();
        if records.len() >= MAX_QUEUED.size() {
            let overflow = Record { watch: -1, mask: IN_Q_OVERFLOW, cookie: 0, name: Vec::new() };
            if records.back() != Some(&overflow) {
                records.push_back(overflow);
            }
        } else if records.back() != Some(&record) {
            // An event like the last unread one isn't said twice.
            records.push_back(record);
        }
        drop(records);
        self.queue.wake_all(Events::IN | Events::RDNORM);
    }

    /// Takes the next event if it fits in `room` bytes. EINVAL if it doesn't.
    fn take(&self, room: usize) -> Option<Result<Record>> {
        let mut records = self.records.lock();
        let next = records.front()?;
        if HEADER + next.padded_name() > room {
            return Some(Err(Errno::EINVAL));
        }
        records.pop_front().map(Ok)
    }
}

impl Watcher for Inotify {
    fn event(&self, watch: i32, mask: u32, cookie: u32, name: &[u8]) {
        let wanted = self.watches.lock().by_number.get(&watch).map_or(0, |watch| watch.1);
        self.push(Record { watch, mask, cookie, name: name.to_vec() });
        // The watch ends with its file, and after one event if that was asked for.
        if mask & IN_DELETE_SELF != 0 || wanted & IN_ONESHOT != 0 {
            let _ = self.remove(watch);
        }
    }
}

impl Drop for Inotify {
    fn drop(&mut self) {
        let watches = core::mem::take(&mut self.watches.get_mut().by_number);
        for (&number, (inode, _)) in watches.iter() {
            notify::unwatch(inode, self, number);
        }
        discharge(self.user, 1, watches.len());
        discharge(self.user, 0, 1);
    }
}

impl FileOps for Inotify {
    fn asynchronous(&self) -> bool {
        true
    }

    fn details(&self) -> String {
        use core::fmt::Write;
        const SHOWN: u32 = IN_ALL_EVENTS | IN_EXCL_UNLINK | IN_ONESHOT;
        let mut out = String::new();
        for (number, (inode, mask)) in self.watches.lock().by_number.iter() {
            let meta = inode.metadata();
            let dev = dev_major(meta.dev) << 20 | dev_minor(meta.dev);
            let (ino, mask) = (meta.ino, mask & SHOWN);
            // Writing to memory doesn't fail.
            let _ = writeln!(
                out,
                "inotify wd:{number:x} ino:{ino:x} sdev:{dev:x} mask:{mask:x} ignored_mask:0 "
            );
        }
        out
    }

    fn read(&self, file: &File, dst: &mut IoDst<'_>) -> Result<usize> {
        let first = if file.nonblocking() {
            self.take(dst.remaining()).ok_or(Errno::EAGAIN)?
        } else {
            let room = dst.remaining();
            self.queue
                .wait(WaitMode::Interruptible, None, || self.take(room))
                .map_err(|_| Errno::ERESTARTSYS)?
        };
        let mut done = dst.write(&first?.emit())?;
        while let Some(Ok(record)) = self.take(dst.remaining()) {
            done += dst.write(&record.emit())?;
        }
        Ok(done)
    }

    fn poll(&self, _file: &File, table: &mut PollTable<'_>) -> Events {
        table.register(&self.queue);
        if self.records.lock().is_empty() { Events::empty() } else { Events::IN | Events::RDNORM }
    }

    fn ioctl(&self, _file: &File, request: u32, arg: usize) -> Result<usize> {
        if request != linux_raw_sys::ioctl::FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let records = self.records.lock();
        let sum: usize = records.iter().map(|record| HEADER + record.padded_name()).sum();
        drop(records);
        put_user(arg, &(sum as i32))?;
        Ok(0)
    }

    fn inode(&self) -> Arc<dyn Inode> {
        crate::fs::anon::inode()
    }

    fn describe(&self) -> String {
        String::from("anon_inode:inotify")
    }
}

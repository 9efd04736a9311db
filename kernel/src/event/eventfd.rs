//! eventfd(2).

use super::{Events, PollTable};
use crate::errno::{Errno, Result};
use crate::fs::{File, FileOps};
use crate::io::{IoDst, IoSrc};
use crate::sync::{SpinLock, WaitMode, WaitQueue};
use alloc::string::String;
use alloc::sync::Arc;

/// The largest counter value; a write that would exceed it waits.
const MAX: u64 = u64::MAX - 1;

/// A counter that is readable while it isn't zero.
pub struct EventFd {
    count: SpinLock<u64>,
    semaphore: bool,
    queue: Arc<WaitQueue>,
}

impl EventFd {
    /// A counter with a first value; `semaphore` is `EFD_SEMAPHORE`: reads take one instead of all.
    pub fn new(initial: u32, semaphore: bool) -> Arc<EventFd> {
        Arc::new(EventFd {
            count: SpinLock::new(u64::from(initial)),
            semaphore,
            queue: Arc::new(WaitQueue::new()),
        })
    }

    fn try_take(&self) -> Option<u64> {
        let mut count = self.count.lock();
        if *count == 0 {
            return None;
        }
        let taken = if self.semaphore { 1 } else { *count };
        *count -= taken;
        Some(taken)
    }

    fn try_add(&self, value: u64) -> Option<()> {
        let mut count = self.count.lock();
        *count = count.checked_add(value).filter(|&sum| sum <= MAX)?;
        Some(())
    }

    /// Adds without waiting: how kernel-side events are signalled (asynchronous I/O completion).
    /// What writers can't exceed, this can: then poll(2) tells of an overflow.
    pub fn signal(&self, value: u64) {
        {
            let mut count = self.count.lock();
            *count = count.saturating_add(value);
        }
        // One waiter takes the whole count: as on Linux, exclusive ones wake one at a time.
        self.queue.wake_one(Events::IN | Events::RDNORM);
    }

    fn wait<T>(&self, file: &File, mut attempt: impl FnMut() -> Option<T>) -> Result<T> {
        if file.nonblocking() {
            return attempt().ok_or(Errno::EAGAIN);
        }
        self.queue.wait(WaitMode::Interruptible, None, attempt).map_err(|_| Errno::ERESTARTSYS)
    }
}

impl FileOps for EventFd {
    fn details(&self) -> String {
        alloc::format!("eventfd-count: {:16x}\n", *self.count.lock())
    }

    fn read(&self, file: &File, dst: &mut IoDst<'_>) -> Result<usize> {
        if dst.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let value = self.wait(file, || self.try_take())?;
        self.queue.wake_all(Events::OUT | Events::WRNORM);
        if dst.write(&value.to_ne_bytes())? < 8 {
            return Err(Errno::EFAULT);
        }
        Ok(8)
    }

    fn write(&self, file: &File, src: &mut IoSrc<'_>) -> Result<usize> {
        if src.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let mut raw = [0; 8];
        if src.read(&mut raw)? < 8 {
            return Err(Errno::EFAULT);
        }
        let value = u64::from_ne_bytes(raw);
        if value == u64::MAX {
            return Err(Errno::EINVAL);
        }
        self.wait(file, || self.try_add(value))?;
        // One waiter takes the whole count: as on Linux, exclusive ones wake one at a time.
        self.queue.wake_one(Events::IN | Events::RDNORM);
        Ok(8)
    }

    fn poll(&self, _file: &File, table: &mut PollTable<'_>) -> Events {
        table.register(&self.queue);
        let count = *self.count.lock();
        let mut events = Events::empty();
        if count > 0 {
            events |= Events::IN;
        }
        if count < MAX {
            events |= Events::OUT;
        }
        if count > MAX {
            events |= Events::ERR;
        }
        events
    }

    fn inode(&self) -> Arc<dyn crate::fs::Inode> {
        crate::fs::anon::inode()
    }

    fn describe(&self) -> String {
        String::from("anon_inode:[eventfd]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::epoll::{Epoll, EpollFile, Event};
    use linux_raw_sys::general::*;

    fn file(initial: u32, semaphore: bool) -> Arc<File> {
        File::anonymous(EventFd::new(initial, semaphore), O_RDWR | O_NONBLOCK)
    }
    fn read(file: &File) -> Result<u64> {
        let mut raw = [0; 8];
        file.ops.read(file, &mut IoDst::kernel(&mut raw))?;
        Ok(u64::from_ne_bytes(raw))
    }
    fn write(file: &File, value: u64) -> Result<usize> {
        file.ops.write(file, &mut IoSrc::kernel(&value.to_ne_bytes()))
    }

    #[test]
    fn counter_adds_up_and_empties() {
        let fd = file(2, false);
        assert_eq!(write(&fd, 3), Ok(8));
        assert_eq!(read(&fd), Ok(5));
        assert_eq!(read(&fd), Err(Errno::EAGAIN));
        assert_eq!(write(&fd, u64::MAX), Err(Errno::EINVAL));
        assert_eq!(write(&fd, u64::MAX - 1), Ok(8));
        assert_eq!(write(&fd, 1), Err(Errno::EAGAIN));
    }

    #[test]
    fn semaphore_gives_one_at_a_time() {
        let fd = file(2, true);
        assert_eq!((read(&fd), read(&fd), read(&fd)), (Ok(1), Ok(1), Err(Errno::EAGAIN)));
    }

    struct Fixture {
        epoll: Arc<Epoll>,
        file: Arc<File>,
    }
    fn fixture() -> Fixture {
        let epoll = Epoll::new();
        Fixture { file: File::anonymous(Arc::new(EpollFile(epoll.clone())), O_RDWR), epoll }
    }
    impl Fixture {
        fn ctl(&self, op: u32, fd: i32, file: &Arc<File>, events: u32) -> Result<()> {
            self.epoll.control(&self.file, op, fd, file, Event { events, data: fd as u64 })
        }
        fn ready(&self) -> Vec<(u64, u32)> {
            let mut out = Vec::new();
            self.epoll
                .wait(8, Some(0), &mut |event| {
                    out.push((event.data, event.events));
                    Ok(())
                })
                .unwrap();
            out
        }
    }

    #[test]
    fn level_triggered_repeats_and_edge_triggered_does_not() {
        let (poll, level, edge) = (fixture(), file(1, false), file(1, false));
        poll.ctl(EPOLL_CTL_ADD, 1, &level, EPOLLIN).unwrap();
        poll.ctl(EPOLL_CTL_ADD, 2, &edge, EPOLLIN | EPOLLET).unwrap();
        assert_eq!(poll.ready(), [(1, EPOLLIN), (2, EPOLLIN)]);
        assert_eq!(poll.ready(), [(1, EPOLLIN)]);
        write(&edge, 1).unwrap();
        assert_eq!(poll.ready(), [(1, EPOLLIN), (2, EPOLLIN)]);
        read(&level).unwrap();
        assert_eq!(poll.ready(), []);
    }

    #[test]
    fn one_shot_is_silent_until_rearmed() {
        let (poll, fd) = (fixture(), file(1, false));
        poll.ctl(EPOLL_CTL_ADD, 1, &fd, EPOLLIN | EPOLLONESHOT).unwrap();
        assert_eq!(poll.ready().len(), 1);
        write(&fd, 1).unwrap();
        assert_eq!(poll.ready(), []);
        poll.ctl(EPOLL_CTL_MOD, 1, &fd, EPOLLIN | EPOLLONESHOT).unwrap();
        assert_eq!(poll.ready().len(), 1);
    }

    #[test]
    fn closing_a_file_takes_it_out() {
        let (poll, fd) = (fixture(), file(1, false));
        poll.ctl(EPOLL_CTL_ADD, 1, &fd, EPOLLIN).unwrap();
        assert_eq!(poll.ctl(EPOLL_CTL_ADD, 1, &fd, EPOLLIN), Err(Errno::EEXIST));
        drop(fd);
        assert_eq!(poll.ready(), []);
        assert_eq!(poll.epoll.describe_items(), "");
    }

    #[test]
    fn cycles_and_deep_nesting_are_refused() {
        let polls: Vec<Fixture> = (0..7).map(|_| fixture()).collect();
        assert_eq!(polls[0].ctl(EPOLL_CTL_ADD, 9, &polls[0].file, EPOLLIN), Err(Errno::EINVAL));
        for i in 0..4 {
            polls[i + 1].ctl(EPOLL_CTL_ADD, 9, &polls[i].file, EPOLLIN).unwrap();
        }
        assert_eq!(polls[0].ctl(EPOLL_CTL_ADD, 9, &polls[3].file, EPOLLIN), Err(Errno::ELOOP));
        assert_eq!(polls[5].ctl(EPOLL_CTL_ADD, 9, &polls[4].file, EPOLLIN), Err(Errno::ELOOP));
    }

    #[test]
    fn nested_epoll_is_readable_when_its_file_is() {
        let (outer, inner, fd) = (fixture(), fixture(), file(0, false));
        inner.ctl(EPOLL_CTL_ADD, 1, &fd, EPOLLIN).unwrap();
        outer.ctl(EPOLL_CTL_ADD, 2, &inner.file, EPOLLIN).unwrap();
        assert_eq!(outer.ready(), []);
        write(&fd, 1).unwrap();
        assert_eq!(outer.ready(), [(2, EPOLLIN)]);
    }

    #[test]
    fn missing_and_changed_items() {
        let (poll, fd) = (fixture(), file(1, false));
        assert_eq!(poll.ctl(EPOLL_CTL_DEL, 1, &fd, 0), Err(Errno::ENOENT));
        assert_eq!(poll.ctl(EPOLL_CTL_MOD, 1, &fd, 0), Err(Errno::ENOENT));
        poll.ctl(EPOLL_CTL_ADD, 1, &fd, 0).unwrap();
        assert_eq!(poll.ready(), []);
        poll.ctl(EPOLL_CTL_MOD, 1, &fd, EPOLLOUT).unwrap();
        assert_eq!(poll.ready(), [(1, EPOLLOUT)]);
        poll.ctl(EPOLL_CTL_DEL, 1, &fd, 0).unwrap();
        assert_eq!(poll.ready(), []);
    }
}

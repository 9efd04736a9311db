//! Pseudoterminals (pty(7)): a terminal whose other end is a file as well.
//!
//! The slave is an ordinary [`Tty`] whose output is a [`Link`]; the master reads from the link and
//! types into the terminal. Nodes in /dev/pts come and go with masters.

use super::SLAVES;
use super::terminal::{Output, Tty};
use crate::errno::{Errno, Result};
use crate::event::{Events, PollTable};
use crate::fs::inode::{Opened, make_dev, mode::S_IFCHR};
use crate::fs::walk::Resolver;
use crate::fs::{File, FileOps, Path, ops, perm};
use crate::io::{IoDst, IoSrc, get_user, put_user};
use crate::sync::{SpinLock, WaitMode, WaitQueue};
use crate::syscall::install_file;
use crate::task::current;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use linux_raw_sys::general::*;
use linux_raw_sys::ioctl::*;

/// Most pseudoterminals (`/proc/sys/kernel/pty/max`).
pub const MAX: u32 = 4096;
/// Printed bytes that may wait for the master.
const CAPACITY: usize = 64 << 10;
/// The group `tty`, by its number on Debian and its descendants; the mount option `gid=5`.
const TTY_GROUP: u32 = 5;

/// By number. One whose terminal is gone is free.
static PAIRS: SpinLock<Vec<Weak<Tty>>> = SpinLock::new(Vec::new());

#[derive(Default)]
struct Printed {
    data: VecDeque<u8>,
    /// Packet mode (`TIOCPKT`), and what it has to report.
    packet: bool,
    control: u32,
}

/// What lies between the two ends.
struct Link {
    index: u32,
    printed: SpinLock<Printed>,
    /// The master's: something was printed, or read from the terminal.
    queue: Arc<WaitQueue>,
    slaves: AtomicUsize,
    /// The slave has been open: from then on the master sees when nobody has it open.
    used: AtomicBool,
    locked: AtomicBool,
    master: AtomicBool,
}

impl Link {
    fn abandoned(&self) -> bool {
        self.used.load(SeqCst) && self.slaves.load(SeqCst) == 0
    }
}

impl Output for Link {
    fn write(&self, bytes: &[u8]) {
        {
            let mut printed = self.printed.lock();
            let n = bytes.len().min(CAPACITY.saturating_sub(printed.data.len()));
            if n == 0 || printed.data.try_reserve(n).is_err() {
                return;
            }
            printed.data.extend(&bytes[..n]);
        }
        self.queue.wake_all(Events::IN | Events::RDNORM);
    }

    fn room(&self) -> usize {
        CAPACITY.saturating_sub(self.printed.lock().data.len())
    }

    fn discard(&self) {
        self.printed.lock().data.clear();
        self.event(TIOCPKT_FLUSHWRITE);
    }

    fn input_taken(&self) {
        self.queue.wake_all(Events::OUT | Events::WRNORM);
    }

    fn opened(&self) -> Result<()> {
        if self.locked.load(SeqCst) || !self.master.load(SeqCst) {
            return Err(Errno::EIO);
        }
        self.slaves.fetch_add(1, SeqCst);
        self.used.store(true, SeqCst);
        Ok(())
    }

    fn closed(&self) -> bool {
        let last = self.slaves.fetch_sub(1, SeqCst) == 1;
        if last {
            self.queue.wake_all(Events::ALL);
        }
        last
    }

    fn event(&self, bits: u32) {
        {
            let mut printed = self.printed.lock();
            if !printed.packet {
                return;
            }
            // Of two that undo each other the later one counts.
            let undone = match bits {
                TIOCPKT_STOP => TIOCPKT_START,
                TIOCPKT_START => TIOCPKT_STOP,
                TIOCPKT_DOSTOP => TIOCPKT_NOSTOP,
                TIOCPKT_NOSTOP => TIOCPKT_DOSTOP,
                _ => 0,
            };
            printed.control = printed.control & !undone | bits;
        }
        self.queue.wake_all(Events::IN | Events::PRI);
    }
}

/// Opens /dev/ptmx: a new pair. ENOSPC if there are too many.
pub(super) fn open_master() -> Result<Opened> {
    let (link, tty) = {
        let mut pairs = PAIRS.lock();
        let free = pairs.iter().position(|tty| tty.strong_count() == 0);
        let at = free.unwrap_or(pairs.len());
        let index = u32::try_from(at).ok().filter(|&at| at < MAX).ok_or(Errno::ENOSPC)?;
        let link = Arc::new(Link {
            index,
            printed: SpinLock::default(),
            queue: Arc::default(),
            slaves: AtomicUsize::new(0),
            used: AtomicBool::new(false),
            locked: AtomicBool::new(true),
            master: AtomicBool::new(true),
        });
        let tty = Tty::new(make_dev(SLAVES, index), format!("pts/{index}"), link.clone());
        match pairs.get_mut(at) {
            Some(slot) => *slot = Arc::downgrade(&tty),
            None => pairs.push(Arc::downgrade(&tty)),
        }
        (link, tty)
    };
    // From here on closing undoes everything.
    let master = Arc::new(Master { link, tty });
    let name = master.node();
    let resolver = Resolver::kernel()?;
    let node = ops::mknod(&resolver, name.as_bytes(), S_IFCHR | 0o620, 0, master.tty.device)?;
    let uid = current().with_creds(|creds| creds.fsuid);
    ops::chown(&perm::Kernel, &node, Some(uid), Some(TTY_GROUP))?;
    Ok(Opened::Ops(master))
}

/// Opens /dev/pts/N. EIO while it is locked, or once its master is closed.
pub(super) fn open_slave(index: u32, flags: u32, _path: &Path) -> Result<Opened> {
    let tty = PAIRS.lock().get(index as usize).and_then(Weak::upgrade).ok_or(Errno::EIO)?;
    Ok(Opened::Ops(tty.open(flags)?))
}

/// The master side of one open /dev/ptmx.
struct Master {
    link: Arc<Link>,
    tty: Arc<Tty>,
}

impl Master {
    fn node(&self) -> String {
        format!("/dev/pts/{}", self.link.index)
    }

    fn take(&self, dst: &mut [u8]) -> Option<Result<usize>> {
        let mut printed = self.link.printed.lock();
        if dst.is_empty() {
            return Some(Ok(0));
        }
        let mut n = 0;
        if printed.packet {
            let control = core::mem::take(&mut printed.control);
            if control != 0 {
                dst[0] = control as u8;
                return Some(Ok(1));
            }
            // TIOCPKT_DATA
            dst[0] = 0;
            n = 1;
        }
        let start = n;
        while n < dst.len() {
            let Some(byte) = printed.data.pop_front() else { break };
            dst[n] = byte;
            n += 1;
        }
        if n > start {
            return Some(Ok(n));
        }
        self.link.abandoned().then_some(Err(Errno::EIO))
    }
}

impl FileOps for Master {
    fn asynchronous(&self) -> bool {
        true
    }

    fn read(&self, file: &File, dst: &mut IoDst<'_>) -> Result<usize> {
        let mut piece = [0; 1024];
        let len = piece.len().min(dst.remaining());
        let n = if file.nonblocking() {
            self.take(&mut piece[..len]).ok_or(Errno::EAGAIN)??
        } else {
            let taken = || self.take(&mut piece[..len]);
            let waited = self.link.queue.wait(WaitMode::Interruptible, None, taken);
            waited.map_err(|_| Errno::ERESTARTSYS)??
        };
        self.tty.output_ready();
        dst.write(&piece[..n])
    }

    fn write(&self, file: &File, src: &mut IoSrc<'_>) -> Result<usize> {
        let mut piece = [0; 256];
        let mut total = 0;
        while src.remaining() > 0 {
            let n = match src.read(&mut piece) {
                Ok(n) => n,
                Err(error) if total == 0 => return Err(error),
                Err(_) => break,
            };
            let mut rest = &piece[..n];
            while !rest.is_empty() {
                let taken = self.tty.receive(rest);
                total += taken;
                rest = &rest[taken..];
                if rest.is_empty() {
                    break;
                }
                let room = || self.tty.has_room().then_some(());
                let waited = match file.nonblocking() {
                    true => Err(Errno::EAGAIN),
                    false => {
                        let waited = self.link.queue.wait(WaitMode::Interruptible, None, room);
                        waited.map_err(|_| Errno::ERESTARTSYS)
                    }
                };
                match waited {
                    Ok(()) => {}
                    Err(error) if total == 0 => return Err(error),
                    Err(_) => return Ok(total),
                }
            }
        }
        Ok(total)
    }

    fn poll(&self, _file: &File, table: &mut PollTable<'_>) -> Events {
        table.register(&self.link.queue);
        let mut events = Events::empty();
        {
            let printed = self.link.printed.lock();
            if printed.packet && printed.control != 0 {
                events |= Events::PRI | Events::IN | Events::RDNORM;
            }
            if !printed.data.is_empty() {
                events |= Events::IN | Events::RDNORM;
            }
        }
        if self.link.abandoned() {
            events |= Events::HUP;
        }
        if self.tty.has_room() {
            events |= Events::OUT | Events::WRNORM;
        }
        events
    }

    fn ioctl(&self, _file: &File, request: u32, arg: usize) -> Result<usize> {
        match request {
            TIOCGPTN => put_user(arg, &self.link.index)?,
            TIOCSPTLCK => self.link.locked.store(get_user::<i32>(arg)? != 0, SeqCst),
            TIOCGPTLCK => put_user(arg, &i32::from(self.link.locked.load(SeqCst)))?,
            TIOCGPTPEER => {
                // Whatever /dev/pts has become for the caller.
                let flags = arg as u32;
                let path = Resolver::kernel()?.lookup(self.node().as_bytes(), true)?;
                let opened = self.tty.open(flags | O_NOCTTY)?;
                let file = File::named(opened, flags & !(O_CLOEXEC | O_NOCTTY), path);
                return install_file(file, flags & O_CLOEXEC != 0);
            }
            TIOCPKT => {
                let on = get_user::<i32>(arg)? != 0;
                let mut printed = self.link.printed.lock();
                if on && !printed.packet {
                    printed.control = 0;
                }
                printed.packet = on;
            }
            TIOCGPKT => {
                let on = self.link.printed.lock().packet;
                put_user(arg, &i32::from(on))?;
            }
            TIOCSIG => {
                if crate::task::signal::Signal::new(arg as u32).is_none() {
                    return Err(Errno::EINVAL);
                }
                self.tty.signal_foreground(arg as u32);
            }
            FIONREAD => {
                let waiting = self.link.printed.lock().data.len();
                put_user(arg, &(waiting as i32))?;
            }
            _ => return self.tty.ioctl(request, arg, true),
        }
        Ok(0)
    }

    fn inode(&self) -> Arc<dyn crate::fs::Inode> {
        crate::fs::anon::inode()
    }

    fn describe(&self) -> String {
        "/dev/ptmx".into()
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.link.master.store(false, SeqCst);
        self.tty.hang_up();
        // The node may be gone already: it is a file that root can remove.
        if let Ok(resolver) = Resolver::kernel() {
            let _ = ops::unlink(&resolver, self.node().as_bytes());
        }
    }
}

//! A terminal: line discipline, job control, reading and writing.

use super::ldisc::{Effects, LineDiscipline};
use crate::errno::{Errno, Result};
use crate::event::{Events, PollTable};
use crate::fs::{File, FileOps};
use crate::io::{IoDst, IoSrc};
use crate::sync::{SpinLock, WaitError, WaitMode, WaitQueue};
use crate::task::session::{self, Terminal};
use crate::task::signal::{SigInfo, Signal, send_to_pgrp, send_to_process};
use crate::task::{Process, current, family, find_process};
use crate::time::now_ns;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use linux_raw_sys::general::*;

/// Bytes that one printed character may become (a tab as spaces).
const EXPANSION: usize = 8;
/// Bytes moved at once between user memory and the line discipline.
const PIECE: usize = 256;

/// So many tenths of a second from now on, as VTIME counts.
fn tenths(n: u8) -> u64 {
    now_ns().saturating_add(u64::from(n) * 100_000_000)
}

/// Where a terminal's output goes, and what else happens at its other end. Called under spinning
/// locks: no sleeping.
pub trait Output: Send + Sync {
    /// Takes bytes; what there is no room for is lost.
    fn write(&self, bytes: &[u8]);
    /// Bytes it would take now. When room comes up, [`Tty::output_ready`] is called.
    fn room(&self) -> usize;
    /// Drops what the other end has not taken yet.
    fn discard(&self) {}
    /// Input was read: there may be room for more.
    fn input_taken(&self) {}
    /// A description of the terminal was opened. EIO if that isn't possible (any more).
    fn opened(&self) -> Result<()> {
        Ok(())
    }
    /// One was closed; returns whether it was the last.
    fn closed(&self) -> bool {
        false
    }
    /// Something happened that packet mode reports (`TIOCPKT_*`).
    fn event(&self, _bits: u32) {}
}

/// Whose terminal it is.
#[derive(Default)]
pub(super) struct Job {
    /// The session whose controlling terminal this is; 0 for none.
    pub sid: i32,
    /// The foreground process group.
    pub foreground: i32,
    /// The other side is gone for good: reads end, writes fail.
    pub hung_up: bool,
}

/// A terminal.
pub struct Tty {
    pub(super) device: u64,
    name: String,
    pub(super) discipline: SpinLock<LineDiscipline>,
    pub(super) job: SpinLock<Job>,
    /// Rows, columns, and the pixel sizes nobody uses.
    pub(super) size: SpinLock<[u16; 4]>,
    pub(super) queue: Arc<WaitQueue>,
    pub(super) output: Arc<dyn Output>,
    pub(super) this: Weak<Tty>,
}

impl Tty {
    /// A terminal of a device number; `name` is for /proc, without `/dev/`.
    pub fn new(device: u64, name: String, output: Arc<dyn Output>) -> Arc<Tty> {
        Arc::new_cyclic(|this| Tty {
            device,
            name,
            discipline: SpinLock::new(LineDiscipline::new()),
            job: SpinLock::new(Job::default()),
            size: SpinLock::new([0; 4]),
            queue: Arc::new(WaitQueue::new()),
            output,
            this: this.clone(),
        })
    }

    /// Characters from the keyboard; returns how many found room. Task or softirq context.
    pub fn receive(&self, bytes: &[u8]) -> usize {
        let mut signals = Vec::new();
        let mut readable = false;
        let mut taken = 0;
        {
            let mut discipline = self.discipline.lock();
            let stopped = discipline.output_stopped();
            for &byte in bytes {
                if !discipline.has_room() {
                    break;
                }
                let mut effects = Effects::default();
                discipline.typed(byte, &mut effects);
                if effects.signal.is_some() && !discipline.termios.local(NOFLSH) {
                    self.output.discard();
                }
                // What the output can't take of an echo is lost, as on a real line.
                self.output.write(&effects.echo);
                signals.extend(effects.signal);
                readable |= effects.readable;
                taken += 1;
            }
            self.tell_stop(stopped, discipline.output_stopped());
        }
        for signal in signals {
            self.signal_foreground(signal);
        }
        if readable {
            self.queue.wake_all(Events::IN | Events::RDNORM);
        } else {
            // Restarted output, perhaps.
            self.queue.wake_all(Events::OUT | Events::WRNORM);
        }
        taken
    }

    pub(super) fn tell_stop(&self, before: bool, after: bool) {
        if before != after {
            self.output.event(if after { TIOCPKT_STOP } else { TIOCPKT_START });
        }
    }

    /// The output can take bytes again.
    pub fn output_ready(&self) {
        self.queue.wake_all(Events::OUT | Events::WRNORM);
    }

    /// Whether a typed character would find room.
    pub fn has_room(&self) -> bool {
        self.discipline.lock().has_room()
    }

    /// Makes it the controlling terminal of a session leader that does not run yet.
    pub fn adopt(&self, leader: i32) {
        let mut job = self.job.lock();
        (job.sid, job.foreground) = (leader, leader);
    }

    /// The other side is gone: readers see the end, the session's leader and the foreground group
    /// get SIGHUP.
    pub fn hang_up(&self) {
        let (sid, foreground) = {
            let mut job = self.job.lock();
            job.hung_up = true;
            (core::mem::take(&mut job.sid), core::mem::take(&mut job.foreground))
        };
        self.discipline.lock().flush_input();
        if sid != 0 {
            session::release_terminal(sid);
            if let Some(leader) = find_process(sid) {
                for signal in [Signal::HUP, Signal::CONT] {
                    send_to_process(&leader, signal, SigInfo::kernel(signal));
                }
            }
            let _ = send_to_pgrp(foreground, Signal::HUP, SigInfo::kernel(Signal::HUP));
        }
        self.queue.wake_all(Events::ALL);
    }

    /// The window size changed; tells the foreground group.
    pub fn resize(&self, size: [u16; 4]) {
        if core::mem::replace(&mut *self.size.lock(), size) != size {
            self.signal_foreground(u32::from(Signal::WINCH.number()));
        }
    }

    pub(super) fn signal_foreground(&self, signal: u32) {
        let foreground = self.job.lock().foreground;
        if let Some(signal) = Signal::new(signal).filter(|_| foreground != 0) {
            let _ = send_to_pgrp(foreground, signal, SigInfo::kernel(signal));
        }
    }

    pub(super) fn is_controlling(&self) -> bool {
        current().process().terminal().is_some_and(|terminal| terminal.device() == self.device)
    }

    /// Background processes may not touch their terminal: sends `signal` to the caller's group, or
    /// fails with EIO where that would have no effect (termios(3), "Job control").
    pub(super) fn check_foreground(&self, signal: Signal) -> Result<()> {
        let process = current().process();
        let pgid = process.pgid();
        let foreground = self.job.lock().foreground;
        if !self.is_controlling() || foreground == 0 || pgid == foreground {
            return Ok(());
        }
        let (_, ignored, _) = process.signal_summary();
        let unheard = ignored.has(signal) || current().signal_mask().has(signal);
        if signal == Signal::TTOU && unheard {
            return Ok(());
        }
        if unheard || family::lock().is_orphaned(pgid, None) {
            return Err(Errno::EIO);
        }
        let _ = send_to_pgrp(pgid, signal, SigInfo::kernel(signal));
        Err(Errno::ERESTARTSYS)
    }

    /// Makes it the controlling terminal of the caller's session. EPERM unless the caller leads its
    /// session and has none, or if another session has it and `steal` isn't given.
    pub(super) fn make_controlling(&self, steal: bool) -> Result<()> {
        let process = current().process();
        let this = self.this.upgrade().ok_or(Errno::EIO)?;
        if self.is_controlling() && process.sid() == process.pid() {
            return Ok(());
        }
        let previous = {
            let mut job = self.job.lock();
            if job.sid != 0 && !steal {
                return Err(Errno::EPERM);
            }
            let previous = (job.sid, job.foreground);
            (job.sid, job.foreground) = (process.sid(), process.pgid());
            previous
        };
        let acquired = session::acquire_terminal(process, this);
        match acquired {
            Ok(()) if previous.0 != 0 => session::release_terminal(previous.0),
            Ok(()) => {}
            Err(_) => {
                let mut job = self.job.lock();
                (job.sid, job.foreground) = previous;
            }
        }
        acquired
    }

    fn hung_up(&self) -> bool {
        self.job.lock().hung_up
    }

    fn read_some(&self, file: &File, dst: &mut IoDst<'_>) -> Result<usize> {
        self.check_foreground(Signal::TTIN)?;
        let (canonical, min, time) = {
            let termios = self.discipline.lock().termios;
            (termios.local(ICANON), termios.cc[VMIN as usize], termios.cc[VTIME as usize])
        };
        let ready = || {
            let discipline = self.discipline.lock();
            // With VMIN of zero anything, even nothing, will do.
            (discipline.read_ready() || self.hung_up()).then_some(())
        };
        if file.nonblocking() {
            if ready().is_none() {
                return Err(Errno::EAGAIN);
            }
        } else {
            let deadline = match (canonical, min, time) {
                (false, 0, time) => Some(if time == 0 { 0 } else { tenths(time) }),
                _ => None,
            };
            match self.queue.wait(WaitMode::Interruptible, deadline, ready) {
                Ok(()) => {}
                Err(WaitError::TimedOut) => return Ok(0),
                Err(WaitError::Interrupted) => return Err(Errno::ERESTARTSYS),
            }
            // VMIN and VTIME: the time between two bytes is limited.
            if !canonical && min > 1 && time > 0 {
                self.more_input(usize::from(min).min(dst.remaining()), time);
            }
        }
        let result = self.take_input(canonical, dst);
        self.output.input_taken();
        result
    }

    /// Waits for `least` bytes, as long as each comes within VTIME (`time`) of the one before.
    fn more_input(&self, least: usize, time: u8) {
        loop {
            let have = self.discipline.lock().readable();
            if have >= least || self.hung_up() {
                return;
            }
            let more =
                || (self.discipline.lock().readable() > have || self.hung_up()).then_some(());
            if self.queue.wait(WaitMode::Interruptible, Some(tenths(time)), more).is_err() {
                return;
            }
        }
    }

    fn take_input(&self, canonical: bool, dst: &mut IoDst<'_>) -> Result<usize> {
        let mut piece = [0; PIECE];
        let mut total = 0;
        loop {
            let len = piece.len().min(dst.remaining());
            let n = self.discipline.lock().take(&mut piece[..len]);
            if n == 0 {
                return Ok(total);
            }
            total += dst.write(&piece[..n])?;
            // A line is one read; raw input is whatever is there.
            if canonical || dst.remaining() == 0 {
                let more = canonical && n == len && piece[n - 1] != b'\n' && dst.remaining() > 0;
                if !more || self.discipline.lock().readable() == 0 {
                    return Ok(total);
                }
            }
        }
    }

    /// Prints as much of `bytes` as there is room for. `None` if there is none at all.
    fn print(&self, bytes: &[u8]) -> Option<Result<usize>> {
        let mut discipline = self.discipline.lock();
        if self.hung_up() {
            return Some(Err(Errno::EIO));
        }
        let n = bytes.len().min(self.output.room() / EXPANSION);
        if discipline.output_stopped() || n == 0 {
            return None;
        }
        let mut out = Vec::with_capacity(n + 16);
        discipline.print(&bytes[..n], &mut out);
        self.output.write(&out);
        Some(Ok(n))
    }

    fn write_some(&self, file: &File, src: &mut IoSrc<'_>) -> Result<usize> {
        if self.discipline.lock().termios.local(TOSTOP) {
            self.check_foreground(Signal::TTOU)?;
        }
        let mut piece = [0; PIECE];
        let mut total = 0;
        while src.remaining() > 0 {
            let n = match src.read(&mut piece) {
                Ok(n) => n,
                Err(error) if total == 0 => return Err(error),
                Err(_) => break,
            };
            let mut rest = &piece[..n];
            while !rest.is_empty() {
                let written = if file.nonblocking() {
                    self.print(rest).unwrap_or(Err(Errno::EAGAIN))
                } else {
                    let waited =
                        self.queue.wait(WaitMode::Interruptible, None, || self.print(rest));
                    waited.unwrap_or(Err(Errno::ERESTARTSYS))
                };
                match written {
                    Ok(n) => {
                        total += n;
                        rest = &rest[n..];
                    }
                    Err(error) if total == 0 => return Err(error),
                    Err(_) => return Ok(total),
                }
            }
        }
        Ok(total)
    }

    /// Opens the terminal: a session leader without one gets it as its controlling terminal unless
    /// `O_NOCTTY` is given.
    pub fn open(&self, flags: u32) -> Result<Arc<dyn FileOps>> {
        let file = TtyFile::new(self)?;
        let process = current().process();
        let leader = process.sid() == process.pid() && process.pid() != 0;
        if flags & O_NOCTTY == 0 && leader && process.terminal().is_none() {
            // Another session may have it: then it is just a file.
            let _ = self.make_controlling(false);
        }
        Ok(file)
    }
}

impl Terminal for Tty {
    fn device(&self) -> u64 {
        self.device
    }

    fn disowned(&self, ended: bool) {
        let foreground = {
            let mut job = self.job.lock();
            job.sid = 0;
            core::mem::take(&mut job.foreground)
        };
        if foreground != 0 {
            for signal in [Signal::HUP, Signal::CONT].into_iter().take(2 - usize::from(ended)) {
                let _ = send_to_pgrp(foreground, signal, SigInfo::kernel(signal));
            }
        }
    }

    fn foreground(&self) -> i32 {
        self.job.lock().foreground
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// An open terminal.
pub struct TtyFile(pub(super) Arc<Tty>);

impl TtyFile {
    /// A new description's operations. EIO if the other side is gone.
    pub fn new(tty: &Tty) -> Result<Arc<TtyFile>> {
        let tty = tty.this.upgrade().filter(|tty| !tty.hung_up()).ok_or(Errno::EIO)?;
        tty.output.opened()?;
        Ok(Arc::new(TtyFile(tty)))
    }
}

impl FileOps for TtyFile {
    fn asynchronous(&self) -> bool {
        true
    }

    fn read(&self, file: &File, dst: &mut IoDst<'_>) -> Result<usize> {
        self.0.read_some(file, dst)
    }

    fn write(&self, file: &File, src: &mut IoSrc<'_>) -> Result<usize> {
        self.0.write_some(file, src)
    }

    fn poll(&self, _file: &File, table: &mut PollTable<'_>) -> Events {
        table.register(&self.0.queue);
        let input = Events::IN | Events::RDNORM;
        let output = Events::OUT | Events::WRNORM;
        if self.0.hung_up() {
            return input | output | Events::HUP | Events::ERR;
        }
        let mut events = Events::empty();
        let discipline = self.0.discipline.lock();
        if discipline.read_ready() {
            events |= input;
        }
        if !discipline.output_stopped() && self.0.output.room() >= EXPANSION {
            events |= output;
        }
        events
    }

    fn ioctl(&self, _file: &File, request: u32, arg: usize) -> Result<usize> {
        if self.0.hung_up() {
            return Err(Errno::EIO);
        }
        self.0.ioctl(request, arg, false)
    }

    fn inode(&self) -> Arc<dyn crate::fs::Inode> {
        crate::fs::anon::inode()
    }

    fn release(&self, _file: &File) {
        if self.0.output.closed() {
            // Nobody has it open: it is nobody's controlling terminal any more.
            let sid = {
                let mut job = self.0.job.lock();
                job.foreground = 0;
                core::mem::take(&mut job.sid)
            };
            if sid != 0 {
                session::release_terminal(sid);
            }
        }
    }

    fn describe(&self) -> String {
        alloc::format!("/dev/{}", self.0.name)
    }
}

/// Whether `process` may see or change who has the terminal from its other side.
pub(super) fn in_session(process: &Process, sid: i32) -> bool {
    process.sid() == sid
}

//! A terminal: line discipline, job control, and the calls that programs make on it (tty_ioctl(4)).

use super::ldisc::{Effects, LineDiscipline};
use super::termios::Termios;
use crate::errno::{Errno, Result};
use crate::event::{Events, PollTable};
use crate::fs::{File, FileOps};
use crate::io::{IoDst, IoSrc, get_user, put_user};
use crate::sync::{SpinLock, WaitError, WaitMode, WaitQueue};
use crate::task::session::{self, Terminal};
use crate::task::signal::{SigInfo, Signal, send_to_pgrp};
use crate::task::{current, family};
use crate::time::now_ns;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use linux_raw_sys::general::*;
use linux_raw_sys::ioctl::*;

/// Where a terminal's output goes.
pub trait Output: Send + Sync {
    /// Takes bytes; returns how many. Fewer than given means that it is full; [`Tty::output_ready`]
    /// is called when that ends.
    fn write(&self, bytes: &[u8]) -> usize;
    /// Whether it would take a byte now.
    fn ready(&self) -> bool;
    /// Bytes taken that have not left yet.
    fn pending(&self) -> usize {
        0
    }
}

#[derive(Default)]
struct Job {
    /// The session whose controlling terminal this is; 0 for none.
    sid: i32,
    /// The foreground process group.
    foreground: i32,
    /// The other side is gone for good: reads end, writes fail.
    hung_up: bool,
}

/// A terminal.
pub struct Tty {
    device: u64,
    name: String,
    discipline: SpinLock<LineDiscipline>,
    job: SpinLock<Job>,
    /// Rows, columns, and the pixel sizes nobody uses.
    size: SpinLock<[u16; 4]>,
    queue: Arc<WaitQueue>,
    output: Arc<dyn Output>,
    this: Weak<Tty>,
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

    /// Characters from the keyboard. Task or softirq context.
    pub fn receive(&self, bytes: &[u8]) {
        let mut signals = Vec::new();
        let mut readable = false;
        {
            let mut discipline = self.discipline.lock();
            for &byte in bytes {
                let mut effects = Effects::default();
                discipline.typed(byte, &mut effects);
                // What the output can't take of an echo is lost, as on a real line.
                self.output.write(&effects.echo);
                signals.extend(effects.signal);
                readable |= effects.readable;
            }
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
    }

    /// The output can take bytes again.
    pub fn output_ready(&self) {
        self.queue.wake_all(Events::OUT | Events::WRNORM);
    }

    /// The other side is gone: readers see the end, the session gets SIGHUP.
    pub fn hang_up(&self) {
        let (sid, foreground) = {
            let mut job = self.job.lock();
            job.hung_up = true;
            (core::mem::take(&mut job.sid), core::mem::take(&mut job.foreground))
        };
        if sid != 0 {
            session::release_terminal(sid);
            for signal in [Signal::HUP, Signal::CONT] {
                let _ = send_to_pgrp(sid, signal, SigInfo::kernel(signal));
                if foreground != sid {
                    let _ = send_to_pgrp(foreground, signal, SigInfo::kernel(signal));
                }
            }
        }
        self.queue.wake_all(Events::ALL);
    }

    /// The window size changed; tells the foreground group.
    pub fn resize(&self, size: [u16; 4]) {
        if core::mem::replace(&mut *self.size.lock(), size) != size {
            self.signal_foreground(u32::from(Signal::WINCH.number()));
        }
    }

    fn signal_foreground(&self, signal: u32) {
        let foreground = self.job.lock().foreground;
        if let Some(signal) = Signal::new(signal).filter(|_| foreground != 0) {
            let _ = send_to_pgrp(foreground, signal, SigInfo::kernel(signal));
        }
    }

    fn is_controlling(&self) -> bool {
        current().process().terminal().is_some_and(|terminal| terminal.device() == self.device)
    }

    /// Background processes may not touch their terminal: sends `signal` to the caller's group, or
    /// fails with EIO where that would have no effect (termios(3), "Job control").
    fn check_foreground(&self, signal: Signal) -> Result<()> {
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

    fn read_some(&self, file: &File, dst: &mut IoDst<'_>) -> Result<usize> {
        self.check_foreground(Signal::TTIN)?;
        let (canonical, min, time) = {
            let termios = self.discipline.lock().termios;
            (termios.local(ICANON), termios.cc[VMIN as usize], termios.cc[VTIME as usize])
        };
        let ready = || {
            let discipline = self.discipline.lock();
            // With VMIN of zero anything, even nothing, will do.
            (discipline.read_ready() || self.job.lock().hung_up).then_some(())
        };
        let tenths = |n: u8| now_ns().saturating_add(u64::from(n) * 100_000_000);
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
        }
        let mut piece = [0; 256];
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

    fn write_some(&self, file: &File, src: &mut IoSrc<'_>) -> Result<usize> {
        if self.discipline.lock().termios.local(TOSTOP) {
            self.check_foreground(Signal::TTOU)?;
        }
        let mut piece = [0; 256];
        let mut total = 0;
        while src.remaining() > 0 {
            let n = match src.read(&mut piece) {
                Ok(n) => n,
                Err(error) if total == 0 => return Err(error),
                Err(_) => break,
            };
            let mut rest = Vec::with_capacity(n + 16);
            self.discipline.lock().print(&piece[..n], &mut rest);
            let mut rest = &rest[..];
            while !rest.is_empty() {
                let attempt = || {
                    if self.job.lock().hung_up {
                        return Some(Err(Errno::EIO));
                    }
                    if self.discipline.lock().output_stopped() || !self.output.ready() {
                        return None;
                    }
                    Some(Ok(self.output.write(rest))).filter(|written| *written != Ok(0))
                };
                let written = if file.nonblocking() {
                    attempt().unwrap_or(Err(Errno::EAGAIN))
                } else {
                    let waited = self.queue.wait(WaitMode::Interruptible, None, attempt);
                    waited.unwrap_or(Err(Errno::ERESTARTSYS))
                };
                match written {
                    Ok(n) => rest = &rest[n..],
                    Err(error) if total == 0 => return Err(error),
                    Err(_) => return Ok(total),
                }
            }
            total += n;
        }
        Ok(total)
    }

    fn set_termios(&self, request: u32, arg: usize) -> Result<()> {
        self.check_foreground(Signal::TTOU)?;
        let before = self.discipline.lock().termios;
        let new = match request {
            TCSETS2 | TCSETSW2 | TCSETSF2 => {
                Termios::parse(&get_user::<[u8; Termios::SIZE2]>(arg)?, &before)
            }
            _ => Termios::parse(&get_user::<[u8; Termios::SIZE]>(arg)?, &before),
        };
        if matches!(request, TCSETSW | TCSETSF | TCSETSW2 | TCSETSF2) {
            let drained = || (self.output.pending() == 0 || self.job.lock().hung_up).then_some(());
            let waited = self.queue.wait(WaitMode::Interruptible, None, drained);
            waited.map_err(|_| Errno::ERESTARTSYS)?;
        }
        let mut discipline = self.discipline.lock();
        if matches!(request, TCSETSF | TCSETSF2) {
            discipline.flush_input();
        }
        discipline.set_termios(new.ok_or(Errno::EINVAL)?);
        drop(discipline);
        self.queue.wake_all(Events::ALL);
        Ok(())
    }

    fn make_controlling(&self) -> Result<()> {
        let process = current().process();
        let this = self.this.upgrade().ok_or(Errno::EIO)?;
        if self.is_controlling() && process.sid() == process.pid() {
            return Ok(());
        }
        {
            let mut job = self.job.lock();
            if job.sid != 0 {
                return Err(Errno::EPERM);
            }
            (job.sid, job.foreground) = (process.sid(), process.pgid());
        }
        let acquired = session::acquire_terminal(process, this);
        if acquired.is_err() {
            *self.job.lock() = Job::default();
        }
        acquired
    }

    /// Opens the terminal: a session leader without one gets it as its controlling terminal unless
    /// `O_NOCTTY` is given.
    pub fn open(self: &Arc<Self>, flags: u32) -> Result<Arc<dyn FileOps>> {
        let process = current().process();
        let leader = process.sid() == process.pid();
        if flags & O_NOCTTY == 0 && leader && process.terminal().is_none() {
            // Another session may have it: then it is just a file.
            let _ = self.make_controlling();
        }
        Ok(Arc::new(TtyFile(self.clone())))
    }

    fn ioctl(&self, request: u32, arg: usize) -> Result<usize> {
        match request {
            TCGETS => {
                let raw = self.discipline.lock().termios.emit();
                put_user::<[u8; Termios::SIZE]>(arg, raw.first_chunk().ok_or(Errno::EINVAL)?)?;
            }
            TCGETS2 => {
                let raw = self.discipline.lock().termios.emit();
                put_user(arg, &raw)?;
            }
            TCSETS | TCSETSW | TCSETSF | TCSETS2 | TCSETSW2 | TCSETSF2 => {
                self.set_termios(request, arg)?
            }
            TIOCGWINSZ => {
                let size = *self.size.lock();
                put_user(arg, &size)?;
            }
            TIOCSWINSZ => self.resize(get_user(arg)?),
            TIOCGPGRP => {
                if !self.is_controlling() {
                    return Err(Errno::ENOTTY);
                }
                let foreground = self.job.lock().foreground;
                put_user(arg, &foreground)?;
            }
            TIOCSPGRP => {
                if !self.is_controlling() {
                    return Err(Errno::ENOTTY);
                }
                self.check_foreground(Signal::TTOU)?;
                let pgid: i32 = get_user(arg)?;
                if pgid < 0 {
                    return Err(Errno::EINVAL);
                }
                let members = family::lock().group(pgid);
                let member = members.first().ok_or(Errno::ESRCH)?;
                if member.sid() != current().process().sid() {
                    return Err(Errno::EPERM);
                }
                self.job.lock().foreground = pgid;
            }
            TIOCGSID => {
                if !self.is_controlling() {
                    return Err(Errno::ENOTTY);
                }
                let sid = self.job.lock().sid;
                put_user(arg, &sid)?;
            }
            TIOCSCTTY => self.make_controlling()?,
            TIOCNOTTY => {
                if !self.is_controlling() {
                    return Err(Errno::ENOTTY);
                }
                let process = current().process();
                if process.sid() == process.pid() {
                    self.leader_exited();
                }
                session::release_terminal(process.sid());
            }
            TCFLSH => {
                if matches!(arg as u32, TCIFLUSH | TCIOFLUSH) {
                    self.discipline.lock().flush_input();
                } else if arg as u32 != TCOFLUSH {
                    return Err(Errno::EINVAL);
                }
            }
            TCXONC => {
                match arg as u32 {
                    TCOOFF => self.discipline.lock().set_output_stopped(true),
                    TCOON => self.discipline.lock().set_output_stopped(false),
                    TCIOFF | TCION => {}
                    _ => return Err(Errno::EINVAL),
                }
                self.output_ready();
            }
            // Breaks and drains end at once: there is no line that takes time.
            TCSBRK | TCSBRKP | TIOCSBRK | TIOCCBRK => {}
            FIONREAD => put_user(arg, &(self.discipline.lock().readable() as i32))?,
            TIOCOUTQ => put_user(arg, &(self.output.pending() as i32))?,
            _ => return Err(Errno::ENOTTY),
        }
        Ok(0)
    }
}

impl Terminal for Tty {
    fn device(&self) -> u64 {
        self.device
    }

    fn leader_exited(&self) {
        let foreground = {
            let mut job = self.job.lock();
            job.sid = 0;
            core::mem::take(&mut job.foreground)
        };
        if foreground != 0 {
            for signal in [Signal::HUP, Signal::CONT] {
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
pub struct TtyFile(pub Arc<Tty>);

impl FileOps for TtyFile {
    fn read(&self, file: &File, dst: &mut IoDst<'_>) -> Result<usize> {
        self.0.read_some(file, dst)
    }

    fn write(&self, file: &File, src: &mut IoSrc<'_>) -> Result<usize> {
        self.0.write_some(file, src)
    }

    fn poll(&self, _file: &File, table: &mut PollTable<'_>) -> Events {
        table.register(&self.0.queue);
        let mut events = Events::empty();
        if self.0.job.lock().hung_up {
            return Events::IN | Events::OUT | Events::HUP | Events::ERR;
        }
        let discipline = self.0.discipline.lock();
        if discipline.read_ready() {
            events |= Events::IN | Events::RDNORM;
        }
        if !discipline.output_stopped() && self.0.output.ready() {
            events |= Events::OUT | Events::WRNORM;
        }
        events
    }

    fn ioctl(&self, _file: &File, request: u32, arg: usize) -> Result<usize> {
        self.0.ioctl(request, arg)
    }

    fn inode(&self) -> Arc<dyn crate::fs::Inode> {
        crate::fs::anon::inode()
    }

    fn describe(&self) -> String {
        alloc::format!("/dev/{}", self.0.name)
    }
}

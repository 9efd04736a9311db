//! The calls that programs make on a terminal (tty_ioctl(4)).

use super::terminal::{Tty, in_session};
use super::termios::Termios;
use crate::errno::{Errno, Result};
use crate::event::Events;
use crate::io::{get_user, put_user};
use crate::task::creds::cap;
use crate::task::session::{self, Terminal};
use crate::task::signal::Signal;
use crate::task::{current, family};
use linux_raw_sys::general::*;
use linux_raw_sys::ioctl::*;

impl Tty {
    /// ioctl(2) on the terminal; `master`: on the other side of a pseudoterminal, whose holder need
    /// not have it as its controlling terminal to ask about it.
    pub(super) fn ioctl(&self, request: u32, arg: usize, master: bool) -> Result<usize> {
        let mine = master || self.is_controlling();
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
            TIOCGPGRP | TIOCGSID => {
                if !mine {
                    return Err(Errno::ENOTTY);
                }
                let job = self.job.lock();
                let (sid, foreground) = (job.sid, job.foreground);
                drop(job);
                if request == TIOCGSID && sid == 0 {
                    return Err(Errno::ENOTTY);
                }
                put_user(arg, &if request == TIOCGSID { sid } else { foreground })?;
            }
            TIOCSPGRP => self.set_foreground(arg)?,
            TIOCSCTTY => {
                self.make_controlling(arg == 1 && current().capable(cap::SYS_ADMIN))?;
            }
            TIOCNOTTY => {
                if !self.is_controlling() {
                    return Err(Errno::ENOTTY);
                }
                let process = current().process();
                if process.sid() == process.pid() {
                    self.disowned(false);
                    session::release_terminal(process.sid());
                } else {
                    session::drop_terminal(process);
                }
            }
            TCFLSH => self.flush(arg as u32)?,
            TCXONC => self.flow(arg as u32)?,
            // Breaks and drains end at once: what is printed has left.
            TCSBRK | TCSBRKP | TIOCSBRK | TIOCCBRK => {}
            FIONREAD => put_user(arg, &(self.discipline.lock().readable() as i32))?,
            TIOCOUTQ => put_user(arg, &0i32)?,
            _ => return Err(Errno::ENOTTY),
        }
        Ok(0)
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
        let new = new.ok_or(Errno::EINVAL)?;
        let mut discipline = self.discipline.lock();
        if matches!(request, TCSETSF | TCSETSF2) {
            discipline.flush_input();
        }
        let stopped = discipline.output_stopped();
        discipline.set_termios(new);
        self.tell_stop(stopped, discipline.output_stopped());
        drop(discipline);
        // Packet mode tells whether ^S and ^Q stop the output (TIOCPKT in tty_ioctl(4)).
        let flows = |termios: &Termios| {
            let chars = (termios.control(VSTART), termios.control(VSTOP));
            termios.iflag & IXON != 0 && chars == (Some(17), Some(19))
        };
        if flows(&before) != flows(&new) {
            self.output.event(if flows(&new) { TIOCPKT_DOSTOP } else { TIOCPKT_NOSTOP });
        }
        self.output.input_taken();
        self.queue.wake_all(Events::ALL);
        Ok(())
    }

    fn set_foreground(&self, arg: usize) -> Result<()> {
        self.check_foreground(Signal::TTOU).map_err(|error| match error {
            Errno::EIO => Errno::ENOTTY,
            other => other,
        })?;
        let sid = self.job.lock().sid;
        if !self.is_controlling() || !in_session(current().process(), sid) {
            return Err(Errno::ENOTTY);
        }
        let pgid: i32 = get_user(arg)?;
        if pgid < 0 {
            return Err(Errno::EINVAL);
        }
        let members = family::lock().group(pgid);
        let member = members.first().ok_or(Errno::ESRCH)?;
        if member.sid() != sid {
            return Err(Errno::EPERM);
        }
        self.job.lock().foreground = pgid;
        Ok(())
    }

    fn flush(&self, which: u32) -> Result<()> {
        self.check_foreground(Signal::TTOU)?;
        if which > TCIOFLUSH {
            return Err(Errno::EINVAL);
        }
        if which != TCOFLUSH {
            self.discipline.lock().flush_input();
            self.output.event(TIOCPKT_FLUSHREAD);
            self.output.input_taken();
        }
        if which != TCIFLUSH {
            self.output.discard();
            self.output_ready();
        }
        Ok(())
    }

    fn flow(&self, action: u32) -> Result<()> {
        self.check_foreground(Signal::TTOU)?;
        match action {
            TCOOFF | TCOON => {
                let mut discipline = self.discipline.lock();
                let stopped = discipline.output_stopped();
                discipline.set_output_stopped(action == TCOOFF);
                self.tell_stop(stopped, action == TCOOFF);
            }
            // Sends the stop or start character to the other side, if there is one.
            TCIOFF | TCION => {
                let index = if action == TCIOFF { VSTOP } else { VSTART };
                let termios = self.discipline.lock().termios;
                if let Some(byte) = termios.control(index) {
                    self.output.write(&[byte]);
                }
            }
            _ => return Err(Errno::EINVAL),
        }
        self.output_ready();
        Ok(())
    }
}

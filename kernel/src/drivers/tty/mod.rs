//! Terminals: the line discipline, settings, the console as a terminal, and pseudoterminals.

pub mod console;
mod ioctl;
pub mod ldisc;
pub mod pty;
pub mod terminal;
pub mod termios;

pub use terminal::Tty;

use crate::errno::{Errno, Result};
use crate::fs::Path;
use crate::fs::devices::register_char;
use crate::fs::inode::Opened;
use crate::task::current;
use terminal::TtyFile;

/// Major numbers: terminals by role, and the slaves of pseudoterminals.
const ROLES: u32 = 5;
const SLAVES: u32 = 136;

/// Announces the drivers of /dev/tty, /dev/console, /dev/ptmx and /dev/pts. Once, at boot.
pub fn init() {
    register_char(ROLES, 0..=2, open_role);
    register_char(SLAVES, 0..=pty::MAX - 1, pty::open_slave);
}

fn open_role(minor: u32, flags: u32, path: &Path) -> Result<Opened> {
    match minor {
        0 => {
            let terminal = current().process().terminal().ok_or(Errno::ENXIO)?;
            let tty: &Tty = terminal.as_any().downcast_ref().ok_or(Errno::ENXIO)?;
            Ok(Opened::Ops(TtyFile::new(tty)?))
        }
        1 => console::open(flags, path),
        _ => pty::open_master(),
    }
}

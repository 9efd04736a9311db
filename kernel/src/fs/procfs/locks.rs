//! /proc/locks, and the locks in /proc/PID/fdinfo (proc_locks(5), lslocks(8)).

use crate::errno::Result;
use crate::fs::inode::{dev_major, dev_minor};
use crate::fs::locks::{self, END, Kind, Listed};
use crate::fs::pseudo::{Key, Text};
use crate::fs::{FdTable, File};
use crate::say;

pub fn locks(_key: &Key, out: &mut Text) -> Result<()> {
    lines(locks::list(None), "", out);
    Ok(())
}

/// Those that a descriptor holds.
pub fn of_descriptor(file: &File, table: &FdTable, out: &mut Text) {
    let held = locks::list(Some((file, table))).into_iter().filter(|lock| !lock.waiting);
    lines(held, "lock:\t", out);
}

fn lines(listed: impl IntoIterator<Item = Listed>, lead: &str, out: &mut Text) {
    let mut number = 0;
    for Listed { kind, waiting, record, inode } in listed {
        number += u32::from(!waiting);
        let wait = if waiting { " ->" } else { "" };
        let kind = match kind {
            Kind::Flock => "FLOCK  ADVISORY ",
            Kind::Posix => "POSIX  ADVISORY ",
            Kind::Description => "OFDLCK ADVISORY ",
            Kind::Lease { breaking: false } => "LEASE  ACTIVE   ",
            Kind::Lease { breaking: true } => "LEASE  BREAKING ",
        };
        let mode = if record.write { "WRITE" } else { "READ " };
        let meta = inode.metadata();
        let (major, minor) = (dev_major(meta.dev), dev_minor(meta.dev));
        say!(out, "{lead}{number}:{wait} {kind} {mode} {} ", record.pid);
        say!(out, "{major:02x}:{minor:02x}:{} {} ", meta.ino, record.start);
        match record.end {
            END => say!(out, "EOF\n"),
            end => say!(out, "{end}\n"),
        }
    }
}

//! /proc (proc(5)): processes, and the numbers that applications read of the system.

mod cpuinfo;
mod net;
mod sys;
mod system;

use super::inode::FileSystem;
use super::pseudo::{Dir, Entry, Kind, PseudoFs, entry};
use alloc::sync::Arc;

pub use system::RELEASE;

const PROC_MAGIC: u64 = 0x9fa0;

/// A new procfs.
pub fn filesystem() -> Arc<dyn FileSystem> {
    let fs = PseudoFs::new("proc", PROC_MAGIC, &ROOT, 0);
    fs.share()
}

static EMPTY: Dir = Dir::fixed(&[]);

static ROOT: Entry = entry(
    "",
    Kind::Dir(&Dir {
        entries: &[
            entry("bus", Kind::Dir(&EMPTY)),
            entry("cgroups", Kind::Const(system::CGROUPS)),
            entry("cmdline", Kind::Text(system::cmdline)),
            entry("cpuinfo", Kind::Text(cpuinfo::cpuinfo)),
            entry("devices", Kind::Const(system::DEVICES)),
            entry("diskstats", Kind::Text(system::diskstats)),
            entry("filesystems", Kind::Const(system::FILESYSTEMS)),
            entry("fs", Kind::Dir(&EMPTY)),
            entry("interrupts", Kind::Text(system::interrupts)),
            entry("irq", Kind::Dir(&EMPTY)),
            entry("loadavg", Kind::Text(system::loadavg)),
            entry("locks", Kind::Const("")),
            entry("meminfo", Kind::Text(system::meminfo)),
            entry("misc", Kind::Const("")),
            entry("modules", Kind::Const("")),
            entry("mounts", Kind::Link(|_| Ok(b"self/mounts".to_vec()))),
            entry("net", Kind::Link(|_| Ok(b"self/net".to_vec()))),
            entry("partitions", Kind::Text(system::partitions)),
            entry("stat", Kind::Text(system::stat)),
            entry("swaps", Kind::Const("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n")),
            entry("sys", Kind::Dir(&sys::ROOT)),
            entry("sysvipc", Kind::Dir(&EMPTY)),
            entry("timer_list", Kind::Const("")),
            entry("uptime", Kind::Text(system::uptime)),
            entry("version", Kind::Text(system::version)),
            entry("vmstat", Kind::Text(system::vmstat)),
            entry("zoneinfo", Kind::Const("")),
        ],
        changing: None,
    }),
);

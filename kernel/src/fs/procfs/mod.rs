//! /proc (proc(5)): processes, and the numbers that applications read of the system.

mod config;
mod cpuinfo;
mod ipc;
mod locks;
mod maps;
mod mounts;
mod net;
mod process;
mod sys;
mod system;

use super::FileType;
use super::inode::FileSystem;
use super::pseudo::{Changing, Dir, Emit, Entry, Key, Kind, PseudoFs, entry};
use crate::errno::{Errno, Result};
use crate::task::current;
use alloc::format;
use alloc::sync::Arc;

pub use process::of_directory;
pub use system::{FILESYSTEMS, RELEASE};

const PROC_MAGIC: u64 = 0x9fa0;

/// A new procfs.
pub fn filesystem() -> Arc<dyn FileSystem> {
    let mut fs = PseudoFs::new("proc", PROC_MAGIC, &ROOT, 0);
    fs.owner = process::owner;
    fs.opens = process::opens;
    fs.alive = process::alive;
    fs.share()
}

static EMPTY: Dir = Dir::fixed(&[]);

static ROOT: Entry = entry(
    "",
    Kind::Dir(&Dir {
        entries: &[
            entry("self", Kind::Link(|_| Ok(format!("{}", current().pid()).into_bytes()))),
            entry(
                "thread-self",
                Kind::Link(|_| {
                    let task = current();
                    Ok(format!("{}/task/{}", task.pid(), task.tid()).into_bytes())
                }),
            ),
            entry("bus", Kind::Dir(&EMPTY)),
            entry("cgroups", Kind::Const(system::CGROUPS)),
            entry("cmdline", Kind::Text(system::cmdline)),
            entry("config.gz", Kind::Text(config::config)),
            entry("cpuinfo", Kind::Text(cpuinfo::cpuinfo)),
            entry("devices", Kind::Const(system::DEVICES)),
            entry(
                "dock2uni",
                Kind::Dir(&Dir::fixed(&[entry("counters", Kind::Text(system::counters))])),
            ),
            entry("diskstats", Kind::Text(system::diskstats)),
            entry("filesystems", Kind::Const(system::FILESYSTEMS)),
            entry("fs", Kind::Dir(&EMPTY)),
            entry("interrupts", Kind::Text(system::interrupts)),
            entry("irq", Kind::Dir(&EMPTY)),
            entry("key-users", Kind::Text(ipc::key_users)),
            entry("keys", Kind::Text(ipc::keys)),
            entry("loadavg", Kind::Text(system::loadavg)),
            entry("locks", Kind::Text(locks::locks)),
            entry("meminfo", Kind::Text(system::meminfo)),
            entry("misc", Kind::Const("")),
            entry("modules", Kind::Const("")),
            entry("mounts", Kind::Link(|_| Ok(b"self/mounts".to_vec()))),
            entry("net", Kind::Link(|_| Ok(b"self/net".to_vec()))),
            entry("partitions", Kind::Text(system::partitions)),
            entry("stat", Kind::Text(system::stat)),
            entry("swaps", Kind::Const("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n")),
            entry("sys", Kind::Dir(&sys::ROOT)),
            entry("sysvipc", Kind::Dir(&ipc::SYSVIPC)),
            entry("timer_list", Kind::Const("")),
            entry("uptime", Kind::Text(system::uptime)),
            entry("version", Kind::Text(system::version)),
            entry("vmstat", Kind::Text(system::vmstat)),
            entry("zoneinfo", Kind::Const("")),
        ],
        changing: Some(Changing { find: find_process, list: list_processes }),
    }),
);

fn number(name: &[u8]) -> Option<i32> {
    super::pseudo::numbered("", name).and_then(|number| i32::try_from(number).ok())
}

fn find_process(_key: &Key, name: &[u8]) -> Option<(Key, &'static Entry)> {
    let number = number(name)?;
    // A thread's number works, too, though only processes are listed: it shows that thread.
    let key = match crate::task::find_process(number) {
        Some(_) => Key { pid: number, ..Key::default() },
        None => Key { pid: crate::task::find_task(number)?.pid(), tid: number, ..Key::default() },
    };
    Some((key, &process::PROCESS))
}

fn list_processes(_key: &Key, from: u64, emit: Emit<'_>) {
    for pid in super::hooks::pids() {
        let next = pid as u64 + 1;
        if next > from && !emit(next, format!("{pid}").as_bytes(), FileType::Directory) {
            return;
        }
    }
}

/// The error of an entry whose process has ended.
const GONE: Errno = Errno::ESRCH;

/// Changes a setting by the name that sysctl(8) has for it. ENOENT if there is none that can be changed.
pub fn set_sysctl(name: &str, value: &str) -> Result<()> {
    let entry = sysctl(name).filter(|entry| entry.can_be_set()).ok_or(Errno::ENOENT)?;
    entry.set(&Key::default(), value.as_bytes())
}

/// The file below /proc/sys that a name is for.
fn sysctl(name: &str) -> Option<&'static Entry> {
    let mut dir = &sys::ROOT;
    let (parents, last) = name.rsplit_once('.').unwrap_or(("", name));
    let find = |dir: &'static Dir, name: &str| dir.entries.iter().find(|entry| entry.name == name);
    for part in parents.split('.').filter(|part| !part.is_empty()) {
        match &find(dir, part)?.kind {
            Kind::Dir(inner) => dir = inner,
            _ => return None,
        }
    }
    find(dir, last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::vec::Vec;
    use dock2uni_format::settings::SETTABLE;

    /// The names of what can be written, in any order.
    fn settable(dir: &'static Dir, prefix: &str, out: &mut Vec<String>) {
        for entry in dir.entries {
            let name = alloc::format!("{prefix}{}", entry.name);
            match &entry.kind {
                Kind::Dir(inner) => settable(inner, &alloc::format!("{name}."), out),
                _ if entry.can_be_set() => out.push(name),
                _ => {}
            }
        }
    }

    #[test]
    fn the_converter_knows_what_can_be_set() {
        let mut names = Vec::new();
        settable(&sys::ROOT, "", &mut names);
        names.sort();
        assert_eq!(names, SETTABLE);
        assert!(SETTABLE.iter().all(|name| sysctl(name).is_some()));
        assert_eq!(set_sysctl("kernel.ostype", "x"), Err(Errno::ENOENT));
        assert_eq!(set_sysctl("net.core", "1"), Err(Errno::ENOENT));
    }
}

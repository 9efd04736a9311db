//! System calls: which ones the programs can make, and which of them the kernel serves.

mod scan;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::OnceLock;

use dock2uni_format::syscalls::{name, number};

use self::scan::Code;
use super::elf::{Closure, How, Libc};
use super::root::{Root, base, show};

/// Longest file whose code is scanned, in bytes; beyond, the report says that it was not.
const MAX_FILE: usize = 192 << 20;

/// The calls that can be made.
#[derive(Debug, Default)]
pub struct Calls {
    /// Calls that can be reached, with the files that make them.
    pub reachable: BTreeMap<String, BTreeSet<String>>,
    /// Files with call sites whose number is not a constant, and how many.
    pub indirect: BTreeMap<String, usize>,
    /// Files that were not scanned.
    pub skipped: Vec<String>,
}

/// Whether the kernel serves a call, by its own table.
pub fn is_implemented(name: &str) -> bool {
    static CALLS: OnceLock<HashSet<&'static str>> = OnceLock::new();
    let calls = CALLS
        .get_or_init(|| include_str!(concat!(env!("OUT_DIR"), "/calls.txt")).lines().collect());
    calls.contains(name)
}

/// All calls that the kernel serves, by number.
pub fn implemented() -> Vec<&'static str> {
    let mut names: Vec<&str> =
        include_str!(concat!(env!("OUT_DIR"), "/calls.txt")).lines().collect();
    names.sort_by_key(|name| number(name));
    names
}

/// Scans the closure's code. In a library, what can be reached from the symbols that others
/// import counts; in a program, all of it.
pub fn scan(closure: &Closure, root: &Root<'_>) -> Calls {
    let mut calls = Calls::default();
    let imported: BTreeSet<&str> = closure
        .members
        .values()
        .flat_map(|member| &member.object.imports)
        .map(String::as_str)
        .collect();
    for (path, member) in &closure.members {
        let shown = show(path);
        if member.size > MAX_FILE as u64 {
            calls.skipped.push(shown);
            continue;
        }
        let Some(found) = root.file(path) else { continue };
        let bytes = root.contents(&found.node, MAX_FILE).unwrap_or_default();
        let code = Code::read(&bytes, &member.object);
        let whole = matches!(member.how, How::Start | How::Interpreter | How::Extension)
            && Libc::of_interpreter(&shown) == Libc::Glibc;
        let sites = if whole { code.all() } else { code.reachable(&member.object, &imported) };
        for number in sites.numbers {
            let Some(name) = name(number as usize) else { continue };
            calls.reachable.entry(name.to_owned()).or_default().insert(shown.clone());
        }
        if sites.unknown > 0 {
            calls.indirect.insert(shown, sites.unknown);
        }
    }
    calls
}

/// Calls that Docker's default seccomp profile refuses to containers without added capabilities
/// (docs.docker.com, "Seccomp security profiles for Docker"), or that Linux has no longer. What runs
/// there does without them.
const REFUSED_IN_CONTAINERS: &[&str] = &[
    "_sysctl",
    "acct",
    "add_key",
    "bpf",
    "clock_settime",
    "create_module",
    "delete_module",
    "fanotify_init",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "get_kernel_syms",
    "get_mempolicy",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "mbind",
    "mount_setattr",
    "move_mount",
    "move_pages",
    "name_to_handle_at",
    "nfsservctl",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pivot_root",
    "query_module",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "request_key",
    "set_mempolicy",
    "setns",
    "settimeofday",
    "swapoff",
    "swapon",
    "uselib",
    "userfaultfd",
    "vhangup",
];

/// Whether no ordinary container may make a call either.
pub fn is_refused_in_containers(name: &str) -> bool {
    REFUSED_IN_CONTAINERS.binary_search(&name).is_ok()
}

/// Whether a file is many programs in one, of which few are used.
pub fn is_multicall(path: &str) -> bool {
    matches!(base(path.as_bytes()), b"busybox" | b"toybox" | b"coreutils")
}

/// Whether a file is a C library or loader, which holds wrappers of calls that nobody may use.
pub fn is_libc(path: &str) -> bool {
    let name = show(base(path.as_bytes()));
    name.starts_with("libc.so")
        || name.starts_with("libc-")
        || name.starts_with("ld-")
        || name.starts_with("libpthread")
        || name.starts_with("librt")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_containers_are_refused_is_sorted_and_real() {
        assert!(REFUSED_IN_CONTAINERS.is_sorted());
        for name in REFUSED_IN_CONTAINERS {
            assert!(dock2uni_format::syscalls::number(name).is_some(), "{name}");
        }
        assert!(is_refused_in_containers("keyctl") && !is_refused_in_containers("read"));
    }

    #[test]
    fn the_table_is_the_kernel_s() {
        assert!(is_implemented("openat") && is_implemented("rt_sigreturn"));
        assert!(!is_implemented("create_module") && !is_implemented("tuxcall"));
        assert_eq!(implemented()[0], "read");
        assert!(implemented().iter().all(|name| number(name).is_some()), "{:?}", implemented());
    }
}

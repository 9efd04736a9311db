//! Where core files go (core(5), "Naming of core dump files").

use crate::errno::{Errno, Result};
use crate::sync::SpinLock;
use alloc::vec::Vec;
use core::sync::atomic::AtomicI64;

/// Longest pattern in bytes.
const MAX: usize = 127;

/// `/proc/sys/kernel/core_pattern`; the default is `core` in the process's directory.
static PATTERN: SpinLock<Option<Vec<u8>>> = SpinLock::new(None);
/// `/proc/sys/kernel/core_uses_pid`.
pub static USES_PID: AtomicI64 = AtomicI64::new(0);

/// The present pattern.
pub fn get() -> Vec<u8> {
    PATTERN.lock().clone().unwrap_or_else(|| b"core".to_vec())
}

/// Changes it. EINVAL for a program that is to read the file: there is nobody who would start it.
pub fn set(pattern: &[u8]) -> Result<()> {
    if pattern.first() == Some(&b'|') {
        crate::error!("core_pattern: core files are written to files, not to programs");
        return Err(Errno::EINVAL);
    }
    let pattern = pattern[..pattern.len().min(MAX)].to_vec();
    let old = PATTERN.lock().replace(pattern);
    drop(old);
    Ok(())
}

/// What a pattern may name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// `%p`
    pub pid: i32,
    /// `%i`
    pub tid: i32,
    /// `%u`, `%g`
    pub ids: [u32; 2],
    /// `%s`
    pub signal: u8,
    /// `%t`, in seconds.
    pub time: u64,
    /// `%c`
    pub limit: u64,
    /// `%e`: the name of the thread.
    pub comm: Vec<u8>,
    /// `%E`: the program file.
    pub program: Vec<u8>,
    /// `%h`
    pub host: Vec<u8>,
}

/// The name that a pattern makes; empty if it wants no file.
pub fn expand(pattern: &[u8], names: &Names, uses_pid: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let mut had_pid = false;
    let mut rest = pattern;
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        // A single `%` at the end is dropped, and so is a letter that means nothing.
        let [kind, after @ ..] = rest else { break };
        rest = after;
        let mut number = |value: u64| out.extend_from_slice(alloc::format!("{value}").as_bytes());
        match kind {
            b'%' => out.push(b'%'),
            b'p' | b'P' => {
                had_pid = true;
                number(names.pid as u64);
            }
            b'i' | b'I' => number(names.tid as u64),
            b'u' => number(names.ids[0].into()),
            b'g' => number(names.ids[1].into()),
            b'd' => number(1),
            b's' => number(names.signal.into()),
            b't' => number(names.time),
            b'c' => number(names.limit),
            b'h' => text(&mut out, &names.host),
            b'e' => text(&mut out, &names.comm),
            b'f' => {
                let name = names.program.rsplit(|&byte| byte == b'/').next();
                text(&mut out, name.unwrap_or_default());
            }
            b'E' => text(&mut out, &names.program),
            _ => {}
        }
    }
    if uses_pid && !had_pid && !out.is_empty() {
        out.extend_from_slice(alloc::format!(".{}", names.pid).as_bytes());
    }
    out
}

/// Adds a name that leads nowhere else than the pattern says.
fn text(out: &mut Vec<u8>, name: &[u8]) {
    let start = out.len();
    out.extend(name.iter().map(|&byte| if byte == b'/' { b'!' } else { byte }));
    if matches!(&out[start..], b"." | b"..") {
        out[start..].fill(b'!');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_what_ended() {
        let names = Names {
            pid: 12,
            tid: 13,
            ids: [1000, 100],
            signal: 11,
            time: 1_700_000_000,
            limit: u64::MAX,
            comm: b"a/b".to_vec(),
            program: b"/usr/bin/prog".to_vec(),
            host: b"..".to_vec(),
        };
        let name = |pattern: &str, uses_pid| {
            alloc::string::String::from_utf8(expand(pattern.as_bytes(), &names, uses_pid)).unwrap()
        };
        assert_eq!(name("core", false), "core");
        assert_eq!(name("core", true), "core.12");
        assert_eq!(name("core-%p", true), "core-12");
        assert_eq!(name("/data/%e.%i.%s.%t%%", false), "/data/a!b.13.11.1700000000%");
        assert_eq!(name("%E %f %u:%g %h %z%", false), "!usr!bin!prog prog 1000:100 !! ");
        assert_eq!(name("", true), "");
    }
}

//! Process accounting (acct(2), acct(5)): a record for each process that ends.

use super::Process;
use crate::errno::Result;
use crate::fs::File;
use crate::io::IoSrc;
use crate::sync::SpinLock;
use crate::time::{now_ns, realtime_ns};
use alloc::sync::Arc;
use core::sync::atomic::Ordering::Relaxed;

/// Units of times in a record, per second.
const HZ: u64 = 100;
const TICK: u64 = 1_000_000_000 / HZ;
/// `AFORK`, `AXSIG`
const FORKED: u8 = 1;
const KILLED: u8 = 16;
/// Version 3, in little endian.
const VERSION: u8 = 3;

/// Where records go.
static FILE: SpinLock<Option<Arc<File>>> = SpinLock::new(None);

/// Starts to write records to a file, or stops.
pub fn set(file: Option<Arc<File>>) {
    let old = core::mem::replace(&mut *FILE.lock(), file);
    drop(old);
}

/// `comp_t`: thirteen bits, and three for an exponent of eight.
fn compressed(mut value: u64) -> u16 {
    let mut exponent = 0;
    let mut round = 0;
    while value >= 1 << 13 {
        round = value >> 2 & 1;
        value >>= 3;
        exponent += 1;
    }
    value += round;
    if value >= 1 << 13 {
        value >>= 3;
        exponent += 1;
    }
    if exponent > 7 { u16::MAX } else { (exponent << 13) as u16 + value as u16 }
}

/// The bits of a `float`.
fn float(value: u64) -> u32 {
    let Some(top) = value.checked_ilog2() else { return 0 };
    let fraction = if top > 23 { value >> (top - 23) } else { value << (23 - top) };
    (top + 127) << 23 | fraction as u32 & 0x7f_ffff
}

/// A process has ended with this wait status; its last thread has not gone yet.
pub fn process_exited(process: &Process, status: i32) {
    let Some(file) = FILE.lock().clone() else { return };
    // A full disk, or whatever keeps it from being written, is nobody's trouble here.
    let _ = write(&file, &record(process, status));
}

fn write(file: &File, record: &[u8]) -> Result<()> {
    file.ops.write_at(file, 0, &mut IoSrc::kernel(record)).map(drop)
}

/// `struct acct_v3`
fn record(process: &Process, status: i32) -> [u8; 64] {
    let task = super::current();
    let (uid, gid) = task.with_creds(|creds| (creds.uid, creds.gid));
    let usage = process.usage();
    let spent = now_ns().saturating_sub(process.start_ns.load(Relaxed));
    let begin = realtime_ns().saturating_sub(spent) / 1_000_000_000;
    let killed = if status & 0x7f != 0 { KILLED } else { 0 };
    let forked = if process.did_exec.load(Relaxed) { 0 } else { FORKED };
    let mut out = [0; 64];
    (out[0], out[1]) = (forked | killed, VERSION);
    let words = [
        status as u32,
        uid,
        gid,
        process.pid() as u32,
        process.ppid() as u32,
        begin as u32,
        float(spent / TICK),
    ];
    for (slot, word) in out[4..32].chunks_exact_mut(4).zip(words) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    let (user, system) = (usage.user_ns / TICK, usage.system_ns / TICK);
    let rest = [user, system, usage.max_rss, 0, 0, usage.minor_faults, usage.major_faults, 0];
    for (slot, value) in out[32..48].chunks_exact_mut(2).zip(rest) {
        slot.copy_from_slice(&compressed(value).to_le_bytes());
    }
    let name = task.comm().0;
    let len = name.len().min(16);
    out[48..48 + len].copy_from_slice(&name[..len]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_acct_has_them() {
        for value in [0, 1, 5, 100, 8191, 65_536, 1 << 22, 123_456_789] {
            let packed = u64::from(compressed(value));
            let unpacked = (packed & 0x1fff) << ((packed >> 13 & 7) * 3);
            assert!(unpacked.abs_diff(value) <= value / 1024, "{value}: {unpacked}");
            let as_float = f32::from_bits(float(value));
            assert!((as_float - value as f32).abs() <= value as f32 / 1e6, "{value}: {as_float}");
        }
        assert_eq!(compressed(u64::MAX), u16::MAX);
    }
}

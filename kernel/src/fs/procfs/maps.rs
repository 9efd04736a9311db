//! What /proc/PID shows of a process's memory.

use super::GONE;
use super::process::{check_access, find, process};
use crate::errno::{Errno, Result};
use crate::fs::inode::Opened;
use crate::fs::pseudo::{Key, Text};

/// Sizes of an address space in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sizes {
    pub virtual_bytes: u64,
    pub resident_bytes: u64,
    pub shared_bytes: u64,
    pub text_bytes: u64,
    pub data_bytes: u64,
    pub stack_bytes: u64,
    pub locked_bytes: u64,
}

pub fn sizes(key: &Key) -> Result<Sizes> {
    let _ = find(key)?;
    Ok(Sizes::default())
}

pub fn maps(key: &Key, _out: &mut Text) -> Result<()> {
    check_access(key).map(drop)
}

pub fn smaps(key: &Key, _out: &mut Text) -> Result<()> {
    check_access(key).map(drop)
}

pub fn smaps_rollup(key: &Key, _out: &mut Text) -> Result<()> {
    check_access(key).map(drop)
}

pub fn auxv(key: &Key, _out: &mut Text) -> Result<()> {
    check_access(key).map(drop)
}

pub fn cmdline(key: &Key, _out: &mut Text) -> Result<()> {
    let _ = process(key)?;
    Ok(())
}

pub fn environ(key: &Key, _out: &mut Text) -> Result<()> {
    check_access(key).map(drop)
}

pub fn open_mem(key: &Key, _flags: u32) -> Result<Opened> {
    check_access(key)?;
    let _ = GONE;
    Err(Errno::EIO)
}

//! Memory policies (mbind(2), set_mempolicy(2), get_mempolicy(2)) on a machine of one node.
//!
//! Every page comes from node 0 whatever a policy says, so a policy is checked and, for a thread,
//! remembered, but a mapping's own isn't.

use crate::arch::PAGE_SIZE;
use crate::errno::{Errno, Result};
use crate::io::{get_user, put_user};
use crate::task::current;
use linux_raw_sys::general::CAP_SYS_NICE;

// linux/mempolicy.h
const MPOL_DEFAULT: u32 = 0;
const MPOL_PREFERRED: u32 = 1;
const MPOL_BIND: u32 = 2;
const MPOL_INTERLEAVE: u32 = 3;
const MPOL_LOCAL: u32 = 4;
const MPOL_PREFERRED_MANY: u32 = 5;
const MPOL_F_NUMA_BALANCING: u32 = 1 << 13;
const MPOL_F_RELATIVE_NODES: u32 = 1 << 14;
const MPOL_F_STATIC_NODES: u32 = 1 << 15;
const MPOL_F_NODE: u32 = 1 << 0;
const MPOL_F_ADDR: u32 = 1 << 1;
const MPOL_F_MEMS_ALLOWED: u32 = 1 << 2;
const MPOL_MF_STRICT: u32 = 1 << 0;
const MPOL_MF_MOVE: u32 = 1 << 1;
const MPOL_MF_MOVE_ALL: u32 = 1 << 2;

/// Bits of the longest node mask that is looked at: a page.
const MAX_MASK: usize = PAGE_SIZE * 8;

/// A policy as [`crate::task::Task::memory_policy`] holds it: the mode and its flags, and above
/// them whether it names node 0.
fn policy(mode: u32, nodes: bool) -> u32 {
    mode | u32::from(nodes) << 16
}

/// Whether a node mask of `max` bits (one more than counts, as Linux has it) names node 0. EINVAL
/// for nodes that can't be.
fn node_mask(addr: usize, max: usize) -> Result<bool> {
    let bits = max.saturating_sub(1);
    if addr == 0 || bits == 0 {
        return Ok(false);
    }
    if bits > MAX_MASK {
        return Err(Errno::EINVAL);
    }
    let mut first = false;
    for word in 0..bits.div_ceil(64) {
        let mut value: u64 = get_user(addr + word * 8)?;
        let left = bits - word * 64;
        if left < 64 {
            value &= (1 << left) - 1;
        }
        if word == 0 {
            first = value & 1 != 0;
            value &= !1;
        }
        if value != 0 {
            return Err(Errno::EINVAL);
        }
    }
    Ok(first)
}

/// The policy that a mode with its flags and a node mask make. EINVAL as set_mempolicy(2) says.
fn checked(mode: u32, nodes: bool) -> Result<u32> {
    const ANCHORED: u32 = MPOL_F_STATIC_NODES | MPOL_F_RELATIVE_NODES;
    let flags = mode & (ANCHORED | MPOL_F_NUMA_BALANCING);
    let balances_unbound = flags & MPOL_F_NUMA_BALANCING != 0 && mode & !flags != MPOL_BIND;
    if flags & ANCHORED == ANCHORED || balances_unbound {
        return Err(Errno::EINVAL);
    }
    let fits = match mode & !flags {
        MPOL_DEFAULT => !nodes && flags == 0,
        MPOL_LOCAL => !nodes && flags & ANCHORED == 0,
        // Without nodes: where the thread runs.
        MPOL_PREFERRED if !nodes && flags & ANCHORED == 0 => return Ok(policy(MPOL_LOCAL, false)),
        MPOL_PREFERRED | MPOL_BIND | MPOL_INTERLEAVE | MPOL_PREFERRED_MANY => nodes,
        _ => false,
    };
    if fits { Ok(policy(mode, nodes)) } else { Err(Errno::EINVAL) }
}

/// set_mempolicy(2)
pub fn set_mempolicy(mode: u32, mask: usize, max: usize) -> Result<usize> {
    current().set_memory_policy(checked(mode, node_mask(mask, max)?)?);
    Ok(0)
}

/// mbind(2)
pub fn mbind(
    start: usize,
    len: usize,
    mode: u32,
    mask: usize,
    max: usize,
    flags: u32,
) -> Result<usize> {
    let nodes = node_mask(mask, max)?;
    if flags & !(MPOL_MF_STRICT | MPOL_MF_MOVE | MPOL_MF_MOVE_ALL) != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & MPOL_MF_MOVE_ALL != 0 && !current().capable(CAP_SYS_NICE) {
        return Err(Errno::EPERM);
    }
    let len = len.checked_next_multiple_of(PAGE_SIZE).ok_or(Errno::EINVAL)?;
    let end = start.checked_add(len).ok_or(Errno::EINVAL)?;
    if !start.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    checked(mode, nodes)?;
    if !is_mapped(start, end) {
        return Err(Errno::EFAULT);
    }
    Ok(0)
}

fn is_mapped(start: usize, end: usize) -> bool {
    current().with_mm(|space| space.is_mapped(start, end)).unwrap_or(false)
}

/// get_mempolicy(2)
pub fn get_mempolicy(
    mode: usize,
    mask: usize,
    max: usize,
    addr: usize,
    flags: u32,
) -> Result<usize> {
    if flags & !(MPOL_F_NODE | MPOL_F_ADDR | MPOL_F_MEMS_ALLOWED) != 0 || mask != 0 && max == 0 {
        return Err(Errno::EINVAL);
    }
    let own = current().memory_policy();
    let (value, nodes) = match flags {
        MPOL_F_MEMS_ALLOWED => (MPOL_DEFAULT, true),
        _ if flags & MPOL_F_MEMS_ALLOWED != 0 => return Err(Errno::EINVAL),
        _ if flags & MPOL_F_ADDR != 0 => {
            if addr.checked_add(1).is_none_or(|end| !is_mapped(addr, end)) {
                return Err(Errno::EFAULT);
            }
            // With MPOL_F_NODE the node of the page, without it the mapping's policy: 0 both.
            (0, false)
        }
        _ if addr != 0 => return Err(Errno::EINVAL),
        // The node that comes next in turn.
        MPOL_F_NODE if own & 0xff == MPOL_INTERLEAVE => (0, true),
        MPOL_F_NODE => return Err(Errno::EINVAL),
        _ => (own & 0xffff, own >> 16 != 0),
    };
    if mode != 0 {
        put_user(mode, &value)?;
    }
    if mask != 0 {
        let words = (max - 1).div_ceil(64);
        if words * 8 > PAGE_SIZE {
            return Err(Errno::EINVAL);
        }
        for word in 0..words {
            put_user(mask + word * 8, &u64::from(word == 0 && nodes))?;
        }
    }
    Ok(0)
}

//! What the system is called, what it has, and random bytes.

use crate::arch::{PAGE_SIZE, cpu};
use crate::errno::{Errno, Result};
use crate::fs::hooks;
use crate::fs::procfs::RELEASE;
use crate::io::{IoDst, get_user_slice, put_user, put_user_slice};
use crate::task::creds::cap;
use crate::task::current;
use crate::time::{SECOND, now_ns};
use crate::uts;
use linux_raw_sys::general::{GRND_INSECURE, GRND_NONBLOCK, GRND_RANDOM};

/// Bytes of each field of `struct utsname`.
const FIELD: usize = 65;

/// uname(2).
pub fn uname(to: usize) -> Result<usize> {
    let mut out = [0; 6 * FIELD];
    let host = uts::HOST.get();
    let domain = uts::DOMAIN.get();
    let fields: [&[u8]; 6] =
        [b"Linux", &host, RELEASE.as_bytes(), b"#1 SMP PREEMPT_DYNAMIC", b"x86_64", &domain];
    for (slot, field) in out.chunks_exact_mut(FIELD).zip(fields) {
        slot[..field.len()].copy_from_slice(field);
    }
    put_user_slice(to, &out)?;
    Ok(0)
}

fn set_name(name: &uts::Name, from: usize, len: i32) -> Result<usize> {
    if !current().capable(cap::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let len = usize::try_from(len).ok().filter(|&len| len <= uts::MAX).ok_or(Errno::EINVAL)?;
    let mut bytes = [0; uts::MAX];
    get_user_slice(from, &mut bytes[..len])?;
    name.set(&bytes[..len])?;
    Ok(0)
}

/// sethostname(2).
pub fn sethostname(from: usize, len: i32) -> Result<usize> {
    set_name(&uts::HOST, from, len)
}

/// setdomainname(2).
pub fn setdomainname(from: usize, len: i32) -> Result<usize> {
    set_name(&uts::DOMAIN, from, len)
}

/// sysinfo(2).
pub fn sysinfo(to: usize) -> Result<usize> {
    let stat = hooks::memory_stat();
    let page = PAGE_SIZE as u64;
    let mut processes = 0u64;
    crate::task::for_each_process(|process| processes += process.threads().len().max(1) as u64);
    // uptime, three loads, ram: total, free, shared, buffers; swap: total, free; tasks; high
    // memory; unit.
    let mut out = [0u64; 14];
    out[0] = now_ns() / SECOND;
    // Fixed point with 16 bits after it.
    for (slot, load) in out[1..4].iter_mut().zip(hooks::load_average()) {
        *slot = (load << 16) / 100;
    }
    out[4] = stat.total * page;
    out[5] = stat.free * page;
    out[6] = stat.shared * page;
    out[10] = processes.min(u64::from(u16::MAX));
    out[13] = 1;
    put_user(to, &out)?;
    Ok(0)
}

/// getrandom(2): the generator is seeded before the first program runs, so no flag makes a
/// difference.
pub fn getrandom(to: usize, len: usize, flags: u32) -> Result<usize> {
    let known = GRND_NONBLOCK | GRND_RANDOM | GRND_INSECURE;
    if flags & !known != 0 || flags & (GRND_RANDOM | GRND_INSECURE) == GRND_RANDOM | GRND_INSECURE {
        return Err(Errno::EINVAL);
    }
    let len = len.min(i32::MAX as usize);
    let mut dst = IoDst::user(to, len)?;
    let mut piece = [0; 256];
    while dst.remaining() > 0 {
        let n = dst.remaining().min(piece.len());
        crate::random::fill(&mut piece[..n]);
        match dst.write(&piece[..n]) {
            Ok(_) => {}
            Err(error) if dst.done() == 0 => return Err(error),
            Err(_) => break,
        }
        if current().wait_disturbed(crate::sync::WaitMode::Interruptible) && dst.done() >= 256 {
            break;
        }
    }
    Ok(dst.done())
}

/// getcpu(2).
pub fn getcpu(cpu_to: usize, node_to: usize) -> Result<usize> {
    if cpu_to != 0 {
        put_user(cpu_to, &(cpu::id() as u32))?;
    }
    if node_to != 0 {
        put_user(node_to, &0u32)?;
    }
    Ok(0)
}

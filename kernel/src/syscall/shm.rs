//! System V shared memory: shmget(2), shmat(2), shmdt(2), shmctl(2).

use crate::arch::PAGE_SIZE;
use crate::errno::{Errno, Result};
use crate::io::{get_user, put_user};
use crate::ipc::with_caller;
use crate::mm::shm::{self, Info};
use crate::mm::{MapFlags, Prot};
use crate::task::current;

const IPC_CREAT: u32 = 0o1000;
const IPC_EXCL: u32 = 0o2000;
const SHM_HUGETLB: u32 = 0o4000;
const SHM_RDONLY: u32 = 0o10000;
const SHM_RND: u32 = 0o20000;
const SHM_REMAP: u32 = 0o40000;
const SHM_EXEC: u32 = 0o100000;
const IPC_RMID: u32 = 0;
const IPC_SET: u32 = 1;
const IPC_STAT: u32 = 2;
const IPC_INFO: u32 = 3;
const SHM_LOCK: u32 = 11;
const SHM_UNLOCK: u32 = 12;
const SHM_STAT: u32 = 13;
const SHM_INFO: u32 = 14;
const SHM_STAT_ANY: u32 = 15;

/// shmget(2)
pub fn shmget(key: i32, size: usize, flags: u32) -> Result<usize> {
    if flags & SHM_HUGETLB != 0 {
        // No pool of huge pages.
        return Err(Errno::ENOMEM);
    }
    let (create, exclusive) = (flags & IPC_CREAT != 0, flags & IPC_EXCL != 0);
    with_caller(|caller| shm::get(key, size, create, exclusive, flags & 0o777, caller))
        .map(|id| id as usize)
}

/// shmat(2)
pub fn shmat(id: i32, addr: usize, flags: u32) -> Result<usize> {
    let mut addr = addr;
    if !addr.is_multiple_of(PAGE_SIZE) {
        if flags & SHM_RND == 0 {
            return Err(Errno::EINVAL);
        }
        addr -= addr % PAGE_SIZE;
    }
    if flags & SHM_REMAP != 0 && addr == 0 {
        return Err(Errno::EINVAL);
    }
    let (mut prot, mut wanted) = (Prot::READ, 4);
    if flags & SHM_RDONLY == 0 {
        prot |= Prot::WRITE;
        wanted |= 2;
    }
    if flags & SHM_EXEC != 0 {
        prot |= Prot::EXEC;
        wanted |= 1;
    }
    let (file, cache, size) = with_caller(|caller| shm::attach(id, wanted, caller))?;
    let mut map_flags = MapFlags::SHARED;
    if flags & SHM_REMAP != 0 {
        map_flags |= MapFlags::FIXED;
    } else if addr != 0 {
        map_flags |= MapFlags::FIXED_NOREPLACE;
    }
    let may = if flags & SHM_RDONLY == 0 { Prot::all() } else { Prot::READ | Prot::EXEC };
    let at = current()
        .with_mm(|space| space.mmap(addr, size, prot, may, map_flags, Some((cache, Some(file), 0))))
        .unwrap_or(Err(Errno::EFAULT));
    // Linux reports a taken place as an invalid address.
    at.map_err(|errno| if errno == Errno::EEXIST { Errno::EINVAL } else { errno })
}

/// shmdt(2)
pub fn shmdt(addr: usize) -> Result<usize> {
    if !addr.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    let detached = current()
        .with_mm(|space| space.unmap_object(addr, shm::is_segment))
        .unwrap_or(Err(Errno::EINVAL))?;
    shm::detached(detached, current().pid());
    Ok(0)
}

/// `struct shmid64_ds` of x86-64.
fn put_stat(buf: usize, info: &Info) -> Result<()> {
    let words: [u64; 14] = [
        u64::from(info.key as u32) | u64::from(info.uid) << 32,
        u64::from(info.gid) | u64::from(info.cuid) << 32,
        u64::from(info.cgid) | u64::from(info.mode) << 32,
        // Sequence number and padding.
        0,
        0,
        0,
        info.size as u64,
        info.atime as u64,
        info.dtime as u64,
        info.ctime as u64,
        u64::from(info.cpid as u32) | u64::from(info.lpid as u32) << 32,
        info.attached as u64,
        0,
        0,
    ];
    put_user(buf, &words)
}

/// shmctl(2)
pub fn shmctl(id: i32, command: u32, buf: usize) -> Result<usize> {
    /// `IPC_64`: glibc sets it for some calls on other machines.
    const IPC_64: u32 = 0x100;
    match command & !IPC_64 {
        IPC_RMID => with_caller(|caller| shm::remove(id, caller)).map(|()| 0),
        IPC_STAT => {
            put_stat(buf, &with_caller(|caller| shm::stat(id, caller))?)?;
            Ok(0)
        }
        IPC_SET => {
            let words: [u32; 6] = get_user(buf)?;
            let [_key, uid, gid, _cuid, _cgid, mode] = words;
            with_caller(|caller| shm::set(id, uid, gid, mode, caller)).map(|()| 0)
        }
        SHM_STAT | SHM_STAT_ANY => {
            let (id, info) =
                with_caller(|caller| shm::stat_slot(id, (command == SHM_STAT).then_some(caller)))?;
            put_stat(buf, &info)?;
            Ok(id as usize)
        }
        SHM_LOCK | SHM_UNLOCK => {
            let lock = command & !IPC_64 == SHM_LOCK;
            with_caller(|caller| shm::set_locked(id, lock, caller)).map(|()| 0)
        }
        IPC_INFO => {
            let highest = shm::totals().highest;
            let [bytes, segments, pages] = [&shm::MAX_BYTES, &shm::MAX_SEGMENTS, &shm::MAX_PAGES]
                .map(|setting| setting.get() as u64);
            // shmmax, shmmin, shmmni, shmseg, shmall and four words of padding.
            let info: [u64; 9] = [bytes, 1, segments, segments, pages, 0, 0, 0, 0];
            put_user(buf, &info)?;
            Ok(highest as usize)
        }
        SHM_INFO => {
            let all = shm::totals();
            let [count, pages, resident] =
                [all.segments, all.pages, all.resident].map(|n| n as u64);
            // used_ids (and padding), shm_tot, shm_rss, shm_swp, swap_attempts, swap_successes.
            put_user(buf, &[count, pages, resident, 0, 0, 0])?;
            Ok(all.highest as usize)
        }
        _ => Err(Errno::EINVAL),
    }
}

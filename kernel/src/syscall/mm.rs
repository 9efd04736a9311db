//! Memory: mmap(2) and its relatives, memfd_create(2), process_vm_readv(2).

use crate::arch::PAGE_SIZE;
use crate::errno::{Errno, Result};
use crate::fs::File;
use crate::fs::memfs::MemFs;
use crate::fs::mount::Flags;
use crate::io::{get_iovecs, get_user_str, put_user_slice};
use crate::mm::{AddressSpace, Advice, FileMapping, MapFlags, PageCache, Prot, Seals};
use crate::task::{current, find_process};
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general::*;

/// Calls `f` with the caller's address space.
fn with_space<R>(f: impl FnOnce(&AddressSpace) -> Result<R>) -> Result<R> {
    // Only kernel threads have none, and they make no system calls.
    current().with_mm(f).unwrap_or(Err(Errno::EFAULT))
}

/// Protection of mmap(2) and mprotect(2). EINVAL for unknown bits.
fn prot_arg(prot: u32) -> Result<Prot> {
    const OTHER: u32 = PROT_SEM;
    u8::try_from(prot & !OTHER).ok().and_then(Prot::from_bits).ok_or(Errno::EINVAL)
}

/// mmap(2)
pub fn mmap(addr: usize, len: usize, prot: u32, flags: u32, fd: i32, offset: u64) -> Result<usize> {
    // Unknown protection bits are ignored here, as Linux does.
    let prot = Prot::from_bits_truncate(prot as u8);
    if !offset.is_multiple_of(PAGE_SIZE as u64) {
        return Err(Errno::EINVAL);
    }
    let shared = match flags & MAP_TYPE {
        MAP_PRIVATE => false,
        MAP_SHARED => true,
        MAP_SHARED_VALIDATE if flags & MAP_ANONYMOUS == 0 => {
            let known = MapFlags::all().bits() | MAP_DENYWRITE | MAP_EXECUTABLE | MAP_HUGETLB;
            if flags & !known & !MAP_TYPE != 0 {
                return Err(Errno::EOPNOTSUPP);
            }
            true
        }
        _ => return Err(Errno::EINVAL),
    };
    // There is no pool of huge pages, as where none is configured.
    if flags & MAP_HUGETLB != 0 && flags & MAP_ANONYMOUS != 0 {
        return Err(Errno::ENOMEM);
    }
    const INTERNAL: MapFlags = MapFlags::MAIN_STACK.union(MapFlags::VDSO).union(MapFlags::MAY_LOCK);
    let mut map_flags = MapFlags::from_bits_truncate(flags & !MAP_TYPE) - INTERNAL;
    map_flags |= if shared { MapFlags::SHARED } else { MapFlags::PRIVATE };
    if current().capable(CAP_IPC_LOCK) {
        map_flags |= MapFlags::MAY_LOCK;
    } else if map_flags.contains(MapFlags::LOCKED)
        && current().process().rlimit(RLIMIT_MEMLOCK) == 0
    {
        return Err(Errno::EPERM);
    }
    if map_flags.contains(MapFlags::GROWSDOWN) && shared {
        return Err(Errno::EINVAL);
    }
    if map_flags.contains(MapFlags::ANONYMOUS) {
        return with_space(|space| space.mmap(addr, len, prot, Prot::all(), map_flags, None));
    }
    let file = current().with_files(|files| files.get(fd))?;
    if len == 0 {
        return Err(Errno::EINVAL);
    }
    let (may, mapping) = file_mapping(file, prot, shared, offset)?;
    with_space(|space| space.mmap(addr, len, prot, may, map_flags, Some(mapping)))
}

/// What mmap(2) may do with an open file: the protections it can ever have, and the mapping.
fn file_mapping(
    file: Arc<File>,
    prot: Prot,
    shared: bool,
    offset: u64,
) -> Result<(Prot, FileMapping)> {
    let mut may = Prot::all();
    if !file.readable() {
        return Err(Errno::EACCES);
    }
    if shared && !file.writable() {
        may -= Prot::WRITE;
    }
    let noexec = file.path.as_ref().is_some_and(|path| path.mount.flags().contains(Flags::NOEXEC));
    if noexec {
        may -= Prot::EXEC;
    }
    let cache = file.ops.mapping(&file)?;
    if shared && cache.seals().intersects(Seals::WRITE | Seals::FUTURE_WRITE) {
        if prot.contains(Prot::WRITE) {
            return Err(Errno::EPERM);
        }
        may -= Prot::WRITE;
    }
    if !may.contains(prot) {
        return Err(if noexec && prot.contains(Prot::EXEC) { Errno::EPERM } else { Errno::EACCES });
    }
    Ok((may, (cache, Some(file), offset)))
}

/// munmap(2)
pub fn munmap(addr: usize, len: usize) -> Result<usize> {
    with_space(|space| space.munmap(addr, len)).map(|()| 0)
}

/// mprotect(2)
pub fn mprotect(addr: usize, len: usize, prot: u32) -> Result<usize> {
    const GROWS: u32 = PROT_GROWSDOWN | PROT_GROWSUP;
    if !addr.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    let grows_down = prot & PROT_GROWSDOWN != 0;
    if prot & PROT_GROWSUP != 0 {
        return Err(Errno::EINVAL);
    }
    let prot = prot_arg(prot & !GROWS)?;
    with_space(|space| {
        let mut start = addr;
        if grows_down {
            start = space.grows_down_start(addr).ok_or(Errno::EINVAL)?;
        }
        let len = len.checked_add(addr - start).ok_or(Errno::ENOMEM)?;
        space.mprotect(start, len, prot)
    })
    .map(|()| 0)
}

/// pkey_mprotect(2): there are no protection keys, so only key -1 (none) is valid.
pub fn pkey_mprotect(addr: usize, len: usize, prot: u32, key: i32) -> Result<usize> {
    if key != -1 { Err(Errno::EINVAL) } else { mprotect(addr, len, prot) }
}

/// brk(2): where the end of the heap is afterwards.
pub fn brk(addr: usize) -> Result<usize> {
    with_space(|space| Ok(space.brk(addr)))
}

/// mremap(2)
pub fn mremap(old: usize, old_len: usize, len: usize, flags: u32, new: usize) -> Result<usize> {
    with_space(|space| space.mremap(old, old_len, len, flags, new))
}

/// madvise(2)
pub fn madvise(addr: usize, len: usize, advice: i32) -> Result<usize> {
    let advice = Advice::from_raw(advice)?;
    with_space(|space| space.madvise(addr, len, advice)).map(|()| 0)
}

/// msync(2)
pub fn msync(addr: usize, len: usize, flags: u32) -> Result<usize> {
    let both = MS_ASYNC | MS_SYNC;
    if flags & !(both | MS_INVALIDATE) != 0 || flags & both == both {
        return Err(Errno::EINVAL);
    }
    let files = with_space(|space| space.msync(addr, len, flags & MS_INVALIDATE != 0))?;
    if flags & MS_SYNC != 0 {
        for file in files {
            file.ops.sync(&file, false)?;
        }
    }
    Ok(0)
}

/// mincore(2)
pub fn mincore(addr: usize, len: usize, vec: usize) -> Result<usize> {
    let mut at = vec;
    // Collected piece by piece: storing may fault, which must not happen with the maps locked.
    with_space(|space| {
        space.mincore(addr, len, |bytes| {
            put_user_slice(at, bytes)?;
            at += bytes.len();
            Ok(())
        })
    })?;
    Ok(0)
}

/// mlock(2)
pub fn mlock(addr: usize, len: usize) -> Result<usize> {
    mlock2(addr, len, 0)
}

/// mlock2(2)
pub fn mlock2(addr: usize, len: usize, flags: u32) -> Result<usize> {
    const ON_FAULT: u32 = 1;
    if flags & !ON_FAULT != 0 {
        return Err(Errno::EINVAL);
    }
    let privileged = current().capable(CAP_IPC_LOCK);
    with_space(|space| space.mlock(addr, len, flags & ON_FAULT != 0, privileged)).map(|()| 0)
}

/// munlock(2)
pub fn munlock(addr: usize, len: usize) -> Result<usize> {
    with_space(|space| space.munlock(addr, len)).map(|()| 0)
}

/// mlockall(2)
pub fn mlockall(flags: u32) -> Result<usize> {
    if flags == 0 || flags & !(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0 || flags == MCL_ONFAULT
    {
        return Err(Errno::EINVAL);
    }
    let privileged = current().capable(CAP_IPC_LOCK);
    let (now, later) = (flags & MCL_CURRENT != 0, flags & MCL_FUTURE != 0);
    with_space(|space| space.mlock_all(now, later, privileged)).map(|()| 0)
}

/// munlockall(2)
pub fn munlockall() -> Result<usize> {
    with_space(AddressSpace::munlock_all).map(|()| 0)
}

/// memfd_create(2)
pub fn memfd_create(name: usize, flags: u32) -> Result<usize> {
    const NAME_MAX: usize = 249;
    let known = MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL | MFD_EXEC;
    // The size of huge pages, as a power of two.
    let size =
        if flags & MFD_HUGETLB != 0 { MFD_HUGETLB | MFD_HUGE_MASK << MFD_HUGE_SHIFT } else { 0 };
    if flags & !(known | size) != 0
        || flags & (MFD_EXEC | MFD_NOEXEC_SEAL) == MFD_EXEC | MFD_NOEXEC_SEAL
    {
        return Err(Errno::EINVAL);
    }
    let name = get_user_str(name, NAME_MAX + 1, Errno::EINVAL)?;
    if flags & MFD_HUGETLB != 0 {
        // No pool of huge pages.
        return Err(Errno::ENOMEM);
    }
    let mut shown = Vec::from(b"/memfd:");
    shown.extend_from_slice(&name);
    let (uid, gid) = current().with_creds(|creds| (creds.fsuid, creds.fsgid));
    let mode = if flags & MFD_NOEXEC_SEAL != 0 { 0o666 } else { 0o777 };
    let (inode, path) = MemFs::unnamed(&shown, mode, uid, gid);
    let cache: &Arc<PageCache> = inode.cache()?;
    if flags & (MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL) != 0 {
        cache.allow_sealing();
    }
    if flags & MFD_NOEXEC_SEAL != 0 {
        cache.add_seals(Seals::EXEC)?;
    }
    let file = File::named(inode, O_RDWR, path);
    super::install_file(file, flags & MFD_CLOEXEC != 0)
}

/// The address space of another process, if the caller may look into it (ptrace(2), "access mode
/// checking").
fn space_of(pid: i32) -> Result<Arc<AddressSpace>> {
    let process = find_process(pid).ok_or(Errno::ESRCH)?;
    let task = process.main_thread().ok_or(Errno::ESRCH)?;
    super::pidfd::check_inspect(&task)?;
    task.mm().ok_or(Errno::ESRCH)
}

/// process_vm_readv(2) and process_vm_writev(2).
pub fn process_vm(
    pid: i32,
    local: (usize, usize),
    remote: (usize, usize),
    flags: usize,
    write: bool,
) -> Result<usize> {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let local = get_iovecs(local.0, local.1)?;
    let remote = get_iovecs(remote.0, remote.1)?;
    crate::io::IoDst::user_vec(&local)?;
    if remote.iter().any(|&(_, len)| len as isize <= -1) {
        return Err(Errno::EINVAL);
    }
    let space = space_of(pid)?;
    let mut bytes = [0u8; 1024];
    let (mut done, mut ours, mut ours_at) = (0usize, 0, 0);
    for (addr, len) in remote {
        let mut at = 0;
        while at < len {
            while ours < local.len() && ours_at == local[ours].1 {
                (ours, ours_at) = (ours + 1, 0);
            }
            let Some(&(local_addr, local_len)) = local.get(ours) else { return Ok(done) };
            let here = addr.wrapping_add(at);
            let count = bytes
                .len()
                .min(len - at)
                .min(local_len - ours_at)
                // One page at a time: a fault must not hide what was moved before it.
                .min(PAGE_SIZE - here % PAGE_SIZE);
            let chunk = &mut bytes[..count];
            let local_addr = local_addr.wrapping_add(ours_at);
            let moved = if write {
                crate::io::get_user_slice(local_addr, chunk)
                    .and_then(|()| space.write_bytes(here, chunk))
            } else {
                space.read_bytes(here, chunk).and_then(|()| put_user_slice(local_addr, chunk))
            };
            match moved {
                Ok(()) => (at, ours_at, done) = (at + count, ours_at + count, done + count),
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => return Ok(done),
            }
        }
    }
    Ok(done)
}

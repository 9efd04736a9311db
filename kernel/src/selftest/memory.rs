//! Memory: address spaces on the real machine, and what their operations cost.
//!
//! With `d2u.log=debug` it prints times. Under QEMU's `-icount shift=0` a nanosecond is an
//! instruction.

use crate::arch::{PAGE_SIZE, clock};
use crate::debug;
use crate::mm::{AddressSpace, MapFlags, PageCache, PageRef, Prot, frame};
use crate::sync::preempt_disable;
use alloc::sync::Arc;
use alloc::vec::Vec;

const RW: Prot = Prot::READ.union(Prot::WRITE);
const ANON: MapFlags = MapFlags::PRIVATE.union(MapFlags::ANONYMOUS);

fn timed<R>(what: &str, count: usize, f: impl FnOnce() -> R) -> R {
    let start = clock::now_ns();
    let result = f();
    let took = clock::now_ns() - start;
    debug!("memory: {what}: {} ns each", took / count as u64);
    result
}

fn touch(space: &AddressSpace, at: usize, pages: usize, write: bool) -> bool {
    (0..pages).all(|page| space.handle_fault(at + page * PAGE_SIZE, write, false).is_ok())
}

/// Faults, forks and ends address spaces; checks contents and that every frame comes back.
pub fn run() -> Result<(), &'static str> {
    let before = frame::free_frames();
    operations().map_err(|_| "an operation on memory failed")?;
    // What may stay are objects cached by the heap.
    let lost = before.saturating_sub(frame::free_frames());
    if lost > 64 { Err("frames were lost") } else { Ok(()) }
}

fn operations() -> crate::Result<()> {
    const PAGES: usize = 1024;
    timed("heap object", 1000, || {
        for _ in 0..1000 {
            drop(core::hint::black_box(alloc::boxed::Box::new([0u64; 8])));
        }
    });
    timed("frame, not zeroed", 1000, || (0..1000).for_each(|_| drop(PageRef::alloc(false))));
    timed("frame, zeroed", 1000, || (0..1000).for_each(|_| drop(PageRef::alloc(true))));
    let space = timed("address space", 1, AddressSpace::new)?;
    let guard = preempt_disable();
    space.activate();
    let at = timed("mmap", 1, || space.mmap(0, PAGES * PAGE_SIZE, RW, RW, ANON, None))?;
    timed("first write fault", PAGES, || touch(&space, at, PAGES, true));
    // The real translation, not only the tables' software view.
    let word = at as *mut u32;
    // SAFETY: mapped and writable just now, in the address space that is loaded.
    unsafe { smap_off(|| word.write_volatile(0xfeed)) };
    let child = timed("fork of 1024 pages", 1, || space.fork())?;
    timed("copy on write fault", PAGES / 2, || touch(&child, at, PAGES / 2, true));
    timed("end of the child", 1, || drop(child));
    timed("reuse fault", PAGES / 2, || touch(&space, at, PAGES / 2, true));
    let mut seen = [0; 4];
    space.read_bytes(at, &mut seen)?;
    if u32::from_ne_bytes(seen) != 0xfeed {
        return Err(crate::Errno::EIO);
    }
    let file = PageCache::anonymous((PAGES * PAGE_SIZE) as u64);
    file.allocate(0, (PAGES * PAGE_SIZE) as u64)?;
    let backing = Some((file, None, 0));
    let shared = space.mmap(0, PAGES * PAGE_SIZE, RW, RW, MapFlags::SHARED, backing)?;
    timed("file read fault, 16 pages", PAGES / 16, || {
        (0..PAGES / 16).all(|group| touch(&space, shared + group * 16 * PAGE_SIZE, 1, false))
    });
    timed("munmap of 1024 pages", 1, || space.munmap(shared, PAGES * PAGE_SIZE))?;
    timed("mprotect of 1024 pages", 1, || space.mprotect(at, PAGES * PAGE_SIZE, Prot::READ))?;
    let spaces: Vec<Arc<AddressSpace>> = timed("empty address space and its end", 32, || {
        (0..32).map(|_| AddressSpace::new()).collect::<crate::Result<_>>()
    })?;
    drop(spaces);
    timed("end of 1024 pages", 1, || {
        AddressSpace::deactivate();
        drop(space);
    });
    drop(guard);
    Ok(())
}

/// Runs `f` with kernel access to user pages allowed.
///
/// # Safety
/// `f` touches only user pages that are mapped.
unsafe fn smap_off<R>(f: impl FnOnce() -> R) -> R {
    // CR4.SMAP (bit 21) may be set, then stac exists.
    let cr4: usize;
    // SAFETY: reading CR4 and setting EFLAGS.AC change nothing else.
    unsafe {
        core::arch::asm!("mov {}, cr4", out(reg) cr4, options(nomem, nostack));
        if cr4 & 1 << 21 != 0 {
            core::arch::asm!("stac", options(nomem, nostack));
        }
    }
    let result = f();
    if cr4 & 1 << 21 != 0 {
        // SAFETY: takes back what was done above.
        unsafe { core::arch::asm!("clac", options(nomem, nostack)) };
    }
    result
}

//! Where free frames are: per-CPU lists over one buddy allocator.

use super::buddy::Buddy;
use super::page::{self, Page};
use crate::mm::percpu::{Initial, PerCpu};
use crate::sync::IrqLock;
use core::num::NonZeroU32;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

/// Frames moved between a CPU's list and the buddy allocator at once.
const BATCH: usize = 16;
/// Most frames on one CPU's list.
const LIST: usize = 64;

/// Frames taken from the buddy allocator that a CPU has at hand.
struct List {
    frames: [u32; LIST],
    len: usize,
}

impl Initial for List {
    const INITIAL: List = List { frames: [0; LIST], len: 0 };
}

static BUDDY: IrqLock<Buddy> = IrqLock::new(Buddy::new());
static LOCAL: PerCpu<List> = PerCpu::new();
/// Frames the allocator was given.
static TOTAL: AtomicUsize = AtomicUsize::new(0);
/// Free frames in the buddy allocator (those on CPU lists come on top).
static FREE: AtomicUsize = AtomicUsize::new(0);
/// Frames kept back for the kernel itself, see [`Need`].
static RESERVE: AtomicUsize = AtomicUsize::new(0);
/// The page of zeros, behind the frame table.
static ZERO_FRAME: AtomicU32 = AtomicU32::new(0);

/// Who asks for memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Private memory of applications: must leave the reserve and the last cached pages alone.
    Own,
    /// Page caches: must leave the reserve alone.
    Ordinary,
    /// The kernel's heap, page tables, network buffers: may use the reserve.
    Kernel,
}

/// Gives the frames `start..end` to the allocator.
pub fn add(start: usize, end: usize) {
    let mut buddy = BUDDY.lock();
    buddy.add(page::table(), start, end);
    FREE.store(buddy.free_frames(), Relaxed);
    drop(buddy);
    let total = TOTAL.fetch_add(end.saturating_sub(start), Relaxed) + end.saturating_sub(start);
    RESERVE.store((total / 64).clamp(64, 2048), Relaxed);
}

/// Takes one frame; `None` if there is none for this need.
pub fn alloc_one(need: Need) -> Option<u32> {
    #[cfg(not(guest))]
    super::hosted::ensure_init();
    let taken = LOCAL.with(|list| {
        if list.len == 0 {
            list.refill(need);
        }
        list.len = list.len.checked_sub(1)?;
        Some(list.frames[list.len])
    });
    // An interrupt in the middle of the above goes to the buddy allocator.
    taken.unwrap_or_else(|| alloc_block(0, need))
}

/// Returns one frame.
pub fn free_one(pfn: u32) {
    free_many(&[pfn]);
}

/// Returns frames.
pub fn free_many(frames: &[u32]) {
    if frames.is_empty() {
        return;
    }
    let listed = LOCAL.with(|list| frames.iter().for_each(|&pfn| list.push(pfn)));
    if listed.is_none() {
        frames.iter().for_each(|&pfn| free_block(pfn, 0));
    }
}

impl List {
    #[cold]
    fn refill(&mut self, need: Need) {
        let pages = page::table();
        let mut buddy = BUDDY.lock();
        let spare = buddy.free_frames().saturating_sub(match need {
            Need::Own | Need::Ordinary => RESERVE.load(Relaxed),
            Need::Kernel => 0,
        });
        while self.len < BATCH.min(spare) {
            let Some(pfn) = buddy.alloc(pages, 0) else { break };
            self.frames[self.len] = pfn;
            self.len += 1;
        }
        FREE.store(buddy.free_frames(), Relaxed);
    }

    fn push(&mut self, pfn: u32) {
        if self.len == LIST {
            self.drain();
        }
        self.frames[self.len] = pfn;
        self.len += 1;
    }

    #[cold]
    fn drain(&mut self) {
        let pages = page::table();
        let mut buddy = BUDDY.lock();
        // Half of it stays for the next allocations.
        for _ in 0..LIST / 2 {
            self.len -= 1;
            buddy.free(pages, self.frames[self.len], 0);
        }
        FREE.store(buddy.free_frames(), Relaxed);
    }
}

/// Takes 2^`order` frames in sequence, aligned to their number.
pub fn alloc_block(order: usize, need: Need) -> Option<u32> {
    if order > super::buddy::MAX_ORDER {
        return None;
    }
    let pages = page::table();
    let mut buddy = BUDDY.lock();
    if need != Need::Kernel && buddy.free_frames() < RESERVE.load(Relaxed) + (1 << order) {
        return None;
    }
    let pfn = buddy.alloc(pages, order);
    FREE.store(buddy.free_frames(), Relaxed);
    pfn
}

/// Returns a block of 2^`order` frames.
pub fn free_block(pfn: u32, order: usize) {
    let mut buddy = BUDDY.lock();
    buddy.free(page::table(), pfn, order);
    FREE.store(buddy.free_frames(), Relaxed);
}

/// Number of the frame that holds zeros and is never written.
pub fn zero_frame() -> NonZeroU32 {
    page::table();
    NonZeroU32::new(ZERO_FRAME.load(Relaxed)).expect("frames are set up before use")
}

/// Frames managed in all.
pub fn total_frames() -> usize {
    TOTAL.load(Relaxed)
}

/// Free frames, those that CPUs have at hand among them. A snapshot.
pub fn free_frames() -> usize {
    // SAFETY: the field of a value that exists for good; a length that is out of date does no harm.
    FREE.load(Relaxed) + LOCAL.sum(|list| unsafe { (&raw const (*list).len).read_volatile() })
}

/// Whether what can't be dropped again (files in memory) may still grow: programs need some memory
/// to run in.
pub fn has_room_for_files() -> bool {
    #[cfg(not(guest))]
    super::hosted::ensure_init();
    FREE.load(Relaxed) > RESERVE.load(Relaxed) + TOTAL.load(Relaxed) / 16
}

/// Whether free memory is so low that clean cache pages should go.
pub fn is_low() -> bool {
    FREE.load(Relaxed) < 2 * RESERVE.load(Relaxed)
}

/// Makes the frame table and hands out all usable memory.
///
/// # Safety
/// Called once, before anything allocates. `usable` is RAM that nobody uses except for what
/// `reserved` lists (address, length), and is reachable in the direct map.
pub unsafe fn init(usable: &[(usize, usize)], reserved: &[(usize, usize)]) {
    use crate::arch::{PAGE_SIZE, phys_to_virt};
    let whole = |&(base, len): &(usize, usize)| {
        (base.div_ceil(PAGE_SIZE), base.saturating_add(len) / PAGE_SIZE)
    };
    // Frame numbers are 32 bits wide: memory past 16 TiB stays unused.
    let frames = usable.iter().map(|region| whole(region).1).max().unwrap_or(0);
    let frames = frames.min(u32::MAX as usize);
    // One more for the page of zeros.
    let table_frames = (frames * size_of::<Page>()).div_ceil(PAGE_SIZE) + 1;
    let pieces = |visit: &mut dyn FnMut(usize, usize)| {
        for region in usable {
            let (mut start, end) = whole(region);
            let end = end.min(frames);
            start = start.max(1);
            while start < end {
                // The first reserved range that reaches into what is left cuts it.
                let outward = |&(base, len): &(usize, usize)| {
                    (base / PAGE_SIZE, base.saturating_add(len).div_ceil(PAGE_SIZE))
                };
                let cut = reserved
                    .iter()
                    .map(outward)
                    .filter(|&(from, to)| from < end && to > start)
                    .min_by_key(|&(from, _)| from);
                let (from, to) = cut.unwrap_or((end, end));
                if from > start {
                    visit(start, from);
                }
                start = to.max(start);
            }
        }
    };
    // The table itself goes to the end of the largest free piece.
    let mut largest = (0, 0);
    pieces(&mut |start, end| {
        if end - start > largest.1 - largest.0 {
            largest = (start, end);
        }
    });
    assert!(largest.1 - largest.0 > table_frames, "no room for the frame table: too little memory");
    let table_start = largest.1 - table_frames;
    let table = phys_to_virt(table_start * PAGE_SIZE) as *mut u8;
    for index in 0..table_frames {
        // SAFETY: free memory by the caller's promise, and handed to nobody else below.
        unsafe { super::fill::zero(table.add(index * PAGE_SIZE)) };
    }
    // SAFETY: all-zero bytes are valid `Page`s, the memory is ours for good and page-aligned.
    page::set_table(unsafe { core::slice::from_raw_parts(table.cast::<Page>(), frames) });
    ZERO_FRAME.store((table_start + table_frames - 1) as u32, Relaxed);
    pieces(&mut |start, end| {
        if (start, end) == largest {
            add(start, table_start);
        } else {
            add(start, end);
        }
    });
}

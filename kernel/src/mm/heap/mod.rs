//! The kernel heap: per-CPU magazines over slabs over frames. Callable from interrupt handlers.

mod classes;
mod slab;

use super::frame::{Block, PageRef};
use super::percpu::{Initial, PerCpu};
use crate::sync::IrqLock;
use classes::{COUNT, SIZES};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use slab::Slabs;

#[cfg(guest)]
#[global_allocator]
static HEAP: Heap = Heap::new();

/// The heap. An interrupt that finds its CPU's magazines in use goes to the slabs, whose locks mask
/// interrupts.
pub struct Heap {
    local: PerCpu<Magazines>,
    classes: [IrqLock<Slabs>; COUNT],
    /// Pages in blocks larger than the largest class.
    large: AtomicUsize,
}

/// One CPU's free objects.
struct Magazines([Magazine; COUNT]);

impl Initial for Magazines {
    const INITIAL: Magazines = Magazines([Magazine { head: null_mut(), len: 0 }; COUNT]);
}

/// Free objects of one class, chained through their first words.
#[derive(Clone, Copy)]
struct Magazine {
    head: *mut u8,
    len: usize,
}

// SAFETY: the objects in a magazine are free and belong to whoever holds its lock.
unsafe impl Send for Magazine {}

/// Objects moved at once between a magazine and its class: about a page's worth, at most 32.
static BATCH: [usize; COUNT] = {
    let mut table = [0; COUNT];
    let mut class = 0;
    while class < COUNT {
        let objects = crate::arch::PAGE_SIZE / SIZES[class] as usize;
        table[class] = if objects > 32 { 32 } else { objects };
        class += 1;
    }
    table
};

impl Heap {
    /// An empty heap.
    pub const fn new() -> Heap {
        let mut classes = [const { IrqLock::new(Slabs::new(0)) }; COUNT];
        let mut class = 0;
        while class < COUNT {
            classes[class] = IrqLock::new(Slabs::new(class));
            class += 1;
        }
        Heap { local: PerCpu::new(), classes, large: AtomicUsize::new(0) }
    }

    /// Pages that hold heap objects, free ones among them.
    pub fn pages(&self) -> usize {
        self.classes.iter().map(|class| class.lock().pages()).sum::<usize>()
            + self.large.load(Relaxed)
    }

    /// Bytes of objects in use: what magazines hold is not. A snapshot.
    pub fn used(&self) -> usize {
        let small: usize = (0..COUNT)
            .map(|class| {
                // SAFETY: the field of a value that exists for good; lengths of other CPUs may be out
                // of date.
                let at_hand = self
                    .local
                    .sum(|local| unsafe { (&raw const (*local).0[class].len).read_volatile() });
                let taken = self.classes[class].lock().taken();
                taken.saturating_sub(at_hand) * usize::from(SIZES[class])
            })
            .sum();
        small + self.large.load(Relaxed) * crate::arch::PAGE_SIZE
    }

    /// Empties this CPU's magazines, so that their pages can be freed.
    pub fn flush(&self) {
        for class in 0..COUNT {
            self.local.with(|local| {
                while local.0[class].len > 0 {
                    self.drain(class, &mut local.0[class]);
                }
            });
        }
    }

    #[cold]
    fn refill(&self, class: usize) -> *mut u8 {
        let mut spare = None;
        loop {
            if let Some(frame) = spare.take() {
                self.classes[class].lock().add(frame);
            }
            let object = self.local.with(|local| {
                let magazine = &mut local.0[class];
                let mut slabs = self.classes[class].lock();
                while magazine.len < BATCH[class] {
                    let Some(object) = slabs.take() else { break };
                    // SAFETY: a free object, at least 16 bytes long.
                    unsafe { magazine.push(object) };
                }
                // SAFETY: the magazine holds free objects of this class.
                unsafe { magazine.pop() }
            });
            if let Some(object) = object.unwrap_or_else(|| self.classes[class].lock().take()) {
                return object;
            }
            // No lock is held here: taking a frame may drop cached pages first.
            match PageRef::alloc_kernel(false) {
                Ok(frame) => spare = Some(frame),
                Err(_) => return null_mut(),
            }
        }
    }

    #[cold]
    fn drain(&self, class: usize, magazine: &mut Magazine) {
        let mut slabs = self.classes[class].lock();
        for _ in 0..BATCH[class] {
            // SAFETY: the magazine holds free objects of this class.
            let Some(object) = (unsafe { magazine.pop() }) else { break };
            // SAFETY: objects in magazines came from `take` of their class.
            drop(unsafe { slabs.give(object) });
        }
    }
}

impl Default for Heap {
    fn default() -> Self {
        Heap::new()
    }
}

impl Magazine {
    /// # Safety
    /// `object` is free, 16 bytes or longer, and of this magazine's class.
    unsafe fn push(&mut self, object: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe { object.cast::<*mut u8>().write(self.head) };
        self.head = object;
        self.len += 1;
    }

    /// # Safety
    /// The magazine was filled by `push` only.
    unsafe fn pop(&mut self) -> Option<*mut u8> {
        let object = self.head;
        if object.is_null() {
            return None;
        }
        // SAFETY: `push` stored the link there.
        self.head = unsafe { object.cast::<*mut u8>().read() };
        self.len -= 1;
        Some(object)
    }
}

// SAFETY: blocks come from slabs or frames, are disjoint while in use, and are as large and aligned
// as their class or order, which both calls derive from the same layout.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(class) = classes::of(layout) else {
            let order = classes::order(layout);
            let Ok(block) = Block::alloc(order) else { return null_mut() };
            self.large.fetch_add(1 << order, Relaxed);
            return block.into_ptr();
        };
        // SAFETY: the magazine holds free objects of this class.
        match self.local.with(|local| unsafe { local.0[class].pop() }) {
            Some(Some(object)) => object,
            _ => self.refill(class),
        }
    }

    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        let Some(class) = classes::of(layout) else {
            let order = classes::order(layout);
            self.large.fetch_sub(1 << order, Relaxed);
            // SAFETY: `alloc` gave this block away for the same layout, hence the same order.
            drop(unsafe { Block::from_ptr(object, order) });
            return;
        };
        let kept = self.local.with(|local| {
            let magazine = &mut local.0[class];
            // SAFETY: the caller is done with the object, which `alloc` took from this class.
            unsafe { magazine.push(object) };
            if magazine.len > 2 * BATCH[class] {
                self.drain(class, magazine);
            }
        });
        if kept.is_none() {
            // SAFETY: as above.
            drop(unsafe { self.classes[class].lock().give(object) });
        }
    }

    unsafe fn realloc(&self, object: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that `size` with this alignment makes a layout.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        let same = match (classes::of(layout), classes::of(wanted)) {
            (None, None) => classes::order(layout) == classes::order(wanted),
            (have, want) => have == want,
        };
        if same {
            return object;
        }
        // SAFETY: as for `alloc`.
        let moved = unsafe { self.alloc(wanted) };
        if !moved.is_null() {
            // SAFETY: both blocks hold at least the smaller size and are disjoint; the old one is
            // given back once.
            unsafe {
                core::ptr::copy_nonoverlapping(object, moved, layout.size().min(size));
                self.dealloc(object, layout);
            }
        }
        moved
    }
}

/// Pages that the kernel heap holds.
pub fn pages() -> usize {
    #[cfg(guest)]
    return HEAP.pages();
    #[cfg(not(guest))]
    0
}

/// Bytes of the kernel's objects in use.
pub fn used() -> usize {
    #[cfg(guest)]
    return HEAP.used();
    #[cfg(not(guest))]
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::frame::hosted::live_frames;

    #[test]
    fn objects_are_disjoint_aligned_and_keep_their_bytes() {
        let heap = Box::leak(Box::new(Heap::new()));
        let before = live_frames();
        let mut held: Vec<(*mut u8, Layout, u8)> = Vec::new();
        let mut seed = 7u64;
        let check = |at: *mut u8, layout: Layout, tag: u8| {
            // SAFETY: a live object of this size.
            let bytes = unsafe { core::slice::from_raw_parts(at, layout.size()) };
            assert!(bytes.iter().all(|&byte| byte == tag));
        };
        for round in 0..30_000u32 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
            let random = (seed >> 33) as usize;
            if random % 7 < 4 && held.len() < 3000 {
                let size = 1 + random / 7 % if random.is_multiple_of(50) { 20_000 } else { 700 };
                let layout = Layout::from_size_align(size, 1 << (random % 8)).unwrap();
                // SAFETY: the layout has a size.
                let at = unsafe { heap.alloc(layout) };
                assert!(!at.is_null() && (at as usize).is_multiple_of(layout.align()));
                // SAFETY: a fresh object of this size.
                unsafe { core::ptr::write_bytes(at, round as u8, size) };
                held.push((at, layout, round as u8));
            } else if !held.is_empty() {
                let (at, layout, tag) = held.swap_remove(random % held.len());
                check(at, layout, tag);
                if random.is_multiple_of(3) {
                    let size = layout.size() * 2;
                    // SAFETY: a live object and a valid new size.
                    let moved = unsafe { heap.realloc(at, layout, size) };
                    check(moved, layout, tag);
                    let layout = Layout::from_size_align(size, layout.align()).unwrap();
                    // SAFETY: a live object.
                    unsafe { heap.dealloc(moved, layout) };
                } else {
                    // SAFETY: a live object.
                    unsafe { heap.dealloc(at, layout) };
                }
            }
        }
        for (at, layout, tag) in held {
            check(at, layout, tag);
            // SAFETY: a live object.
            unsafe { heap.dealloc(at, layout) };
        }
        heap.flush();
        assert_eq!(heap.used(), 0);
        // One empty page per class stays.
        assert!(live_frames() - before <= COUNT as isize);
        assert_eq!(heap.pages() as isize, live_frames() - before);
    }
}

//! One mapping.

use crate::arch::PAGE_SHIFT;
use crate::errno::Result;
use crate::fs::File;
use crate::mm::PageCache;
use crate::mm::pagetable::{ANON, NO_EXECUTE, PRESENT, USER, WRITE};
use crate::mm::space::AddressSpace;
use alloc::sync::{Arc, Weak};

bitflags::bitflags! {
    /// What may be done with memory; values of `PROT_*`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Prot: u8 {
        /// `PROT_READ`
        const READ = 1;
        /// `PROT_WRITE`
        const WRITE = 2;
        /// `PROT_EXEC`
        const EXEC = 4;
    }

    /// Properties of a mapping.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct VmFlags: u16 {
        /// Writes are seen by everybody who maps the object.
        const SHARED = 1;
        /// Grows towards lower addresses when touched below (stacks).
        const GROWS_DOWN = 1 << 1;
        /// `mlock`: counted, and faulted in at once.
        const LOCKED = 1 << 2;
        /// `MADV_DONTFORK`
        const DONT_FORK = 1 << 3;
        /// `MADV_WIPEONFORK`
        const WIPE_ON_FORK = 1 << 4;
        /// `MADV_DONTDUMP`
        const DONT_DUMP = 1 << 5;
        /// `MADV_HUGEPAGE`
        const HUGE = 1 << 6;
        /// `MADV_NOHUGEPAGE`
        const NO_HUGE = 1 << 7;
        /// Not counted as committed memory.
        const NO_RESERVE = 1 << 8;
        /// The heap that brk(2) moves the end of.
        const HEAP = 1 << 9;
        /// The main thread's stack.
        const STACK = 1 << 10;
        /// Kernel-provided code (vDSO): named so, never unmapped by accident.
        const VDSO = 1 << 11;
    }
}

/// One mapping, from the key it has in its map up to `end`.
#[derive(Clone)]
pub struct Vma {
    pub start: usize,
    pub end: usize,
    pub prot: Prot,
    /// What mprotect(2) may set.
    pub may: Prot,
    pub flags: VmFlags,
    /// `None`: anonymous memory.
    pub backing: Option<Backing>,
}

/// The object behind a mapping.
pub struct Backing {
    pub cache: Arc<PageCache>,
    /// The file it was mapped from; shared anonymous memory has none.
    pub file: Option<Arc<File>>,
    /// Page of the object at the mapping's start.
    pub index: u64,
    space: Weak<AddressSpace>,
    id: u64,
    /// It is shared and may be written, or at least made so.
    writable: bool,
}

impl Backing {
    /// A mapping of `cache` by the space `id`, which the cache is told of. EPERM if it may be written,
    /// and that is sealed.
    pub fn new(
        cache: Arc<PageCache>,
        file: Option<Arc<File>>,
        index: u64,
        space: (&Weak<AddressSpace>, u64),
        writable: bool,
    ) -> Result<Backing> {
        cache.add_mapping(space.1, space.0, writable)?;
        let backing = Backing { cache, file, index, space: space.0.clone(), id: space.1, writable };
        if writable {
            backing.cache.begin_writing()?;
        }
        Ok(backing)
    }

    /// The same mapping in another space, whatever is sealed by now.
    pub fn copy_to(&self, space: (&Weak<AddressSpace>, u64)) -> Result<Backing> {
        self.cache.add_mapping(space.1, space.0, self.writable)?;
        Ok(self.noted(space.0, space.1))
    }

    /// The copy that the cache was told of.
    fn noted(&self, space: &Weak<AddressSpace>, id: u64) -> Backing {
        Backing {
            cache: self.cache.clone(),
            file: self.file.clone(),
            index: self.index,
            space: space.clone(),
            id,
            writable: self.writable,
        }
    }
}

impl Clone for Backing {
    fn clone(&self) -> Backing {
        // The entry of this space exists already, so nothing is allocated and nothing can fail.
        let _ = self.cache.add_mapping(self.id, &self.space, self.writable);
        self.noted(&self.space, self.id)
    }
}

impl Drop for Backing {
    fn drop(&mut self) {
        self.cache.remove_mapping(self.id, self.writable);
    }
}

impl Vma {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether writes are seen by others.
    pub fn is_shared(&self) -> bool {
        self.flags.contains(VmFlags::SHARED)
    }

    /// Whether it counts as promised memory: private, and may be written.
    pub fn is_promised(&self) -> bool {
        self.prot.contains(Prot::WRITE)
            && !self.flags.intersects(VmFlags::SHARED | VmFlags::NO_RESERVE)
    }

    /// Whether the mapping counts as data (`RLIMIT_DATA`): private, writable and not a stack.
    pub fn is_data(&self) -> bool {
        self.prot.contains(Prot::WRITE)
            && !self.flags.intersects(VmFlags::SHARED | VmFlags::GROWS_DOWN)
    }

    /// The object's page at an address of the mapping.
    pub fn index_at(&self, addr: usize) -> u64 {
        let first = self.backing.as_ref().map_or(0, |backing| backing.index);
        first + ((addr - self.start) >> PAGE_SHIFT) as u64
    }

    /// The part from `at` on becomes a mapping of its own.
    pub fn split_off(&mut self, at: usize) -> Vma {
        let mut upper = self.clone();
        if let Some(backing) = &mut upper.backing {
            backing.index += ((at - self.start) >> PAGE_SHIFT) as u64;
        }
        upper.start = at;
        self.end = at;
        upper
    }

    /// Whether `next` goes on where this one ends, with equal properties.
    pub fn joins(&self, next: &Vma) -> bool {
        self.end == next.start
            && self.prot == next.prot
            && self.may == next.may
            && self.flags == next.flags
            && match (&self.backing, &next.backing) {
                (None, None) => true,
                (Some(a), Some(b)) => {
                    Arc::ptr_eq(&a.cache, &b.cache)
                        && self.index_at(self.end) == b.index
                        && match (&a.file, &b.file) {
                            (None, None) => true,
                            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                            _ => false,
                        }
                }
                _ => false,
            }
    }

    /// Page table bits for a page of this mapping; `write` if it may be written in place.
    pub fn bits(&self, anon: bool, write: bool) -> u64 {
        let mut bits = USER;
        if !self.prot.is_empty() {
            bits |= PRESENT;
        }
        if !self.prot.contains(Prot::EXEC) {
            bits |= NO_EXECUTE;
        }
        if anon {
            bits |= ANON;
        }
        if write && self.prot.contains(Prot::WRITE) {
            bits |= WRITE;
        }
        bits
    }
}

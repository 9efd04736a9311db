//! Access to the memory of any address space, running or not: exec's stack set-up, ptrace(2),
//! process_vm_readv(2), and the identity of futex words.

use super::AddressSpace;
use super::fault::{Access, FaultError};
use super::vma::VmFlags;
use crate::arch::PAGE_SIZE;
use crate::errno::{Errno, Result};
use crate::io::check_user;
use crate::mm::PageRef;
use crate::mm::pagetable::{self, ANON, WRITE};

/// What a futex word is, whoever names it by whatever address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FutexKey {
    /// A word of one address space.
    Private {
        /// [`AddressSpace::id`]
        space: u64,
        /// Its address.
        addr: usize,
    },
    /// A word of an object that several address spaces may map.
    Shared {
        /// [`crate::mm::PageCache::id`]
        object: u64,
        /// Its offset.
        offset: u64,
    },
}

impl AddressSpace {
    /// Writes bytes as the application itself would. EFAULT if it couldn't.
    pub fn write_bytes(&self, addr: usize, bytes: &[u8]) -> Result<()> {
        check_user(addr, bytes.len())?;
        self.each_page(addr, bytes.len(), Access::write(), |page, within, range| {
            page.write(within, &bytes[range]);
        })
    }

    /// Writes zeros as the application itself would. EFAULT if it couldn't.
    pub fn zero(&self, addr: usize, len: usize) -> Result<()> {
        check_user(addr, len)?;
        self.each_page(addr, len, Access::write(), |page, within, range| {
            page.zero(within, range.len());
        })
    }

    /// Reads bytes as the application itself would. EFAULT if it couldn't.
    pub fn read_bytes(&self, addr: usize, bytes: &mut [u8]) -> Result<()> {
        check_user(addr, bytes.len())?;
        self.each_page(addr, bytes.len(), Access::read(), |page, within, range| {
            page.read(within, &mut bytes[range]);
        })
    }

    /// Writes bytes for a debugger: also where the application may not write, but never into shared
    /// memory it may not write.
    pub fn poke(&self, addr: usize, bytes: &[u8]) -> Result<()> {
        check_user(addr, bytes.len())?;
        let access = Access { force: true, ..Access::write() };
        self.each_page(addr, bytes.len(), access, |page, within, range| {
            page.write(within, &bytes[range]);
        })
    }

    /// Reads bytes for a debugger: whatever is mapped.
    pub fn peek(&self, addr: usize, bytes: &mut [u8]) -> Result<()> {
        check_user(addr, bytes.len())?;
        let access = Access { force: true, ..Access::read() };
        self.each_page(addr, bytes.len(), access, |page, within, range| {
            page.read(within, &mut bytes[range]);
        })
    }

    /// Where in `addr..end`, parts of which may never have been touched, pages can be first.
    pub fn next_resident(&self, addr: usize, end: usize) -> usize {
        let pages = self.pages.lock();
        pages.table.next_leaf(addr, end).map_or(end, |leaf| leaf.base.max(addr))
    }

    /// Reads the page at `addr`, which is mapped, for a core file. `false`: it was never touched, and
    /// would read as zeros.
    pub fn resident_page(&self, addr: usize, out: &mut [u8; PAGE_SIZE]) -> Result<bool> {
        let (page, anonymous) = {
            let maps = self.maps.read();
            let anonymous = maps.find(addr).is_none_or(|vma| vma.backing.is_none());
            (pagetable::share(self.pages.lock().table.get(addr)), anonymous)
        };
        match page {
            Some(page) => page.read(0, out),
            None if anonymous => return Ok(false),
            // Beyond a file's end there is nothing.
            None if self.peek(addr, out).is_err() => return Ok(false),
            None => {}
        }
        Ok(true)
    }

    /// The page at `addr`, present and (if asked) writable, kept by the reference.
    pub fn page_at(&self, addr: usize, write: bool) -> Result<PageRef> {
        self.page(addr, if write { Access::write() } else { Access::read() })
    }

    fn page(&self, addr: usize, access: Access) -> Result<PageRef> {
        loop {
            let seen = {
                let maps = self.maps.read();
                let allowed =
                    maps.find(addr).is_some_and(|vma| access.force || !vma.prot.is_empty());
                let pages = self.pages.lock();
                let entry = pages.table.get(addr);
                let page = if allowed { pagetable::share(entry) } else { None };
                page.filter(|page| {
                    // Two references to a page of nobody else: the entry's and ours.
                    let sole = access.force && entry & ANON != 0 && page.ref_count() == 2;
                    !access.write || entry & WRITE != 0 || sole
                })
            };
            match seen {
                Some(page) => return Ok(page),
                None => self.fault(addr, access).map_err(|error| match error {
                    FaultError::NoMemory => Errno::ENOMEM,
                    _ => Errno::EFAULT,
                })?,
            };
        }
    }

    fn each_page(
        &self,
        addr: usize,
        len: usize,
        access: Access,
        mut step: impl FnMut(&PageRef, usize, core::ops::Range<usize>),
    ) -> Result<()> {
        let mut done = 0;
        while done < len {
            let within = (addr + done) % PAGE_SIZE;
            let count = (PAGE_SIZE - within).min(len - done);
            let page = self.page(addr + done, access)?;
            step(&page, within, done..done + count);
            done += count;
        }
        Ok(())
    }

    /// The identity of the futex word at `addr`. `private` if the caller says that only this
    /// process uses it. EFAULT if nothing is mapped there.
    pub fn futex_key(&self, addr: usize, private: bool) -> Result<FutexKey> {
        let here = FutexKey::Private { space: self.id, addr };
        if private {
            check_user(addr, 4)?;
            return Ok(here);
        }
        let maps = self.maps.read();
        let vma = maps.find(addr).ok_or(Errno::EFAULT)?;
        match &vma.backing {
            Some(backing) if vma.flags.contains(VmFlags::SHARED) => Ok(FutexKey::Shared {
                object: backing.cache.id(),
                offset: vma.index_at(addr) * PAGE_SIZE as u64 + (addr % PAGE_SIZE) as u64,
            }),
            _ => Ok(here),
        }
    }
}

impl Access {
    fn read() -> Access {
        Access { write: false, exec: false, force: false }
    }

    fn write() -> Access {
        Access { write: true, exec: false, force: false }
    }
}

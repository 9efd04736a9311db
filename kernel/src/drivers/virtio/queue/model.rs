//! The device's side of a split queue, for tests.

use crate::arch::phys_to_virt;
use alloc::vec::Vec;

/// Plays a well-behaved device on one queue.
pub struct Device {
    size: u16,
    desc: usize,
    avail: usize,
    used: usize,
    last_avail: u16,
    used_idx: u16,
}

/// A chain as the device sees it.
pub struct Chain {
    /// Head descriptor.
    pub head: u16,
    /// (physical address, length) of what it may read.
    pub readable: Vec<(usize, usize)>,
    /// (physical address, length) of what it may write.
    pub writable: Vec<(usize, usize)>,
}

fn load<T: Copy>(paddr: usize) -> T {
    // SAFETY: tests hand over addresses of live rings and buffers.
    unsafe { (phys_to_virt(paddr) as *const T).read_volatile() }
}

fn store<T>(paddr: usize, value: T) {
    // SAFETY: as in `load`.
    unsafe { (phys_to_virt(paddr) as *mut T).write_volatile(value) }
}

impl Device {
    /// Takes the queue at these addresses into service.
    pub fn new(size: u16, [desc, avail, used]: [usize; 3]) -> Device {
        Device { size, desc, avail, used, last_avail: 0, used_idx: 0 }
    }

    /// The next chain the driver made available.
    pub fn take(&mut self) -> Option<Chain> {
        if load::<u16>(self.avail + 2) == self.last_avail {
            return None;
        }
        let head: u16 = load(self.avail + 4 + 2 * usize::from(self.last_avail % self.size));
        self.last_avail = self.last_avail.wrapping_add(1);
        let mut chain = Chain { head, readable: Vec::new(), writable: Vec::new() };
        self.walk(self.desc, head, &mut chain);
        Some(chain)
    }

    fn walk(&self, table: usize, first: u16, chain: &mut Chain) {
        let mut at = first;
        loop {
            let desc = table + 16 * usize::from(at);
            let (addr, len): (u64, u32) = (load(desc), load(desc + 8));
            let (flags, next): (u16, u16) = (load(desc + 12), load(desc + 14));
            if flags & super::INDIRECT != 0 {
                self.walk(addr as usize, 0, chain);
            } else if flags & super::WRITE != 0 {
                chain.writable.push((addr as usize, len as usize));
            } else {
                chain.readable.push((addr as usize, len as usize));
            }
            if flags & super::NEXT == 0 {
                return;
            }
            at = next;
        }
    }

    /// Bytes the driver wrote for us.
    pub fn read(&self, chain: &Chain) -> Vec<u8> {
        let bytes = chain.readable.iter().flat_map(|&(addr, len)| addr..addr + len);
        bytes.map(load::<u8>).collect()
    }

    /// Fills the writable part from `bytes`; returns how many fitted.
    pub fn write(&self, chain: &Chain, bytes: &[u8]) -> u32 {
        let places = chain.writable.iter().flat_map(|&(addr, len)| addr..addr + len);
        places.zip(bytes).map(|(addr, &byte)| store(addr, byte)).count() as u32
    }

    /// Returns a chain to the driver.
    pub fn finish(&mut self, chain: &Chain, written: u32) {
        self.finish_raw(u32::from(chain.head), written);
    }

    /// Puts any entry into the used ring, true or false.
    pub fn finish_raw(&mut self, id: u32, written: u32) {
        let entry = self.used + 4 + 8 * usize::from(self.used_idx % self.size);
        store(entry, id);
        store(entry + 4, written);
        self.used_idx = self.used_idx.wrapping_add(1);
        store(self.used + 2, self.used_idx);
    }

    /// Sets the index at which we want to be told.
    pub fn set_avail_event(&self, index: u16) {
        store(self.used + 4 + 8 * usize::from(self.size), index);
    }

    /// The index at which the driver wants an interrupt.
    pub fn used_event(&self) -> u16 {
        load(self.avail + 4 + 2 * usize::from(self.size))
    }
}

//! The firmware's memory: pages of it, and its map.

use r_efi::efi::{self, BootServices, MemoryDescriptor, Status};

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// What a 32-bit entry can be told about.
const BELOW: u64 = 0xffff_ffff;
/// Ranges of the map that the kernel is given.
pub const MAX_RANGES: usize = 120;

/// Zeroed pages below 4 GiB.
pub fn allocate(boot: &BootServices, len: u64) -> Result<&'static mut [u8], &'static str> {
    let mut at = BELOW;
    let pages = len.div_ceil(PAGE).max(1);
    // Firmware may keep data from being executed, and a part of this is code.
    let (kind, pages_len) = (efi::LOADER_CODE, (pages * PAGE) as usize);
    let below = efi::ALLOCATE_MAX_ADDRESS;
    // SAFETY: the firmware's service; it writes to `at` alone.
    let status = unsafe { (boot.allocate_pages)(below, kind, pages as usize, &mut at) };
    if status != Status::SUCCESS {
        return Err("there is too little memory below 4 GiB");
    }
    // SAFETY: the firmware has just given us these pages, identity-mapped.
    unsafe {
        let start = at as *mut u8;
        start.write_bytes(0, pages_len);
        Ok(core::slice::from_raw_parts_mut(start, pages_len))
    }
}

/// Keeps the firmware from using a range. It may have done so already, which [`Map::is_free`] tells.
pub fn reserve(boot: &BootServices, start: u64, end: u64) {
    let mut at = start;
    let pages = (end - start).div_ceil(PAGE) as usize;
    let (exact, kind) = (efi::ALLOCATE_ADDRESS, efi::LOADER_DATA);
    // SAFETY: the firmware's service; it writes to `at` alone.
    let _ = unsafe { (boot.allocate_pages)(exact, kind, pages, &mut at) };
}

/// The memory map, in a buffer.
pub struct Map {
    buffer: &'static mut [u8],
    len: usize,
    /// What `exit_boot_services` wants to know.
    pub key: usize,
    stride: usize,
}

impl Map {
    /// A map with a buffer that leaves room for what allocating it adds.
    pub fn new(boot: &BootServices) -> Result<Map, &'static str> {
        let (mut len, mut key, mut stride, mut version) = (0, 0, 0, 0);
        let none = core::ptr::null_mut();
        // SAFETY: the firmware's service; a buffer of no length is not written to.
        let _ =
            unsafe { (boot.get_memory_map)(&mut len, none, &mut key, &mut stride, &mut version) };
        let buffer = allocate(boot, len as u64 + 16 * stride as u64)?;
        Ok(Map { buffer, len: 0, key: 0, stride: 0 })
    }

    /// Reads the map as it is now.
    pub fn read(&mut self, boot: &BootServices) -> Result<(), &'static str> {
        self.len = self.buffer.len();
        let (key, stride, mut version) = (&mut self.key, &mut self.stride, 0);
        let start = self.buffer.as_mut_ptr().cast();
        // SAFETY: the firmware's service; it writes no more than `len` bytes to the buffer.
        let status =
            unsafe { (boot.get_memory_map)(&mut self.len, start, key, stride, &mut version) };
        let sound = self.stride >= size_of::<MemoryDescriptor>();
        (status == Status::SUCCESS && sound).then_some(()).ok_or("the memory map cannot be read")
    }

    fn descriptors(&self) -> impl Iterator<Item = MemoryDescriptor> + '_ {
        self.buffer[..self.len].chunks_exact(self.stride).map(|bytes| {
            // SAFETY: the firmware wrote descriptors at this distance, each at least as long.
            unsafe { bytes.as_ptr().cast::<MemoryDescriptor>().read_unaligned() }
        })
    }

    /// Whether a range is RAM that is nobody's once the firmware's boot services are gone.
    pub fn is_free(&self, start: u64, end: u64) -> bool {
        let covered: u64 = self
            .descriptors()
            .filter(|entry| e820(entry.r#type) == RAM)
            .map(|entry| {
                let last = entry.physical_start + entry.number_of_pages * PAGE;
                last.min(end).saturating_sub(entry.physical_start.max(start))
            })
            .sum();
        covered >= end - start
    }

    /// The map as the kernel takes it, sorted, neighbours of one kind joined.
    pub fn ranges<'r>(&self, ranges: &'r mut [Range; MAX_RANGES]) -> &'r [Range] {
        let mut count = 0;
        let mut from = 0;
        // By address, one after the other: maps are short, and firmware need not sort them.
        while let Some(entry) = self
            .descriptors()
            .filter(|entry| entry.physical_start >= from && entry.number_of_pages > 0)
            .min_by_key(|entry| entry.physical_start)
        {
            let (start, len) = (entry.physical_start, entry.number_of_pages * PAGE);
            from = start.saturating_add(len);
            let kind = e820(entry.r#type);
            match ranges[..count].last_mut() {
                Some(last) if last.kind == kind && last.start + last.len == start => {
                    last.len += len
                }
                _ if count == MAX_RANGES => break,
                _ => {
                    ranges[count] = Range { start, len, kind, reserved: 0 };
                    count += 1;
                }
            }
        }
        &ranges[..count]
    }
}

/// `hvm_memmap_table_entry` of Xen's `start_info.h`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Range {
    start: u64,
    len: u64,
    kind: u32,
    reserved: u32,
}

const RAM: u32 = 1;

/// ACPI's numbers for UEFI's types (ACPI 6.5, 15.4).
fn e820(kind: u32) -> u32 {
    match kind {
        efi::LOADER_CODE
        | efi::LOADER_DATA
        | efi::BOOT_SERVICES_CODE
        | efi::BOOT_SERVICES_DATA
        | efi::CONVENTIONAL_MEMORY => RAM,
        efi::ACPI_RECLAIM_MEMORY => 3,
        efi::ACPI_MEMORY_NVS => 4,
        efi::UNUSABLE_MEMORY => 5,
        efi::PERSISTENT_MEMORY => 7,
        _ => 2,
    }
}

//! What the loader hands over, copied out of its `hvm_start_info` before that memory is reused.
//!
//! Source: Xen's `xen/include/public/arch-x86/hvm/start_info.h`.

use super::paging::phys_to_virt;
use crate::arch::PAGE_SIZE;
use crate::sync::Once;
use core::ops::Range;
use dock2uni_ext4::sort;

const MAGIC: u32 = 0x336e_c578;
const MAX_REGIONS: usize = 64;
const MAX_MODULES: usize = 4;
const MAX_CMDLINE: usize = 2048;
/// What the boot tables map.
const MAPPED: usize = 4 << 30;

const RAM: u32 = 1;
const ACPI: u32 = 3;
const ACPI_NVS: u32 = 4;

/// A range of physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First byte.
    pub base: usize,
    /// Bytes.
    pub len: usize,
    /// RAM that nothing else occupies; otherwise it is only mapped (firmware tables).
    pub usable: bool,
}

impl Region {
    /// As a range of addresses.
    pub fn range(&self) -> Range<usize> {
        self.base..self.base + self.len
    }
}

/// The loader's information.
pub struct BootInfo {
    regions: [Region; MAX_REGIONS],
    region_count: usize,
    modules: [(usize, usize); MAX_MODULES],
    module_count: usize,
    cmdline: [u8; MAX_CMDLINE],
    cmdline_len: usize,
    rsdp: usize,
    entry_tsc: u64,
}

static INFO: Once<BootInfo> = Once::new();

impl BootInfo {
    /// The machine's memory, by address.
    pub fn regions(&self) -> &[Region] {
        &self.regions[..self.region_count]
    }
    /// Boot modules: physical address and length.
    pub fn modules(&self) -> &[(usize, usize)] {
        &self.modules[..self.module_count]
    }
    /// The boot line; cut at the first byte that isn't text.
    pub fn cmdline(&self) -> &str {
        let bytes = &self.cmdline[..self.cmdline_len];
        match core::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => core::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or(""),
        }
    }
    /// Value of `key=value` on the boot line; the last one counts.
    pub fn option(&self, key: &str) -> Option<&str> {
        self.cmdline()
            .split_ascii_whitespace()
            .filter_map(|word| word.strip_prefix(key)?.strip_prefix('='))
            .next_back()
    }
    /// Physical address of the ACPI root pointer; 0 if the loader doesn't know.
    pub fn rsdp(&self) -> usize {
        self.rsdp
    }
    /// Cycle counter at the kernel's first instruction in 64-bit mode.
    pub fn entry_tsc(&self) -> u64 {
        self.entry_tsc
    }
}

/// The loader's information, once [`read`] has run.
pub fn get() -> Option<&'static BootInfo> {
    INFO.get()
}

/// Reads a structure at a physical address that the boot tables map.
fn at<const N: usize>(paddr: u64) -> Option<[u8; N]> {
    let start = usize::try_from(paddr).ok()?;
    if start == 0 || start.checked_add(N)? > MAPPED {
        return None;
    }
    // SAFETY: within the 4 GiB that the boot tables map; the kernel has allocated nothing yet.
    Some(unsafe { (phys_to_virt(start) as *const [u8; N]).read_unaligned() })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// Whether the boot line of the `hvm_start_info` at `paddr` has a word.
pub(super) fn asks(paddr: usize, word: &str) -> bool {
    let line = at::<32>(paddr as u64).map(|info| u64_at(&info, 24)).filter(|&line| line != 0);
    let Some(line) = line else { return false };
    let bytes = (0..MAX_CMDLINE as u64).map_while(|index| at::<1>(line.saturating_add(index)));
    // Matches from the start of a word to its end.
    let mut matched = Some(0);
    for [byte] in bytes.chain([[0]]) {
        let ends = byte == 0 || byte.is_ascii_whitespace();
        if ends && matched == Some(word.len()) {
            return true;
        }
        if byte == 0 {
            break;
        }
        matched = match matched {
            _ if ends => Some(0),
            Some(at) if word.as_bytes().get(at) == Some(&byte) => Some(at + 1),
            _ => None,
        };
    }
    false
}

/// Copies everything from the `hvm_start_info` at `paddr`. The error says what is wrong with it.
///
/// # Safety
/// Runs once, on the boot tables, before memory is allocated.
pub(super) unsafe fn read(paddr: usize, tsc: u64) -> Result<&'static BootInfo, &'static str> {
    let info = at::<56>(paddr as u64).ok_or("the loader passed no start info")?;
    if u32_at(&info, 0) != MAGIC {
        return Err("the loader's start info has a wrong magic number");
    }
    if u32_at(&info, 4) < 1 {
        return Err("the loader's start info has no memory map (version 0)");
    }
    let mut boot = BootInfo {
        regions: [Region { base: 0, len: 0, usable: false }; MAX_REGIONS],
        region_count: 0,
        modules: [(0, 0); MAX_MODULES],
        module_count: 0,
        cmdline: [0; MAX_CMDLINE],
        cmdline_len: 0,
        rsdp: u64_at(&info, 32) as usize,
        entry_tsc: tsc,
    };
    for index in 0..u64::from(u32_at(&info, 12)).min(MAX_MODULES as u64) {
        let entry = at::<32>(u64_at(&info, 16).saturating_add(index * 32))
            .ok_or("the loader's module list is out of reach")?;
        let (base, len) = (u64_at(&entry, 0) as usize, u64_at(&entry, 8) as usize);
        if base.checked_add(len).is_none_or(|end| end >> 46 != 0) {
            return Err("a boot module lies outside of memory");
        }
        boot.modules[boot.module_count] = (base, len);
        boot.module_count += 1;
    }
    let cmdline = u64_at(&info, 24);
    if cmdline != 0 {
        while boot.cmdline_len < MAX_CMDLINE {
            match at::<1>(cmdline.saturating_add(boot.cmdline_len as u64)) {
                Some([byte]) if byte != 0 => boot.cmdline[boot.cmdline_len] = byte,
                _ => break,
            }
            boot.cmdline_len += 1;
        }
    }
    let (list, entries) = (u64_at(&info, 40), u32_at(&info, 48));
    for index in 0..u64::from(entries).min(MAX_REGIONS as u64) {
        let entry = at::<24>(list.saturating_add(index * 24))
            .ok_or("the loader's memory map is out of reach")?;
        let (base, len, kind) = (u64_at(&entry, 0), u64_at(&entry, 8), u32_at(&entry, 16));
        // 46 bits of physical addresses are what the direct map's first slots are made for.
        let end = base.saturating_add(len).min(1 << 46);
        if !matches!(kind, RAM | ACPI | ACPI_NVS) || base >= end {
            continue;
        }
        let usable = kind == RAM;
        let page = PAGE_SIZE as u64;
        let (base, end) =
            if usable { (base.next_multiple_of(page), end / page * page) } else { (base, end) };
        if base < end {
            boot.regions[boot.region_count] =
                Region { base: base as usize, len: (end - base) as usize, usable };
            boot.region_count += 1;
        }
    }
    if boot.region_count == 0 {
        return Err("the loader's memory map names no memory");
    }
    sort::by(&mut boot.regions[..boot.region_count], |a, b| a.base < b.base);
    INFO.set(boot).map_err(|_| "the start info was read twice")
}

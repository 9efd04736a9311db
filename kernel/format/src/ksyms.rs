//! The kernel's symbol table, for backtraces.
//!
//! The linker script reserves a section `.ksyms`; the build fills it after
//! linking from the ELF symbol table. All integers are little-endian:
//!
//! ```text
//! 0   u32  magic "KSYM"
//! 4   u32  count of symbols
//! 8   u64  base: the address that symbol offsets count from
//! 16  u32  length of the names in bytes
//! 20  u32  zero
//! 24  (count + 1) x { u32 offset from base, u32 start in names }, by offset
//!     names, one after the other; the last entry is the end of the code
//! ```

use alloc::vec::Vec;

/// First four bytes of a table.
pub const MAGIC: [u8; 4] = *b"KSYM";
const HEADER: usize = 24;
const ENTRY: usize = 8;

/// A symbol table in place.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    base: u64,
    entries: &'a [u8],
    names: &'a [u8],
}

impl<'a> Table<'a> {
    /// Reads the table at the start of `bytes`, which may be longer than the table.
    ///
    /// `None` if the section was never filled or does not fit.
    pub fn parse(bytes: &'a [u8]) -> Option<Table<'a>> {
        let (header, rest) = bytes.split_at_checked(HEADER)?;
        if header[0..4] != MAGIC {
            return None;
        }
        let count = u32_at(header, 4)? as usize;
        let base = u64::from(u32_at(header, 8)?) | u64::from(u32_at(header, 12)?) << 32;
        let names_len = u32_at(header, 16)? as usize;
        let entries_len = count.checked_add(1)?.checked_mul(ENTRY)?;
        let (entries, rest) = rest.split_at_checked(entries_len)?;
        Some(Table { base, entries, names: rest.get(..names_len)? })
    }

    /// Length of the whole table in bytes; what follows it in the section is unused.
    pub fn len(&self) -> usize {
        HEADER + self.entries.len() + self.names.len()
    }

    /// Whether the table names no symbol.
    pub fn is_empty(&self) -> bool {
        self.entries.len() <= ENTRY
    }

    /// The symbol that holds `address`, and the distance from its start.
    pub fn lookup(&self, address: u64) -> Option<(&'a str, u64)> {
        let offset = u32::try_from(address.checked_sub(self.base)?).ok()?;
        let count = self.entries.len() / ENTRY - 1;
        let (mut low, mut high) = (0, count);
        // Smallest index whose start lies beyond the address.
        while low < high {
            let mid = low + (high - low) / 2;
            if self.entry(mid)?.0 <= offset { low = mid + 1 } else { high = mid }
        }
        let index = low.checked_sub(1)?;
        if offset >= self.entry(count)?.0 {
            return None;
        }
        let (start, name) = self.entry(index)?;
        let end = self.entry(index + 1)?.1;
        let name = self.names.get(name as usize..end as usize)?;
        Some((core::str::from_utf8(name).ok()?, u64::from(offset - start)))
    }

    fn entry(&self, index: usize) -> Option<(u32, u32)> {
        Some((u32_at(self.entries, index * ENTRY)?, u32_at(self.entries, index * ENTRY + 4)?))
    }
}

/// Writes a table of `symbols`, which must be sorted by address and lie in `base..end`.
///
/// Symbols further than 4 GiB from `base` are left out.
pub fn emit(base: u64, end: u64, symbols: &[(u64, &str)]) -> Vec<u8> {
    let mut entries = Vec::new();
    let mut names = Vec::new();
    let mut count = 0u32;
    let offset = |address: u64| address.checked_sub(base).and_then(|d| u32::try_from(d).ok());
    for (address, name) in symbols {
        if let Some(offset) = offset(*address) {
            entries.extend_from_slice(&offset.to_le_bytes());
            entries.extend_from_slice(&(names.len() as u32).to_le_bytes());
            names.extend_from_slice(name.as_bytes());
            count += 1;
        }
    }
    entries.extend_from_slice(&offset(end).unwrap_or(u32::MAX).to_le_bytes());
    entries.extend_from_slice(&(names.len() as u32).to_le_bytes());

    let mut out = Vec::with_capacity(HEADER + entries.len() + names.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&base.to_le_bytes());
    out.extend_from_slice(&(names.len() as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&entries);
    out.extend_from_slice(&names);
    out
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0xffff_ffff_8000_0000;

    #[test]
    fn addresses_resolve_to_the_symbol_that_holds_them() {
        let mut bytes = emit(BASE, BASE + 0x300, &[(BASE + 0x100, "one"), (BASE + 0x200, "zwei")]);
        let len = bytes.len();
        bytes.resize(len + 100, 0xee);
        let table = Table::parse(&bytes).unwrap();
        assert_eq!(table.len(), len);
        assert_eq!(table.lookup(BASE + 0x100), Some(("one", 0)));
        assert_eq!(table.lookup(BASE + 0x1ff), Some(("one", 0xff)));
        assert_eq!(table.lookup(BASE + 0x2ff), Some(("zwei", 0xff)));
        assert_eq!(table.lookup(BASE + 0x300), None);
        assert_eq!(table.lookup(BASE + 0xff), None);
        assert_eq!(table.lookup(3), None);
    }

    #[test]
    fn an_unfilled_or_cut_section_is_no_table() {
        assert!(Table::parse(&[0; 4096]).is_none());
        let bytes = emit(BASE, BASE + 9, &[(BASE, "x")]);
        assert!(Table::parse(&bytes[..bytes.len() - 1]).is_none());
        assert!(Table::parse(&emit(BASE, BASE, &[])).unwrap().is_empty());
    }
}

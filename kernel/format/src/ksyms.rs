//! The kernel's symbol table, for backtraces.
//!
//! The linker script reserves a section `.ksyms`; the build fills it after linking from the ELF
//! symbol table. The kernel reads it when something went wrong, so it is made to be small, not to be
//! fast: a look-up walks from the first symbol. All integers are little-endian:
//!
//! ```text
//! 0    u32  magic "KSYM"
//! 4    u32  count of symbols
//! 8    u64  base: the address that symbol offsets count from
//! 16   u32  length of the symbols in bytes
//! 20   u32  offset of the end of the code from base
//! 24   256 x { u8, u8 }: what each byte of a name stands for: itself (the second is zero), or two
//!      others, each of which may stand for two again
//! 536  symbols by address, each:
//!      LEB128  distance from the symbol before it (the first: from base)
//!      u8      bytes of the name before that this one starts with as well
//!      u8      length of the rest
//!      [u8]    the rest, in bytes of the table above
//! ```
//!
//! The names of a Rust program repeat each other: pairs make them a third as long.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

/// First four bytes of a table.
pub const MAGIC: [u8; 4] = *b"KSYM";
/// Names are cut to this many bytes: enough to tell functions apart in a backtrace.
pub const MAX_NAME: usize = 72;
const HEADER: usize = 24;
const PAIRS: usize = 512;
/// Pairs of pairs that a byte may stand for. A hostile table could nest without end.
const MAX_DEPTH: usize = 16;

/// A symbol table in place.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    base: u64,
    count: usize,
    code: u32,
    pairs: &'a [u8],
    symbols: &'a [u8],
}

/// The name of a symbol.
#[derive(Clone, PartialEq, Eq)]
pub struct Name {
    bytes: [u8; MAX_NAME],
    len: usize,
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
        let (pairs, rest) = rest.split_at_checked(PAIRS)?;
        let base = u64::from(u32_at(header, 8)?) | u64::from(u32_at(header, 12)?) << 32;
        Some(Table {
            base,
            count: u32_at(header, 4)? as usize,
            code: u32_at(header, 20)?,
            pairs,
            symbols: rest.get(..u32_at(header, 16)? as usize)?,
        })
    }

    /// Length of the whole table in bytes; what follows it in the section is unused.
    pub fn len(&self) -> usize {
        HEADER + PAIRS + self.symbols.len()
    }

    /// Whether the table names no symbol.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The symbol that holds `address`, and the distance from its start.
    pub fn lookup(&self, address: u64) -> Option<(Name, u64)> {
        let offset = address.checked_sub(self.base)?;
        if offset >= u64::from(self.code) {
            return None;
        }
        let mut rest = self.symbols;
        let mut name = Name { bytes: [0; MAX_NAME], len: 0 };
        let mut start = 0;
        let mut found = None;
        for _ in 0..self.count {
            start += take_leb(&mut rest)?;
            if start > offset {
                break;
            }
            let (&[kept, len], after) = rest.split_first_chunk()?;
            let (coded, after) = after.split_at_checked(usize::from(len))?;
            name.len = name.len.min(usize::from(kept));
            for &byte in coded {
                self.expand(byte, &mut name, 0)?;
            }
            rest = after;
            found = Some(offset - start);
        }
        Some((name, found?))
    }

    fn expand(&self, byte: u8, name: &mut Name, depth: usize) -> Option<()> {
        let at = usize::from(byte) * 2;
        let (left, right) = (*self.pairs.get(at)?, *self.pairs.get(at + 1)?);
        if right == 0 {
            *name.bytes.get_mut(name.len)? = left;
            name.len += 1;
            return Some(());
        }
        if depth == MAX_DEPTH {
            return None;
        }
        self.expand(left, name, depth + 1)?;
        self.expand(right, name, depth + 1)
    }
}

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..self.len).unwrap_or_default();
        core::str::from_utf8(bytes).unwrap_or("?")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Writes a table of `symbols`, which must be sorted by address and lie in `base..end`.
///
/// Symbols further than 4 GiB from `base` are left out, names are cut to [`MAX_NAME`].
pub fn emit(base: u64, end: u64, symbols: &[(u64, &str)]) -> Vec<u8> {
    let offset = |address: u64| address.checked_sub(base).filter(|&d| u32::try_from(d).is_ok());
    let mut entries = Vec::new();
    let mut rests = Vec::new();
    let mut before: &[u8] = &[];
    for (address, name) in symbols {
        let Some(offset) = offset(*address) else { continue };
        let name = &name.as_bytes()[..name.floor_char_boundary(MAX_NAME)];
        let kept = name.iter().zip(before).take_while(|(a, b)| a == b).count();
        entries.push((offset, kept as u8));
        rests.push(name[kept..].to_vec());
        before = name;
    }
    let pairs = pair(&mut rests);
    let mut bytes = Vec::new();
    let mut last = 0;
    for ((offset, kept), rest) in entries.iter().zip(&rests) {
        put_leb(&mut bytes, offset - last);
        bytes.extend_from_slice(&[*kept, rest.len() as u8]);
        bytes.extend_from_slice(rest);
        last = *offset;
    }

    let mut out = Vec::with_capacity(HEADER + PAIRS + bytes.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    out.extend_from_slice(&base.to_le_bytes());
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(&offset(end).map_or(u32::MAX, |end| end as u32).to_le_bytes());
    out.extend_from_slice(pairs.as_flattened());
    out.extend_from_slice(&bytes);
    out
}

/// Puts one byte, of those that occur in no name, in the place of the pair that is most frequent, as
/// long as there are any; returns what each byte stands for.
fn pair(names: &mut [Vec<u8>]) -> [[u8; 2]; 256] {
    let mut pairs = [[0; 2]; 256];
    let mut depth = [0; 256];
    for &byte in names.iter().flatten() {
        pairs[usize::from(byte)] = [byte, 0];
    }
    let mut counts = vec![0u32; 1 << 16];
    for free in 1..=255u8 {
        if pairs[usize::from(free)] != [0; 2] {
            continue;
        }
        counts.fill(0);
        for two in names.iter().flat_map(|name| name.windows(2)) {
            let deep = depth[usize::from(two[0])].max(depth[usize::from(two[1])]);
            if deep < MAX_DEPTH {
                counts[usize::from(u16::from_be_bytes([two[0], two[1]]))] += 1;
            }
        }
        let most = (0..=u16::MAX).max_by_key(|&two| counts[usize::from(two)]).unwrap_or(0);
        if counts[usize::from(most)] < 2 {
            break;
        }
        let two = most.to_be_bytes();
        pairs[usize::from(free)] = two;
        depth[usize::from(free)] =
            1 + two.map(|byte| depth[usize::from(byte)]).into_iter().max().unwrap_or(0);
        for name in names.iter_mut() {
            let (mut from, mut to) = (0, 0);
            while from < name.len() {
                let paired = name[from..].starts_with(&two);
                name[to] = if paired { free } else { name[from] };
                from += 1 + usize::from(paired);
                to += 1;
            }
            name.truncate(to);
        }
    }
    pairs
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Appends `value` in groups of seven bits, lowest first; all but the last have bit 7 set.
pub fn put_leb(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads what [`put_leb`] wrote off the start of `bytes`; `None` if it is cut off or too large.
pub fn take_leb(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    const BASE: u64 = 0xffff_ffff_8000_0000;

    fn found(table: &Table<'_>, address: u64) -> Option<(alloc::string::String, u64)> {
        table.lookup(address).map(|(name, distance)| (name.to_string(), distance))
    }

    #[test]
    fn addresses_resolve_to_the_symbol_that_holds_them() {
        let mut bytes = emit(BASE, BASE + 0x300, &[(BASE + 0x100, "one"), (BASE + 0x200, "zwei")]);
        let len = bytes.len();
        bytes.resize(len + 100, 0xee);
        let table = Table::parse(&bytes).unwrap();
        assert_eq!(table.len(), len);
        let is = |name: &str, distance| Some((name.to_string(), distance));
        assert_eq!(found(&table, BASE + 0x100), is("one", 0));
        assert_eq!(found(&table, BASE + 0x1ff), is("one", 0xff));
        assert_eq!(found(&table, BASE + 0x2ff), is("zwei", 0xff));
        assert_eq!(found(&table, BASE + 0x300), None);
        assert_eq!(found(&table, BASE + 0xff), None);
        assert_eq!(found(&table, 3), None);
    }

    #[test]
    fn names_come_back_whatever_they_share() {
        let mut names = Vec::new();
        for (index, file) in
            ["net::unix", "net::tcp", "fs::ext4", "fs::ext4::inode"].iter().enumerate()
        {
            for call in ["read", "write", "poll", "ioctl", "close"] {
                names.push(alloc::format!("<{file}::File{index} as FileOps>::{call}"));
            }
        }
        names.push("ä".repeat(MAX_NAME));
        let symbols: Vec<(u64, &str)> =
            names.iter().zip(0..).map(|(name, n)| (BASE + n * n * 300, name.as_str())).collect();
        let bytes = emit(BASE, BASE + (1 << 20), &symbols);
        let table = Table::parse(&bytes).unwrap();
        for (address, name) in &symbols {
            let cut = &name[..name.floor_char_boundary(MAX_NAME)];
            assert_eq!(found(&table, address + 1), Some((cut.to_string(), 1)));
        }
        let plain: usize = names.iter().map(|name| name.len()).sum();
        assert!(bytes.len() - HEADER - PAIRS < plain / 2, "{} of {plain}", bytes.len());
    }

    #[test]
    fn an_unfilled_or_damaged_section_is_no_table_or_names_nothing() {
        assert!(Table::parse(&[0; 4096]).is_none());
        let bytes = emit(BASE, BASE + 9, &[(BASE, "x")]);
        assert!(Table::parse(&bytes[..bytes.len() - 1]).is_none());
        assert!(Table::parse(&emit(BASE, BASE, &[])).unwrap().is_empty());
        // Every byte stands for two of itself, without end.
        let mut endless = bytes.clone();
        for (byte, pair) in endless[HEADER..HEADER + PAIRS].chunks_exact_mut(2).enumerate() {
            pair.fill(byte as u8);
        }
        assert!(Table::parse(&endless).unwrap().lookup(BASE + 1).is_none());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xff;
            let _ = Table::parse(&damaged).map(|table| table.lookup(BASE + 1));
        }
    }
}

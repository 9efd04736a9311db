//! The one table of an SQLite database that is wanted ("Database File Format" on sqlite.org): rows of
//! `Packages` are a number and a header. No library: SQLite's own is C, and reads what strangers made.

use std::collections::{HashMap, HashSet};

use super::{MAX_HEADER, bytes_at, u16_be, u32_be};

const MAGIC: &[u8] = b"SQLite format 3\0";
const INTERIOR: u8 = 0x05;
const LEAF: u8 = 0x0d;
/// Deepest tree: one of this depth has more pages than there can be.
const MAX_DEPTH: u32 = 20;

struct Database<'a> {
    bytes: &'a [u8],
    page_size: usize,
    /// Bytes of a page that hold data.
    usable: usize,
    /// Pages in the write-ahead log that stand for those of the file.
    log: HashMap<u32, &'a [u8]>,
    seen: HashSet<u32>,
}

/// The headers; `None` if it is no such database.
pub fn headers(bytes: &[u8], log: &[u8]) -> Option<Vec<Vec<u8>>> {
    if !bytes.starts_with(MAGIC) {
        return None;
    }
    let page_size = match u16_be(bytes, 16)? {
        1 => 65536,
        size if size.is_power_of_two() && size >= 512 => usize::from(size),
        _ => return None,
    };
    let usable = page_size.checked_sub(usize::from(*bytes.get(20)?)).filter(|u| *u >= 480)?;
    let log = frames(log, page_size).unwrap_or_default();
    let mut database = Database { bytes, page_size, usable, log, seen: HashSet::new() };
    let mut root = None;
    database.walk(1, 0, &mut |row| {
        // type, name, tbl_name, rootpage, sql
        if let [Value::Bytes(b"table"), Value::Bytes(b"Packages"), _, Value::Number(page), ..] =
            columns(row)?.as_slice()
        {
            root = u32::try_from(*page).ok();
        }
        Some(())
    })?;
    let mut found = Vec::new();
    database.seen.clear();
    database.walk(root?, 0, &mut |row| {
        if let [_, Value::Bytes(header), ..] = columns(row)?.as_slice() {
            found.push(header.to_vec());
        }
        Some(())
    })?;
    Some(found)
}

impl<'a> Database<'a> {
    fn page(&self, number: u32) -> Option<&'a [u8]> {
        if let Some(page) = self.log.get(&number) {
            return Some(page);
        }
        let start = (number.checked_sub(1)? as usize).checked_mul(self.page_size)?;
        self.bytes.get(start..start.checked_add(self.page_size)?)
    }

    /// Visits all rows of a table; `None` if the tree is damaged.
    fn walk(
        &mut self,
        number: u32,
        depth: u32,
        visit: &mut dyn FnMut(&[u8]) -> Option<()>,
    ) -> Option<()> {
        // Each page is once in a sound tree, so the walk ends.
        if depth > MAX_DEPTH || !self.seen.insert(number) {
            return None;
        }
        let page = self.page(number)?;
        let start = if number == 1 { 100 } else { 0 };
        let kind = *page.get(start)?;
        let cells = usize::from(u16_be(page, start + 3)?);
        let pointers = start + if kind == INTERIOR { 12 } else { 8 };
        for index in 0..cells {
            let at = usize::from(u16_be(page, pointers + 2 * index)?);
            match kind {
                INTERIOR => self.walk(u32_be(page, at)?, depth + 1, visit)?,
                // A row that is damaged takes no other with it.
                LEAF => drop(self.payload(page, at).and_then(|row| visit(&row))),
                _ => return None,
            }
        }
        if kind == INTERIOR {
            self.walk(u32_be(page, start + 8)?, depth + 1, visit)?;
        }
        Some(())
    }

    /// A row, with what overflows its page.
    fn payload(&self, page: &[u8], at: usize) -> Option<Vec<u8>> {
        let mut at = at;
        let len = usize::try_from(varint(page, &mut at)?).ok().filter(|len| *len <= MAX_HEADER)?;
        varint(page, &mut at)?;
        let most = self.usable - 35;
        let local = if len <= most {
            len
        } else {
            let least = (self.usable - 12) * 32 / 255 - 23;
            let wanted = least + (len - least) % (self.usable - 4);
            if wanted <= most { wanted } else { least }
        };
        let mut row = page.get(at..at + local)?.to_vec();
        let mut next = if local < len { u32_be(page, at + local)? } else { 0 };
        while row.len() < len {
            // Every page adds bytes, so this ends.
            let page = self.page(next)?;
            next = u32_be(page, 0)?;
            let more = (len - row.len()).min(self.usable - 4);
            row.extend_from_slice(page.get(4..4 + more)?);
        }
        Some(row)
    }
}

enum Value<'r> {
    Number(i64),
    Bytes(&'r [u8]),
    Other,
}

/// The columns of a row ("Record Format").
fn columns(row: &[u8]) -> Option<Vec<Value<'_>>> {
    let mut at = 0;
    let header = usize::try_from(varint(row, &mut at)?).ok()?;
    let mut body = header;
    let mut values = Vec::new();
    while at < header && values.len() < 16 {
        let kind = varint(row, &mut at)?;
        let len = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind as usize,
            5 => 6,
            6 | 7 => 8,
            10 | 11 => return None,
            _ => usize::try_from((kind - 12) / 2).ok()?,
        };
        let bytes = row.get(body..body.checked_add(len)?)?;
        body += len;
        values.push(match kind {
            1..=6 => {
                let first = if bytes[0] & 0x80 != 0 { -1 } else { 0 };
                Value::Number(bytes.iter().fold(first, |sum, &byte| sum << 8 | i64::from(byte)))
            }
            8 | 9 => Value::Number(kind as i64 - 8),
            12.. => Value::Bytes(bytes),
            _ => Value::Other,
        });
    }
    Some(values)
}

/// A big-endian number of up to nine bytes.
fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0u64;
    for index in 0..9 {
        let byte = *bytes.get(*at)?;
        *at += 1;
        if index == 8 {
            return Some(value << 8 | u64::from(byte));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The pages of a write-ahead log, as far as transactions in it are complete ("WAL-mode File
/// Format").
fn frames(log: &[u8], page_size: usize) -> Option<HashMap<u32, &[u8]>> {
    let mut pages = HashMap::new();
    if !matches!(u32_be(log, 0)?, 0x377f_0682 | 0x377f_0683)
        || u32_be(log, 8)? as usize & 0xffff != page_size & 0xffff
    {
        return None;
    }
    let salts: [u8; 8] = bytes_at(log, 16)?;
    let mut pending = Vec::new();
    for frame in log.get(32..)?.chunks_exact(24 + page_size) {
        // Frames of an earlier use of the file have other salts.
        if bytes_at(frame, 8) != Some(salts) {
            break;
        }
        pending.push((u32_be(frame, 0)?, &frame[24..]));
        if u32_be(frame, 4)? != 0 {
            pages.extend(pending.drain(..));
        }
    }
    Some(pages)
}

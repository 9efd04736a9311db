//! Berkeley DB's hash files, as far as `Packages` has them (`src/dbinc/db_page.h` of version 5.3):
//! the values of all pairs are headers. Little-endian, as on the machines that images are for.

use super::{MAX_HEADER, bytes_at, u32_le};

const MAGIC: u32 = 0x0006_1561;
const UNSORTED: u8 = 2;
const SORTED: u8 = 13;
const OVERFLOW: u8 = 7;
const PAGE_HEADER: usize = 26;
/// An item's type: its data follow, or lie on pages of their own.
const HERE: u8 = 1;
const ELSEWHERE: u8 = 3;

struct Database<'a> {
    bytes: &'a [u8],
    page_size: usize,
}

/// The headers; `None` if it is no such database.
pub fn headers(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let page_size = u32_le(bytes, 20)? as usize;
    if u32_le(bytes, 12)? != MAGIC || !page_size.is_power_of_two() {
        return None;
    }
    if !(512..=65536).contains(&page_size) {
        return None;
    }
    let database = Database { bytes, page_size };
    let mut found = Vec::new();
    let mut total = 0;
    for number in 1..bytes.len() / page_size {
        let Some(page) = database.page(number) else { continue };
        if !matches!(page[25], UNSORTED | SORTED) {
            continue;
        }
        let items = usize::from(u16_le(page, 20)?);
        // Keys and values take turns.
        for index in (1..items).step_by(2) {
            let Some(value) = database.item(page, index) else { continue };
            total += value.len();
            // Sound values don't overlap.
            if total > bytes.len() {
                return None;
            }
            found.push(value);
        }
    }
    Some(found)
}

impl<'a> Database<'a> {
    fn page(&self, number: usize) -> Option<&'a [u8]> {
        let start = number.checked_mul(self.page_size)?;
        self.bytes.get(start..start.checked_add(self.page_size)?)
    }

    fn item(&self, page: &[u8], index: usize) -> Option<Vec<u8>> {
        let at = usize::from(u16_le(page, PAGE_HEADER + 2 * index)?);
        match *page.get(at)? {
            HERE => {
                // Items fill the page from its end: one ends where that before it starts.
                let end = usize::from(u16_le(page, PAGE_HEADER + 2 * (index - 1))?);
                Some(page.get(at + 1..end)?.to_vec())
            }
            ELSEWHERE => self.chain(u32_le(page, at + 4)? as usize, u32_le(page, at + 8)? as usize),
            _ => None,
        }
    }

    /// Data on pages of their own.
    fn chain(&self, first: usize, len: usize) -> Option<Vec<u8>> {
        if len > MAX_HEADER.min(self.bytes.len()) {
            return None;
        }
        let mut data = Vec::with_capacity(len);
        let mut next = first;
        while data.len() < len {
            let page = self.page(next)?;
            let here = usize::from(u16_le(page, 22)?);
            // Every page adds bytes, so this ends.
            if page[25] != OVERFLOW || here == 0 {
                return None;
            }
            data.extend_from_slice(page.get(PAGE_HEADER..PAGE_HEADER + here)?);
            next = u32_le(page, 16)? as usize;
        }
        (data.len() == len).then_some(data)
    }
}

fn u16_le(bytes: &[u8], at: usize) -> Option<u16> {
    bytes_at(bytes, at).map(u16::from_le_bytes)
}

//! rpm's own database (`lib/backend/ndb/rpmpkg.c`): slots that say where blobs lie, little-endian, in
//! blocks of 16 bytes.

use super::{MAX_HEADER, u32_le};

const MAGIC: u32 = u32::from_le_bytes(*b"RpmP");
const SLOT: u32 = u32::from_le_bytes(*b"Slot");
const BLOB: u32 = u32::from_le_bytes(*b"BlbS");
const BLOCK: usize = 16;
const PAGE: usize = 4096;
/// The file's header takes the place of two slots.
const HEADER: usize = 32;

/// The headers; `None` if it is no such database.
pub fn headers(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    if u32_le(bytes, 0)? != MAGIC {
        return None;
    }
    let end = (u32_le(bytes, 12)? as usize).checked_mul(PAGE)?.min(bytes.len());
    let slots = bytes.get(HEADER..end)?.chunks_exact(BLOCK);
    let mut found = Vec::new();
    let mut total = 0;
    for slot in slots.filter(|slot| u32_le(slot, 0) == Some(SLOT)) {
        let (package, block) = (u32_le(slot, 4)?, u32_le(slot, 8)? as usize);
        // A free slot.
        if block == 0 {
            continue;
        }
        let Some(blob) = blob(bytes, block, package) else { continue };
        total += blob.len();
        // Sound blobs don't overlap.
        if total > bytes.len() {
            return None;
        }
        found.push(blob.to_vec());
    }
    Some(found)
}

fn blob(bytes: &[u8], block: usize, package: u32) -> Option<&[u8]> {
    let start = block.checked_mul(BLOCK)?;
    if u32_le(bytes, start)? != BLOB || u32_le(bytes, start + 4)? != package {
        return None;
    }
    let len = (u32_le(bytes, start + 12)? as usize).min(MAX_HEADER + 1);
    bytes.get(start + 16..(start + 16).checked_add(len)?)
}

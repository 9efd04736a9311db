//! `/etc/ld.so.cache`, glibc's table of libraries (glibc `sysdeps/generic/dl-cache.h`, format 1.1).

use std::collections::BTreeMap;

const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
/// The format before it, which may come first in the file.
const OLD_MAGIC: &[u8] = b"ld.so-1.7.0";
const HEADER: usize = 48;
const ENTRY: usize = 24;
/// Entries that are looked at.
const MAX_ENTRIES: usize = 100_000;
/// A library for x86-64 and the C library of glibc 2.
const FLAGS: u32 = 0x0303;

/// File names by library name, the plain one last.
pub type Cache = BTreeMap<String, Vec<String>>;

/// Reads the cache; empty if it is none.
pub fn parse(bytes: &[u8]) -> Cache {
    new_format(bytes).and_then(read).unwrap_or_default()
}

fn new_format(bytes: &[u8]) -> Option<&[u8]> {
    if bytes.starts_with(OLD_MAGIC) {
        let count = u32_at(bytes, 12)? as usize;
        let end = 16usize.checked_add(count.checked_mul(12)?)?.next_multiple_of(8);
        return bytes.get(end..);
    }
    Some(bytes)
}

fn read(bytes: &[u8]) -> Option<Cache> {
    if !bytes.starts_with(MAGIC) {
        return None;
    }
    let count = (u32_at(bytes, 20)? as usize).min(MAX_ENTRIES);
    let mut cache = Cache::new();
    for index in 0..count {
        let at = HEADER + index * ENTRY;
        let (flags, key, value) =
            (u32_at(bytes, at)?, u32_at(bytes, at + 4)?, u32_at(bytes, at + 8)?);
        if flags == FLAGS {
            cache.entry(string(bytes, key)?).or_default().push(string(bytes, value)?);
        }
    }
    Some(cache)
}

fn string(bytes: &[u8], at: u32) -> Option<String> {
    let rest = bytes.get(at as usize..)?;
    let end = rest.iter().take(4096).position(|&byte| byte == 0)?;
    Some(String::from_utf8_lossy(&rest[..end]).into_owned())
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_s_own_cache_is_read() {
        let bytes = std::fs::read("/etc/ld.so.cache").unwrap();
        let cache = parse(&bytes);
        let libc = &cache["libc.so.6"];
        assert!(libc.iter().all(|path| path.ends_with("/libc.so.6")), "{libc:?}");
        assert!(parse(&bytes[..100]).is_empty());
        assert!(parse(b"ld.so-1.7.0\0\xff\xff\xff\xff").is_empty());
    }
}

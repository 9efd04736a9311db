//! Reading bbolt databases (go.etcd.io/bbolt: `page.go`, `meta.go`, `node.go`), without their lock.
//!
//! Writers never change a page that the last committed transaction uses: they write new ones, and
//! reuse those of the transaction before it. So what was read is consistent if the transaction is
//! the same afterwards as it was before, and no lock of containerd's is needed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

const MAGIC: u32 = 0xed0c_daed;
const VERSION: u32 = 2;
const PAGE_HEADER: usize = 16;
const META: usize = 64;
const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
/// Flag of a leaf's element whose value is a bucket.
const NESTED: u32 = 0x01;
/// Deepest tree; a real one of this depth has more pages than any disk.
const MAX_DEPTH: u32 = 16;
/// Most bytes of pages that one database makes us read.
const MAX_READ: usize = 256 << 20;

/// What is wrong with a database.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is no bbolt database: {0}")]
    Malformed(&'static str),
}

/// A database as one transaction left it.
pub struct Bolt {
    file: File,
    page_size: usize,
    meta: Meta,
    read: std::cell::Cell<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Meta {
    page_size: u32,
    root: u64,
    transaction: u64,
}

/// A bucket: the root of a tree of pages, or one page within its parent's value.
pub enum Bucket {
    Page(u64),
    Inline(Vec<u8>),
}

/// A key with its value, or with the bucket under it.
pub struct Entry {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    nested: bool,
}

impl Bolt {
    /// Opens a database as it is now.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        let file = File::open(path)?;
        let meta = newest(&file)?;
        // Checked to be small when the meta page was read.
        Ok(Self { file, page_size: meta.page_size as usize, meta, read: 0.into() })
    }

    /// Whether nothing has been committed since it was opened: only then is what was read true.
    pub fn is_unchanged(&self) -> Result<bool, Fault> {
        Ok(newest(&self.file)? == self.meta)
    }

    /// The bucket that holds all others.
    pub fn root(&self) -> Bucket {
        Bucket::Page(self.meta.root)
    }

    /// All that is in a bucket, in the order of its keys.
    pub fn entries(&self, bucket: &Bucket) -> Result<Vec<Entry>, Fault> {
        let mut found = Vec::new();
        match bucket {
            Bucket::Inline(page) => self.walk(page, 0, &mut found)?,
            Bucket::Page(number) => self.walk(&self.page(*number)?, 0, &mut found)?,
        }
        Ok(found)
    }

    /// The bucket of that name in another.
    pub fn bucket(&self, parent: &Bucket, name: &[u8]) -> Result<Option<Bucket>, Fault> {
        let entries = self.entries(parent)?;
        entries.into_iter().find(|entry| entry.key == name).map_or(Ok(None), |entry| entry.bucket())
    }

    fn walk(&self, page: &[u8], depth: u32, found: &mut Vec<Entry>) -> Result<(), Fault> {
        let flags = u16_at(page, 8)?;
        let count = usize::from(u16_at(page, 10)?);
        for index in 0..count {
            let at = PAGE_HEADER + 16 * index;
            let slice = |from: usize, len: u32| -> Result<Vec<u8>, Fault> {
                let end = from.checked_add(len as usize).ok_or(SHORT)?;
                Ok(page.get(from..end).ok_or(SHORT)?.to_vec())
            };
            match flags {
                BRANCH if depth < MAX_DEPTH => {
                    let child = self.page(u64_at(page, at + 8)?)?;
                    self.walk(&child, depth + 1, found)?;
                }
                LEAF => {
                    let (flags, pos) = (u32_at(page, at)?, u32_at(page, at + 4)? as usize);
                    let (key_len, value_len) = (u32_at(page, at + 8)?, u32_at(page, at + 12)?);
                    let key = slice(at.saturating_add(pos), key_len)?;
                    let value_at = at.saturating_add(pos).saturating_add(key_len as usize);
                    let value = slice(value_at, value_len)?;
                    found.push(Entry { key, value, nested: flags & NESTED != 0 });
                }
                BRANCH => return Err(Fault::Malformed("its tree is too deep")),
                _ => return Err(Fault::Malformed("a page is of no known kind")),
            }
        }
        Ok(())
    }

    /// A page with those that continue it.
    fn page(&self, number: u64) -> Result<Vec<u8>, Fault> {
        let start = number.checked_mul(self.page_size as u64).ok_or(SHORT)?;
        let mut head = [0; PAGE_HEADER];
        self.file.read_exact_at(&mut head, start)?;
        let len = (u32_at(&head, 12)? as usize + 1).checked_mul(self.page_size).ok_or(SHORT)?;
        let read = self.read.get().saturating_add(len);
        if read > MAX_READ {
            return Err(Fault::Malformed("it is larger than any honest one"));
        }
        self.read.set(read);
        let mut page = vec![0; len];
        self.file.read_exact_at(&mut page, start)?;
        if u64_at(&page, 0)? != number {
            return Err(Fault::Malformed("a page has another's number"));
        }
        Ok(page)
    }
}

impl Entry {
    /// The bucket under the key, if there is one.
    pub fn bucket(self) -> Result<Option<Bucket>, Fault> {
        if !self.nested {
            return Ok(None);
        }
        Ok(Some(match u64_at(&self.value, 0)? {
            0 => Bucket::Inline(self.value.get(16..).ok_or(SHORT)?.to_vec()),
            root => Bucket::Page(root),
        }))
    }
}

const SHORT: Fault = Fault::Malformed("it is damaged: something leads out of it");

/// The newer of the two meta pages that is sound.
fn newest(file: &File) -> Result<Meta, Fault> {
    let at = |offset: u64| -> Option<Meta> {
        let mut page = [0; PAGE_HEADER + META];
        file.read_exact_at(&mut page, offset).ok()?;
        meta(&page[PAGE_HEADER..])
    };
    let first = at(0);
    // The second one lies a page further; its size is known from the first, unless that is damaged.
    let second = match first {
        Some(meta) => at(meta.page_size.into()),
        None => (9..17).find_map(|shift| at(1 << shift)),
    };
    let newest = [first, second].into_iter().flatten().max_by_key(|meta| meta.transaction);
    newest.ok_or(Fault::Malformed("neither of its meta pages is sound"))
}

fn meta(bytes: &[u8]) -> Option<Meta> {
    let u32_at = |at| u32_at(bytes, at).ok();
    let u64_at = |at| u64_at(bytes, at).ok();
    let sound = u32_at(0)? == MAGIC
        && u32_at(4)? == VERSION
        && u64_at(56)? == fnv(&bytes[..56])
        && u32_at(8)?.is_power_of_two()
        && (512..=1 << 16).contains(&u32_at(8)?);
    sound.then_some(Meta { page_size: u32_at(8)?, root: u64_at(16)?, transaction: u64_at(48)? })
}

/// FNV-1a with 64 bits.
fn fnv(bytes: &[u8]) -> u64 {
    let step = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Fault> {
    bytes.get(at..).and_then(|rest| rest.first_chunk().copied()).ok_or(SHORT)
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Fault> {
    Ok(u16::from_le_bytes(bytes_at(bytes, at)?))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Fault> {
    Ok(u32::from_le_bytes(bytes_at(bytes, at)?))
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, Fault> {
    Ok(u64::from_le_bytes(bytes_at(bytes, at)?))
}

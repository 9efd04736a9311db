//! Extended attributes: in what is left of the inode, and in a block of their own.

use crate::cache::Kind;
use crate::crc::crc32c;
use crate::disk::{get8, get16, get32, put8, put16, put32};
use crate::inode::{Inode, SIZE};
use crate::volume::Volume;
use crate::{BLOCK, Error, Result, sort};
use std_alloc::vec::Vec;

const MAGIC: u32 = 0xea02_0000;
/// Bytes of the header of a block, and of an entry before its name.
const HEADER: usize = 32;
const ENTRY: usize = 16;
/// Where the header has its checksum.
pub const CHECKSUM: usize = 16;

/// Prefixes of names by their numbers.
const PREFIXES: [(u8, &[u8]); 3] = [(1, b"user."), (4, b"trusted."), (6, b"security.")];

/// One attribute: number of the prefix, rest of the name, value.
struct Attribute {
    prefix: u8,
    name: Vec<u8>,
    value: Vec<u8>,
}

/// Checksum of a block of attributes.
pub fn checksum(seed: u32, block: u64, data: &[u8]) -> u32 {
    let csum = crc32c(seed, &block.to_le_bytes());
    let csum = crc32c(csum, data.get(..CHECKSUM).unwrap_or(&[]));
    let csum = crc32c(csum, &[0; 4]);
    crc32c(csum, data.get(CHECKSUM + 4..).unwrap_or(&[]))
}

fn split(name: &[u8]) -> Option<(u8, &[u8])> {
    PREFIXES.iter().find_map(|&(number, prefix)| {
        let rest = name.strip_prefix(prefix)?;
        (!rest.is_empty() && rest.len() < 256).then_some((number, rest))
    })
}

fn damaged<T>() -> Result<T> {
    Err(Error::Corrupt("extended attributes"))
}

/// Reads entries from `first` on; offsets of values count from `base`.
fn parse(data: &[u8], first: usize, base: usize, out: &mut Vec<Attribute>) -> Result<()> {
    let mut at = first;
    while at + 4 <= data.len() && get32(data, at) != 0 {
        let (len, prefix) = (usize::from(get8(data, at)), get8(data, at + 1));
        let offset = base + usize::from(get16(data, at + 2));
        let size = get32(data, at + 8) as usize;
        let name = data.get(at + ENTRY..at + ENTRY + len);
        let value = offset.checked_add(size).and_then(|end| data.get(offset..end));
        let (Some(name), Some(value)) = (name, value) else { return damaged() };
        if get32(data, at + 4) != 0 {
            return Err(Error::Unsupported("extended attributes in inodes of their own"));
        }
        out.push(Attribute { prefix, name: name.to_vec(), value: value.to_vec() });
        at += (ENTRY + len).next_multiple_of(4);
    }
    Ok(())
}

fn hash(attribute: &Attribute) -> u32 {
    let name = attribute.name.iter();
    let hash = name.fold(0u32, |hash, &byte| (hash << 5) ^ (hash >> 27) ^ u32::from(byte));
    attribute.value.chunks(4).fold(hash, |hash, word| {
        let mut bytes = [0; 4];
        bytes[..word.len()].copy_from_slice(word);
        (hash << 16) ^ (hash >> 16) ^ u32::from_le_bytes(bytes)
    })
}

impl Attribute {
    fn entry_len(&self) -> usize {
        (ENTRY + self.name.len()).next_multiple_of(4)
    }

    fn len(&self) -> usize {
        self.entry_len() + self.value.len().next_multiple_of(4)
    }
}

/// Writes attributes into `data`: entries from `first` on, values from the end. They fit.
fn emit(data: &mut [u8], first: usize, base: usize, all: &[Attribute], hashes: bool) {
    let (mut at, mut end) = (first, data.len());
    for attribute in all {
        end -= attribute.value.len().next_multiple_of(4);
        put8(data, at, attribute.name.len() as u8);
        put8(data, at + 1, attribute.prefix);
        let offset = if attribute.value.is_empty() { 0 } else { end - base };
        put16(data, at + 2, offset as u16);
        put32(data, at + 8, attribute.value.len() as u32);
        put32(data, at + 12, if hashes { hash(attribute) } else { 0 });
        data[at + ENTRY..at + ENTRY + attribute.name.len()].copy_from_slice(&attribute.name);
        data[end..end + attribute.value.len()].copy_from_slice(&attribute.value);
        at += attribute.entry_len();
    }
}

impl Volume {
    fn load(&mut self, inode: &Inode) -> Result<Vec<Attribute>> {
        let mut all = Vec::new();
        let at = inode.extra_end();
        if at + 8 <= SIZE && get32(&inode.raw, at) == MAGIC {
            parse(&inode.raw, at + 4, at + 4, &mut all)?;
        }
        let block = inode.xattr_block();
        if block != 0 {
            let data = self.block(block, Kind::Xattr)?;
            if get32(&data, 0) != MAGIC || get32(&data, 8) != 1 {
                return damaged();
            }
            parse(&data, HEADER, 0, &mut all)?;
        }
        Ok(all)
    }

    /// Value of an attribute by its full name; `None` if it isn't set.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a name of an unknown kind.
    pub fn xattr(&mut self, ino: u32, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let (prefix, rest) = split(name).ok_or(Error::Unsupported("that attribute"))?;
        let inode = self.inode(ino)?;
        let all = self.load(&inode)?;
        let found = all.into_iter().find(|one| one.prefix == prefix && one.name == rest);
        Ok(found.map(|one| one.value))
    }

    /// Names of all attributes, each followed by a NUL.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::Io`].
    pub fn xattr_names(&mut self, ino: u32) -> Result<Vec<u8>> {
        let inode = self.inode(ino)?;
        let mut names = Vec::new();
        for one in self.load(&inode)? {
            let Some(&(_, prefix)) = PREFIXES.iter().find(|&&(number, _)| number == one.prefix)
            else {
                continue;
            };
            names.extend_from_slice(prefix);
            names.extend_from_slice(&one.name);
            names.push(0);
        }
        Ok(names)
    }

    /// Sets an attribute, or removes it. `create` and `replace` demand that it doesn't or does
    /// exist.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::NotFound`], [`Error::NoSpace`].
    pub fn set_xattr(
        &mut self,
        ino: u32,
        name: &[u8],
        value: Option<&[u8]>,
        create: bool,
        replace: bool,
    ) -> Result<Inode> {
        let (prefix, rest) = split(name).ok_or(Error::Unsupported("that attribute"))?;
        self.run_xattr(ino, &mut |all| {
            let found = all.iter().position(|one| one.prefix == prefix && one.name == rest);
            if create && found.is_some() {
                return Err(Error::Exists);
            }
            if replace && found.is_none() {
                return Err(Error::NotFound);
            }
            if let Some(at) = found {
                all.remove(at);
            }
            if let Some(value) = value {
                all.push(Attribute { prefix, name: rest.to_vec(), value: value.to_vec() });
            }
            Ok(())
        })
    }

    fn run_xattr(
        &mut self,
        ino: u32,
        edit: &mut dyn FnMut(&mut Vec<Attribute>) -> Result<()>,
    ) -> Result<Inode> {
        self.run(|volume| {
            let mut inode = volume.inode(ino)?;
            let mut all = volume.load(&inode)?;
            edit(&mut all)?;
            volume.store_xattrs(&mut inode, all)?;
            inode.set_ctime(volume.now);
            volume.put_inode(&mut inode)?;
            Ok(inode)
        })
    }

    fn store_xattrs(&mut self, inode: &mut Inode, all: Vec<Attribute>) -> Result<()> {
        // Small ones into the inode, as long as there is room; the rest into the block.
        let at = inode.extra_end();
        let mut room = SIZE.saturating_sub(at + 8);
        let (mut inside, mut outside) = (Vec::new(), Vec::new());
        for one in all {
            if one.len() <= room {
                room -= one.len();
                inside.push(one);
            } else {
                outside.push(one);
            }
        }
        if let Some(space) = inode.raw.get_mut(at..) {
            space.fill(0);
        }
        if !inside.is_empty() {
            put32(&mut inode.raw, at, MAGIC);
            emit(&mut inode.raw[at + 4..], 0, 0, &inside, false);
        }
        if outside.is_empty() {
            return self.drop_xattr_block(inode);
        }
        if outside.iter().map(Attribute::len).sum::<usize>() > BLOCK - HEADER - 4 {
            return Err(Error::NoSpace);
        }
        // Linux looks for names in order of prefix, length, bytes.
        sort::by(&mut outside, |a, b| {
            (a.prefix, a.name.len(), &a.name) < (b.prefix, b.name.len(), &b.name)
        });
        let mut block = inode.xattr_block();
        if block == 0 {
            let group = (inode.ino - 1) / self.geometry.inodes_per_group;
            block = self.allocate(self.geometry.group_start(group), 1)?.0;
            inode.set_xattr_block(block);
            inode.add_blocks(1);
            self.new_block(block, Kind::Xattr)?;
        }
        let data = self.change(block, Kind::Xattr)?;
        data.fill(0);
        emit(data, HEADER, 0, &outside, true);
        let combined = outside.iter().fold(0u32, |sum, one| (sum << 16) ^ (sum >> 16) ^ hash(one));
        put32(data, 0, MAGIC);
        put32(data, 4, 1);
        put32(data, 8, 1);
        put32(data, 12, combined);
        Ok(())
    }

    /// Lets go of the block of attributes: one user fewer, or none.
    pub(crate) fn drop_xattr_block(&mut self, inode: &mut Inode) -> Result<()> {
        let block = inode.xattr_block();
        if block == 0 {
            return Ok(());
        }
        inode.set_xattr_block(0);
        inode.add_blocks(-1);
        let users = get32(&self.block(block, Kind::Xattr)?, 4);
        if users > 1 {
            put32(self.change(block, Kind::Xattr)?, 4, users - 1);
            return Ok(());
        }
        self.free(block, 1, true)
    }
}

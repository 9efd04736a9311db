//! Sections of ELF files (System V ABI, "Object Files"), read where they lie: programs are large.

use crate::erofs::{Node, ReadAt, Reader};

/// Sections that are looked through.
const MAX_SECTIONS: u16 = 4096;
const MAX_NAMES: u64 = 1 << 20;

/// An ELF file of 64 bits, little-endian.
pub struct Object<'r, 's> {
    reader: &'r Reader<&'s dyn ReadAt>,
    node: Node,
    sections: Vec<Section>,
}

struct Section {
    name: Vec<u8>,
    offset: u64,
    len: u64,
}

impl<'r, 's> Object<'r, 's> {
    /// `None` if the file is no such ELF file, or its section table is damaged.
    pub fn open(reader: &'r Reader<&'s dyn ReadAt>, node: &Node) -> Option<Object<'r, 's>> {
        let mut object = Object { reader, node: *node, sections: Vec::new() };
        let header = object.bytes(0, 64)?;
        if !header.starts_with(b"\x7fELF\x02\x01") {
            return None;
        }
        let (start, size) = (u64_at(&header, 40)?, u16_at(&header, 58)?);
        let (count, names) = (u16_at(&header, 60)?, u16_at(&header, 62)?);
        if size != 64 || count > MAX_SECTIONS || names >= count {
            return None;
        }
        let table = object.bytes(start, u64::from(count) * 64)?;
        let place = |index: u16| -> Option<(u32, u64, u64)> {
            let entry = table.get(usize::from(index) * 64..)?.get(..64)?;
            Some((u32_at(entry, 0)?, u64_at(entry, 24)?, u64_at(entry, 32)?))
        };
        let (_, at, len) = place(names)?;
        let names = object.bytes(at, len.min(MAX_NAMES))?;
        for index in 0..count {
            let (name, offset, len) = place(index)?;
            let name = names.get(name as usize..).unwrap_or_default();
            let name = name.split(|&byte| byte == 0).next().unwrap_or_default().to_vec();
            object.sections.push(Section { name, offset, len });
        }
        Some(object)
    }

    /// The contents of a section, up to `max` bytes.
    pub fn section(&self, name: &[u8], max: u64) -> Option<Vec<u8>> {
        let section = self.sections.iter().find(|section| section.name == name)?;
        self.bytes(section.offset, section.len.min(max))
    }

    fn bytes(&self, offset: u64, len: u64) -> Option<Vec<u8>> {
        let end = offset.checked_add(len)?;
        if end > self.node.inode.size {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(len).ok()?];
        let read = self.reader.read_at(&self.node, offset, &mut bytes).ok()?;
        (read == bytes.len()).then_some(bytes)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

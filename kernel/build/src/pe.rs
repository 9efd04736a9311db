//! Packs the EFI loader: an ELF program whose segments become the sections of a PE32+ file
//! (Microsoft's "PE Format"), as UEFI firmware loads it.
//!
//! The loader is built for the one target whose `core` every toolchain brings, so what the linker
//! makes is ELF. Its only relocations are addresses within itself; PE has the same in `.reloc`.

use std::collections::BTreeMap;
use std::path::Path;

use elf::abi::PT_LOAD;
use elf::{ElfBytes, endian::LittleEndian};

use crate::Error;

const FILE_ALIGN: usize = 512;
const PAGE: u32 = 4096;
/// Room for the section headers that the converter adds.
const HEADERS: usize = 1024;
const RELATIVE: u32 = 8;
const EXECUTE: u32 = 0x6000_0020;
const READ: u32 = 0x4000_0040;
const WRITE: u32 = 0xc000_0040;
/// Addresses of 64 bits.
const DIR64: u16 = 10 << 12;
/// Not in memory after loading.
const DISCARDABLE: u32 = 0x0200_0000;

struct Section {
    name: [u8; 8],
    address: u32,
    memory: u32,
    data: Vec<u8>,
    flags: u32,
}

/// Makes the PE file.
///
/// # Errors
/// If the ELF file is malformed or has what PE cannot express.
pub fn pack(path: &Path, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let bad = |error: elf::ParseError| Error::elf(path, error.to_string());
    let file = ElfBytes::<LittleEndian>::minimal_parse(bytes).map_err(bad)?;
    let headers =
        file.segments().ok_or_else(|| Error::elf(path, "it has no program headers to load by"))?;
    let mut sections = Vec::new();
    for header in headers.iter().filter(|header| header.p_type == PT_LOAD && header.p_memsz > 0) {
        let (name, flags) = match header.p_flags & 3 {
            1 => (*b".text\0\0\0", EXECUTE),
            2 => (*b".data\0\0\0", WRITE),
            _ => (*b".rdata\0\0", READ),
        };
        sections.push(Section {
            name,
            address: small(path, header.p_vaddr)?,
            memory: small(path, header.p_memsz)?,
            data: file.segment_data(&header).map_err(bad)?.to_vec(),
            flags,
        });
    }
    let mut places = Vec::new();
    if let Some(header) = file.section_header_by_name(".rela.dyn").map_err(bad)? {
        for rela in file.section_data_as_relas(&header).map_err(bad)? {
            if rela.r_type != RELATIVE {
                let what = format!("it has a relocation of type {}", rela.r_type);
                return Err(Error::elf(path, what));
            }
            let place = small(path, rela.r_offset)?;
            let section = sections.iter_mut().find(|section| {
                place >= section.address
                    && (place - section.address) as usize + 8 <= section.data.len()
            });
            let section =
                section.ok_or_else(|| Error::elf(path, "it relocates what is not in the file"))?;
            let at = (place - section.address) as usize;
            section.data[at..at + 8].copy_from_slice(&rela.r_addend.to_le_bytes());
            places.push(place);
        }
    }
    let end = sections.iter().map(|section| section.address + section.memory).max().unwrap_or(PAGE);
    let data = relocations(&places);
    sections.push(Section {
        name: *b".reloc\0\0",
        address: end.next_multiple_of(PAGE),
        memory: data.len() as u32,
        data,
        flags: READ | DISCARDABLE,
    });
    emit(path, small(path, file.ehdr.e_entry)?, &sections)
}

fn small(path: &Path, value: u64) -> Result<u32, Error> {
    let value = u32::try_from(value).ok().filter(|value| *value < 1 << 30);
    value.ok_or_else(|| Error::elf(path, "it is not linked to low addresses"))
}

/// A block for each page, of an even number of entries.
fn relocations(places: &[u32]) -> Vec<u8> {
    let mut pages: BTreeMap<u32, Vec<u16>> = BTreeMap::new();
    for place in places {
        pages.entry(place / PAGE * PAGE).or_default().push(DIR64 | (place % PAGE) as u16);
    }
    let mut out = Vec::new();
    for (page, mut entries) in pages {
        entries.sort_unstable();
        if entries.len() % 2 != 0 {
            entries.push(0);
        }
        out.extend_from_slice(&page.to_le_bytes());
        out.extend_from_slice(&(8 + 2 * entries.len() as u32).to_le_bytes());
        out.extend(entries.iter().flat_map(|entry| entry.to_le_bytes()));
    }
    if out.is_empty() {
        // An empty block: loaders take a file without any for one that cannot be moved.
        out.extend_from_slice(&[0, 0, 0, 0, 8, 0, 0, 0]);
    }
    out
}

fn emit(path: &Path, entry: u32, sections: &[Section]) -> Result<Vec<u8>, Error> {
    const PE_AT: u32 = 64;
    const OPTIONAL: u16 = 112 + 16 * 8;
    let mut out = b"MZ".to_vec();
    out.resize(60, 0);
    out.extend_from_slice(&PE_AT.to_le_bytes());
    out.extend_from_slice(b"PE\0\0");
    let half = |out: &mut Vec<u8>, value: u16| out.extend_from_slice(&value.to_le_bytes());
    let word = |out: &mut Vec<u8>, value: u32| out.extend_from_slice(&value.to_le_bytes());
    half(&mut out, 0x8664);
    half(&mut out, sections.len() as u16);
    for _ in 0..3 {
        word(&mut out, 0); // no time, no symbols
    }
    half(&mut out, OPTIONAL);
    half(&mut out, 0x0022); // executable, knows large addresses

    let code = sections.iter().filter(|section| section.flags == EXECUTE);
    let sized = |len: usize| len.next_multiple_of(FILE_ALIGN) as u32;
    let code_len: u32 = code.clone().map(|section| sized(section.data.len())).sum();
    let code_at = code.map(|section| section.address).min().unwrap_or(PAGE);
    let rest = sections.iter().filter(|section| section.flags != EXECUTE);
    let rest_len: u32 = rest.map(|section| sized(section.data.len())).sum();
    let last = sections.iter().map(|section| section.address + section.memory).max().unwrap_or(0);
    half(&mut out, 0x020b); // PE32+
    half(&mut out, 0);
    for value in [code_len, rest_len, 0, entry, code_at] {
        word(&mut out, value);
    }
    out.extend_from_slice(&0u64.to_le_bytes()); // image base: wherever there is room
    word(&mut out, PAGE);
    word(&mut out, FILE_ALIGN as u32);
    word(&mut out, 0); // versions
    word(&mut out, 0);
    word(&mut out, 0);
    word(&mut out, 0);
    word(&mut out, last.next_multiple_of(PAGE));
    word(&mut out, HEADERS as u32);
    word(&mut out, 0); // checksum
    half(&mut out, 10); // an EFI application
    half(&mut out, 0x0140); // can be moved, no code in data
    for _ in 0..4 {
        out.extend_from_slice(&0u64.to_le_bytes()); // stack and heap are the firmware's
    }
    word(&mut out, 0);
    word(&mut out, 16);
    for index in 0..16 {
        let reloc = sections.iter().find(|section| index == 5 && section.name == *b".reloc\0\0");
        word(&mut out, reloc.map_or(0, |section| section.address));
        word(&mut out, reloc.map_or(0, |section| section.memory));
    }
    let mut at = HEADERS as u32;
    for section in sections {
        out.extend_from_slice(&section.name);
        let len = sized(section.data.len());
        for value in [section.memory, section.address, len, at, 0, 0, 0, section.flags] {
            word(&mut out, value);
        }
        at += len;
    }
    if out.len() > HEADERS - 4 * 40 {
        return Err(Error::elf(path, "it has too many segments"));
    }
    out.resize(HEADERS, 0);
    for section in sections {
        out.extend_from_slice(&section.data);
        out.resize(out.len().next_multiple_of(FILE_ALIGN), 0);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relocations_are_blocks_by_pages_with_even_entries() {
        let blocks = relocations(&[0x2008, 0x1000, 0x2000, 0x2010]);
        let words: Vec<u32> =
            blocks.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
        assert_eq!(words, [0x1000, 12, 0xa000, 0x2000, 16, 0xa008_a000, 0xa010]);
        assert_eq!(relocations(&[]).len(), 8);
    }
}

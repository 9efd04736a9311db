//! From linked ELF files to what is embedded.

use std::path::Path;

use elf::abi::{PT_LOAD, PT_NOTE};
use elf::segment::ProgramHeader;
use elf::{ElfBytes, endian::LittleEndian};

use crate::{Error, relocs, symbols};

const ELF_HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
/// Segments start at sectors of a disk, so that the BIOS stage reads them without moving bytes.
const SEGMENT_ALIGN: usize = 512;

/// Packs a linked kernel: program headers and the bytes they load, nothing else.
///
/// If the linker script has set a section `.ksyms` aside, the symbol table goes there, and behind it
/// the table of relocations. Where that section has a loadable segment of its own, the segment shrinks
/// to what it holds; elsewhere it is written in place.
///
/// # Errors
/// If the ELF file is malformed or the symbol table does not fit its section.
pub fn pack(path: &Path, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let bad = |error: elf::ParseError| Error::elf(path, error.to_string());
    let file = ElfBytes::<LittleEndian>::minimal_parse(bytes).map_err(bad)?;
    let headers =
        file.segments().ok_or_else(|| Error::elf(path, "it has no program headers to load by"))?;
    let mut segments = Vec::new();
    for header in headers.iter().filter(|header| header.p_type == PT_LOAD && header.p_memsz > 0) {
        segments.push(Segment { data: file.segment_data(&header).map_err(bad)?.to_vec(), header });
    }
    if let Some(section) = file.section_header_by_name(".ksyms").map_err(bad)? {
        let mut table = symbols::table(path, &file)?;
        table.extend(relocs::table(path, &file)?);
        place(path, &mut segments, section.sh_addr, section.sh_size, &table)?;
    }
    let notes: Vec<_> = headers.iter().filter(|header| header.p_type == PT_NOTE).collect();
    emit(path, bytes, &segments, &notes)
}

/// Cuts the single segment out of a boot-code ELF that starts at `address`.
///
/// # Errors
/// If the ELF file is malformed or has no segment there.
pub fn flat(path: &Path, bytes: &[u8], address: u64) -> Result<Vec<u8>, Error> {
    let bad = |error: elf::ParseError| Error::elf(path, error.to_string());
    let file = ElfBytes::<LittleEndian>::minimal_parse(bytes).map_err(bad)?;
    let headers = file.segments().ok_or_else(|| Error::elf(path, "it has no program headers"))?;
    let header = headers
        .iter()
        .find(|header| header.p_type == PT_LOAD && header.p_paddr == address)
        .ok_or_else(|| Error::elf(path, format!("it has no segment at {address:#x}")))?;
    Ok(file.segment_data(&header).map_err(bad)?.to_vec())
}

struct Segment {
    header: ProgramHeader,
    data: Vec<u8>,
}

fn place(
    path: &Path,
    segments: &mut [Segment],
    address: u64,
    size: u64,
    table: &[u8],
) -> Result<(), Error> {
    let len = table.len() as u64;
    if len > size {
        let what = format!("the symbol table needs {len} bytes, `.ksyms` has {size}");
        return Err(Error::elf(path, what));
    }
    let holder = segments.iter_mut().find(|segment| {
        let header = &segment.header;
        address >= header.p_vaddr && address - header.p_vaddr + size <= header.p_memsz
    });
    let Some(segment) = holder else {
        return Err(Error::elf(path, "`.ksyms` is in no loadable segment"));
    };
    let header = &mut segment.header;
    // A segment is rounded up to its alignment at most when it holds nothing else.
    if address == header.p_vaddr && header.p_memsz - size < header.p_align.max(1) {
        segment.data = table.to_vec();
        header.p_memsz = len;
        return Ok(());
    }
    let start = (address - header.p_vaddr) as usize;
    match segment.data.get_mut(start..start + table.len()) {
        Some(place) => place.copy_from_slice(table),
        None => return Err(Error::elf(path, "`.ksyms` shares a segment but takes no file space")),
    }
    Ok(())
}

fn emit(
    path: &Path,
    original: &[u8],
    segments: &[Segment],
    notes: &[ProgramHeader],
) -> Result<Vec<u8>, Error> {
    let count = segments.len() + notes.len();
    let mut out = original
        .get(..ELF_HEADER)
        .ok_or_else(|| Error::elf(path, "it is shorter than an ELF header"))?
        .to_vec();
    out[32..40].copy_from_slice(&(ELF_HEADER as u64).to_le_bytes()); // e_phoff
    out[40..48].fill(0); // e_shoff
    out[54..56].copy_from_slice(&(PROGRAM_HEADER as u16).to_le_bytes());
    out[56..58].copy_from_slice(&(count as u16).to_le_bytes()); // e_phnum
    out[58..64].fill(0); // no sections
    out.resize(ELF_HEADER + count * PROGRAM_HEADER, 0);

    let mut headers = Vec::with_capacity(count);
    for segment in segments {
        out.resize(out.len().next_multiple_of(SEGMENT_ALIGN), 0);
        let header = ProgramHeader {
            p_offset: out.len() as u64,
            p_filesz: segment.data.len() as u64,
            p_align: SEGMENT_ALIGN as u64,
            ..segment.header
        };
        out.extend_from_slice(&segment.data);
        headers.push(header);
    }
    for note in notes {
        // The note is part of a loaded segment: point into its copy.
        let holder = headers.iter().find(|header| {
            note.p_vaddr >= header.p_vaddr
                && note.p_vaddr - header.p_vaddr + note.p_filesz <= header.p_filesz
        });
        let Some(holder) = holder else {
            return Err(Error::elf(path, "its note is outside of the loadable segments"));
        };
        let p_offset = holder.p_offset + (note.p_vaddr - holder.p_vaddr);
        headers.push(ProgramHeader { p_offset, ..*note });
    }
    for (index, header) in headers.iter().enumerate() {
        let at = ELF_HEADER + index * PROGRAM_HEADER;
        out[at..at + PROGRAM_HEADER].copy_from_slice(&program_header(header));
    }
    Ok(out)
}

fn program_header(header: &ProgramHeader) -> [u8; PROGRAM_HEADER] {
    let mut bytes = [0; PROGRAM_HEADER];
    bytes[0..4].copy_from_slice(&header.p_type.to_le_bytes());
    bytes[4..8].copy_from_slice(&header.p_flags.to_le_bytes());
    let rest = [
        header.p_offset,
        header.p_vaddr,
        header.p_paddr,
        header.p_filesz,
        header.p_memsz,
        header.p_align,
    ];
    for (index, value) in rest.iter().enumerate() {
        bytes[8 + index * 8..16 + index * 8].copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

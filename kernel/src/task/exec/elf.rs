//! Executable headers (elf(5)), from bytes that nobody vouches for.

use crate::arch::USER_END;
use crate::errno::{Errno, Result};
use alloc::vec::Vec;

/// Bytes of the file header.
pub const HEADER_LEN: usize = 64;
/// Bytes of one program header.
pub const PHDR_LEN: usize = 56;
/// Most program headers: their table must fit a page (as on Linux 64 KiB would be the format's own
/// limit).
const MAX_PHDRS: usize = 4096 / PHDR_LEN;

const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_PHDR: u32 = 6;
const PT_GNU_STACK: u32 = 0x6474_e551;
/// `PF_X`
pub const EXEC: u32 = 1;
/// `PF_W`
pub const WRITE: u32 = 2;
/// `PF_R`
pub const READ: u32 = 4;

/// The file header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// May be loaded anywhere.
    pub relocatable: bool,
    /// Where execution starts.
    pub entry: usize,
    /// File offset of the program headers.
    pub phoff: u64,
    /// Number of program headers.
    pub phnum: usize,
}

/// One `PT_LOAD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// File offset.
    pub offset: u64,
    /// Address, relative to the load base.
    pub addr: usize,
    /// Bytes from the file.
    pub file_len: usize,
    /// Bytes in memory; the rest is zero.
    pub mem_len: usize,
    /// [`READ`], [`WRITE`], [`EXEC`].
    pub flags: u32,
    /// Wanted alignment of the base.
    pub align: usize,
}

/// What the program headers say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// Loadable segments in order of address.
    pub segments: Vec<Segment>,
    /// Where in the file the interpreter's name lies: offset and length.
    pub interpreter: Option<(u64, usize)>,
    /// Whether the stack must be executable.
    pub exec_stack: bool,
    /// Address of the program headers in memory, relative to the load base.
    pub phdr: usize,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

impl Header {
    /// Reads the first [`HEADER_LEN`] bytes of a file. ENOEXEC if it is no program for this
    /// machine.
    pub fn parse(bytes: &[u8]) -> Result<Header> {
        if bytes.len() < HEADER_LEN || !bytes.starts_with(b"\x7fELF\x02\x01") {
            return Err(Errno::ENOEXEC);
        }
        let kind = u16_at(bytes, 16);
        let phnum = usize::from(u16_at(bytes, 56));
        let known = matches!(kind, ET_EXEC | ET_DYN) && u16_at(bytes, 18) == EM_X86_64;
        let sane = usize::from(u16_at(bytes, 54)) == PHDR_LEN && (1..=MAX_PHDRS).contains(&phnum);
        if !known || !sane {
            return Err(Errno::ENOEXEC);
        }
        Ok(Header {
            relocatable: kind == ET_DYN,
            entry: u64_at(bytes, 24) as usize,
            phoff: u64_at(bytes, 32),
            phnum,
        })
    }
}

impl Program {
    /// Reads the program headers. ENOEXEC for contents that can't be loaded.
    pub fn parse(header: &Header, bytes: &[u8]) -> Result<Program> {
        let mut program = Program::default();
        let mut explicit_phdr = None;
        for raw in bytes.chunks_exact(PHDR_LEN).take(header.phnum) {
            let (offset, addr) = (u64_at(raw, 8), u64_at(raw, 16) as usize);
            let (file_len, mem_len) = (u64_at(raw, 32) as usize, u64_at(raw, 40) as usize);
            let flags = u32_at(raw, 4);
            match u32_at(raw, 0) {
                PT_LOAD if mem_len == 0 => {}
                PT_LOAD => {
                    let align = u64_at(raw, 48) as usize;
                    let segment = Segment { offset, addr, file_len, mem_len, flags, align };
                    program.push(segment)?;
                }
                PT_INTERP if program.interpreter.is_none() => {
                    program.interpreter = Some((offset, file_len));
                }
                PT_PHDR => explicit_phdr = Some(addr),
                PT_GNU_STACK => program.exec_stack = flags & EXEC != 0,
                _ => {}
            }
        }
        if program.segments.is_empty() {
            return Err(Errno::ENOEXEC);
        }
        program.phdr = explicit_phdr.unwrap_or_else(|| program.address_of(header.phoff));
        Ok(program)
    }

    fn push(&mut self, segment: Segment) -> Result<()> {
        let end = segment.addr.checked_add(segment.mem_len).filter(|&end| end <= USER_END);
        let congruent = segment.addr % 4096 == (segment.offset % 4096) as usize;
        let after =
            self.segments.last().is_none_or(|last| last.addr + last.mem_len <= segment.addr);
        let fits = segment.offset.checked_add(segment.file_len as u64).is_some();
        if end.is_none() || segment.file_len > segment.mem_len || !congruent || !after || !fits {
            return Err(Errno::ENOEXEC);
        }
        self.segments.push(segment);
        Ok(())
    }

    /// Where a file offset is mapped; 0 if it isn't.
    fn address_of(&self, offset: u64) -> usize {
        let holds = |segment: &&Segment| {
            segment.offset <= offset && offset - segment.offset < segment.file_len as u64
        };
        let segment = self.segments.iter().find(holds);
        segment.map_or(0, |segment| segment.addr + (offset - segment.offset) as usize)
    }

    /// Lowest address and the bytes from there to the end of the last segment, in whole pages.
    pub fn span(&self) -> (usize, usize) {
        let (Some(first), Some(last)) = (self.segments.first(), self.segments.last()) else {
            return (0, 0);
        };
        let start = first.addr & !4095;
        (start, (last.addr + last.mem_len - start).next_multiple_of(4096))
    }

    /// The largest alignment a segment wants, at least a page; nonsense counts as a page.
    pub fn align(&self) -> usize {
        let wanted = self.segments.iter().map(|segment| segment.align).max().unwrap_or(0);
        if wanted.is_power_of_two() && wanted <= 1 << 30 { wanted.max(4096) } else { 4096 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Vec<u8> {
        let mut bytes = alloc::vec![0u8; HEADER_LEN];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[16] = 3;
        bytes[18] = 62;
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = 2;
        bytes
    }

    fn phdr(kind: u32, offset: u64, addr: u64, file: u64, mem: u64) -> Vec<u8> {
        let mut raw = Vec::new();
        raw.extend(kind.to_le_bytes());
        raw.extend(5u32.to_le_bytes());
        for word in [offset, addr, addr, file, mem, 0x1000] {
            raw.extend(word.to_le_bytes());
        }
        raw
    }

    #[test]
    fn segments_are_found_and_the_headers_located() {
        let header = Header::parse(&header()).unwrap();
        let mut raw = phdr(PT_LOAD, 0, 0, 0x500, 0x500);
        raw.extend(phdr(PT_LOAD, 0x1500, 0x2500, 0x100, 0x3000));
        let program = Program::parse(&header, &raw).unwrap();
        assert_eq!(program.phdr, 64);
        assert_eq!(program.span(), (0, 0x6000));
    }

    #[test]
    fn hostile_headers_are_refused() {
        let good = Header::parse(&header()).unwrap();
        for raw in [
            phdr(PT_LOAD, 0, u64::MAX - 10, 1, 100),
            phdr(PT_LOAD, 0, 0, 200, 100),
            phdr(PT_LOAD, 1, 0, 1, 100),
            phdr(PT_LOAD, 0, 0x7fff_ffff_f000, 1, 4097),
            phdr(PT_LOAD, !4095, 0, 8192, 8192),
            phdr(PT_INTERP, 0, 0, 1, 1),
        ] {
            assert_eq!(Program::parse(&good, &raw), Err(Errno::ENOEXEC));
        }
        for (at, value) in [(0, 0), (4, 1), (16, 1), (18, 3), (54, 1), (56, 0)] {
            let mut bytes = header();
            bytes[at] = value;
            assert_eq!(Header::parse(&bytes), Err(Errno::ENOEXEC), "byte {at}");
        }
        assert_eq!(Header::parse(b"\x7fELF"), Err(Errno::ENOEXEC));
    }
}

//! Collects the places where a linked kernel holds addresses of its high half.
//!
//! The linker has resolved them and, with `--emit-relocs`, says where they are. What is relative to
//! the place itself moves along with the kernel and is left alone.

use std::path::Path;

use dock2uni_format::relocs;
use elf::abi::{
    R_X86_64_32, R_X86_64_32S, R_X86_64_64, R_X86_64_GOTPCREL, R_X86_64_GOTPCRELX, R_X86_64_NONE,
    R_X86_64_PC32, R_X86_64_PC64, R_X86_64_PLT32, R_X86_64_REX_GOTPCRELX, SHF_ALLOC, SHT_RELA,
};
use elf::section::SectionHeader;
use elf::{ElfBytes, endian::LittleEndian};

use crate::Error;

/// Where the linker script puts the kernel: everything from here on moves together.
const HIGH: u64 = 0xffff_ffff_8000_0000;

/// Makes the table of the places in `file` that hold addresses of the high half.
pub fn table(path: &Path, file: &ElfBytes<'_, LittleEndian>) -> Result<Vec<u8>, Error> {
    let bad = |error: elf::ParseError| Error::elf(path, error.to_string());
    let sections = file
        .section_headers()
        .ok_or_else(|| Error::elf(path, "it has no section headers to find relocations by"))?;
    let (symbols, _) = file
        .symbol_table()
        .map_err(bad)?
        .ok_or_else(|| Error::elf(path, "it has no symbol table"))?;
    let (mut words, mut doubles) = (Vec::new(), Vec::new());
    let mut any = false;
    for header in sections.iter().filter(|header| header.sh_type == SHT_RELA) {
        let Ok(target) = sections.get(header.sh_info as usize) else { continue };
        if target.sh_flags & u64::from(SHF_ALLOC) == 0 || target.sh_addr < HIGH {
            continue;
        }
        any = true;
        let (bytes, _) = file.section_data(&target).map_err(bad)?;
        for rela in file.section_data_as_relas(&header).map_err(bad)? {
            let at = (rela.r_offset - target.sh_addr) as usize;
            let wide = match rela.r_type {
                R_X86_64_64 => true,
                R_X86_64_32S => false,
                // What the linker has made of a load from the GOT: an address in the instruction
                // if the operation isn't a plain load.
                R_X86_64_GOTPCRELX | R_X86_64_REX_GOTPCRELX
                    if at >= 2 && matches!(bytes.get(at - 2), Some(0x81 | 0xc7 | 0xf7)) =>
                {
                    false
                }
                R_X86_64_NONE
                | R_X86_64_32
                | R_X86_64_PC32
                | R_X86_64_PC64
                | R_X86_64_PLT32
                | R_X86_64_GOTPCREL
                | R_X86_64_GOTPCRELX
                | R_X86_64_REX_GOTPCRELX => {
                    let symbol = symbols.get(rela.r_sym as usize).map_err(bad)?;
                    // Relative to the place: must move with it. 32 bits hold no high address.
                    let moves = rela.r_type != R_X86_64_32;
                    let none = rela.r_type == R_X86_64_NONE;
                    if !none && moves != (symbol.st_value >= HIGH) {
                        let what = format!(
                            "the relocation of type {} at {:#x} crosses the kernel's border",
                            rela.r_type, rela.r_offset
                        );
                        return Err(Error::elf(path, what));
                    }
                    continue;
                }
                other => {
                    let what =
                        format!("relocations of type {other} ({:#x}) are unknown", rela.r_offset);
                    return Err(Error::elf(path, what));
                }
            };
            let value = value(bytes, at, wide)
                .ok_or_else(|| Error::elf(path, "a relocation lies outside of its section"))?;
            if value >= HIGH {
                let places = if wide { &mut doubles } else { &mut words };
                places.push(rela.r_offset - HIGH);
            }
        }
    }
    if !any {
        return Err(Error::elf(path, "the linker kept no relocations (--emit-relocs)"));
    }
    got(path, file, &mut doubles)?;
    for places in [&mut words, &mut doubles] {
        places.sort_unstable();
        places.dedup();
    }
    Ok(relocs::emit(&words, &doubles))
}

/// The global offset table is made by the linker and has no relocations.
fn got(
    path: &Path,
    file: &ElfBytes<'_, LittleEndian>,
    doubles: &mut Vec<u64>,
) -> Result<(), Error> {
    let bad = |error: elf::ParseError| Error::elf(path, error.to_string());
    let found: Option<SectionHeader> = file.section_header_by_name(".got").map_err(bad)?;
    let Some(section) = found else { return Ok(()) };
    let (bytes, _) = file.section_data(&section).map_err(bad)?;
    for at in (0..bytes.len()).step_by(8) {
        if value(bytes, at, true).is_some_and(|value| value >= HIGH) {
            doubles.push(section.sh_addr + at as u64 - HIGH);
        }
    }
    Ok(())
}

fn value(bytes: &[u8], at: usize, wide: bool) -> Option<u64> {
    let word = i64::from(i32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?)) as u64;
    if !wide {
        return Some(word);
    }
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

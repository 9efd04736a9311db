//! Collects the function symbols of a linked kernel.

use std::path::Path;

use dock2uni_format::ksyms;
use elf::abi::{SHF_EXECINSTR, STT_FUNC, STT_NOTYPE};
use elf::{ElfBytes, endian::LittleEndian};

use crate::Error;

/// Names are cut to this many bytes: enough to tell functions apart in a backtrace.
const MAX_NAME: usize = 112;

/// Makes the symbol table of the code in `file`.
pub fn table(path: &Path, file: &ElfBytes<'_, LittleEndian>) -> Result<Vec<u8>, Error> {
    let bad = |error: elf::ParseError| Error::elf(path, error.to_string());
    let sections = file
        .section_headers()
        .ok_or_else(|| Error::elf(path, "it has no section headers to find the code by"))?;
    let Some((symbols, names)) = file.symbol_table().map_err(bad)? else {
        return Err(Error::elf(path, "it has no symbol table: is `strip` set in its profile?"));
    };
    let is_code = |index: u16| {
        sections
            .get(usize::from(index))
            .is_ok_and(|section| section.sh_flags & u64::from(SHF_EXECINSTR) != 0)
    };
    let mut found = Vec::new();
    for symbol in symbols.iter() {
        let kind = symbol.st_symtype();
        if !is_code(symbol.st_shndx) || !(kind == STT_FUNC || kind == STT_NOTYPE) {
            continue;
        }
        let name = names.get(symbol.st_name as usize).map_err(bad)?;
        if name.is_empty() || name.starts_with(".L") || name.starts_with('$') {
            continue;
        }
        // Sized functions win over labels at the same address.
        found.push((symbol.st_value, kind != STT_FUNC, short(name)));
    }
    found.sort();
    found.dedup_by_key(|symbol| symbol.0);

    // The code that runs is in the high half; the few boot instructions below need no names.
    let end = sections
        .iter()
        .filter(|section| section.sh_flags & u64::from(SHF_EXECINSTR) != 0)
        .map(|section| section.sh_addr + section.sh_size)
        .max()
        .unwrap_or(0);
    let high: Vec<(u64, &str)> = found
        .iter()
        .filter(|symbol| end.saturating_sub(symbol.0) < 1 << 31)
        .map(|(address, _, name)| (*address, name.as_str()))
        .collect();
    let base = high.first().map_or(end, |symbol| symbol.0);
    Ok(ksyms::emit(base, end, &high))
}

fn short(name: &str) -> String {
    let mut name = format!("{:#}", rustc_demangle::demangle(name));
    if name.len() > MAX_NAME {
        let cut = (0..=MAX_NAME).rev().find(|&at| name.is_char_boundary(at)).unwrap_or(0);
        name.truncate(cut);
    }
    name
}

//! What one ELF file says about itself: its segments, what it needs, defines and asks for.
//!
//! Everything is found by the program headers and the dynamic section, as a loader does; section
//! headers may have been stripped. System V ABI with the GNU extensions (LSB core, "Symbol
//! Versioning"; x86-64 psABI, "Program Property").

use std::collections::BTreeSet;

use elf::abi::{
    DT_FINI_ARRAY, DT_FINI_ARRAYSZ, DT_FLAGS, DT_FLAGS_1, DT_GNU_HASH, DT_HASH, DT_INIT,
    DT_INIT_ARRAY, DT_INIT_ARRAYSZ, DT_JMPREL, DT_NEEDED, DT_PLTRELSZ, DT_RELA, DT_RELASZ,
    DT_RPATH, DT_RUNPATH, DT_SONAME, DT_STRSZ, DT_STRTAB, DT_SYMTAB, DT_VERDEF, DT_VERDEFNUM,
    DT_VERNEED, DT_VERNEEDNUM, EM_X86_64, PF_X, PT_DYNAMIC, PT_GNU_EH_FRAME, PT_GNU_PROPERTY,
    PT_INTERP, PT_LOAD, SHN_UNDEF, STB_WEAK, STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE,
};
use elf::endian::LittleEndian;
use elf::file::Class;
use elf::segment::{ProgramHeader, SegmentTable};
use elf::symbol::{Symbol, SymbolTable};

/// Program headers that are looked at; Linux refuses more than a page of them.
const MAX_SEGMENTS: usize = 73;
/// Symbols, versions and dynamic entries that are looked at.
const MAX_SYMBOLS: usize = 400_000;
const MAX_ENTRIES: usize = 4096;
/// Packed relative relocations (gABI, "Relative Relocation Table").
const DT_RELRSZ: i64 = 35;
const DT_RELR: i64 = 36;
/// Longest name in a string table.
const MAX_NAME: usize = 4096;
/// Candidates for dlopen that are looked at in one file.
const MAX_CANDIDATES: usize = 256;

/// A defined function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Name without its version.
    pub name: String,
    /// Address in the file's own address space.
    pub address: u64,
}

/// One ELF file for x86-64.
#[derive(Clone, Debug, Default)]
pub struct Object {
    /// Loadable segments.
    pub segments: Vec<ProgramHeader>,
    /// Entry point; 0 for most libraries.
    pub entry: u64,
    /// PT_INTERP.
    pub interpreter: Option<String>,
    /// DT_SONAME.
    pub soname: Option<String>,
    /// DT_NEEDED, in order.
    pub needed: Vec<String>,
    /// DT_RPATH, which counts only without DT_RUNPATH.
    pub rpath: Option<String>,
    /// DT_RUNPATH.
    pub runpath: Option<String>,
    /// Symbols that must come from elsewhere, and those that need not (weak).
    pub imports: BTreeSet<String>,
    /// Weak ones among them.
    pub weak: BTreeSet<String>,
    /// Functions that others may call.
    pub functions: Vec<Function>,
    /// Names of other defined symbols.
    pub exports: BTreeSet<String>,
    /// Versions asked of libraries: library, version.
    pub versions_needed: Vec<(String, String)>,
    /// Versions that it defines.
    pub versions: BTreeSet<String>,
    /// Whether all symbols are bound when it is loaded.
    pub bind_now: bool,
    /// x86-64 ISA level that it says it needs (1 is the baseline).
    pub isa: u8,
    /// Functions that run when it is loaded and unloaded.
    pub initialisers: Vec<u64>,
    /// Starts of functions by the unwind table.
    pub unwind_starts: Vec<u64>,
    /// Addresses that its data holds once it is loaded.
    pub pointers: Vec<u64>,
    /// Places that hold the addresses of imported symbols, and their names.
    pub slots: Vec<(u64, String)>,
    /// Whether it has a dynamic section at all.
    pub dynamic: bool,
}

impl Object {
    /// Reads a file; `None` if it is no ELF file for x86-64.
    pub fn parse(bytes: &[u8]) -> Option<Object> {
        // The parser takes an identification of this length for granted.
        let tail = bytes.get(elf::abi::EI_NIDENT..)?;
        let ident = elf::file::parse_ident::<elf::endian::AnyEndian>(bytes).ok()?;
        let header = elf::file::FileHeader::parse_tail(ident, tail).ok()?;
        if header.class != Class::ELF64 || header.e_machine != EM_X86_64 {
            return None;
        }
        let count = usize::from(header.e_phnum).min(MAX_SEGMENTS);
        let start = usize::try_from(header.e_phoff).ok()?;
        let table = bytes.get(start..start.checked_add(count * 56)?)?;
        let headers = SegmentTable::new(LittleEndian, Class::ELF64, table);
        let mut object = Object { entry: header.e_entry, isa: 1, ..Object::default() };
        let mut dynamic = None;
        for header in headers.iter() {
            match header.p_type {
                PT_LOAD => object.segments.push(header),
                PT_DYNAMIC => dynamic = Some(header),
                PT_INTERP => {
                    let text = range(bytes, header.p_offset, header.p_filesz.min(4096))?;
                    object.interpreter = Some(c_string(text, 0));
                }
                PT_GNU_EH_FRAME => {
                    let table = range(bytes, header.p_offset, header.p_filesz).unwrap_or_default();
                    object.unwind_starts = unwind_starts(table, header.p_vaddr);
                }
                PT_GNU_PROPERTY => {
                    let note = range(bytes, header.p_offset, header.p_filesz).unwrap_or_default();
                    object.isa = isa(note);
                }
                _ => {}
            }
        }
        if let Some(header) = dynamic {
            object.dynamic = true;
            let table = range(bytes, header.p_offset, header.p_filesz).unwrap_or_default();
            let segments = object.segments.clone();
            Dynamic::new(bytes, &segments, table).fill(&mut object);
        }
        Some(object)
    }

    /// Strings in the file's data that name shared objects, as dlopen(3) would be given them.
    pub fn dlopen_candidates(&self, bytes: &[u8]) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for segment in self.segments.iter().filter(|segment| segment.p_flags & PF_X == 0) {
            let data = range(bytes, segment.p_offset, segment.p_filesz).unwrap_or_default();
            for text in data.split(|&byte| byte == 0) {
                if text.len() > 256 || !is_library(text) {
                    continue;
                }
                found.insert(String::from_utf8_lossy(text).into_owned());
                if found.len() >= MAX_CANDIDATES {
                    return found;
                }
            }
        }
        found
    }

    /// Where an address lies in the file.
    pub fn offset(&self, address: u64) -> Option<u64> {
        offset(&self.segments, address)
    }

    /// Bytes of memory that the segments take; those that are writable.
    pub fn memory(&self) -> (u64, u64) {
        let sum = |writable: bool| {
            let kept =
                self.segments.iter().filter(|segment| (segment.p_flags & 2 != 0) == writable);
            kept.fold(0u64, |sum, segment| sum.saturating_add(segment.p_memsz))
        };
        (sum(false), sum(true))
    }
}

/// `libfoo.so`, `/usr/lib/x/y.so.1.2` and the like.
fn is_library(text: &[u8]) -> bool {
    let named = |byte: &u8| byte.is_ascii_alphanumeric() || b"_+-./".contains(byte);
    if text.len() < 6 || !text.iter().all(named) {
        return false;
    }
    let Some(at) = text.windows(3).rposition(|window| window == b".so") else { return false };
    let rest = &text[at + 3..];
    let version = rest.is_empty()
        || rest[0] == b'.' && rest.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
    at > 0 && version && text[at - 1] != b'/'
}

fn range(bytes: &[u8], offset: u64, len: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    let len = usize::try_from(len).ok()?;
    bytes.get(start..start.checked_add(len)?)
}

fn c_string(bytes: &[u8], at: usize) -> String {
    let rest = bytes.get(at..).unwrap_or_default();
    let end = rest.iter().take(MAX_NAME).position(|&byte| byte == 0).unwrap_or(0);
    String::from_utf8_lossy(&rest[..end]).into_owned()
}

fn offset(segments: &[ProgramHeader], address: u64) -> Option<u64> {
    segments.iter().find_map(|segment| {
        let within = address.checked_sub(segment.p_vaddr)?;
        (within < segment.p_filesz).then(|| segment.p_offset.checked_add(within))?
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

/// Starts of functions in `.eh_frame_hdr` at `address` (LSB core, "eh_frame_hdr"), if it is in the
/// form that linkers write: counts as udata4, pairs as datarel sdata4.
fn unwind_starts(table: &[u8], address: u64) -> Vec<u64> {
    if table.get(..4).is_none_or(|head| head[0] != 1 || head[2..] != [0x03, 0x3b]) {
        return Vec::new();
    }
    let count = u32_at(table, 8).unwrap_or(0) as usize;
    let entries = table.get(12..).unwrap_or_default().chunks_exact(8).take(count.min(MAX_SYMBOLS));
    entries
        .filter_map(|entry| Some(address.wrapping_add_signed((u32_at(entry, 0)? as i32).into())))
        .collect()
}

/// The highest level among the ISA bits of a property note.
fn isa(note: &[u8]) -> u8 {
    /// GNU_PROPERTY_X86_ISA_1_NEEDED.
    const NEEDED: u32 = 0xc000_8002;
    // Note header, the name "GNU", then properties of type, length and padded data.
    let mut at = 16;
    while let (Some(kind), Some(len)) = (u32_at(note, at), u32_at(note, at + 4)) {
        if kind == NEEDED {
            let bits = u32_at(note, at + 8).unwrap_or(0);
            return (32 - bits.leading_zeros()).clamp(1, 4) as u8;
        }
        at += 8 + (len as usize).next_multiple_of(8);
        if at > 4096 {
            break;
        }
    }
    1
}

/// The dynamic section and what it points to.
struct Dynamic<'a> {
    bytes: &'a [u8],
    segments: &'a [ProgramHeader],
    entries: Vec<(i64, u64)>,
    strings: &'a [u8],
}

impl<'a> Dynamic<'a> {
    fn new(bytes: &'a [u8], segments: &'a [ProgramHeader], table: &[u8]) -> Dynamic<'a> {
        let table = elf::dynamic::DynamicTable::new(LittleEndian, Class::ELF64, table);
        let entries = table.iter().take(MAX_ENTRIES).take_while(|entry| entry.d_tag != 0);
        let entries = entries.map(|entry| (entry.d_tag, entry.d_val())).collect();
        let mut dynamic = Dynamic { bytes, segments, entries, strings: &[] };
        let len = dynamic.value(DT_STRSZ).unwrap_or(0);
        dynamic.strings = dynamic.at(DT_STRTAB, Some(len)).unwrap_or_default();
        dynamic
    }

    fn value(&self, tag: i64) -> Option<u64> {
        self.entries.iter().find(|(found, _)| *found == tag).map(|(_, value)| *value)
    }

    /// What an address in the section points to, `len` bytes of it or all there is.
    fn at(&self, tag: i64, len: Option<u64>) -> Option<&'a [u8]> {
        let offset = offset(self.segments, self.value(tag)?)?;
        match len {
            Some(len) => range(self.bytes, offset, len),
            None => self.bytes.get(usize::try_from(offset).ok()?..),
        }
    }

    fn string(&self, offset: u64) -> String {
        c_string(self.strings, usize::try_from(offset).unwrap_or(usize::MAX))
    }

    fn fill(&self, object: &mut Object) {
        for &(tag, value) in &self.entries {
            match tag {
                DT_NEEDED => object.needed.push(self.string(value)),
                DT_SONAME => object.soname = Some(self.string(value)),
                DT_RPATH => object.rpath = Some(self.string(value)),
                DT_RUNPATH => object.runpath = Some(self.string(value)),
                // DF_BIND_NOW, DF_1_NOW
                DT_FLAGS => object.bind_now |= value & 8 != 0,
                DT_FLAGS_1 => object.bind_now |= value & 1 != 0,
                DT_INIT => object.initialisers.push(value),
                _ => {}
            }
        }
        for (array, size) in [(DT_INIT_ARRAY, DT_INIT_ARRAYSZ), (DT_FINI_ARRAY, DT_FINI_ARRAYSZ)] {
            let len = self.value(size).unwrap_or(0).min(64 << 10);
            for word in self.at(array, Some(len)).unwrap_or_default().chunks_exact(8) {
                // Chunks have eight bytes.
                let address = u64::from_le_bytes(word.try_into().unwrap_or_default());
                object.initialisers.push(address);
            }
        }
        self.symbols(object);
        self.versions(object);
        self.relocations(object);
    }

    /// Pointers and slots. `R_X86_64_*` numbers are those of the psABI.
    fn relocations(&self, object: &mut Object) {
        let symbols = self.at(DT_SYMTAB, None).unwrap_or_default();
        for (table, size) in [(DT_RELA, DT_RELASZ), (DT_JMPREL, DT_PLTRELSZ)] {
            let len = self.value(size).unwrap_or(0);
            for entry in self.at(table, Some(len)).unwrap_or_default().chunks_exact(24) {
                let (Some(place), Some(info), Some(addend)) =
                    (u64_at(entry, 0), u64_at(entry, 8), u64_at(entry, 16))
                else {
                    continue;
                };
                if object.pointers.len() + object.slots.len() > MAX_SYMBOLS {
                    return;
                }
                match info as u32 {
                    // RELATIVE, IRELATIVE
                    8 | 37 => object.pointers.push(addend),
                    // 64, GLOB_DAT, JUMP_SLOT
                    1 | 6 | 7 => {
                        let at = (info >> 32) as usize * 24;
                        let Some(name) = u32_at(symbols, at) else { continue };
                        match u16_at(symbols, at + 6) {
                            Some(SHN_UNDEF) => object.slots.push((place, self.string(name.into()))),
                            _ => object.pointers.extend(u64_at(symbols, at + 8)),
                        }
                    }
                    _ => {}
                }
            }
        }
        let len = self.value(DT_RELRSZ).unwrap_or(0);
        let mut next = 0u64;
        for word in self.at(DT_RELR, Some(len)).unwrap_or_default().chunks_exact(8) {
            let Some(word) = u64_at(word, 0) else { continue };
            let (start, places) = if word & 1 == 0 { (word, 1u64) } else { (next, word >> 1) };
            for bit in (0..63).filter(|bit| places >> bit & 1 != 0) {
                let place = start.wrapping_add(bit * 8);
                let pointer = offset(self.segments, place)
                    .and_then(|at| u64_at(self.bytes, usize::try_from(at).ok()?));
                if object.pointers.len() > MAX_SYMBOLS {
                    return;
                }
                object.pointers.extend(pointer);
            }
            next = start.wrapping_add(if word & 1 == 0 { 8 } else { 63 * 8 });
        }
    }

    fn symbols(&self, object: &mut Object) {
        let count = self.symbol_count();
        let Some(table) = self.at(DT_SYMTAB, None) else { return };
        let table = &table[..table.len().min(count.saturating_mul(24)) / 24 * 24];
        let symbols = SymbolTable::new(LittleEndian, Class::ELF64, table);
        for symbol in symbols.iter().skip(1) {
            let name = self.string(symbol.st_name.into());
            if name.is_empty() {
                continue;
            }
            if symbol.st_shndx == SHN_UNDEF {
                if symbol.st_bind() == STB_WEAK {
                    object.weak.insert(name.clone());
                }
                object.imports.insert(name);
            } else if is_function(&symbol) {
                object.functions.push(Function { name, address: symbol.st_value });
            } else {
                object.exports.insert(name);
            }
        }
    }

    /// The number of symbols, which only the hash tables tell.
    fn symbol_count(&self) -> usize {
        let mut count = 0;
        if let Some(table) = self.at(DT_HASH, None) {
            count = u32_at(table, 4).unwrap_or(0) as usize;
        }
        if let Some(table) = self.at(DT_GNU_HASH, None) {
            count = count.max(gnu_hash_count(table).unwrap_or(0));
        }
        // Linkers put the strings right behind the symbols; the GNU table leaves undefined ones out.
        if let (Some(symbols), Some(strings)) = (self.value(DT_SYMTAB), self.value(DT_STRTAB))
            && let Some(between) = strings.checked_sub(symbols)
        {
            count = count.max(usize::try_from(between / 24).unwrap_or(0));
        }
        count.min(MAX_SYMBOLS)
    }

    fn versions(&self, object: &mut Object) {
        let mut left = self.value(DT_VERNEEDNUM).unwrap_or(0).min(MAX_ENTRIES as u64);
        let mut table = self.at(DT_VERNEED, None).unwrap_or_default();
        while left > 0 {
            // vn_version, vn_cnt, vn_file, vn_aux, vn_next
            let (Some(count), Some(file), Some(aux), Some(next)) =
                (u16_at(table, 2), u32_at(table, 4), u32_at(table, 8), u32_at(table, 12))
            else {
                break;
            };
            let library = self.string(file.into());
            let mut entry = table.get(aux as usize..).unwrap_or_default();
            for _ in 0..count {
                // vna_hash, vna_flags, vna_other, vna_name, vna_next
                let (Some(flags), Some(name), Some(more)) =
                    (u16_at(entry, 4), u32_at(entry, 8), u32_at(entry, 12))
                else {
                    break;
                };
                // VER_FLG_WEAK
                if flags & 2 == 0 {
                    object.versions_needed.push((library.clone(), self.string(name.into())));
                }
                if more == 0 {
                    break;
                }
                entry = entry.get(more as usize..).unwrap_or_default();
            }
            if next == 0 {
                break;
            }
            table = table.get(next as usize..).unwrap_or_default();
            left -= 1;
        }
        let mut left = self.value(DT_VERDEFNUM).unwrap_or(0).min(MAX_ENTRIES as u64);
        let mut table = self.at(DT_VERDEF, None).unwrap_or_default();
        while left > 0 {
            // vd_version, vd_flags, vd_ndx, vd_cnt, vd_hash, vd_aux, vd_next
            let (Some(aux), Some(next)) = (u32_at(table, 12), u32_at(table, 16)) else { break };
            if let Some(name) = u32_at(table, (aux as usize).min(table.len())) {
                object.versions.insert(self.string(name.into()));
            }
            if next == 0 {
                break;
            }
            table = table.get(next as usize..).unwrap_or_default();
            left -= 1;
        }
    }
}

fn is_function(symbol: &Symbol) -> bool {
    matches!(symbol.st_symtype(), STT_FUNC | STT_GNU_IFUNC | STT_NOTYPE) && symbol.st_value != 0
}

/// One more than the last symbol in a GNU hash table.
fn gnu_hash_count(table: &[u8]) -> Option<usize> {
    let (buckets, first) = (u32_at(table, 0)? as usize, u32_at(table, 4)? as usize);
    let bloom = u32_at(table, 8)? as usize;
    let start = 16usize.checked_add(bloom.checked_mul(8)?)?;
    let chains = start.checked_add(buckets.checked_mul(4)?)?;
    let mut last = 0;
    for bucket in 0..buckets.min(MAX_SYMBOLS) {
        last = last.max(u32_at(table, start + bucket * 4)? as usize);
    }
    if last < first {
        return Some(first);
    }
    while last - first < MAX_SYMBOLS {
        let hash = u32_at(table, chains.checked_add((last - first).checked_mul(4)?)?)?;
        last += 1;
        if hash & 1 != 0 {
            break;
        }
    }
    Some(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machines_programs_are_read() {
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        let object = Object::parse(&bytes).unwrap();
        assert!(object.interpreter.as_deref().is_some_and(|path| path.contains("ld-linux")));
        assert!(object.needed.iter().any(|name| name == "libc.so.6"));
        assert!(object.imports.contains("write") || object.imports.contains("writev"));
        assert!(
            object.versions_needed.iter().any(|(lib, v)| lib == "libc.so.6" && v == "GLIBC_2.2.5")
        );
        assert!(object.offset(object.entry).is_some());
    }

    #[test]
    fn library_names_are_told_from_other_text() {
        for yes in ["libssl.so", "libssl.so.3", "/usr/lib/x/mod_a.so", "a/libz.so.1.2.3"] {
            assert!(is_library(yes.as_bytes()), "{yes}");
        }
        for no in ["x.so", "/x/.so.1", "libx.something", "lib x.so", "libx.so.conf", "also.sofar"] {
            assert!(!is_library(no.as_bytes()), "{no}");
        }
    }

    #[test]
    fn damage_does_no_harm() {
        let good = std::fs::read("/proc/self/exe").unwrap();
        let good = &good[..good.len().min(64 << 10)];
        for at in (0..1024).chain((1024..good.len()).step_by(997)) {
            let mut bad = good.to_vec();
            bad[at] ^= 0xff;
            if let Some(object) = Object::parse(&bad) {
                object.dlopen_candidates(&bad);
            }
            Object::parse(&good[..at]);
        }
    }
}

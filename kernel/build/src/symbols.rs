//! Collects the function symbols of a linked kernel.

use std::path::Path;

use dock2uni_format::ksyms;
use elf::abi::{SHF_EXECINSTR, STT_FUNC, STT_NOTYPE};
use elf::{ElfBytes, endian::LittleEndian};

use crate::Error;

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
    let mut high: Vec<(u64, &str)> = found
        .iter()
        .filter(|symbol| end.saturating_sub(symbol.0) < 1 << 31)
        .map(|(address, _, name)| (*address, name.as_str()))
        .collect();
    // Neighbours of one name (instances of one generic function) are told apart by nobody.
    high.dedup_by_key(|symbol| symbol.1);
    let base = high.first().map_or(end, |symbol| symbol.0);
    Ok(ksyms::emit(base, end, &high))
}

/// A name as backtraces show it: demangled, without what is the same in most of them.
fn short(name: &str) -> String {
    let mut name = shorten(&format!("{:#}", rustc_demangle::demangle(name)));
    name.truncate(name.floor_char_boundary(ksyms::MAX_NAME));
    name
}

/// Takes the kernel crate's own name off every path, the modules off paths into `core` and `alloc`,
/// and `impl` together with the path from `<impl path::Type>`.
fn shorten(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while !rest.is_empty() {
        if let Some((path, after)) = rest.strip_prefix("<impl ").and_then(|r| r.split_once('>')) {
            out.push('<');
            out.push_str(path.rsplit("::").next().unwrap_or(path));
            out.push('>');
            rest = after;
            continue;
        }
        let word = rest.find(|c: char| !is_path(c)).unwrap_or(rest.len());
        match word {
            0 => {
                // One character that belongs to no path.
                let len = rest.chars().next().map_or(1, char::len_utf8);
                out.push_str(&rest[..len]);
                rest = &rest[len..];
            }
            _ => {
                out.push_str(shorten_path(&rest[..word]));
                rest = &rest[word..];
            }
        }
    }
    out
}

fn is_path(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == ':'
}

fn shorten_path(path: &str) -> &str {
    if let Some(own) = path.strip_prefix("kernel::") {
        return own;
    }
    if !path.starts_with("core::") && !path.starts_with("alloc::") {
        return path;
    }
    // The last module and the item: `function::FnOnce::call_once` needs the trait.
    let mut starts = path.rmatch_indices("::").map(|(at, _)| at + 2);
    let last = starts.next().unwrap_or(0);
    let owner = starts.next().unwrap_or(0);
    let is_type = path[owner..].starts_with(|c: char| c.is_uppercase());
    &path[if is_type { owner } else { last }..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_what_tells_them_apart() {
        for (long, expected) in [
            ("kernel::task::exec::exec", "task::exec::exec"),
            (
                "<kernel::net::unix::UnixSocket as kernel::net::socket::Socket>::close",
                "<net::unix::UnixSocket as net::socket::Socket>::close",
            ),
            (
                "kernel::mm::space::fork::<impl kernel::mm::space::AddressSpace>::fork",
                "mm::space::fork::<AddressSpace>::fork",
            ),
            ("core::ops::function::FnOnce::call_once", "FnOnce::call_once"),
            ("alloc::sync::Arc<T,A>::drop_slow", "Arc<T,A>::drop_slow"),
            ("core::panicking::panic_fmt", "panic_fmt"),
            ("smoltcp::iface::interface::tcp", "smoltcp::iface::interface::tcp"),
            ("memcpy", "memcpy"),
        ] {
            assert_eq!(shorten(long), expected);
        }
    }
}

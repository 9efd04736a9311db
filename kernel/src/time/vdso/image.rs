//! Builds the ELF image of the vDSO (ELF-64 object file format; System V ABI, "Dynamic Linking").

use super::code::{self, CODE_OFFSET};
use crate::arch::PAGE_SIZE;
use alloc::boxed::Box;

const DYNSYM: usize = 0x100;
const DYNSTR: usize = 0x1c0;
const HASH: usize = 0x260;
const VERSYM: usize = 0x290;
const VERDEF: usize = 0x2a0;
const DYNAMIC: usize = 0x2e0;
const DYNAMIC_LEN: usize = 9 * 16;
const SYMBOL_SIZE: usize = 24;

/// The version of all symbols, as Linux has it. C libraries do without versions; Go's runtime reads
/// the definitions without looking whether there are any.
const VERSION: &str = "LINUX_2.6";
/// ELF hash of [`VERSION`].
const VERSION_HASH: usize = 0x03ae_75f6;
/// Its number; 0 stands for local symbols, 1 for the image itself.
const VERSION_INDEX: u16 = 2;
/// The definition of the image itself. Abseil, and so gRPC, aborts where a number is larger than there
/// are definitions.
const BASE: &str = "linux-vdso.so.1";
/// ELF hash of [`BASE`].
const BASE_HASH: usize = 0x0dee_bfa1;
/// A definition with its one name.
const DEFINITION_LEN: usize = 28;

struct Writer {
    page: Box<[u8; PAGE_SIZE]>,
    at: usize,
}

impl Writer {
    fn seek(&mut self, at: usize) {
        self.at = at;
    }
    fn put(&mut self, bytes: &[u8]) {
        self.page[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }
    fn u16(&mut self, value: u16) {
        self.put(&value.to_le_bytes());
    }
    fn u32(&mut self, value: usize) {
        self.put(&(value as u32).to_le_bytes());
    }
    fn u64(&mut self, value: usize) {
        self.put(&(value as u64).to_le_bytes());
    }
}

/// The image: one page, ready to be mapped readable and executable at any address right behind the
/// data page.
pub fn build() -> Box<[u8; PAGE_SIZE]> {
    let mut out = Writer { page: Box::new([0; PAGE_SIZE]), at: 0 };
    header(&mut out);
    let functions = code::functions();
    // Symbol 0 and string 0 are empty by definition.
    let mut name_at = 1;
    for (index, (name, offset)) in functions.iter().enumerate() {
        out.seek(DYNSTR + name_at);
        out.put(name.as_bytes());
        out.seek(DYNSYM + (index + 1) * SYMBOL_SIZE);
        out.u32(name_at);
        out.put(&[0x12, 0]); // STB_GLOBAL, STT_FUNC; default visibility
        out.u16(1); // any defined section
        out.u64(CODE_OFFSET + offset);
        out.u64(0);
        name_at += name.len() + 1;
    }
    // One bucket, all symbols chained: readers walk four names.
    out.seek(HASH);
    let symbols = functions.len() + 1;
    out.u32(1);
    out.u32(symbols);
    out.u32(1);
    out.u32(0);
    for index in 1..symbols {
        out.u32(if index + 1 < symbols { index + 1 } else { 0 });
    }
    let version_name = name_at;
    out.seek(DYNSTR + version_name);
    out.put(VERSION.as_bytes());
    let base_name = version_name + VERSION.len() + 1;
    out.seek(DYNSTR + base_name);
    out.put(BASE.as_bytes());
    versions(&mut out, symbols, base_name, version_name);
    let strings = base_name + BASE.len() + 1;
    out.seek(DYNAMIC);
    for (tag, value) in [
        (4, HASH),
        (5, DYNSTR),
        (6, DYNSYM),
        (10, strings),
        (11, SYMBOL_SIZE),
        (0x6fff_fff0, VERSYM),
        (0x6fff_fffc, VERDEF),
        (0x6fff_fffd, 2), // version definitions
        (0, 0),
    ] {
        out.u64(tag);
        out.u64(value);
    }
    out.seek(CODE_OFFSET);
    out.put(code::bytes());
    out.page
}

/// Version numbers of the symbols, and their definitions (LSB Core, "Symbol Versioning").
fn versions(out: &mut Writer, symbols: usize, base: usize, version: usize) {
    out.seek(VERSYM);
    out.u16(0);
    for _ in 1..symbols {
        out.u16(VERSION_INDEX);
    }
    out.seek(VERDEF);
    let definitions = [
        (1, 1, BASE_HASH, DEFINITION_LEN, base), // VER_FLG_BASE
        (0, VERSION_INDEX, VERSION_HASH, 0, version),
    ];
    for (flags, index, hash, next, name) in definitions {
        for half in [1, flags, index, 1] {
            out.u16(half); // revision, flags, index, names
        }
        out.u32(hash);
        out.u32(20); // the names follow
        out.u32(next);
        out.u32(name);
        out.u32(0); // the last name
    }
}

fn header(out: &mut Writer) {
    out.put(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    out.u16(3); // ET_DYN
    out.u16(62); // EM_X86_64
    out.u32(1);
    out.u64(0);
    out.u64(64); // program headers
    out.u64(0);
    out.u32(0);
    for half in [64, 56, 2, 64, 0, 0] {
        out.u16(half);
    }
    for (kind, flags, offset, size, align) in
        [(1, 5, 0, PAGE_SIZE, PAGE_SIZE), (2, 4, DYNAMIC, DYNAMIC_LEN, 8)]
    {
        out.u32(kind); // PT_LOAD, PT_DYNAMIC
        out.u32(flags);
        for word in [offset, offset, offset, size, size, align] {
            out.u64(word);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Data, IMAGE_OFFSET, LEN, Scale};
    use super::*;

    /// Maps data page and image as a program has them.
    fn mapped() -> *mut u8 {
        // SAFETY: a fresh anonymous mapping, filled before it is made executable.
        unsafe {
            let at = libc_mmap(LEN).cast::<u8>();
            at.add(IMAGE_OFFSET).copy_from(build().as_ptr(), PAGE_SIZE);
            at
        }
    }

    unsafe fn libc_mmap(len: usize) -> *mut core::ffi::c_void {
        unsafe extern "C" {
            fn mmap(
                at: usize,
                len: usize,
                prot: i32,
                flags: i32,
                fd: i32,
                off: i64,
            ) -> *mut core::ffi::c_void;
        }
        // SAFETY: asks for new memory: read, write, execute; private, anonymous.
        unsafe { mmap(0, len, 7, 0x22, -1, 0) }
    }

    #[test]
    fn code_computes_the_clock_from_the_data_page() {
        let base = mapped();
        // SAFETY: the mapping is page aligned, zeroed and large enough for the data.
        let data = unsafe { &*base.cast::<Data>() };
        let offset = code::functions()[0].1 + CODE_OFFSET + IMAGE_OFFSET;
        // SAFETY: the address is that of the function just copied.
        let gettime: extern "C" fn(i32, *mut [u64; 2]) -> i32 =
            unsafe { core::mem::transmute(base.add(offset)) };
        // A counter that stands still: every cycle is worth nothing.
        let scale = Scale { base_cycles: 0, multiplier: 0, base_ns: 5_000_000_007 };
        data.publish(Some(scale), 1_000_000_000_000_000_000);
        let mut at = [0; 2];
        assert_eq!(gettime(1, &mut at), 0);
        assert_eq!(at, [5, 7]);
        assert_eq!(gettime(0, &mut at), 0);
        assert_eq!(at, [1_000_000_005, 7]);
        // Without a usable counter it asks the kernel.
        data.publish(None, 0);
        assert_eq!(gettime(0, &mut at), 0);
        assert!(at[0] > 1_600_000_000 && at[1] < 1_000_000_000);
    }

    #[test]
    fn image_is_an_elf_whose_symbols_are_found_by_hash() {
        let page = build();
        let word = |at: usize| u32::from_le_bytes(page[at..at + 4].try_into().unwrap()) as usize;
        assert_eq!(&page[..4], b"\x7fELF");
        let mut index = word(HASH + 8);
        let mut names = Vec::new();
        while index != 0 {
            let name = DYNSTR + word(DYNSYM + index * SYMBOL_SIZE);
            let end = page[name..].iter().position(|&byte| byte == 0).unwrap();
            names.push(core::str::from_utf8(&page[name..name + end]).unwrap().to_owned());
            index = word(HASH + 12 + 4 * index);
        }
        assert_eq!(names, code::functions().map(|(name, _)| name.to_owned()));
        assert!(CODE_OFFSET + code::bytes().len() <= PAGE_SIZE);
    }

    #[test]
    fn symbols_have_the_version_that_linux_gives_them() {
        let page = build();
        let word = |at: usize| u32::from_le_bytes(page[at..at + 4].try_into().unwrap()) as usize;
        let hash = |name: &str| {
            name.bytes().fold(0u32, |hash, byte| {
                let hash = (hash << 4).wrapping_add(byte.into());
                let high = hash & 0xf000_0000;
                (hash ^ (high >> 24)) & !high
            })
        };
        let mut ends = 0;
        for (at, name, index) in
            [(VERDEF, BASE, 1), (VERDEF + DEFINITION_LEN, VERSION, VERSION_INDEX)]
        {
            assert_eq!(page[at + 4..][..2], index.to_le_bytes());
            assert_eq!(word(at + 8), hash(name) as usize);
            let text = DYNSTR + word(at + word(at + 12));
            assert_eq!(&page[text..text + name.len()], name.as_bytes());
            ends = ends.max(text + name.len());
        }
        assert_eq!(word(VERDEF + 16), DEFINITION_LEN);
        for index in 1..=code::functions().len() {
            assert_eq!(page[VERSYM + 2 * index..][..2], VERSION_INDEX.to_le_bytes());
        }
        // Nothing runs into its neighbour.
        assert!(ends < HASH && DYNAMIC + DYNAMIC_LEN <= CODE_OFFSET);
        assert!(HASH + 4 * (4 + code::functions().len()) <= VERSYM);
        assert!(
            VERSYM + 2 * (1 + code::functions().len()) <= VERDEF
                && VERDEF + 2 * DEFINITION_LEN <= DYNAMIC
        );
    }
}

//! Putting a program into a fresh address space.

use super::elf::{self, HEADER_LEN, Header, PHDR_LEN, Program, Segment};
use super::{Opened, open_program};
use crate::arch::PAGE_SIZE;
use crate::errno::{Errno, Result};
use crate::fs::walk::Resolver;
use crate::io::IoDst;
use crate::mm::{AddressSpace, MapFlags, Prot};
use alloc::vec::Vec;

/// Where the parts of a program ended up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loaded {
    /// Where execution starts: in the interpreter if there is one.
    pub start: usize,
    /// The program's own entry (`AT_ENTRY`).
    pub entry: usize,
    /// Its program headers in memory.
    pub phdr: usize,
    /// How many.
    pub phnum: usize,
    /// Where the interpreter was loaded; 0 without one.
    pub base: usize,
    /// Whether the stack must be executable.
    pub exec_stack: bool,
}

/// Reads exactly `len` bytes. ENOEXEC if the file is shorter.
pub fn read_exact(opened: &Opened, offset: u64, len: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
    bytes.resize(len, 0);
    let mut dst = IoDst::kernel(&mut bytes);
    while dst.remaining() > 0 {
        let at = offset + dst.done() as u64;
        if opened.file.ops.read_at(&opened.file, at, &mut dst)? == 0 {
            return Err(Errno::ENOEXEC);
        }
    }
    Ok(bytes)
}

fn headers(opened: &Opened) -> Result<(Header, Program)> {
    let header = Header::parse(&read_exact(opened, 0, HEADER_LEN)?)?;
    let table = read_exact(opened, header.phoff, header.phnum * PHDR_LEN)?;
    Ok((header, Program::parse(&header, &table)?))
}

/// Maps the program, and its interpreter if it names one.
pub fn load(space: &AddressSpace, opened: &Opened, resolver: &Resolver<'_>) -> Result<Loaded> {
    let (header, program) = headers(opened)?;
    let interpreter = match program.interpreter {
        Some((offset, len)) => {
            if !(2..=4096).contains(&len) {
                return Err(Errno::ENOEXEC);
            }
            let mut name = read_exact(opened, offset, len)?;
            if name.pop() != Some(0) {
                return Err(Errno::ENOEXEC);
            }
            let file = open_program(resolver, &name)?;
            let parsed = headers(&file).map_err(|error| match error {
                Errno::ENOEXEC => Errno::ELIBBAD,
                other => other,
            })?;
            Some((file, parsed))
        }
        None => None,
    };
    let bias =
        if header.relocatable { space.layout().pie_base & !(program.align() - 1) } else { 0 };
    let (start, span) = program.span();
    map_segments(space, opened, &program, bias, MapFlags::FIXED_NOREPLACE)?;
    space.set_brk_start(bias + start + span);
    let mut loaded = Loaded {
        start: bias.wrapping_add(header.entry),
        entry: bias.wrapping_add(header.entry),
        phdr: bias.wrapping_add(program.phdr),
        phnum: header.phnum,
        base: 0,
        exec_stack: program.exec_stack,
    };
    if let Some((file, (header, program))) = interpreter {
        let (start, span) = program.span();
        let bias = if header.relocatable {
            // Room for all segments at once, so that they keep their distances.
            let flags = MapFlags::PRIVATE | MapFlags::ANONYMOUS | MapFlags::NORESERVE;
            space.mmap(0, span, Prot::empty(), Prot::all(), flags, None)? - start
        } else {
            0
        };
        map_segments(space, &file, &program, bias, MapFlags::FIXED)?;
        loaded.base = bias;
        loaded.start = bias.wrapping_add(header.entry);
    }
    if loaded.start >= crate::arch::USER_END {
        return Err(Errno::ENOEXEC);
    }
    Ok(loaded)
}

fn map_segments(
    space: &AddressSpace,
    opened: &Opened,
    program: &Program,
    bias: usize,
    place: MapFlags,
) -> Result<()> {
    let cache = opened.file.ops.mapping(&opened.file).map_err(|_| Errno::ENOEXEC)?;
    for segment in &program.segments {
        let Segment { offset, file_len, mem_len, .. } = *segment;
        let addr = bias + segment.addr;
        let skew = addr % PAGE_SIZE;
        let prot = protection(segment.flags);
        let file_end = (addr + file_len).next_multiple_of(PAGE_SIZE);
        let end = (addr + mem_len).next_multiple_of(PAGE_SIZE);
        let base = addr - skew;
        let mut zero_from = base;
        if file_len > 0 {
            let file = Some((cache.clone(), Some(opened.file.clone()), offset - skew as u64));
            let flags = MapFlags::PRIVATE | place;
            space.mmap(base, file_end - base, prot, Prot::all(), flags, file)?;
            zero_from = file_end;
        }
        if end > zero_from {
            let flags = MapFlags::PRIVATE | MapFlags::ANONYMOUS | place;
            space.mmap(zero_from, end - zero_from, prot, Prot::all(), flags, None)?;
        }
        let tail = addr + file_len;
        if mem_len > file_len && file_len > 0 && tail < file_end && prot.contains(Prot::WRITE) {
            space.zero(tail, file_end - tail)?;
        }
    }
    Ok(())
}

fn protection(flags: u32) -> Prot {
    let mut prot = Prot::empty();
    prot.set(Prot::READ, flags & elf::READ != 0);
    prot.set(Prot::WRITE, flags & elf::WRITE != 0);
    prot.set(Prot::EXEC, flags & elf::EXEC != 0);
    prot
}

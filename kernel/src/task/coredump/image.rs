//! A core file's head: ELF header, program headers and notes (elf(5); the notes' layouts are those
//! of linux/elfcore.h).

use crate::arch::PAGE_SIZE;
use crate::errno::{Errno, Result};
use crate::task::trace::Registers;
use alloc::vec::Vec;

const EHDR: usize = 64;
const PHDR: usize = 56;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// Most program headers that the ELF header can count (`PN_XNUM` is no number).
const MAX_PHDRS: usize = 0xfffe;

const NT_PRSTATUS: u32 = 1;
const NT_PRFPREG: u32 = 2;
const NT_PRPSINFO: u32 = 3;
const NT_AUXV: u32 = 6;
const NT_X86_XSTATE: u32 = 0x202;
const NT_SIGINFO: u32 = 0x5349_4749;
const NT_FILE: u32 = 0x4649_4c45;

/// One thread at its end.
pub struct Thread {
    /// Its number.
    pub tid: i32,
    /// General registers.
    pub registers: Registers,
    /// Legacy floating-point registers, and all in the form of XSAVE; both may be empty.
    pub float: [Vec<u8>; 2],
    /// Signals pending and blocked.
    pub signals: [u64; 2],
    /// User and system time, in nanoseconds.
    pub times: [u64; 2],
}

/// What is said of the process.
pub struct Facts {
    /// The signal that ended it.
    pub signal: u8,
    /// `siginfo_t`
    pub info: [u64; 16],
    /// Parent, group, session.
    pub family: [i32; 3],
    /// Its own number.
    pub pid: i32,
    /// Real user and group.
    pub ids: [u32; 2],
    /// Nice value.
    pub nice: i32,
    /// Name, up to 16 bytes.
    pub comm: Vec<u8>,
    /// Arguments, separated by NUL.
    pub args: Vec<u8>,
    /// Times of children that were waited for, in nanoseconds.
    pub children: [u64; 2],
    /// The auxiliary vector.
    pub auxv: Vec<u8>,
    /// Files that are mapped.
    pub files: Vec<MappedFile>,
}

/// A file in memory.
pub struct MappedFile {
    /// Addresses.
    pub start: usize,
    /// The first behind them.
    pub end: usize,
    /// Offset in pages.
    pub page: u64,
    /// Its name.
    pub name: Vec<u8>,
}

/// A piece of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its address.
    pub start: usize,
    /// Its length in memory.
    pub len: usize,
    /// How much of it is in the file.
    pub kept: usize,
    /// `PF_*`
    pub flags: u32,
    /// There is something behind it that its pages come from.
    pub file: bool,
}

fn put<T: AsRef<[u8]>>(out: &mut Vec<u8>, parts: impl IntoIterator<Item = T>) {
    parts.into_iter().for_each(|part| out.extend_from_slice(part.as_ref()));
}

fn note(out: &mut Vec<u8>, owner: &[u8], kind: u32, body: &[u8]) {
    put(out, [owner.len() as u32, body.len() as u32, kind].map(u32::to_le_bytes));
    for part in [owner, body] {
        out.extend_from_slice(part);
        out.resize(out.len().next_multiple_of(4), 0);
    }
}

fn timeval(ns: u64) -> [[u8; 8]; 2] {
    [ns / 1_000_000_000, ns % 1_000_000_000 / 1000].map(u64::to_le_bytes)
}

/// `struct elf_prstatus`
fn status(facts: &Facts, thread: &Thread) -> Vec<u8> {
    let mut out = Vec::new();
    let (signo, code) = (facts.info[0] as u32, facts.info[1] as u32);
    let error = (facts.info[0] >> 32) as u32;
    put(&mut out, [signo, code, error, facts.signal.into()].map(u32::to_le_bytes));
    put(&mut out, thread.signals.map(u64::to_le_bytes));
    let [parent, group, session] = facts.family;
    put(&mut out, [thread.tid, parent, group, session].map(i32::to_le_bytes));
    for ns in thread.times.into_iter().chain(facts.children) {
        put(&mut out, timeval(ns));
    }
    put(&mut out, thread.registers.map(usize::to_le_bytes));
    put(&mut out, [u64::from(!thread.float[0].is_empty()).to_le_bytes()]);
    out
}

/// `struct elf_prpsinfo`
fn process(facts: &Facts) -> Vec<u8> {
    let mut out = Vec::from([0, b'R', 0, facts.nice as u8, 0, 0, 0, 0]);
    put(&mut out, [0u64.to_le_bytes()]);
    put(&mut out, facts.ids.map(u32::to_le_bytes));
    let [parent, group, session] = facts.family;
    put(&mut out, [facts.pid, parent, group, session].map(i32::to_le_bytes));
    // With an end each, and the arguments as a line.
    let mut field = |text: &[u8], len: usize| {
        let end = out.len() + len;
        out.extend_from_slice(&text[..text.len().min(len - 1)]);
        out.resize(end, 0);
    };
    field(&facts.comm, 16);
    let args = facts.args.strip_suffix(&[0]).unwrap_or(&facts.args);
    let line: Vec<u8> =
        args.iter().take(80).map(|&byte| if byte == 0 { b' ' } else { byte }).collect();
    field(&line, 80);
    out
}

fn files(files: &[MappedFile]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, [files.len() as u64, PAGE_SIZE as u64].map(u64::to_le_bytes));
    for file in files {
        put(&mut out, [file.start as u64, file.end as u64, file.page].map(u64::to_le_bytes));
    }
    for file in files {
        out.extend_from_slice(&file.name);
        out.push(0);
    }
    out
}

fn notes(facts: &Facts, threads: &[Thread]) -> Vec<u8> {
    const CORE: &[u8] = b"CORE\0";
    let mut out = Vec::new();
    for (at, thread) in threads.iter().enumerate() {
        note(&mut out, CORE, NT_PRSTATUS, &status(facts, thread));
        if at == 0 {
            note(&mut out, CORE, NT_PRPSINFO, &process(facts));
            let info: Vec<u8> = facts.info.iter().flat_map(|word| word.to_le_bytes()).collect();
            note(&mut out, CORE, NT_SIGINFO, &info);
            note(&mut out, CORE, NT_AUXV, &facts.auxv);
            note(&mut out, CORE, NT_FILE, &files(&facts.files));
        }
        let [legacy, all] = &thread.float;
        if !legacy.is_empty() {
            note(&mut out, CORE, NT_PRFPREG, legacy);
        }
        if !all.is_empty() {
            note(&mut out, b"LINUX\0", NT_X86_XSTATE, all);
        }
    }
    out
}

/// The bytes before the memory, which follows segment by segment: whole pages. The first of the
/// threads is the one that the signal was for. E2BIG for more segments than the format counts.
pub fn head(facts: &Facts, threads: &[Thread], segments: &[Segment]) -> Result<Vec<u8>> {
    let count = segments.len() + 1;
    if count > MAX_PHDRS {
        return Err(Errno::E2BIG);
    }
    let notes = notes(facts, threads);
    let notes_at = EHDR + count * PHDR;
    let memory_at = (notes_at + notes.len()).next_multiple_of(PAGE_SIZE);
    let mut out = Vec::new();
    out.try_reserve_exact(memory_at).map_err(|_| Errno::ENOMEM)?;
    // 64 bits, little endian, ET_CORE for x86-64.
    out.extend_from_slice(b"\x7fELF\x02\x01\x01");
    out.resize(16, 0);
    put(&mut out, [4u16, 62].map(u16::to_le_bytes));
    put(&mut out, [1u32.to_le_bytes()]);
    put(&mut out, [0, EHDR as u64, 0].map(u64::to_le_bytes));
    put(&mut out, [0u32.to_le_bytes()]);
    let counts = [EHDR as u16, PHDR as u16, count as u16, 0, 0, 0];
    put(&mut out, counts.map(u16::to_le_bytes));
    let mut header = |kind: u32, flags: u32, words: [usize; 6]| {
        put(&mut out, [kind, flags].map(u32::to_le_bytes));
        put(&mut out, words.map(usize::to_le_bytes));
    };
    // Offset, two addresses, length in the file and in memory, alignment.
    header(PT_NOTE, 0, [notes_at, 0, 0, notes.len(), 0, 4]);
    let mut at = memory_at;
    for segment in segments {
        let Segment { start, len, kept, flags, .. } = *segment;
        header(PT_LOAD, flags, [at, start, 0, kept, len, PAGE_SIZE]);
        at += kept;
    }
    out.extend_from_slice(&notes);
    out.resize(memory_at, 0);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_is_as_elf_wants_it() {
        let thread = |tid| Thread {
            tid,
            registers: core::array::from_fn(|at| at * 3),
            float: [Vec::from([7; 512]), Vec::new()],
            signals: [1, 2],
            times: [1_500_000_000, 2_000],
        };
        let facts = Facts {
            signal: 11,
            info: [0; 16],
            family: [1, 2, 3],
            pid: 4,
            ids: [5, 6],
            nice: -1,
            comm: b"name".to_vec(),
            args: b"prog\0-x\0".to_vec(),
            children: [0, 0],
            auxv: Vec::from([0; 16]),
            files: Vec::from([MappedFile {
                start: 0x1000,
                end: 0x3000,
                page: 5,
                name: b"/f".to_vec(),
            }]),
        };
        assert_eq!(status(&facts, &thread(1)).len(), 336);
        assert_eq!(process(&facts).len(), 136);
        assert_eq!(process(&facts)[56..64], *b"prog -x\0");
        assert_eq!(files(&facts.files).len(), 16 + 24 + 3);
        let segments = [
            Segment { start: 0x1000, len: 0x2000, kept: 0, flags: 5, file: true },
            Segment { start: 0x8000, len: 0x3000, kept: 0x3000, flags: 6, file: false },
            Segment { start: 0xf000, len: 0x1000, kept: 0x1000, flags: 4, file: false },
        ];
        let head = head(&facts, &[thread(4), thread(9)], &segments).unwrap();
        assert!(head.len().is_multiple_of(PAGE_SIZE));
        let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap());
        assert_eq!((word(0x20), head[0x38], head[0x36]), (64, 4, 56));
        // The last one's offset: the memory before it is in the file.
        assert_eq!(word(64 + 3 * 56 + 8), head.len() as u64 + 0x3000);
        assert_eq!((word(64 + 3 * 56 + 16), word(64 + 3 * 56 + 40)), (0xf000, 0x1000));
        // Notes follow each other without a gap and end where the header says.
        let (mut at, end) = (word(64 + 8) as usize, (word(64 + 8) + word(64 + 32)) as usize);
        let mut kinds = Vec::new();
        while at < end {
            let half = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
            kinds.push(half(at + 8));
            let [name, body] = [at, at + 4].map(|at| half(at).next_multiple_of(4) as usize);
            at += 12 + name + body;
        }
        assert_eq!(at, end);
        let [first, then] = [NT_PRSTATUS, NT_PRFPREG];
        assert_eq!(kinds, [first, NT_PRPSINFO, NT_SIGINFO, NT_AUXV, NT_FILE, then, first, then]);
    }
}

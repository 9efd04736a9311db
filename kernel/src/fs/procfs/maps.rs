//! What /proc/PID shows of a process's memory.

use super::GONE;
use super::process::{check_access, find, process};
use crate::arch::{PAGE_SIZE, USER_END};
use crate::errno::{Errno, Result};
use crate::fs::inode::{Opened, dev_major, dev_minor};
use crate::fs::pseudo::{Key, Text};
use crate::fs::{File, FileOps, Inode, anon};
use crate::io::{IoDst, IoSrc};
use crate::mm::{AddressSpace, MapInfo, Prot, Smaps, Stats, VmFlags};
use crate::say;
use crate::task::exec::area;
use alloc::sync::Arc;

/// The memory of the process, if the caller may look at it. `None` for zombies and kernel threads.
fn space(key: &Key) -> Result<Option<Arc<AddressSpace>>> {
    Ok(check_access(key)?.and_then(|task| task.mm()))
}

/// Sizes of the process's memory; all zero if it has none.
pub fn sizes(key: &Key) -> Stats {
    let space = find(key).ok().and_then(|task| task.mm());
    space.map_or_else(Stats::default, |space| space.stats())
}

/// Bytes of page tables.
pub fn table_size(key: &Key) -> usize {
    let space = find(key).ok().and_then(|task| task.mm());
    space.map_or(0, |space| space.page_table_pages() * PAGE_SIZE)
}

/// Bytes of code mapped.
pub fn text_size(key: &Key) -> u64 {
    let Some(space) = find(key).ok().and_then(|task| task.mm()) else { return 0 };
    let code = space.vmas().into_iter().filter(|map| map.prot.contains(Prot::EXEC));
    code.map(|map| (map.end - map.start) as u64).sum()
}

/// The line that heads a mapping in maps and smaps.
fn line(out: &mut Text, map: &MapInfo) {
    let start = out.0.len();
    let letter = |flag, letter| if map.prot.contains(flag) { letter } else { '-' };
    let (read, write) = (letter(Prot::READ, 'r'), letter(Prot::WRITE, 'w'));
    let (exec, share) = (letter(Prot::EXEC, 'x'), if map.shared { 's' } else { 'p' });
    let (dev, ino) = match &map.file {
        Some(file) => file.with_inode(|inode| {
            let meta = inode.metadata();
            (meta.dev, meta.ino)
        }),
        None => (0, map.object.filter(|_| map.shared).unwrap_or(0)),
    };
    let (major, minor) = (dev_major(dev), dev_minor(dev));
    say!(out, "{:08x}-{:08x} {read}{write}{exec}{share} ", map.start, map.end);
    say!(out, "{:08x} {major:02x}:{minor:02x} {ino} ", map.offset);
    let name = match &map.file {
        Some(file) => super::process::file_name(file),
        None if map.shared && map.name.is_empty() => b"/dev/zero (deleted)".to_vec(),
        None => map.name.as_bytes().to_vec(),
    };
    if !name.is_empty() {
        // Names stand in a column of their own.
        while out.0.len() - start < 73 {
            out.bytes(b" ");
        }
        for &byte in &name {
            if byte == b'\n' {
                out.bytes(b"\\012");
            } else {
                out.bytes(&[byte]);
            }
        }
    }
    say!(out, "\n");
}

pub fn maps(key: &Key, out: &mut Text) -> Result<()> {
    let Some(space) = space(key)? else { return Ok(()) };
    for map in space.vmas() {
        line(out, &map);
    }
    Ok(())
}

fn numbers(out: &mut Text, size: usize, sums: &Smaps, locked: bool) {
    let kib = |bytes: usize| bytes / 1024;
    let mut field = |name: &str, bytes: usize| {
        let name = alloc::format!("{name}:");
        say!(out, "{name:<16}{:>8} kB\n", kib(bytes));
    };
    if size != 0 {
        field("Size", size);
        field("KernelPageSize", PAGE_SIZE);
        field("MMUPageSize", PAGE_SIZE);
    }
    field("Rss", sums.rss);
    field("Pss", sums.pss);
    field("Pss_Dirty", sums.private_dirty);
    field("Shared_Clean", sums.shared_clean);
    field("Shared_Dirty", sums.shared_dirty);
    field("Private_Clean", sums.private_clean);
    field("Private_Dirty", sums.private_dirty);
    field("Referenced", sums.referenced);
    field("Anonymous", sums.anonymous);
    for name in [
        "KSM",
        "LazyFree",
        "AnonHugePages",
        "ShmemPmdMapped",
        "FilePmdMapped",
        "Shared_Hugetlb",
        "Private_Hugetlb",
        "Swap",
        "SwapPss",
    ] {
        field(name, 0);
    }
    field("Locked", if locked { sums.pss } else { 0 });
}

pub fn smaps(key: &Key, out: &mut Text) -> Result<()> {
    let Some(space) = space(key)? else { return Ok(()) };
    for map in space.vmas() {
        line(out, &map);
        let sums = space.smaps(map.start, map.end);
        numbers(out, map.end - map.start, &sums, map.flags.contains(VmFlags::LOCKED));
        say!(out, "THPeligible:           0\nVmFlags:");
        for (set, name) in [
            (map.prot.contains(Prot::READ), "rd"),
            (map.prot.contains(Prot::WRITE), "wr"),
            (map.prot.contains(Prot::EXEC), "ex"),
            (map.shared, "sh"),
            (true, "mr mw me"),
            (map.flags.contains(VmFlags::GROWS_DOWN), "gd"),
            (map.flags.contains(VmFlags::LOCKED), "lo"),
            (map.flags.contains(VmFlags::DONT_FORK), "dc"),
            (map.flags.contains(VmFlags::DONT_DUMP), "dd"),
            (map.flags.contains(VmFlags::WIPE_ON_FORK), "wf"),
        ] {
            if set {
                say!(out, " {name}");
            }
        }
        say!(out, "\n");
    }
    Ok(())
}

pub fn smaps_rollup(key: &Key, out: &mut Text) -> Result<()> {
    let Some(space) = space(key)? else { return Ok(()) };
    let all = space.vmas();
    let mut sums = Smaps::default();
    for map in &all {
        let one = space.smaps(map.start, map.end);
        sums.rss += one.rss;
        sums.pss += one.pss;
        sums.shared_clean += one.shared_clean;
        sums.shared_dirty += one.shared_dirty;
        sums.private_clean += one.private_clean;
        sums.private_dirty += one.private_dirty;
        sums.referenced += one.referenced;
        sums.anonymous += one.anonymous;
    }
    let (start, end) =
        (all.first().map_or(0, |map| map.start), all.last().map_or(0, |map| map.end));
    say!(out, "{start:08x}-{end:08x} ---p 00000000 00:00 0                          [rollup]\n");
    numbers(out, 0, &sums, false);
    Ok(())
}

pub fn cmdline(key: &Key, out: &mut Text) -> Result<()> {
    let process = process(key)?;
    if let Some(space) = find(key).ok().and_then(|task| task.mm()) {
        out.bytes(&area::arguments(&process, &space));
    }
    Ok(())
}

pub fn environ(key: &Key, out: &mut Text) -> Result<()> {
    if let Some(space) = space(key)? {
        out.bytes(&area::environment(&*process(key)?, &space));
    }
    Ok(())
}

pub fn auxv(key: &Key, out: &mut Text) -> Result<()> {
    if let Some(space) = space(key)? {
        out.bytes(&area::auxiliary_vector(&*process(key)?, &space));
    }
    Ok(())
}

/// /proc/PID/mem: the process's memory at its own addresses.
struct Memory {
    space: Arc<AddressSpace>,
}

pub fn open_mem(key: &Key, _flags: u32) -> Result<Opened> {
    let space = space(key)?.ok_or(GONE)?;
    Ok(Opened::Ops(Arc::new(Memory { space })))
}

impl FileOps for Memory {
    fn seekable(&self) -> bool {
        true
    }

    fn read_at(&self, _file: &File, offset: u64, dst: &mut IoDst<'_>) -> Result<usize> {
        let mut piece = [0; 1024];
        let mut done = 0;
        while dst.remaining() > 0 {
            let at = usize::try_from(offset).map_err(|_| Errno::EIO)? + done;
            // Pieces end with pages, so that what is mapped before a hole still arrives.
            let n = (PAGE_SIZE - at % PAGE_SIZE).min(piece.len()).min(dst.remaining());
            if at >= USER_END || self.space.peek(at, &mut piece[..n]).is_err() {
                break;
            }
            done += dst.write(&piece[..n])?;
        }
        if done == 0 && dst.remaining() > 0 { Err(Errno::EIO) } else { Ok(done) }
    }

    fn write_at(&self, _file: &File, offset: u64, src: &mut IoSrc<'_>) -> Result<(usize, u64)> {
        let mut piece = [0; 1024];
        let mut done = 0;
        while src.remaining() > 0 {
            let at = usize::try_from(offset).map_err(|_| Errno::EIO)? + done;
            let want = (PAGE_SIZE - at % PAGE_SIZE).min(piece.len());
            let n = src.read(&mut piece[..want])?;
            if at >= USER_END || self.space.poke(at, &piece[..n]).is_err() {
                break;
            }
            done += n;
        }
        if done == 0 { Err(Errno::EIO) } else { Ok((done, offset + done as u64)) }
    }

    fn inode(&self) -> Arc<dyn Inode> {
        anon::inode()
    }
}

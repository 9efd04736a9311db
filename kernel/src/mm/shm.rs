//! System V shared memory segments (shmget(2), shmat(2), shmctl(2)).
//!
//! A segment is a file without a name. The table keeps it until it is marked for removal; from then
//! on the mappings do, so its memory goes with the last of them.

use super::PageCache;
use crate::arch::PAGE_SIZE;
use crate::errno::{Errno, Result};
use crate::fs::File;
use crate::fs::memfs::MemFs;
use crate::ipc::ids::{MAX_IDS, Numbering, id_of};
use crate::ipc::{Caller, PRIVATE};
use crate::map::Sorted;
use crate::setting::Setting;
use crate::sync::Mutex;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicUsize, Ordering};
use linux_raw_sys::general::O_RDWR;

/// Most segments (`kernel.shmmni`).
pub static MAX_SEGMENTS: Setting = Setting::new(4096, 0, MAX_IDS as i64);
/// Most bytes of one (`kernel.shmmax`), and pages of all (`kernel.shmall`): Linux has a little more,
/// which no machine has.
pub static MAX_BYTES: Setting = Setting::new(i64::MAX, 0, i64::MAX);
/// See [`MAX_BYTES`].
pub static MAX_PAGES: Setting = Setting::new(i64::MAX, 0, i64::MAX);
/// Which ids they get (`kernel.shm_next_id`).
pub static NUMBERING: Numbering = Numbering::new();

/// A segment's attributes, as shmctl(2) `IPC_STAT` shows them.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    pub key: i32,
    pub uid: u32,
    pub gid: u32,
    pub cuid: u32,
    pub cgid: u32,
    /// Permissions with `SHM_DEST` (0o1000) and `SHM_LOCKED` (0o2000).
    pub mode: u32,
    pub size: usize,
    /// Seconds since the epoch.
    pub atime: i64,
    pub dtime: i64,
    pub ctime: i64,
    pub cpid: i32,
    pub lpid: i32,
    pub attached: usize,
    /// Pages that are in memory.
    pub resident: usize,
}

/// `SHM_DEST`
const DEST: u32 = 0o1000;
/// `SHM_LOCKED`
const LOCKED: u32 = 0o2000;

struct Segment {
    info: Info,
    sequence: i32,
    cache: Weak<PageCache>,
    /// Given up when the segment is marked for removal.
    file: Option<Arc<File>>,
    lingering: Weak<File>,
}

static TABLE: Mutex<Sorted<i32, Segment>> = Mutex::new(Sorted::new());
/// Pages of the segments that exist.
static TOTAL: AtomicUsize = AtomicUsize::new(0);

fn now() -> i64 {
    (crate::time::realtime_ns() / 1_000_000_000) as i64
}

impl Segment {
    fn file(&self) -> Option<Arc<File>> {
        self.file.clone().or_else(|| self.lingering.upgrade())
    }

    fn attached(&self) -> usize {
        self.cache.upgrade().map_or(0, |cache| cache.mapping_count())
    }

    fn resident(&self) -> usize {
        self.cache.upgrade().map_or(0, |cache| cache.own_pages())
    }

    /// All that is told of it.
    fn describe(&self) -> Info {
        Info { attached: self.attached(), resident: self.resident(), ..self.info }
    }

    fn allows(&self, caller: &Caller<'_>, wanted: u32) -> bool {
        let info = &self.info;
        let granted = if caller.euid == info.uid || caller.euid == info.cuid {
            info.mode >> 6
        } else if (caller.in_group)(info.gid)
            || (caller.in_group)(info.cgid)
            || [info.gid, info.cgid].contains(&caller.egid)
        {
            info.mode >> 3
        } else {
            info.mode
        };
        caller.override_access || wanted & !granted & 0o7 == 0
    }

    fn owned_by(&self, caller: &Caller<'_>) -> bool {
        caller.admin || caller.euid == self.info.uid || caller.euid == self.info.cuid
    }
}

/// Forgets segments that were marked for removal and are mapped no more.
fn sweep(table: &mut Sorted<i32, Segment>) {
    table.retain(|_, segment| {
        let keep = segment.info.mode & DEST == 0 || segment.attached() > 0;
        if !keep {
            TOTAL.fetch_sub(segment.info.size.div_ceil(PAGE_SIZE), Ordering::Relaxed);
        }
        keep
    });
}

fn by_id(table: &mut Sorted<i32, Segment>, id: i32) -> Result<&mut Segment> {
    let segment = table.get_mut(&(id % MAX_IDS)).filter(|_| id >= 0).ok_or(Errno::EINVAL)?;
    if id_of(id % MAX_IDS, segment.sequence) != id { Err(Errno::EIDRM) } else { Ok(segment) }
}

/// shmget(2): finds or makes a segment; its id.
pub fn get(
    key: i32,
    size: usize,
    create: bool,
    exclusive: bool,
    mode: u32,
    caller: &Caller<'_>,
) -> Result<i32> {
    let mut table = TABLE.lock();
    sweep(&mut table);
    let found = table.iter().find(|(_, segment)| {
        key != PRIVATE && segment.info.key == key && segment.info.mode & DEST == 0
    });
    if let Some((&slot, segment)) = found {
        if create && exclusive {
            return Err(Errno::EEXIST);
        }
        if size > segment.info.size {
            return Err(Errno::EINVAL);
        }
        if !segment.allows(caller, mode >> 6 | mode >> 3 | mode) {
            return Err(Errno::EACCES);
        }
        return Ok(id_of(slot, segment.sequence));
    }
    if key != PRIVATE && !create {
        return Err(Errno::ENOENT);
    }
    if size == 0 || size > MAX_BYTES.size() {
        return Err(Errno::EINVAL);
    }
    let memory = super::frame::total_frames() * PAGE_SIZE;
    let pages = size.div_ceil(PAGE_SIZE);
    if pages + TOTAL.load(Ordering::Relaxed) > MAX_PAGES.size() {
        return Err(Errno::ENOSPC);
    }
    if table.len() >= MAX_SEGMENTS.size() {
        return Err(Errno::ENOSPC);
    }
    if size > memory {
        return Err(Errno::ENOMEM);
    }
    let name = alloc::format!("/SYSV{key:08x}");
    let (inode, path) = MemFs::unnamed(name.as_bytes(), mode & 0o777, caller.euid, caller.egid);
    let cache = inode.cache()?.clone();
    cache.truncate(size as u64)?;
    let file = File::named(inode, O_RDWR, path);
    let (slot, sequence) = NUMBERING.place(&table);
    let info = Info {
        key,
        uid: caller.euid,
        gid: caller.egid,
        cuid: caller.euid,
        cgid: caller.egid,
        mode: mode & 0o777,
        size,
        atime: 0,
        dtime: 0,
        ctime: now(),
        cpid: caller.pid,
        lpid: 0,
        attached: 0,
        resident: 0,
    };
    let lingering = Arc::downgrade(&file);
    let segment =
        Segment { info, sequence, cache: Arc::downgrade(&cache), file: Some(file), lingering };
    table.insert(slot, segment);
    TOTAL.fetch_add(pages, Ordering::Relaxed);
    Ok(id_of(slot, sequence))
}

/// The file and size of a segment, for shmat(2). `wanted` are permission bits: 4 read, 2 write, 1
/// execute.
pub fn attach(
    id: i32,
    wanted: u32,
    caller: &Caller<'_>,
) -> Result<(Arc<File>, Arc<PageCache>, usize)> {
    let mut table = TABLE.lock();
    let segment = by_id(&mut table, id)?;
    if !segment.allows(caller, wanted) {
        return Err(Errno::EACCES);
    }
    let file = segment.file().ok_or(Errno::EIDRM)?;
    let cache = segment.cache.upgrade().ok_or(Errno::EIDRM)?;
    segment.info.atime = now();
    segment.info.lpid = caller.pid;
    Ok((file, cache, segment.info.size))
}

/// Notes that a mapping of the object `cache` went (shmdt(2)).
pub fn detached(cache: u64, pid: i32) {
    let mut table = TABLE.lock();
    for segment in table.values_mut() {
        if segment.cache.upgrade().is_some_and(|object| object.id() == cache) {
            segment.info.dtime = now();
            segment.info.lpid = pid;
        }
    }
    sweep(&mut table);
}

/// Whether an object is a segment.
pub fn is_segment(cache: u64) -> bool {
    TABLE.lock().values().any(|s| s.cache.upgrade().is_some_and(|object| object.id() == cache))
}

/// Marks a segment for removal (`IPC_RMID`).
pub fn remove(id: i32, caller: &Caller<'_>) -> Result<()> {
    let mut table = TABLE.lock();
    let segment = by_id(&mut table, id)?;
    if !segment.owned_by(caller) {
        return Err(Errno::EPERM);
    }
    segment.info.mode |= DEST;
    segment.info.key = PRIVATE;
    let file = segment.file.take();
    sweep(&mut table);
    drop(table);
    drop(file);
    Ok(())
}

/// The attributes of a segment (`IPC_STAT`).
pub fn stat(id: i32, caller: &Caller<'_>) -> Result<Info> {
    let mut table = TABLE.lock();
    let segment = by_id(&mut table, id)?;
    if !segment.allows(caller, 4) {
        return Err(Errno::EACCES);
    }
    Ok(segment.describe())
}

/// The id and attributes of the segment in a slot (`SHM_STAT`). An id stands for its slot.
pub fn stat_slot(slot: i32, caller: Option<&Caller<'_>>) -> Result<(i32, Info)> {
    let table = TABLE.lock();
    let slot = slot % MAX_IDS;
    let segment = table.get(&slot).ok_or(Errno::EINVAL)?;
    if caller.is_some_and(|caller| !segment.allows(caller, 4)) {
        return Err(Errno::EACCES);
    }
    Ok((id_of(slot, segment.sequence), segment.describe()))
}

/// Changes owner and permissions (`IPC_SET`).
pub fn set(id: i32, uid: u32, gid: u32, mode: u32, caller: &Caller<'_>) -> Result<()> {
    let mut table = TABLE.lock();
    let segment = by_id(&mut table, id)?;
    if !segment.owned_by(caller) {
        return Err(Errno::EPERM);
    }
    (segment.info.uid, segment.info.gid) = (uid, gid);
    segment.info.mode = segment.info.mode & !0o777 | mode & 0o777;
    segment.info.ctime = now();
    Ok(())
}

/// Marks a segment as locked in memory, which all of them are, or not (`SHM_LOCK`, `SHM_UNLOCK`).
pub fn set_locked(id: i32, locked: bool, caller: &Caller<'_>) -> Result<()> {
    let mut table = TABLE.lock();
    let segment = by_id(&mut table, id)?;
    if !segment.owned_by(caller) {
        return Err(Errno::EPERM);
    }
    if locked {
        segment.info.mode |= LOCKED
    } else {
        segment.info.mode &= !LOCKED
    }
    Ok(())
}

/// All segments together.
pub struct Totals {
    pub segments: usize,
    pub pages: usize,
    /// Pages that are in memory.
    pub resident: usize,
    /// The highest slot in use.
    pub highest: i32,
}

/// What there is of all segments.
pub fn totals() -> Totals {
    let mut table = TABLE.lock();
    sweep(&mut table);
    Totals {
        segments: table.len(),
        pages: TOTAL.load(Ordering::Relaxed),
        resident: table.values().map(Segment::resident).sum(),
        highest: table.keys().next_back().copied().unwrap_or(0),
    }
}

/// Every segment with its id.
pub fn list() -> alloc::vec::Vec<(i32, Info)> {
    let mut table = TABLE.lock();
    sweep(&mut table);
    table
        .iter()
        .map(|(&slot, segment)| (id_of(slot, segment.sequence), segment.describe()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::{AddressSpace, MapFlags, Prot};

    #[test]
    fn segments_live_as_long_as_they_are_mapped() {
        let nobody = |_: u32| false;
        let root = Caller {
            euid: 0,
            egid: 0,
            in_group: &nobody,
            override_access: true,
            admin: true,
            pid: 5,
        };
        let user = Caller { euid: 7, egid: 7, override_access: false, admin: false, ..root };
        let id = get(0x1234, 10_000, true, true, 0o600, &root).unwrap();
        assert_eq!(get(0x1234, 10_000, true, true, 0o600, &root), Err(Errno::EEXIST));
        assert_eq!(get(0x1234, 5, false, false, 0, &root), Ok(id));
        assert_eq!(get(0x1234, 20_000, false, false, 0, &root), Err(Errno::EINVAL));
        assert_eq!(get(0x1234, 5, false, false, 0o600, &user), Err(Errno::EACCES));
        assert!(matches!(attach(id, 4, &user), Err(Errno::EACCES)));
        assert_eq!(remove(id, &user), Err(Errno::EPERM));
        let (file, cache, size) = attach(id, 6, &root).unwrap();
        let space = AddressSpace::new().unwrap();
        let prot = Prot::READ | Prot::WRITE;
        let backing = Some((cache, Some(file), 0));
        let at = space.mmap(0, size, prot, prot, MapFlags::SHARED, backing).unwrap();
        space.write_bytes(at, b"kept").unwrap();
        let child = space.fork().unwrap();
        assert_eq!(stat(id, &root).unwrap().attached, 2);
        remove(id, &root).unwrap();
        assert_eq!(get(0x1234, 5, false, false, 0, &root), Err(Errno::ENOENT));
        assert_eq!(stat(id, &root).unwrap().mode & DEST, DEST);
        drop(space);
        let mut seen = [0; 4];
        child.read_bytes(at, &mut seen).unwrap();
        assert_eq!(&seen, b"kept");
        drop(child);
        totals();
        assert!(stat(id, &root).is_err());
    }
}

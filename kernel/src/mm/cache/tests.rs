use super::*;
use crate::io::{IoDst, IoSrc};
use crate::mm::frame::hosted::live_frames;
use std::sync::atomic::AtomicUsize;

/// Pages whose bytes say their index.
struct Numbered {
    reads: AtomicUsize,
    len: u64,
    ahead: bool,
}

impl Numbered {
    fn new(len: u64, ahead: bool) -> Arc<Numbered> {
        Arc::new(Numbered { reads: AtomicUsize::new(0), len, ahead })
    }
    fn byte(&self, at: u64) -> u8 {
        if at < self.len { (at / PAGE * 7 + at % 251 + 1) as u8 } else { 0 }
    }
}

impl Pager for Numbered {
    fn read_page(&self, index: u64) -> Result<PageRef> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let page = PageRef::alloc(true)?;
        let bytes: Vec<u8> = (index * PAGE..(index + 1) * PAGE).map(|at| self.byte(at)).collect();
        page.write(0, &bytes);
        Ok(page)
    }
    fn read_pages(
        &self,
        index: u64,
        count: usize,
        sink: &mut dyn FnMut(u64, PageRef),
    ) -> Result<()> {
        let count = if self.ahead { count } else { 1 };
        for at in index..index + count as u64 {
            sink(at, self.read_page(at)?);
        }
        Ok(())
    }
}

/// A boot module: pages in place.
struct InPlace;

impl Pager for InPlace {
    fn read_page(&self, index: u64) -> Result<PageRef> {
        // The reserved first MiB of the simulated RAM; frame 16 on is this test's alone.
        PageRef::pinned((16 + index as usize) * PAGE_SIZE).ok_or(Errno::EIO)
    }
    fn in_place(&self) -> bool {
        true
    }
}

fn read(cache: &PageCache, offset: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0xee; len];
    let n = cache.read_at(offset, &mut IoDst::kernel(&mut out)).unwrap();
    out.truncate(n);
    out
}

fn write(cache: &PageCache, offset: u64, bytes: &[u8]) {
    assert_eq!(cache.write_at(offset, &mut IoSrc::kernel(bytes)).unwrap(), bytes.len());
}

#[test]
fn behaves_as_a_vector_of_bytes() {
    for backed in [false, true] {
        let before = live_frames();
        {
            let len = 40_000;
            let pager = Numbered::new(len, true);
            let (cache, mut model): (_, Vec<u8>) = if backed {
                (PageCache::backed(len, pager.clone()), (0..len).map(|at| pager.byte(at)).collect())
            } else {
                (PageCache::anonymous(0), Vec::new())
            };
            let mut seed = 11u64;
            for round in 0..3_000u32 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(77);
                let random = seed >> 24;
                let at = random % 60_000;
                let size = (random >> 20) as usize % 9_000 + 1;
                match random >> 36 & 7 {
                    0..3 => {
                        let bytes = vec![round as u8; size];
                        write(&cache, at, &bytes);
                        let end = at as usize + size;
                        model.resize(model.len().max(end), 0);
                        model[at as usize..end].copy_from_slice(&bytes);
                    }
                    3 => {
                        cache.truncate(at).unwrap();
                        model.resize(at as usize, 0);
                    }
                    4 => {
                        let end = at + size as u64;
                        cache.punch_hole(at, end).unwrap();
                        let end = model.len().min(end as usize);
                        if (at as usize) < end {
                            model[at as usize..end].fill(0);
                        }
                    }
                    5 => drop(cache.evict(3, 24)),
                    _ => {
                        let size = 9 * size;
                        let end = model.len().min(at as usize + size);
                        let want = model.get(at as usize..end).unwrap_or(&[]);
                        assert_eq!(read(&cache, at, size), want, "round {round}");
                    }
                }
                assert_eq!(cache.len(), model.len() as u64);
            }
            assert_eq!(read(&cache, 0, model.len() + 1), model);
        }
        assert_eq!(live_frames(), before, "pages leak");
    }
}

#[test]
fn frames_in_place_are_never_written() {
    let cache = PageCache::backed(3 * PAGE, Arc::new(InPlace));
    assert_eq!(read(&cache, PAGE, 4), [0; 4]);
    write(&cache, PAGE, b"mine");
    assert_eq!(read(&cache, PAGE, 5), b"mine\0");
    let mut module = [1u8; 4];
    PageRef::pinned(17 * PAGE_SIZE).unwrap().read(0, &mut module);
    assert_eq!(module, [0; 4]);
    assert_eq!(cache.own_pages(), 1);
}

#[test]
fn evicted_pages_are_read_again_and_own_pages_stay() {
    let pager = Numbered::new(20 * PAGE, false);
    let cache = PageCache::backed(20 * PAGE, pager.clone());
    let all = read(&cache, 0, 20 * PAGE_SIZE);
    write(&cache, 5 * PAGE, b"changed");
    let reads = pager.reads.load(Ordering::Relaxed);
    let held = cache.get_page(7, false).unwrap();
    // The first pass only takes the marks of use.
    assert_eq!(cache.evict(100, 800), 18);
    assert_eq!(read(&cache, 5 * PAGE, 7), b"changed");
    assert_eq!(read(&cache, 6 * PAGE, 10), all[6 * PAGE_SIZE..][..10]);
    assert_eq!(pager.reads.load(Ordering::Relaxed), reads + 1);
    assert_eq!(cache.peek(7, false).unwrap().pfn(), held.pfn());
}

#[test]
fn a_shortened_backing_never_comes_back() {
    let pager = Numbered::new(4 * PAGE, false);
    let cache = PageCache::backed(4 * PAGE, pager);
    cache.truncate(PAGE + 5).unwrap();
    cache.truncate(4 * PAGE).unwrap();
    let bytes = read(&cache, PAGE, 3 * PAGE_SIZE);
    assert!(bytes[..5].iter().all(|&byte| byte != 0));
    assert!(bytes[5..].iter().all(|&byte| byte == 0));
}

#[test]
fn sequential_readers_get_longer_read_ahead() {
    let pager = Numbered::new(100 * PAGE, true);
    let cache = PageCache::backed(100 * PAGE, pager.clone());
    cache.get_page(0, false).unwrap();
    let first = pager.reads.load(Ordering::Relaxed);
    assert!(first >= READ_AHEAD_MIN as usize);
    for index in 1..100 {
        cache.get_page(index, false).unwrap();
    }
    assert_eq!(pager.reads.load(Ordering::Relaxed), 100, "no page is read twice");
}

#[test]
fn quotas_end_in_enospc_and_are_given_back() {
    let quota = Arc::new(Quota::new(4));
    let cache = PageCache::anonymous_in(0, quota.clone());
    let bytes = vec![1u8; 6 * PAGE_SIZE];
    assert_eq!(cache.write_at(0, &mut IoSrc::kernel(&bytes)).unwrap(), 4 * PAGE_SIZE);
    assert_eq!(cache.write_at(4 * PAGE, &mut IoSrc::kernel(&bytes)), Err(Errno::ENOSPC));
    cache.truncate(PAGE).unwrap();
    assert_eq!(quota.used(), 1);
    drop(cache);
    assert_eq!(quota.used(), 0);
}

#[test]
fn data_and_holes_are_found() {
    let cache = PageCache::anonymous(10 * PAGE);
    write(&cache, 3 * PAGE + 1, b"x");
    assert_eq!(cache.seek_data(5), Some(3 * PAGE));
    assert_eq!(cache.seek_data(3 * PAGE + 9), Some(3 * PAGE + 9));
    assert_eq!(cache.seek_data(4 * PAGE), None);
    assert_eq!(cache.seek_hole(3 * PAGE), Some(4 * PAGE));
    assert_eq!(cache.seek_hole(7), Some(7));
    let backed = PageCache::backed(4 * PAGE, Numbered::new(4 * PAGE, false));
    assert_eq!(backed.seek_hole(0), Some(4 * PAGE));
    backed.punch_hole(PAGE, 2 * PAGE).unwrap();
    assert_eq!((backed.seek_hole(0), backed.seek_data(PAGE)), (Some(PAGE), Some(2 * PAGE)));
}

#[test]
fn seals_hold_and_can_be_sealed() {
    let cache = PageCache::anonymous(0);
    assert_eq!(cache.add_seals(Seals::GROW), Err(Errno::EPERM), "not a memfd with sealing");
    cache.allow_sealing();
    write(&cache, 0, &[1; 4196]);
    cache.add_seals(Seals::GROW | Seals::SHRINK).unwrap();
    // Whole pages of what is there, and else only what lies within.
    assert_eq!(cache.write_at(50, &mut IoSrc::kernel(&[2; 9000])).unwrap(), 4046);
    assert_eq!(cache.write_at(4146, &mut IoSrc::kernel(&[2; 100])), Err(Errno::EPERM));
    assert_eq!(cache.write_at(4146, &mut IoSrc::kernel(&[2; 50])).unwrap(), 50);
    assert_eq!(cache.write_at(4196, &mut IoSrc::kernel(b"x")), Err(Errno::EPERM));
    assert_eq!(cache.truncate(10), Err(Errno::EPERM));
    assert_eq!(cache.truncate(10_000), Err(Errno::EPERM));
    cache.add_seals(Seals::WRITE | Seals::SEAL).unwrap();
    assert_eq!(cache.write_at(0, &mut IoSrc::kernel(b"x")), Err(Errno::EPERM));
    assert_eq!(cache.punch_hole(0, 10), Err(Errno::EPERM));
    assert_eq!(cache.add_seals(Seals::EXEC), Err(Errno::EPERM));
}

/// A backing that pages are written back to.
struct Disk {
    pages: SpinLock<std::collections::HashMap<u64, Vec<u8>>>,
    room: bool,
}

impl Pager for Disk {
    fn read_page(&self, index: u64) -> Result<PageRef> {
        let page = PageRef::alloc(true)?;
        if let Some(bytes) = self.pages.lock().get(&index) {
            page.write(0, bytes);
        }
        Ok(page)
    }
    fn writes_back(&self) -> bool {
        true
    }
    fn make_room(&self, _index: u64) -> Result<bool> {
        if self.room { Ok(true) } else { Err(Errno::ENOSPC) }
    }
}

fn write_back(cache: &PageCache, disk: &Disk) -> Vec<u64> {
    let pages = cache.take_dirty(0, u64::MAX, 100).unwrap();
    for (index, page) in &pages {
        let mut bytes = vec![0; PAGE_SIZE];
        page.read(0, &mut bytes);
        disk.pages.lock().insert(*index, bytes);
    }
    cache.uncharge_written(pages.len());
    pages.iter().map(|(index, _)| *index).collect()
}

#[test]
fn pages_written_back_are_clean_and_come_back() {
    let disk = Arc::new(Disk { pages: Default::default(), room: false });
    let quota = Arc::new(Quota::new(4));
    let cache = PageCache::backed_in(0, disk.clone(), quota.clone());
    write(&cache, 0, &[1; 5000]);
    write(&cache, 9 * PAGE + 100, &[2; 10]);
    assert_eq!(quota.used(), 3);
    assert_eq!(write_back(&cache, &disk), [0, 1, 9]);
    assert!(quota.used() == 0 && !cache.is_dirty());
    assert!(write_back(&cache, &disk).is_empty());
    // Clean pages can be dropped, and holes between them read as zeros.
    while cache.evict(100, 800) > 0 || cache.evict(100, 800) > 0 {}
    assert_eq!(read(&cache, 4096, 904), [1; 904]);
    assert_eq!(read(&cache, 5000, 5000), [0; 5000]);
    assert_eq!(read(&cache, 9 * PAGE + 100, 10), [2; 10]);
    // A clean page becomes dirty again by a write; the quota counts dirty ones alone.
    write(&cache, 10, &[3]);
    assert_eq!(write_back(&cache, &disk), [0]);
    // Cut and grown again: what was there doesn't come back.
    cache.truncate(100).unwrap();
    disk.pages.lock().retain(|&index, _| index == 0);
    cache.truncate(2 * PAGE).unwrap();
    assert_eq!(read(&cache, 100, 4000), [0; 4000]);
    assert_eq!(read(&cache, 10, 2), [3, 1]);
}

#[test]
fn dirty_pages_need_room_unless_they_have_a_place() {
    for room in [false, true] {
        let disk = Arc::new(Disk { pages: Default::default(), room });
        let quota = Arc::new(Quota::new(2));
        let cache = PageCache::backed_in(8 * PAGE, disk.clone(), quota.clone());
        write(&cache, 0, &[1; 2 * PAGE_SIZE]);
        for (at, bytes) in [(2 * PAGE, &[2; PAGE_SIZE][..]), (3 * PAGE + 1, &[2; 10])] {
            let result = cache.write_at(at, &mut IoSrc::kernel(bytes));
            assert_eq!(result, if room { Ok(bytes.len()) } else { Err(Errno::ENOSPC) });
        }
        assert_eq!(cache.get_page(4, true).is_ok(), room);
        assert_eq!(quota.used(), if room { 5 } else { 2 });
        drop(cache);
        assert_eq!(quota.used(), 0);
    }
}

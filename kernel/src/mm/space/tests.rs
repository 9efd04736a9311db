use super::*;
use crate::arch::USER_END;
use crate::errno::Errno;
use crate::mm::PageCache;
use crate::mm::frame::hosted::live_frames;
use std::collections::BTreeMap;

const RW: Prot = Prot::READ.union(Prot::WRITE);
const ANON: MapFlags = MapFlags::PRIVATE.union(MapFlags::ANONYMOUS);
const SHARED: MapFlags = MapFlags::SHARED.union(MapFlags::ANONYMOUS);
const P: usize = PAGE_SIZE;

fn space() -> Arc<AddressSpace> {
    AddressSpace::new().unwrap()
}

fn anon(space: &AddressSpace, pages: usize) -> usize {
    space.mmap(0, pages * P, RW, Prot::all(), ANON, None).unwrap()
}

fn byte(space: &AddressSpace, addr: usize) -> u8 {
    let mut byte = [0];
    space.read_bytes(addr, &mut byte).unwrap();
    byte[0]
}

fn check_counts(space: &AddressSpace) {
    let (mut anon, mut other, mut at) = (0, 0, 0);
    let maps = space.maps.read();
    let pages = space.pages.lock();
    while let Some(leaf) = pages.table.next_leaf(at, USER_END) {
        at = leaf.base + crate::mm::pagetable::TABLE_SPAN;
        let entries: Vec<u64> =
            leaf.table.iter().map(|s| s.load(Ordering::Relaxed)).filter(|&e| e != 0).collect();
        assert_eq!(entries.len(), leaf.used() as usize);
        // By a mapping it is found in the end.
        assert!(maps.range(leaf.base, at).next().is_some(), "a table nobody has use for");
        let counted = entries.iter().filter(|&e| e & rss::ZERO == 0);
        for entry in counted {
            if entry & crate::mm::pagetable::ANON != 0 { anon += 1 } else { other += 1 }
        }
    }
    assert_eq!((pages.rss.anon, pages.rss.file + pages.rss.shmem), (anon, other));
}

#[test]
fn untouched_memory_reads_as_zeros_and_keeps_what_is_written() {
    let before = live_frames();
    {
        let space = space();
        let at = anon(&space, 10);
        assert_eq!(byte(&space, at + 5 * P), 0);
        assert_eq!(space.rss().total(), 0, "the page of zeros doesn't count");
        space.write_bytes(at + P - 2, b"abcd").unwrap();
        let mut out = [0; 6];
        space.read_bytes(at + P - 3, &mut out).unwrap();
        assert_eq!(&out, b"\0abcd\0");
        assert_eq!(space.rss().anon, 2);
        space.write_bytes(at + 5 * P, b"x").unwrap();
        assert_eq!(byte(&space, at + 5 * P), b'x');
        check_counts(&space);
        assert_eq!(space.handle_fault(at - P, false, false), Err(FaultError::Unmapped));
        assert_eq!(space.handle_fault(at, false, true), Err(FaultError::Forbidden));
    }
    assert_eq!(live_frames(), before);
}

#[test]
fn fork_copies_on_write_both_ways_and_leaks_nothing() {
    let before = live_frames();
    {
        let parent = space();
        let at = anon(&parent, 1100);
        for page in 0..1100 {
            parent.write_bytes(at + page * P, &[page as u8, 1]).unwrap();
        }
        let frames = live_frames();
        let child = parent.fork().unwrap();
        assert!(live_frames() - frames < 10, "fork copies no pages and no last-level tables");
        parent.write_bytes(at, b"parent").unwrap();
        child.write_bytes(at + P, b"child").unwrap();
        assert_eq!(byte(&child, at + 1), 1);
        assert_eq!(byte(&parent, at + P), 1);
        assert_eq!((byte(&parent, at), byte(&child, at + P)), (b'p', b'c'));
        let grandchild = child.fork().unwrap();
        drop(child);
        assert_eq!(byte(&grandchild, at + P), b'c');
        grandchild.write_bytes(at + 600 * P, b"g").unwrap();
        drop(grandchild);
        for page in 2..1100 {
            assert_eq!(byte(&parent, at + page * P), page as u8);
            parent.write_bytes(at + page * P, b"again").unwrap();
        }
        check_counts(&parent);
        assert_eq!(parent.rss().anon, 1100);
    }
    assert_eq!(live_frames(), before);
}

#[test]
fn shared_memory_is_seen_by_everybody() {
    let before = live_frames();
    {
        let parent = space();
        let at = parent.mmap(0, 4 * P, RW, Prot::all(), SHARED, None).unwrap();
        parent.write_bytes(at, b"one").unwrap();
        let child = parent.fork().unwrap();
        child.write_bytes(at + P, b"two").unwrap();
        parent.write_bytes(at + 1, b"N").unwrap();
        assert_eq!(byte(&parent, at + P), b't');
        assert_eq!(byte(&child, at + 1), b'N');
        assert_eq!(
            parent.futex_key(at + 8, false).unwrap(),
            child.futex_key(at + 8, false).unwrap()
        );
        assert_ne!(parent.futex_key(at + 8, true).unwrap(), child.futex_key(at + 8, true).unwrap());
        check_counts(&child);
    }
    assert_eq!(live_frames(), before);
}

fn file(bytes: &[u8]) -> Arc<PageCache> {
    let cache = PageCache::anonymous(0);
    cache.write_at(0, &mut crate::io::IoSrc::kernel(bytes)).unwrap();
    cache
}

fn map_file(space: &AddressSpace, cache: &Arc<PageCache>, pages: usize, flags: MapFlags) -> usize {
    let backing = Some((cache.clone(), None, 0));
    space.mmap(0, pages * P, RW, Prot::all(), flags, backing).unwrap()
}

#[test]
fn private_file_mappings_copy_and_shared_ones_write_through() {
    let space = space();
    let cache = file(&[7; 3 * P]);
    let private = map_file(&space, &cache, 3, MapFlags::PRIVATE);
    let shared = map_file(&space, &cache, 3, MapFlags::SHARED);
    assert_eq!(byte(&space, private), 7);
    space.write_bytes(private, b"P").unwrap();
    space.write_bytes(shared + P, b"S").unwrap();
    assert_eq!((byte(&space, shared), byte(&space, private + P)), (7, b'S'));
    let mut seen = [0u8; 1];
    cache.read_at(P as u64, &mut crate::io::IoDst::kernel(&mut seen)).unwrap();
    assert_eq!(&seen, b"S");
    // Around the first fault the neighbours were mapped as well.
    assert_eq!(space.rss().anon, 1);
    assert_eq!(space.rss().shmem, 5);
    check_counts(&space);
}

#[test]
fn truncation_unmaps_and_later_access_is_a_bus_error() {
    let before = live_frames();
    {
        let space = space();
        let cache = file(&[9; 4 * P]);
        let private = map_file(&space, &cache, 4, MapFlags::PRIVATE);
        let shared = map_file(&space, &cache, 4, MapFlags::SHARED);
        for page in 0..4 {
            space.write_bytes(private + page * P, b"x").unwrap();
            assert_eq!(byte(&space, shared + page * P), 9);
        }
        let child = space.fork().unwrap();
        cache.truncate(P as u64 + 1).unwrap();
        for space in [&space, &child] {
            assert_eq!(space.handle_fault(shared + 2 * P, false, false), Err(FaultError::NoPage));
            assert_eq!(space.handle_fault(private + 3 * P, true, false), Err(FaultError::NoPage));
            assert_eq!((byte(space, shared + P), byte(space, shared + P + 1)), (9, 0));
            check_counts(space);
        }
        assert_eq!(byte(&space, private), b'x');
        cache.truncate(4 * P as u64).unwrap();
        assert_eq!(byte(&space, private + 3 * P), 0);
    }
    assert_eq!(live_frames(), before);
}

struct Module;
impl crate::mm::Pager for Module {
    fn read_page(&self, index: u64) -> Result<PageRef> {
        PageRef::pinned((64 + index as usize) * P).ok_or(Errno::EIO)
    }
    fn in_place(&self) -> bool {
        true
    }
}

#[test]
fn pages_in_place_are_mapped_together_and_copied_up_by_writes() {
    let space = space();
    let cache = PageCache::backed(40 * P as u64, Arc::new(Module));
    // Where a page table begins: pages are mapped together as far as one table goes.
    let map = |start: usize, flags: MapFlags| {
        let (flags, backing) = (flags | MapFlags::FIXED, Some((cache.clone(), None, 0)));
        space.mmap(start, 40 * P, RW, Prot::all(), flags, backing).unwrap()
    };
    let private = map(0x4000_0000, MapFlags::PRIVATE);
    let shared = map(0x4020_0000, MapFlags::SHARED);
    space.handle_fault(private + 20 * P, false, false).unwrap();
    assert_eq!(space.rss().file, 16);
    assert_eq!(byte(&space, shared + 20 * P), 0);
    let frames = live_frames();
    cache.write_at(20 * P as u64, &mut crate::io::IoSrc::kernel(b"new")).unwrap();
    assert_eq!(live_frames(), frames + 1);
    assert_eq!((byte(&space, private + 20 * P), byte(&space, shared + 20 * P)), (b'n', b'n'));
    space.write_bytes(shared + 21 * P, b"via map").unwrap();
    assert_eq!(byte(&space, private + 21 * P), b'v');
    let mut module = [1u8; 4];
    PageRef::pinned((64 + 21) * P).unwrap().read(0, &mut module);
    assert_eq!(module, [0; 4], "the boot module is never written");
    check_counts(&space);
}

#[test]
fn the_stack_grows_to_its_limit_and_keeps_its_distance() {
    let space = space();
    space.limits.stack.store(64 * P as u64, Ordering::Relaxed);
    let top = space.layout().stack_top;
    let flags = ANON | MapFlags::FIXED | MapFlags::MAIN_STACK;
    space.mmap(top - 4 * P, 4 * P, RW, Prot::all(), flags, None).unwrap();
    space.write_bytes(top - 20 * P, b"deep").unwrap();
    assert_eq!(space.vmas()[0].start, top - 20 * P);
    assert_eq!(space.write_bytes(top - 65 * P, b"x"), Err(Errno::EFAULT));
    let near = space.mmap(top - 40 * P, P, RW, Prot::all(), ANON | MapFlags::FIXED, None).unwrap();
    assert_eq!(space.write_bytes(near + 2 * P, b"x"), Err(Errno::EFAULT));
    assert_eq!(space.vmas().last().unwrap().name, "[stack]");
}

#[test]
fn brk_moves_the_end_of_the_heap() {
    let space = space();
    space.set_brk_start(0x55_0000_1234);
    let start = space.brk(0);
    assert!(start >= 0x55_0000_1234 && start.is_multiple_of(P));
    assert_eq!(space.brk(start + 10), start + 10);
    space.write_bytes(start + 100, b"x").unwrap();
    assert_eq!(space.brk(start + 5 * P), start + 5 * P);
    space.write_bytes(start + 4 * P, b"y").unwrap();
    assert_eq!(space.brk(start + P), start + P);
    assert_eq!(space.write_bytes(start + 4 * P, b"y"), Err(Errno::EFAULT));
    assert_eq!(space.brk(start - 1), start + P);
    assert_eq!(space.vmas().len(), 1);
    space.limits.data.store(3 * P as u64, Ordering::Relaxed);
    assert_eq!(space.brk(start + 9 * P), start + P);
}

#[test]
fn a_child_has_no_table_for_what_it_does_not_get() {
    let before = live_frames();
    {
        let parent = space();
        let at = 0x4000_0000;
        parent.mmap(at, P, RW, Prot::all(), ANON | MapFlags::FIXED, None).unwrap();
        parent.write_bytes(at, b"mine").unwrap();
        // MADV_DONTFORK
        parent.madvise(at, P, Advice::from_raw(10).unwrap()).unwrap();
        let child = parent.fork().unwrap();
        assert_eq!(child.page_table_pages(), 1);
        assert_eq!(child.read_bytes(at, &mut [0]), Err(Errno::EFAULT));
    }
    assert_eq!(live_frames(), before);
}

/// Each page begins with its number, from one.
struct Disk;
impl crate::mm::Pager for Disk {
    fn read_page(&self, index: u64) -> Result<PageRef> {
        let page = PageRef::alloc(true)?;
        page.write(0, &[index as u8 + 1]);
        Ok(page)
    }
}

#[test]
fn a_table_that_became_empty_goes_with_its_mapping() {
    let before = live_frames();
    {
        let space = space();
        let cache = PageCache::backed(3 * P as u64, Arc::new(Disk));
        let at = map_file(&space, &cache, 3, MapFlags::SHARED);
        assert_eq!(byte(&space, at), 1);
        assert!(space.rss().file > 0);
        let tables = space.page_table_pages();
        // The first look takes note of what was used, the next one takes it out.
        while space.rss().file > 0 {
            space.pages.lock().age(at, at + 3 * P);
        }
        assert_eq!(space.page_table_pages(), tables);
        space.munmap(at, 3 * P).unwrap();
        assert_eq!(space.page_table_pages(), tables - 1);
    }
    assert_eq!(live_frames(), before);
}

#[test]
fn mremap_grows_moves_and_shrinks_with_content() {
    // Within a page table, across two, and across what holds those.
    for start in [0x4000_0000, 0x401f_e000, 0x3fff_e000, 0x7f_ffff_f000] {
        mremap_at(start);
    }
}

fn mremap_at(start: usize) {
    let before = live_frames();
    {
        let space = space();
        let at = space.mmap(start, 3 * P, RW, Prot::all(), ANON | MapFlags::FIXED, None).unwrap();
        for page in 0..3 {
            space.write_bytes(at + page * P, &[page as u8 + 1]).unwrap();
        }
        // Something right after it forces a move.
        let wall = at + 3 * P;
        let _ = space.mmap(wall, P, Prot::READ, Prot::all(), ANON | MapFlags::FIXED, None).unwrap();
        assert_eq!(space.mremap(at, 3 * P, 5 * P, 0, 0), Err(Errno::ENOMEM));
        let moved = space.mremap(at, 3 * P, 5 * P, 1, 0).unwrap();
        assert_ne!(moved, at);
        assert_eq!(space.read_bytes(at, &mut [0]), Err(Errno::EFAULT));
        for page in 0..3 {
            assert_eq!(byte(&space, moved + page * P), page as u8 + 1);
        }
        assert_eq!(byte(&space, moved + 4 * P), 0);
        let target = 0x10_0000_0000;
        assert_eq!(space.mremap(moved, 5 * P, 2 * P, 3, target).unwrap(), target);
        assert_eq!(byte(&space, target + P), 2);
        assert_eq!(space.read_bytes(moved + 3 * P, &mut [0]), Err(Errno::EFAULT));
        assert_eq!(space.mremap(target, 2 * P, 4 * P, 0, 0).unwrap(), target, "room above");
        assert_eq!(space.mremap(target, 4 * P, P, 0, 0).unwrap(), target);
        assert_eq!(space.mremap(target, P, P, 4, 0), Err(Errno::EINVAL));
        let copy = space.mremap(target, P, P, 5, 0).unwrap();
        assert_eq!((byte(&space, copy), byte(&space, target)), (1, 0));
        check_counts(&space);
    }
    assert_eq!(live_frames(), before, "{start:#x}");
}

#[test]
fn protection_is_enforced_and_pages_survive_prot_none() {
    let space = space();
    let at = anon(&space, 4);
    space.write_bytes(at + P, b"kept").unwrap();
    space.mprotect(at + P, P, Prot::empty()).unwrap();
    assert_eq!(space.handle_fault(at + P, false, false), Err(FaultError::Forbidden));
    assert_eq!(space.vmas().len(), 3);
    space.mprotect(at + P, P, Prot::READ).unwrap();
    assert_eq!(byte(&space, at + P), b'k');
    assert_eq!(space.handle_fault(at + P, true, false), Err(FaultError::Forbidden));
    space.poke(at + P, b"K").unwrap();
    assert_eq!(byte(&space, at + P), b'K');
    space.mprotect(at, 4 * P, RW).unwrap();
    assert_eq!(space.vmas().len(), 1);
    space.write_bytes(at + P, b"w").unwrap();
    assert_eq!(space.mprotect(at, 5 * P, RW), Err(Errno::ENOMEM));
    let read_only = (PageCache::anonymous(P as u64), None, 0);
    let flags = MapFlags::SHARED;
    let at = space.mmap(0, P, Prot::READ, Prot::READ, flags, Some(read_only)).unwrap();
    assert_eq!(space.mprotect(at, P, RW), Err(Errno::EACCES));
}

#[test]
fn advice_discards_wipes_and_leaves_out() {
    let space = space();
    let at = anon(&space, 6);
    for page in 0..6 {
        space.write_bytes(at + page * P, b"x").unwrap();
    }
    let advise =
        |page: usize, number| space.madvise(at + page * P, P, Advice::from_raw(number).unwrap());
    advise(0, 4).unwrap();
    advise(1, 10).unwrap();
    advise(2, 18).unwrap();
    assert_eq!((byte(&space, at), byte(&space, at + P)), (0, b'x'));
    let child = space.fork().unwrap();
    assert_eq!(child.read_bytes(at + P, &mut [0]), Err(Errno::EFAULT));
    assert_eq!((byte(&child, at + 2 * P), byte(&child, at + 3 * P)), (0, b'x'));
    child.write_bytes(at + 3 * P, b"c").unwrap();
    assert_eq!(byte(&space, at + 3 * P), b'x');
    check_counts(&child);
    check_counts(&space);
    assert_eq!(space.madvise(at + 5 * P, 2 * P, Advice::Hint), Err(Errno::ENOMEM));
    let mut resident = Vec::new();
    space.mincore(at, 6 * P, |bytes| Ok(resident.extend_from_slice(bytes))).unwrap();
    assert_eq!(resident, [1; 6]);
    assert!(Advice::from_raw(12).is_err());
}

#[test]
fn placement_honours_flags_and_limits() {
    let space = space();
    let at = anon(&space, 2);
    let fixed = ANON | MapFlags::FIXED_NOREPLACE;
    assert_eq!(space.mmap(at + P, P, RW, Prot::all(), fixed, None), Err(Errno::EEXIST));
    let low = space.mmap(0, P, RW, Prot::all(), ANON | MapFlags::LOW_32BIT, None).unwrap();
    assert!(low < 1 << 31);
    assert_eq!(space.mmap(0, 0, RW, Prot::all(), ANON, None), Err(Errno::EINVAL));
    assert_eq!(space.mmap(0, usize::MAX, RW, Prot::all(), ANON, None), Err(Errno::ENOMEM));
    let fixed = ANON | MapFlags::FIXED;
    assert_eq!(space.mmap(0, P, RW, Prot::all(), fixed, None), Err(Errno::EPERM));
    assert_eq!(space.mmap(1, P, RW, Prot::all(), fixed, None), Err(Errno::EINVAL));
    let wanted = at - 0x10_0000;
    assert_eq!(space.mmap(wanted + 5, P, RW, Prot::all(), ANON, None).unwrap(), wanted);
    space.limits.address_space.store(8 * P as u64, Ordering::Relaxed);
    assert_eq!(space.mmap(0, 9 * P, RW, Prot::all(), ANON, None), Err(Errno::ENOMEM));
}

/// What a model says of a page.
#[derive(Clone, Copy, Debug)]
struct Page {
    prot: Prot,
    /// Its first byte.
    value: u8,
    /// How fork treats it.
    advice: VmFlags,
}

/// Every page of a small window: mapped or not, its protection and its first byte, against a map of
/// pages.
#[test]
fn random_operations_agree_with_a_map_of_pages() {
    const ADVICE: [(i32, VmFlags, bool); 4] = [
        (10, VmFlags::DONT_FORK, true),
        (11, VmFlags::DONT_FORK, false),
        (18, VmFlags::WIPE_ON_FORK, true),
        (19, VmFlags::WIPE_ON_FORK, false),
    ];
    let before = live_frames();
    for seed in 0..6u64 {
        let mut spaces = vec![(space(), BTreeMap::<usize, Page>::new())];
        // In one table, or in two.
        let base = 0x7000_0000 - seed as usize % 3 * 15 * P;
        let mut state = seed * 77 + 1;
        for round in 0..1500u32 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
            let random = (state >> 33) as usize;
            let which = random % spaces.len();
            let (first, count) = (random / 7 % 40, random / 300 % 8 + 1);
            let (start, len) = (base + first * P, count * P);
            let prot = [Prot::empty(), Prot::READ, RW][random / 5000 % 3];
            let alive = spaces.len();
            let (space, model) = &mut spaces[which];
            let pages = first..first + count;
            match random / 16000 % 11 {
                0 | 1 => {
                    let flags = ANON | MapFlags::FIXED;
                    space.mmap(start, len, prot, Prot::all(), flags, None).unwrap();
                    let fresh = Page { prot, value: 0, advice: VmFlags::empty() };
                    model.extend(pages.map(|page| (page, fresh)));
                }
                2 => {
                    space.munmap(start, len).unwrap();
                    model.retain(|page, _| !pages.contains(page));
                }
                3 => {
                    let expected = if pages.clone().all(|page| model.contains_key(&page)) {
                        model.range_mut(pages).for_each(|(_, page)| page.prot = prot);
                        Ok(())
                    } else {
                        Err(Errno::ENOMEM)
                    };
                    assert_eq!(space.mprotect(start, len, prot), expected);
                }
                4 if alive < 4 => {
                    let mut copy = (space.fork().unwrap(), model.clone());
                    copy.1.retain(|_, page| !page.advice.contains(VmFlags::DONT_FORK));
                    for page in copy.1.values_mut() {
                        page.value *= u8::from(!page.advice.contains(VmFlags::WIPE_ON_FORK));
                    }
                    spaces.push(copy);
                }
                5 if alive > 1 => drop(spaces.swap_remove(which)),
                6 => {
                    for page in pages {
                        if let Some(known) = model.get_mut(&page) {
                            let _ = space.madvise(base + page * P, P, Advice::DontNeed);
                            known.value = 0;
                        }
                    }
                }
                7 => {
                    let (number, flag, on) = ADVICE[random / 200_000 % 4];
                    // What is mapped takes it, though there be holes.
                    let _ = space.madvise(start, len, Advice::from_raw(number).unwrap());
                    for (_, page) in model.range_mut(pages) {
                        page.advice.set(flag, on);
                    }
                }
                8 => {
                    let to = (first + count + random / 200_000 % 20) % 40;
                    let target = to..to + count;
                    if to < pages.end && first < target.end {
                        continue;
                    }
                    let result = space.mremap(start, len, len, 3, base + to * P);
                    if model.contains_key(&first) {
                        // Whatever comes of it.
                        model.retain(|page, _| !target.contains(page));
                    }
                    if result.is_ok() {
                        for page in pages {
                            // A part of one mapping, which is all there.
                            let moved = model.remove(&page).unwrap();
                            model.insert(to + page - first, moved);
                        }
                    }
                }
                9 => drop(space.pages.lock().age(start, start + len)),
                _ => {
                    for page in pages {
                        let result = space.write_bytes(base + page * P, &[round as u8]);
                        match model.get_mut(&page) {
                            Some(known) if known.prot.contains(Prot::WRITE) => {
                                assert_eq!(result, Ok(()));
                                known.value = round as u8;
                            }
                            _ => assert_eq!(result, Err(Errno::EFAULT)),
                        }
                    }
                }
            }
            let (space, model) = &spaces[random % spaces.len()];
            check_counts(space);
            for page in 0..48 {
                let mut value = [0];
                let result = space.read_bytes(base + page * P, &mut value);
                match model.get(&page) {
                    Some(known) if !known.prot.is_empty() => {
                        assert_eq!(
                            (result, value[0]),
                            (Ok(()), known.value),
                            "page {page} round {round}"
                        );
                    }
                    _ => assert_eq!(result, Err(Errno::EFAULT)),
                }
            }
            let maps = space.vmas();
            let mapped: usize = maps.iter().map(|map| (map.end - map.start) / P).sum();
            assert_eq!(mapped, model.len());
            let mut neighbours = maps.windows(2).filter(|w| w[0].end == w[1].start);
            let differ = |at: usize| {
                let [one, two] = [at - 1, at].map(|page| model[&page]);
                (one.prot, one.advice) != (two.prot, two.advice)
            };
            assert!(neighbours.all(|w| differ((w[1].start - base) / P)), "neighbours are joined");
        }
    }
    assert_eq!(live_frames(), before);
}

#[test]
fn cold_file_pages_leave_address_spaces_and_come_back() {
    let space = space();
    let cache = PageCache::backed(8 * P as u64, Arc::new(Disk));
    let at = map_file(&space, &cache, 8, MapFlags::PRIVATE);
    for page in 0..8 {
        assert_eq!(byte(&space, at + page * P), page as u8 + 1);
    }
    // The first pass takes the accessed bits, the second the pages.
    assert_eq!(space.age_cached(&cache), 0);
    assert_eq!(space.age_cached(&cache), 8);
    assert_eq!(space.rss().total(), 0);
    assert_eq!(byte(&space, at + 3 * P), 4);
    check_counts(&space);
}

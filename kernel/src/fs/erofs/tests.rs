use super::*;
use crate::fs::inode::FileType;
use dock2uni_format::verity::{Shape, Verity};
use std::process::Command;
use std::string::String;
use std::vec::Vec;

/// A directory under the target directory, gone when dropped.
pub struct Scratch(pub std::path::PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        let dir = std::env::temp_dir().join(std::format!("d2u-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        Scratch(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An image of a tree, made by mkfs.erofs; `None` where that isn't installed.
pub fn mkfs(name: &str, fill: impl FnOnce(&std::path::Path)) -> Option<Vec<u8>> {
    let scratch = Scratch::new(name);
    let (tree, image) = (scratch.0.join("tree"), scratch.0.join("image"));
    std::fs::create_dir(&tree).unwrap();
    fill(&tree);
    let made = Command::new("mkfs.erofs").arg("-T0").arg(&image).arg(&tree).output();
    let Ok(made) = made else {
        std::eprintln!("skipped: mkfs.erofs is not installed");
        return None;
    };
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Some(std::fs::read(&image).unwrap())
}

/// Opens an image held in memory.
pub fn open(bytes: Vec<u8>) -> Result<Arc<Image>> {
    Image::open(Source::memory(std::vec::Vec::leak(bytes), None)?)
}

fn sample(tree: &std::path::Path) {
    use std::os::unix::fs::{PermissionsExt, symlink};
    std::fs::write(tree.join("small"), b"hello").unwrap();
    std::fs::write(tree.join("empty"), b"").unwrap();
    let big: Vec<u8> = (0..100_000u32).map(|n| (n / 7) as u8).collect();
    std::fs::write(tree.join("big"), &big).unwrap();
    std::fs::set_permissions(tree.join("big"), PermissionsExt::from_mode(0o4751)).unwrap();
    symlink("../target", tree.join("link")).unwrap();
    std::fs::create_dir(tree.join("many")).unwrap();
    for n in 0..3000 {
        std::fs::write(tree.join("many").join(std::format!("file-{n:05}")), [n as u8]).unwrap();
    }
}

fn find(image: &Image, path: &str) -> Option<Node> {
    let mut node = image.node(image.root_nid()).unwrap();
    for part in path.split('/') {
        node = image.node(image.dir_find(&node, part.as_bytes()).unwrap()?.nid).unwrap();
    }
    Some(node)
}

#[test]
fn files_of_mkfs_erofs_read_back() {
    let Some(bytes) = mkfs("read", sample) else { return };
    let image = open(bytes).unwrap();
    let small = find(&image, "small").unwrap();
    let mut out = [0; 5];
    image.read_file(&small, 0, &mut out).unwrap();
    assert_eq!(&out, b"hello");
    assert_eq!(image.read_file(&small, 1, &mut out), Err(Errno::EINVAL));
    let big = find(&image, "big").unwrap();
    assert_eq!((big.inode.size, big.inode.mode), (100_000, 0o104751));
    let mut all = std::vec![0; 100_000];
    image.read_file(&big, 0, &mut all).unwrap();
    assert!(all.iter().enumerate().all(|(n, &byte)| byte == (n / 7) as u8));
    let mut page = [0; 4096];
    image.read_page(&big, 24).unwrap().read(0, &mut page);
    assert_eq!(page[..100_000 - 24 * 4096], all[24 * 4096..]);
    assert!(page[100_000 - 24 * 4096..].iter().all(|&byte| byte == 0));
    assert_eq!(image.read_link(&find(&image, "link").unwrap()).unwrap(), b"../target");
    assert_eq!(find(&image, "empty").unwrap().inode.size, 0);
}

#[test]
fn every_name_of_a_large_directory_is_found_and_listed_once() {
    let Some(bytes) = mkfs("list", sample) else { return };
    let image = open(bytes).unwrap();
    for n in 0..3000 {
        let node = find(&image, &std::format!("many/file-{n:05}")).unwrap();
        let mut byte = [0];
        image.read_file(&node, 0, &mut byte).unwrap();
        assert_eq!(byte[0], n as u8);
    }
    for absent in ["many/a", "many/file-", "many/file-01000x", "many/z", "zzz", "0"] {
        assert!(find(&image, absent).is_none(), "{absent}");
    }
    let dir = find(&image, "many").unwrap();
    let mut names = Vec::new();
    let mut position = 0;
    // Seven at a time, as small getdents buffers would.
    loop {
        let mut batch = 0;
        image
            .dir_list(&dir, position, &mut |name, entry, next| {
                assert_eq!(entry.file_type, FileType::Regular);
                names.push(name.to_vec());
                position = next;
                batch += 1;
                batch < 7
            })
            .unwrap();
        if batch == 0 {
            break;
        }
    }
    let expected: Vec<_> = (0..3000).map(|n| std::format!("file-{n:05}").into_bytes()).collect();
    assert_eq!(names, expected);
    assert!(position <= image.dir_end(&dir).unwrap());
}

#[test]
fn damaged_images_give_errors_and_never_panic() {
    let Some(bytes) = mkfs("damage", sample) else { return };
    let mut random = 0x1234_5678_9abc_def1u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let walk = |image: &Arc<Image>| -> Result<()> {
        let mut todo = std::vec![(image.root_nid(), 0)];
        let mut seen = 0;
        while let Some((nid, depth)) = todo.pop() {
            seen += 1;
            if seen > 5000 {
                break;
            }
            let Ok(node) = image.node(nid) else { continue };
            let _ = image.xattrs(&node, &mut |_, _| {});
            let _ = image.read_link(&node);
            let _ = image.read_page(&node, 0);
            let _ = image.read_page(&node, node.inode.size / 4096);
            let _ = image.dir_find(&node, b"file-00100");
            let _ = image.dir_list(&node, 0, &mut |_, entry, _| {
                if depth < 4 {
                    todo.push((entry.nid, depth + 1));
                }
                true
            });
        }
        Ok(())
    };
    for _ in 0..60 {
        let mut damaged = bytes.clone();
        for _ in 0..1 + next() % 200 {
            let at = next() as usize % damaged.len();
            // The superblock's checksum would catch everything in block 0.
            if at >= 4096 {
                damaged[at] = next() as u8;
            }
        }
        if let Ok(image) = open(damaged) {
            walk(&image).unwrap();
        }
    }
    assert!(open(bytes[..bytes.len() / 2].to_vec()).is_err());
    assert!(open(std::vec![0; 4096]).is_err());
    assert!(open(Vec::new()).is_err());
}

/// A disk in memory.
struct MemoryDisk(Vec<u8>);

impl crate::drivers::block::BlockDevice for MemoryDisk {
    fn name(&self) -> &str {
        "test"
    }
    fn capacity(&self) -> u64 {
        self.0.len() as u64
    }
    fn read_only(&self) -> bool {
        true
    }
    fn read_pages(&self, offset: u64, pages: &[crate::mm::PageRef]) -> Result<()> {
        for (at, page) in pages.iter().enumerate() {
            let start = (offset as usize + at * 4096).min(self.0.len());
            let mut block = [0; 4096];
            let len = (self.0.len() - start).min(4096);
            block[..len].copy_from_slice(&self.0[start..start + len]);
            page.write(0, &block);
        }
        Ok(())
    }
    fn write_pages(&self, _offset: u64, _pages: &[crate::mm::PageRef]) -> Result<()> {
        Err(Errno::EROFS)
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
    fn read_bytes(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let start = offset as usize;
        out.copy_from_slice(self.0.get(start..start + out.len()).ok_or(Errno::EINVAL)?);
        Ok(())
    }
}

#[test]
fn an_image_on_a_disk_reads_as_in_memory() {
    use crate::io::IoDst;
    let Some(bytes) = mkfs("disk", sample) else { return };
    // As a partition: not at the start of the disk, and with more behind it.
    const START: usize = 5 * 512;
    let mut disk = std::vec![0xaa; START];
    disk.extend_from_slice(&bytes);
    disk.extend_from_slice(&[0xbb; 1000]);
    let disk = Arc::new(MemoryDisk(disk));
    let len = bytes.len() as u64;
    assert!(Source::disk(disk.clone(), START as u64, len + 2000, None).is_err());
    let on_disk = Image::open(Source::disk(disk, START as u64, len, None).unwrap()).unwrap();
    let in_memory = open(bytes).unwrap();
    for name in ["small", "big", "many/file-00000", "many/file-02999"] {
        let (one, two) = (find(&on_disk, name).unwrap(), find(&in_memory, name).unwrap());
        assert_eq!(one.inode, two.inode);
        let size = one.inode.size as usize;
        let (mut a, mut b) = (std::vec![1; size], std::vec![2; size]);
        on_disk.read_file(&one, 0, &mut a).unwrap();
        in_memory.read_file(&two, 0, &mut b).unwrap();
        assert_eq!(a, b, "{name}");
        // Through the page cache, which reads ahead.
        let pager = Arc::new(FilePager::new(on_disk.clone(), one));
        let cache = crate::mm::PageCache::backed(size as u64, pager);
        let mut c = std::vec![3; size];
        let mut dst = IoDst::kernel(&mut c);
        let mut at = 0;
        while dst.remaining() > 0 {
            at += cache.read_at(at, &mut dst).unwrap() as u64;
        }
        assert_eq!(a, c, "{name}");
    }
}

/// An image with its hash tree behind it, made as the format says.
fn with_tree(mut bytes: Vec<u8>) -> (Vec<u8>, Verity) {
    use blake2b_simd::blake2b;
    let blocks = (bytes.len() / BLOCK) as u32;
    let shape = Shape::new(blocks);
    bytes.resize(shape.end as usize * BLOCK, 0);
    let (mut first, mut count) = (0, u64::from(blocks));
    for level in shape.levels() {
        for index in 0..count {
            let at = (first + index) as usize * BLOCK;
            let hash = blake2b(&bytes[at..at + BLOCK]);
            let to = level.first as usize * BLOCK + index as usize * 64;
            bytes[to..to + 64].copy_from_slice(hash.as_bytes());
        }
        (first, count) = (level.first, level.blocks);
    }
    let top = first as usize * BLOCK;
    let root_hash = *blake2b(&bytes[top..top + BLOCK]).as_array();
    (bytes, Verity { root_hash, blocks })
}

/// The image in memory, and on a disk.
fn checked(bytes: &[u8], verity: &Verity) -> [Result<Arc<Image>>; 2] {
    let memory = Source::memory(Vec::leak(bytes.to_vec()), Some(verity));
    let len = bytes.len() as u64;
    let disk = Source::disk(Arc::new(MemoryDisk(bytes.to_vec())), 0, len, Some(verity));
    [memory.and_then(Image::open), disk.and_then(Image::open)]
}

#[test]
fn blocks_are_checked_against_the_hash_tree_when_they_are_used() {
    use crate::io::IoDst;
    // Two levels.
    let Some(bytes) = mkfs("verity", |tree| {
        sample(tree);
        let noise: Vec<u8> = (0..200 * 4096u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
        std::fs::write(tree.join("noise"), noise).unwrap();
    }) else {
        return;
    };
    let (good, verity) = with_tree(bytes);
    for image in checked(&good, &verity) {
        let image = image.unwrap();
        let node = find(&image, "noise").unwrap();
        let mut all = std::vec![0; node.inode.size as usize];
        image.read_file(&node, 0, &mut all).unwrap();
        let expected = |n: usize| ((n as u32).wrapping_mul(n as u32) >> 7) as u8;
        assert!(all.iter().enumerate().all(|(n, &byte)| byte == expected(n)));
    }
    // Another tree, and one that is cut off.
    let other = Verity { root_hash: [1; 64], ..verity };
    assert!(checked(&good, &other).iter().all(|image| matches!(image, Err(Errno::EIO))));
    let short = &good[..good.len() - 1];
    assert!(checked(short, &verity).iter().all(|image| matches!(image, Err(Errno::EIO))));

    // One damaged block of a file: the others are read, ahead and through caches too.
    let node = find(&open(good.clone()).unwrap(), "noise").unwrap();
    let first = u64::from(node.inode.u);
    let mut bad = good.clone();
    bad[(first as usize + 5) * BLOCK + 17] ^= 4;
    for image in checked(&bad, &verity) {
        let image = image.unwrap();
        let mut block = [0; BLOCK];
        for index in 0..8 {
            let read = image.read_file(&node, index * BLOCK as u64, &mut block);
            assert_eq!(read, if index == 5 { Err(Errno::EIO) } else { Ok(()) }, "{index}");
        }
        let pager = Arc::new(FilePager::new(image.clone(), node.clone()));
        let cache = crate::mm::PageCache::backed(node.inode.size, pager);
        for round in 0..2 {
            for index in 0..12u64 {
                let at = index as usize * BLOCK;
                let mut dst = IoDst::kernel(&mut block);
                let read = cache.read_at(at as u64, &mut dst);
                if index == 5 {
                    assert_eq!(read, Err(Errno::EIO), "{round}");
                    continue;
                }
                assert_eq!(read, Ok(BLOCK), "{round} {index}");
                let start = first as usize * BLOCK + at;
                assert!(block[..] == good[start..start + BLOCK]);
            }
            // What was read ahead and is damaged is not to be seen by mappings either.
            assert!(cache.peek(5, false).is_none());
            cache.peek_range(0, 12, |at, _, _| assert_ne!(at, 5));
            assert_eq!(cache.get_page(5, true).err(), Some(Errno::EIO));
        }
    }
    // A damaged hash block, and a right one in another's place.
    let level = Shape::new(verity.blocks).levels()[0];
    let block_of = |index: u64| (level.first + index) as usize * BLOCK;
    let mut bad = good.clone();
    // Those of the file's first and last block.
    let (low, high) = (first / 64, (first + 199) / 64);
    bad[block_of(high) + ((first + 199) % 64) as usize * 64] ^= 1;
    for image in checked(&bad, &verity) {
        let image = image.unwrap();
        let mut block = [0; BLOCK];
        let last = node.inode.size - BLOCK as u64;
        assert_eq!(image.read_file(&node, last, &mut block), Err(Errno::EIO));
        assert_eq!(image.read_file(&node, 0, &mut block), Ok(()));
    }
    let mut bad = good.clone();
    bad.copy_within(block_of(low)..block_of(low) + BLOCK, block_of(high));
    for image in checked(&bad, &verity) {
        let mut block = [0; BLOCK];
        let last = node.inode.size - BLOCK as u64;
        assert_eq!(image.unwrap().read_file(&node, last, &mut block), Err(Errno::EIO));
    }
}

/// A compressed file of a text of 20 bytes again and again: two extents in blocks, one block as it is,
/// and the last extent beside the inode. With the blocks that the extents lie in.
fn compressed() -> (Vec<u8>, Vec<u8>) {
    use format::{Extent, Layout, MapHeader, Stored, incompat};
    let text = b"all work and no play";
    let contents = |len: usize| -> Vec<u8> { text.iter().copied().cycle().take(len).collect() };
    // The text as literals, a copy of it up to the last five bytes, and these.
    let encode = |data: &[u8]| {
        let mut out = std::vec![0xff, 5];
        out.extend_from_slice(&data[..20]);
        out.extend_from_slice(&[20, 0]);
        let more = data.len() - 25 - 4 - 15;
        out.extend(std::iter::repeat_n(255, more / 255));
        out.extend([(more % 255) as u8, 0x50]);
        out.extend_from_slice(&data[data.len() - 5..]);
        out
    };
    let rotated = |first: usize, len: usize| contents(first + len)[first..].to_vec();
    let size = 70 * BLOCK + 1000;
    let extents = [
        Extent { first: 0, count: 64, stored: Stored::Blocks(2, 2) },
        Extent { first: 64, count: 1, stored: Stored::Plain(4) },
        Extent { first: 65, count: 4, stored: Stored::Blocks(5, 1) },
        Extent { first: 69, count: 2, stored: Stored::Inline },
    ];
    let mut image = std::vec![0; 7 * BLOCK];
    let mut inline_len = 0;
    for extent in extents {
        let first = extent.first as usize * BLOCK;
        let len = (size - first).min(extent.count as usize * BLOCK);
        let data = rotated(first, len);
        let packed = encode(&data);
        match extent.stored {
            Stored::Plain(block) => {
                image[block as usize * BLOCK..][..BLOCK].copy_from_slice(&data);
            }
            Stored::Blocks(block, blocks) => {
                let end = (block as usize + usize::from(blocks)) * BLOCK;
                image[end - packed.len()..end].copy_from_slice(&packed);
            }
            Stored::Inline => {
                let at = BLOCK + EXTENDED_LEN + format::MAP_HEADER_LEN + 71 * 8;
                image[at..at + packed.len()].copy_from_slice(&packed);
                inline_len = packed.len() as u16;
            }
        }
        let at = BLOCK + EXTENDED_LEN + format::MAP_HEADER_LEN + extent.first as usize * 8;
        extent.emit(&mut image[at..]);
    }
    let inode = Inode {
        layout: Layout::Compressed,
        xattr_icount: 0,
        mode: 0o100_644,
        nlink: 1,
        size: size as u64,
        u: 4,
        ino: 1,
        uid: 0,
        gid: 0,
        mtime: Some(format::Time::default()),
    };
    inode.emit(&mut image[BLOCK..]);
    MapHeader { inline_len }.emit(&mut image[BLOCK + EXTENDED_LEN..]);
    let sb = Superblock {
        feature_incompat: incompat::COMPRESSED,
        blocks: 7,
        root_nid: 128,
        ..Superblock::default()
    };
    sb.emit_block(image.first_chunk_mut().unwrap());
    (image, contents(size))
}

#[test]
fn compressed_files_are_decoded_where_they_are_used() {
    use crate::io::IoDst;
    let (bytes, contents) = compressed();
    let (with_tree, verity) = with_tree(bytes.clone());
    let size = contents.len() as u64;
    let [memory, disk] = checked(&with_tree, &verity).map(Result::unwrap);
    for image in [open(bytes).unwrap(), memory, disk] {
        let node = image.node(128).unwrap();
        let mut all = std::vec![0; contents.len()];
        image.read_file(&node, 0, &mut all).unwrap();
        assert!(all == contents);
        let mut page = [1; BLOCK];
        image.read_page(&node, 70).unwrap().read(0, &mut page);
        assert!(page[..1000] == contents[70 * BLOCK..] && page[1000..] == [0; BLOCK - 1000]);
        let pager = Arc::new(FilePager::new(image.clone(), node));
        let cache = crate::mm::PageCache::backed(size, pager);
        // From the middle of an extent: the pages before come along.
        let mut dst = IoDst::kernel(&mut page);
        assert_eq!(cache.read_at(10 * BLOCK as u64, &mut dst), Ok(BLOCK));
        let mut there = 0;
        cache.peek_range(0, 71, |_, _, _| there += 1);
        // Those of an image with a hash tree are seen when they have been asked for.
        assert_eq!(there, if image.source.checks() { 1 } else { 64 });
        let mut dst = IoDst::kernel(&mut all);
        let mut at = 0;
        while dst.remaining() > 0 {
            at += cache.read_at(at, &mut dst).unwrap() as u64;
        }
        assert!(all == contents);
    }
}

#[test]
fn damaged_extents_are_errors_and_never_a_panic() {
    let (bytes, _) = compressed();
    let mut page = [0; BLOCK];
    // A distance that reaches before the start, in an extent in blocks and in the one beside the
    // inode; the other extents stay readable.
    let inline_at = BLOCK + EXTENDED_LEN + format::MAP_HEADER_LEN + 71 * 8;
    let zeros = bytes[2 * BLOCK..].iter().position(|&byte| byte != 0).unwrap();
    for (at, broken, fine) in [(2 * BLOCK + zeros, 10, 66), (inline_at, 69, 10)] {
        let mut bad = bytes.clone();
        bad[at + 22..at + 24].copy_from_slice(&[21, 0]);
        let image = open(bad).unwrap();
        let node = image.node(128).unwrap();
        let offset = |index: u64| index * BLOCK as u64;
        assert_eq!(image.read_file(&node, offset(broken), &mut page), Err(Errno::EIO));
        assert_eq!(image.read_file(&node, offset(fine), &mut page), Ok(()));
        let pager = Arc::new(FilePager::new(image.clone(), node));
        let cache = crate::mm::PageCache::backed(70 * BLOCK as u64, pager);
        assert_eq!(cache.get_page(broken, false).err(), Some(Errno::EIO));
        assert!(cache.get_page(fine, false).is_ok());
    }
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..300 {
        let mut bad = bytes.clone();
        for _ in 0..8 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = BLOCK + (random >> 33) as usize % (bad.len() - BLOCK);
            bad[at] = (random >> 13) as u8;
        }
        let image = open(bad).unwrap();
        let Ok(node) = image.node(128) else { continue };
        for index in [0, 1, 63, 64, 65, 69, 70] {
            if index * (BLOCK as u64) < node.inode.size {
                let _ = image.read_page(&node, index);
            }
        }
    }
}

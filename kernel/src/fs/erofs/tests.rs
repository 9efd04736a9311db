use super::*;
use crate::fs::inode::FileType;
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
    Image::open(Source::Memory(std::vec::Vec::leak(bytes)))
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
    assert!(Source::disk(disk.clone(), START as u64, len + 2000).is_err());
    let on_disk = Image::open(Source::disk(disk, START as u64, len).unwrap()).unwrap();
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

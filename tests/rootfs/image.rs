//! The image's form: reproducible, tightly packed, correct whatever its size.

use std::fs;

use dock2uni::erofs::Reader;
use dock2uni::rootfs::{Options, With, build_with};
use dock2uni_format::erofs::{BLOCK, Layout};

use crate::{
    common::layout::noise,
    snapshot::{assert_same, of_image},
    support::{Lab, LayerTar, TIME},
};

/// Three layers with a little of everything.
fn varied() -> Lab {
    let mut bottom = LayerTar::new().dir("many/", 0o755);
    for i in 0..400usize {
        let size = i * i % 9000;
        let name = format!("many/a rather long name of a file, number {i}");
        bottom = bottom
            .pax(&[("mtime", format!("{}.5", TIME + i as u64 % 3).as_bytes())])
            .file(&name, noise(size, i as u64));
    }
    let mut middle = LayerTar::new();
    for i in 0..100 {
        middle = middle
            .pax(&[
                ("SCHILY.xattr.user.common", b"shared by all"),
                ("SCHILY.xattr.user.own", format!("value {i}").as_bytes()),
            ])
            .file(&format!("x{i}"), noise(i * 10, 77))
            .link(&format!("hard{i}"), &format!("x{i}"));
    }
    let long = "t".repeat(4095);
    let top = LayerTar::new()
        .whiteout("many/.wh.a rather long name of a file, number 7")
        .pax(&[("linkpath", long.as_bytes())])
        .symlink("long link", "x")
        .symlink("short link", "many");
    Lab::new([bottom.finish(), middle.finish(), top.finish()])
}

#[test]
fn the_same_layers_give_the_same_bytes_whatever_the_threads() {
    let lab = varied();
    let bytes = |name: &str, threads| {
        let options = Options { threads, ..Options::default() };
        fs::read(lab.build_with(name, &options).unwrap().path).unwrap()
    };
    let first = bytes("one", 1);
    assert!(first == bytes("again", 1));
    assert!(first == bytes("four", 4));
    assert_eq!(first.len() % BLOCK, 0);
}

#[test]
fn the_image_can_start_anywhere_in_its_file() {
    let lab = varied();
    let built = lab.build();
    let path = lab.dir.path().join("offset");
    let file = fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    let start = 3 * BLOCK as u64;
    let root = dock2uni::rootfs::build(&lab.layers, &Options::default(), &file, start, &|_| {});
    let root = root.unwrap();
    let shifted = fs::read(&path).unwrap();
    assert!(shifted[start as usize..] == fs::read(&built.path).unwrap());
    assert!(root.reader(&file).unwrap().lookup(b"/short link").unwrap().unwrap().is_dir());
}

#[test]
fn past_the_page_cache_the_bytes_are_the_same() {
    let tar = LayerTar::new()
        .file("large", noise(3 << 20, 1))
        .file("odd", noise((1 << 20) + 77, 2))
        .file("small", noise(90, 3))
        .file("another", noise(2 << 20, 4));
    let lab = Lab::new([tar.finish()]);
    let built = lab.build();
    let path = lab.dir.path().join("direct");
    let file = fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    let with = With { direct: true, ..With::default() };
    let start = BLOCK as u64;
    let (layers, options) = (&lab.layers, &Options::default());
    let root = build_with(layers, &with, options, &file, start, &|_| {}).unwrap();
    assert_eq!(root.verity, built.root.verity);
    assert!(fs::read(&path).unwrap()[start as usize..] == fs::read(&built.path).unwrap());
}

#[test]
fn progress_adds_up_to_the_blobs() {
    let lab = varied();
    let read = std::sync::atomic::AtomicU64::new(0);
    let file = fs::File::create_new(lab.dir.path().join("root")).unwrap();
    dock2uni::rootfs::build(&lab.layers, &Options::default(), &file, 0, &|bytes| {
        read.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
    })
    .unwrap();
    assert_eq!(read.into_inner(), lab.layers.iter().map(|layer| layer.size).sum::<u64>());
}

#[test]
fn little_memory_for_tails_gives_the_same_tree() {
    let lab = varied();
    let usual = lab.build();
    let options = Options { tail_memory: 20_000, ..Options::default() };
    let tight = lab.build_with("tight", &options).unwrap();
    tight.fsck();
    assert_same(&of_image(&usual.reader()), &of_image(&tight.reader()), "tail memory");
}

#[test]
fn whole_blocks_are_aligned_and_tails_packed() {
    let lab = Lab::new([LayerTar::new()
        .file("page", noise(BLOCK, 1))
        .file("tail", noise(BLOCK + 100, 2))
        .file("small", noise(100, 3))
        .file("no room", noise(2 * BLOCK - 10, 4))
        .file("empty", "")
        .finish()]);
    let built = lab.build();
    for (name, layout) in [
        ("page", Layout::Plain),
        ("tail", Layout::Inline),
        ("small", Layout::Inline),
        ("no room", Layout::Plain),
        ("empty", Layout::Plain),
    ] {
        let node = built.node(name).unwrap();
        assert_eq!(node.inode.layout, layout, "{name}");
    }
    // Block 0, four blocks of data, one of metadata.
    assert_eq!(built.root.verity.blocks, 6);
}

#[test]
fn directories_of_many_blocks_are_searched() {
    let mut tar = LayerTar::new();
    for i in 0..5000 {
        tar = tar.file(&format!("dir/file number {i:07}"), format!("{i}"));
    }
    let built = Lab::new([tar.finish()]).build();
    for i in [0, 1, 2499, 4998, 4999] {
        let path = format!("dir/file number {i:07}");
        assert_eq!(built.text(&path), Some(i.to_string()));
    }
    assert_eq!(built.text("dir/file number 0005000"), None);
    assert_eq!(built.text("dir/a"), None);
}

#[test]
fn a_root_with_attributes_and_many_names() {
    let mut tar = LayerTar::new().pax(&[("SCHILY.xattr.user.root", b"yes")]).dir("./", 0o755);
    for i in 0..1000 {
        tar = tar.file(&format!("file {i}"), "");
    }
    let built = Lab::new([tar.finish()]).build();
    let root = built.node("/").unwrap();
    assert!(root.inode.size > BLOCK as u64);
    let xattrs = built.reader().xattrs(&root).unwrap();
    assert_eq!(xattrs, [(b"user.root".to_vec(), b"yes".to_vec())]);
    assert_eq!(built.paths().len(), 1000);
}

#[test]
fn damaged_images_never_panic() {
    let lab = varied();
    let built = lab.build();
    let image = fs::read(&built.path).unwrap();
    // The metadata of this image is its last part; block 0 has the root.
    let metadata = built.node("short link").unwrap().nid as usize * 32 / BLOCK * BLOCK;
    let noise = noise(3000, 5);
    for case in noise.chunks_exact(6) {
        let mut damaged = image.clone();
        let at = u32::from_le_bytes([case[0], case[1], case[2], 0]) as usize;
        // Without the hash tree, which this reader does not look at.
        let span = built.root.verity.blocks as usize * BLOCK - metadata;
        let at = if case[5] & 1 == 0 { metadata + at % span } else { 1152 + at % (BLOCK - 1152) };
        damaged[at] = case[3];
        damaged[at / 32 * 32 + usize::from(case[4] % 32)] ^= case[5];
        // The superblock's checksum would catch the rest of its block.
        damaged[1024 + 8] &= !1;
        let Ok(reader) = Reader::open(damaged.as_slice(), 0) else { continue };
        let Ok(root) = reader.root() else { continue };
        let mut stack = vec![root];
        let mut budget = 2000;
        while let Some(node) = stack.pop() {
            budget -= 1;
            if budget == 0 {
                break;
            }
            let _ = reader.xattrs(&node);
            let _ = reader.read_at(&node, 0, &mut [0; 5000]);
            let _ = reader.read_at(&node, node.inode.size / 2, &mut [0; 100]);
            if node.is_dir() {
                let entries = reader.read_dir(&node).unwrap_or_default();
                stack.extend(entries.iter().filter_map(|entry| reader.node(entry.nid).ok()));
            }
        }
        let _ = reader.lookup(b"/short link/../many/x/y");
    }
}

//! Compressed images: the same tree in less space, for us, fsck.erofs and Linux.

use std::fs;

use dock2uni::{
    erofs::{Compression, Reader},
    rootfs::Options,
};
use dock2uni_format::erofs::{BLOCK, Layout};

use crate::{
    common::layout::noise,
    peers::{compare_extracted, compare_mounted, everything, is_root},
    snapshot::{assert_same, of_image},
    support::{Built, Lab, LayerTar},
};

const LZ4: Options = Options {
    limits: dock2uni::rootfs::Limits::DEFAULT,
    threads: 0,
    tail_memory: 16 << 20,
    compression: Some(Compression::Lz4),
};

/// Bytes that compress well, and differently from place to place.
fn prose(len: usize, seed: u64) -> Vec<u8> {
    let words = noise(4096, seed);
    let choice = noise(len / 3 + 8, seed + 1);
    let mut out = Vec::with_capacity(len + 16);
    for &byte in &choice {
        let at = usize::from(byte) * 16;
        out.extend_from_slice(&words[at..at + 3 + usize::from(byte % 11)]);
        if out.len() >= len {
            break;
        }
    }
    out.truncate(len);
    out
}

/// Files of all sizes that matter, of bytes that compress, that do not, and of both.
fn varied() -> Vec<u8> {
    let mut tar = LayerTar::new();
    let sizes = [
        0, 1, 63, 64, 100, 3000, 4095, 4096, 4097, 5000, 8192, 20_000, 65_536, 262_143, 262_144,
        262_145, 700_000, 2_200_000,
    ];
    for (seed, len) in sizes.into_iter().enumerate() {
        let seed = seed as u64;
        let mut both = noise(len / 2, seed);
        both.extend(prose(len - len / 2, seed));
        let mut ends = prose(len / 2, seed);
        ends.extend(noise(len - len / 2, seed));
        for (name, data) in [
            ("prose", prose(len, seed)),
            ("zeros", vec![0; len]),
            ("noise", noise(len, seed)),
            ("both", both),
            ("ends", ends),
        ] {
            tar = tar.file(&format!("{name}-{len}"), data);
        }
    }
    // Attributes take the room beside the inode.
    for value in [10, 1000, 3900] {
        let value = noise(value, 9);
        tar = tar
            .pax(&[("SCHILY.xattr.user.large", &value)])
            .file(&format!("attribute-{}", value.len()), prose(9000, 1));
    }
    tar.finish()
}

fn build(lab: &Lab) -> Built {
    let built = lab.build_with("packed.erofs", &LZ4).unwrap();
    built.fsck();
    built
}

#[test]
fn linux_and_fsck_see_the_same_tree() {
    let mut layers = everything();
    layers.push(varied());
    let lab = Lab::new(layers);
    let (plain, packed) = (lab.build(), build(&lab));
    let expected = of_image(&plain.reader());
    assert_same(&expected, &of_image(&packed.reader()), "our reader");
    assert_ne!(plain.root.uuid, packed.root.uuid);
    if is_root() {
        compare_extracted(&packed, &expected, lab.dir.path());
        compare_mounted(&packed, &expected, lab.dir.path());
    }
}

#[test]
fn files_are_compressed_where_that_saves_something() {
    let lab = Lab::new([varied()]);
    let (plain, packed) = (lab.build(), build(&lab));
    for (name, layout) in [
        ("prose-20000", Layout::Compressed),
        ("prose-3000", Layout::Compressed),
        ("zeros-700000", Layout::Compressed),
        ("both-700000", Layout::Compressed),
        ("ends-700000", Layout::Compressed),
        ("noise-700000", Layout::Inline),
        ("noise-4096", Layout::Plain),
        ("prose-1", Layout::Inline),
    ] {
        assert_eq!(packed.node(name).unwrap().inode.layout, layout, "{name}");
    }
    // The blocks that a file's data take, the last extent of each aside.
    let blocks = |name: &str| packed.node(name).unwrap().inode.u;
    assert!(blocks("prose-700000") < 500_000 / BLOCK as u32);
    assert!(blocks("zeros-700000") <= 700_000 / (256 << 10) + 1);
    let (before, after) = (plain.root.verity.blocks, packed.root.verity.blocks);
    assert!(after < before * 3 / 4, "{before} blocks, compressed {after}");
}

#[test]
fn any_range_reads_the_same() {
    let lab = Lab::new([varied()]);
    let packed = build(&lab);
    let reader = packed.reader();
    let node = packed.node("both-700000").unwrap();
    let whole = reader.read_file(b"both-700000", 1 << 20).unwrap().unwrap();
    for case in noise(400, 3).chunks_exact(8) {
        let at = u32::from_le_bytes([case[0], case[1], case[2], 0]) as usize % 700_000;
        let mut part = vec![0; u16::from_le_bytes([case[3], case[4]]).into()];
        let got = reader.read_at(&node, at as u64, &mut part).unwrap();
        assert_eq!(got, part.len().min(700_000 - at));
        assert!(part[..got] == whole[at..at + got]);
    }
}

#[test]
fn the_bytes_depend_on_the_layers_alone() {
    let lab = Lab::new([varied(), LayerTar::new().file("x", prose(50_000, 4)).finish()]);
    let bytes = |name: &str, threads, tail_memory| {
        let built = lab.build_with(name, &Options { threads, tail_memory, ..LZ4 }).unwrap();
        (fs::read(&built.path).unwrap(), built)
    };
    let (first, built) = bytes("one", 1, 16 << 20);
    assert!(first == bytes("four", 4, 16 << 20).0);
    let (_, tight) = bytes("tight", 2, 5000);
    tight.fsck();
    assert_same(&of_image(&built.reader()), &of_image(&tight.reader()), "tail memory");
}

#[test]
fn damaged_images_never_panic() {
    let lab = Lab::new([varied()]);
    let built = build(&lab);
    let image = fs::read(&built.path).unwrap();
    let names: Vec<_> = built.paths();
    let mut damages = 0;
    for case in noise(480, 6).chunks_exact(40) {
        let mut damaged = image.clone();
        for hit in case.chunks_exact(4) {
            let at = u32::from_le_bytes([hit[0], hit[1], hit[2], 0]) as usize;
            // Half of them in the metadata, which comes last.
            let span = built.root.verity.blocks as usize * BLOCK - BLOCK;
            let at = if hit[3] & 1 == 0 { at % span } else { span - 1 - at % (span / 20) };
            damaged[BLOCK + at] ^= hit[3] | 1;
        }
        let Ok(reader) = Reader::open(damaged.as_slice(), 0) else { continue };
        for name in &names {
            damages += usize::from(reader.read_file(name.as_bytes(), 1 << 26).is_err());
        }
    }
    assert!(damages > 0);
}

#[test]
fn a_real_image_is_about_half_as_large() {
    let layout = test_images::build("nginx").unwrap();
    let lab = Lab::of_layout(&layout);
    let (plain, packed) = (lab.build(), build(&lab));
    let ours = of_image(&packed.reader());
    assert_same(&of_image(&plain.reader()), &ours, "plain");
    if is_root() {
        compare_mounted(&packed, &ours, lab.dir.path());
    }
    let (before, after) = (plain.root.verity.blocks, packed.root.verity.blocks);
    assert!(after * 10 < before * 6, "{before} blocks, compressed {after}");
}

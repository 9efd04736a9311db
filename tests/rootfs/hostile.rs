//! What hostile or damaged layers try: a clear error or harmless handling, never a panic.

use dock2uni::{
    rootfs::{EntryFault, Error, Limits, Options},
    source::image::{Compression, Digest},
};
use tar::EntryType::{GNULongName, Link, Regular, Symlink, XHeader};

use crate::{
    common::layout::{compress, noise},
    support::{Lab, LayerTar, raw_header},
};

fn fault(tar: LayerTar) -> (String, EntryFault) {
    let lab = Lab::new([tar.finish()]);
    match lab.error() {
        Error::Entry { layer, entry, reason } => {
            assert_eq!(layer, lab.layers[0].digest);
            (entry, reason)
        }
        other => panic!("{other}"),
    }
}

fn tar_error(tar: Vec<u8>) -> String {
    match Lab::new([tar]).error() {
        error @ Error::Tar { .. } => error.to_string(),
        other => panic!("{other}"),
    }
}

#[test]
fn entries_that_climb_out_are_refused_by_name() {
    for name in ["../evil", "a/../../evil", "/../evil", "./.."] {
        let (entry, reason) = fault(LayerTar::new().file(name, "x"));
        assert_eq!((entry.as_str(), reason), (name, EntryFault::Escape));
    }
    let (_, reason) = fault(LayerTar::new().file("a", "a").link("b", "../../etc/passwd"));
    assert_eq!(reason, EntryFault::LinkEscape);
}

#[test]
fn absolute_names_are_taken_from_the_root() {
    let built = Lab::new([LayerTar::new().file("/etc//x", "x").file("//y", "y").finish()]).build();
    assert_eq!(built.paths(), ["/etc", "/etc/x", "/y"]);
}

#[test]
fn impossible_entries_are_refused() {
    let (_, reason) = fault(LayerTar::new().link("b", "nowhere"));
    assert_eq!(reason, EntryFault::MissingLinkTarget("nowhere".into()));
    let (_, reason) = fault(LayerTar::new().dir("d/", 0o755).link("b", "d"));
    assert_eq!(reason, EntryFault::LinkToDirectory("d".into()));
    let (_, reason) = fault(LayerTar::new().symlink("s", ""));
    assert_eq!(reason, EntryFault::SymlinkTarget(0));
    let (entry, reason) = fault(LayerTar::new().file("f", "f").file("f/below", "x"));
    assert_eq!((entry.as_str(), reason), ("f/below", EntryFault::NotADirectory));
    let (_, reason) = fault(LayerTar::new().file("./", "root as file"));
    assert_eq!(reason, EntryFault::RootType);
    for name in [".wh.", "a/.wh..", ".wh..."] {
        assert_eq!(fault(LayerTar::new().file(name, "")).1, EntryFault::Whiteout, "{name}");
    }
    let long = "x".repeat(256);
    let (_, reason) = fault(LayerTar::new().pax(&[("path", long.as_bytes())]).file("a", ""));
    assert_eq!(reason, EntryFault::NameTooLong);
    let long = "x/".repeat(2500);
    let (_, reason) = fault(LayerTar::new().pax(&[("path", long.as_bytes())]).file("a", ""));
    assert_eq!(reason, EntryFault::PathTooLong(4096));
}

#[test]
fn symbolic_links_in_circles_end() {
    let circle = LayerTar::new().symlink("a", "b").symlink("b", "a").file("a/x", "x");
    assert_eq!(fault(circle).1, EntryFault::SymlinkLoop);
    let own = LayerTar::new().symlink("s", "s/s/s").file("s/x", "x");
    assert_eq!(fault(own).1, EntryFault::SymlinkLoop);
}

#[test]
fn lying_sizes_are_noticed() {
    let header = raw_header(b"liar", b"", Regular, 0o644, 1 << 36);
    let tar = LayerTar::new().header(&header, b"short").finish();
    let error = tar_error(tar);
    assert!(error.contains("ends in the middle") && error.contains("`liar`"), "{error}");

    let mut header = raw_header(b"big", b"", Regular, 0o644, 0);
    header.as_old_mut().size.copy_from_slice(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff");
    header.set_cksum();
    let error = tar_error(LayerTar::new().header(&header, b"").finish());
    assert!(error.contains("size"), "{error}");

    // Stopped before a byte of the file is read.
    let tar = LayerTar::new().file("a", noise(50_000, 2)).finish();
    let limits = Limits { image_bytes: 40_000, ..Limits::default() };
    let options = Options { limits, ..Options::default() };
    let error = Lab::new([tar]).build_with("root", &options).unwrap_err();
    assert!(matches!(error, Error::Limit { limit: 40_000, .. }), "{error}");
}

#[test]
fn damaged_headers_are_refused() {
    let mut tar = LayerTar::new().file("a", "data").finish();
    tar[3] ^= 1;
    assert!(tar_error(tar).contains("checksum"));
    assert!(tar_error(noise(2048, 9)).contains("checksum"));
    let long = raw_header(b"././@LongLink", b"", GNULongName, 0o644, 1 << 30);
    assert!(tar_error(LayerTar::new().header(&long, b"").finish()).contains("too long"));
    let pax = raw_header(b"pax", b"", XHeader, 0o644, 6);
    assert!(tar_error(LayerTar::new().header(&pax, b"9 a=b\n").finish()).contains("PAX"));
    let nul = LayerTar::new().pax(&[("path", b"a\0b")]).file("x", "").finish();
    assert!(tar_error(nul).contains("NUL"));
}

#[test]
fn lying_sparse_maps_are_refused() {
    for map in ["0,4,2,2", "100,4", "0,3", "0,18446744073709551615", "1,x", "5"] {
        let tar = LayerTar::new()
            .pax(&[("GNU.sparse.size", b"50"), ("GNU.sparse.map", map.as_bytes())])
            .file("s", "data")
            .finish();
        assert!(tar_error(tar).contains("sparse map"), "{map}");
    }
}

#[test]
fn endless_layers_hit_a_bound() {
    let bomb = LayerTar::new().file("zeros", vec![0; 8 << 20]).finish();
    for compression in [Compression::Gzip, Compression::Zstd, Compression::None] {
        let mut lab = Lab::new([]);
        lab.push(&bomb, compression);
        let limits = Limits { layer_bytes: 1 << 20, ..Limits::default() };
        let options = Options { limits, ..Options::default() };
        let error = lab.build_with("root", &options).unwrap_err();
        assert!(matches!(error, Error::Limit { limit, .. } if limit == 1 << 20), "{error}");
    }
    let mut many = LayerTar::new();
    for i in 0..100 {
        many = many.dir(&format!("d{i}"), 0o755);
    }
    let limits = Limits { entries: 50, ..Limits::default() };
    let options = Options { limits, ..Options::default() };
    let error = Lab::new([many.finish()]).build_with("root", &options).unwrap_err();
    assert!(error.to_string().contains("more than 50 entries"), "{error}");
}

#[test]
fn attribute_floods_hit_a_bound() {
    let value = vec![b'v'; 40_000];
    let mut tar = LayerTar::new();
    for i in 0..40u8 {
        let mut value = value.clone();
        value[0] = i;
        tar = tar.pax(&[("SCHILY.xattr.user.x", &value)]).file(&format!("f{i}"), "");
    }
    let lab = Lab::new([tar.finish()]);
    lab.build();
    let limits = Limits { xattr_bytes: 1 << 20, ..Limits::default() };
    let error = lab.build_with("root", &Options { limits, ..Options::default() }).unwrap_err();
    assert!(error.to_string().contains("extended attributes"), "{error}");
    let large = vec![b'v'; 70_000];
    let (_, reason) = fault(LayerTar::new().pax(&[("SCHILY.xattr.user.x", &large)]).file("f", ""));
    assert_eq!(reason, EntryFault::Xattrs);
}

#[test]
fn a_layer_must_match_its_diff_id() {
    let tar = LayerTar::new().file("a", "a").finish();
    let mut lab = Lab::new([tar.clone()]);
    let blob = compress(&tar, Compression::Gzip);
    lab.push_blob(&blob, Digest::of(b"something else"), Compression::Gzip);
    let error = lab.error();
    assert!(matches!(error, Error::DiffId { found, .. } if found == Digest::of(&tar)), "{error}");
    // A malformed archive that does not match either is reported as not matching.
    let mut lab = Lab::new([]);
    lab.push_blob(&noise(4096, 7), Digest::of(b"x"), Compression::None);
    assert!(matches!(lab.error(), Error::DiffId { .. }));
}

#[test]
fn damaged_compression_is_named() {
    let tar = LayerTar::new().file("a", noise(100_000, 8)).finish();
    for compression in [Compression::Gzip, Compression::Zstd] {
        let whole = compress(&tar, compression);
        for damaged in [&whole[..whole.len() / 2], b"garbage", &[&whole[..], b"trailing"].concat()]
        {
            let mut lab = Lab::new([]);
            lab.push_blob(damaged, Digest::of(&tar), compression);
            let error = lab.error();
            assert!(matches!(error, Error::Decompress { .. }), "{error}");
            assert!(error.is_bad_image() && error.hint().is_some());
        }
    }
}

#[test]
fn a_missing_blob_is_named() {
    let lab = Lab::new([LayerTar::new().finish()]);
    std::fs::remove_file(&lab.layers[0].path).unwrap();
    let error = lab.error();
    assert!(matches!(error, Error::Read { .. }), "{error}");
    assert!(!error.is_bad_image());
}

#[test]
fn several_members_and_frames_are_one_stream() {
    let tar = LayerTar::new().file("a", noise(100_000, 8)).finish();
    for compression in [Compression::Gzip, Compression::Zstd] {
        let (left, right) = tar.split_at(70_000);
        let blob = [compress(left, compression), compress(right, compression)].concat();
        let mut lab = Lab::new([]);
        lab.push_blob(&blob, Digest::of(&tar), compression);
        assert_eq!(lab.build().paths(), ["/a"]);
    }
}

#[test]
fn a_full_disk_is_an_error_with_a_hint() {
    let lab = Lab::new([LayerTar::new().file("a", noise(3 << 20, 1)).finish()]);
    let full = std::fs::File::options().read(true).write(true).open("/dev/full").unwrap();
    let error = dock2uni::rootfs::build(&lab.layers, &Options::default(), &full, 0, &|_| {});
    let error = error.unwrap_err();
    assert!(matches!(error, Error::Write(_)), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("space")), "{error}");
}

#[test]
fn random_damage_never_panics() {
    let tar = LayerTar::new()
        .dir("d/", 0o755)
        .pax(&[("SCHILY.xattr.user.a", b"value"), ("mtime", b"1.5")])
        .file("d/a", noise(600, 1))
        .pax(&[("GNU.sparse.size", b"9000"), ("GNU.sparse.map", b"0,2,8000,2")])
        .file("s", "data")
        .raw(b"l", b"d/a", Link, 0o644, b"")
        .raw(b"y", b"d", Symlink, 0o777, b"")
        .whiteout(".wh.z")
        .finish();
    let noise = noise(4000, 11);
    for case in noise.chunks_exact(4) {
        let mut damaged = tar.clone();
        let at = usize::from(u16::from_le_bytes([case[0], case[1]])) % damaged.len();
        damaged[at] = case[2];
        // Repair the checksum, so that the damage gets further than that.
        let header = at / 512 * 512;
        let block = &mut damaged[header..header + 512];
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let mut lab = Lab::new([]);
        lab.push(&damaged, Compression::None);
        let limits = Limits { image_bytes: 1 << 30, ..Limits::default() };
        let _ = lab.build_with("root", &Options { limits, ..Options::default() });
    }
}

/// How long an image takes whose directory has so many files, and is replaced as often.
fn time_to_replace(times: usize) -> std::time::Duration {
    let mut tar = LayerTar::new().dir("p/", 0o755);
    for i in 0..times {
        tar = tar.file(&format!("p/{i}"), "");
    }
    for _ in 0..times {
        tar = tar.file("p", "").dir("p/", 0o755).file("p/x", "").whiteout("p/.wh..wh..opq");
    }
    let lab = Lab::new([tar.finish()]);
    let started = std::time::Instant::now();
    assert_eq!(lab.build().paths(), ["/p", "/p/x"]);
    started.elapsed()
}

#[test]
fn directories_replaced_over_and_over_take_linear_time() {
    // Four times as much takes four times as long, and sixteen times if each looked at all others. What else
    // the machine does may spoil an attempt, but not every one.
    let mut ratios = Vec::new();
    while ratios.len() < 6 {
        let few = time_to_replace(3_000);
        let ratio = time_to_replace(12_000).as_secs_f64() / few.as_secs_f64();
        if ratio < 9.0 {
            return;
        }
        ratios.push(ratio);
    }
    panic!("four times as much takes {ratios:?} times as long");
}

#[test]
fn a_failure_in_one_layer_stops_the_others() {
    let large = |seed| LayerTar::new().file("large", noise(12 << 20, seed)).finish();
    for bad in 0..3 {
        let mut tars = vec![large(1), large(2), large(3)];
        tars[bad] = LayerTar::new().file("../out", "").file("large", noise(12 << 20, 4)).finish();
        let lab = Lab::new(tars);
        for threads in [1, 4] {
            let options = Options { threads, ..Options::default() };
            let error = lab.build_with("root", &options).unwrap_err();
            let layer = lab.layers[bad].digest;
            assert!(
                matches!(error, Error::Entry { layer: named, .. } if named == layer),
                "{error}"
            );
        }
    }
}

//! The same image through other tools: umoci, mkfs.erofs, fsck.erofs, the Linux kernel.

use std::{fs, io::Write, path::Path, process::Command};

use dock2uni::{erofs::Reader, rootfs::Options};

use crate::{
    common::{
        layout::{ImageSpec, Layout, noise},
        run,
    },
    snapshot::{Snapshot, assert_same, of_directory, of_image},
    support::{Built, Lab, LayerTar, TIME},
};
use dock2uni::source::image::Compression;

/// Layers that use everything the tools agree on.
pub fn everything() -> Vec<Vec<u8>> {
    use tar::EntryType::{Block, Char, Fifo, Regular};
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let long_name = format!("usr/share/{}", "n".repeat(180));
    let null = crate::support::raw_header(b"dev/null", b"", Char, 0o666, 0);
    let mut null = null;
    null.set_device_major(1).unwrap();
    null.set_device_minor(3).unwrap();
    null.set_cksum();
    let mut disk = null.clone();
    disk.as_old_mut().name[..8].copy_from_slice(b"dev/disk");
    disk.set_entry_type(Block);
    disk.set_cksum();
    let bottom = LayerTar::new()
        .dir("./", 0o755)
        .dir("dev/", 0o755)
        .header(&null, b"")
        .header(&disk, b"")
        .raw(b"dev/fifo", b"", Fifo, 0o600, b"")
        .dir("usr/", 0o755)
        .dir("usr/bin/", 0o755)
        .dir("usr/share/", 0o755)
        .raw(b"usr/bin/su", b"", Regular, 0o4755, &noise(70_000, 1))
        .pax(&[
            ("SCHILY.xattr.security.capability", capability),
            ("mtime", b"1600000000.123456789"),
        ])
        .raw(b"usr/bin/ping", b"", Regular, 0o755, &noise(5000, 2))
        .pax(&[("path", long_name.as_bytes()), ("uid", b"3000000"), ("gid", b"4000000")])
        .file("long", "long name, large owner")
        .pax(&[("SCHILY.xattr.user.note", b"one\ntwo")])
        .file("usr/share/note", noise(4096, 3))
        .link("usr/share/also", "usr/share/note")
        .symlink("bin", "usr/bin")
        .symlink("dangling", "/no/where")
        .dir("old/", 0o755)
        .file("old/a", "a")
        .dir("old/deep/", 0o755)
        .file("old/deep/b", "b")
        .dir("cleared/", 0o755)
        .file("cleared/x", "x")
        .file("type", "was a file")
        .dir("tree/", 0o755)
        .file("tree/leaf", "leaf")
        .finish();
    let middle = LayerTar::new()
        .dir("./", 0o755)
        .whiteout(".wh.old")
        .dir("cleared/", 0o750)
        .whiteout("cleared/.wh..wh..opq")
        .file("cleared/y", "y")
        .dir("type/", 0o755)
        .file("type/inside", "now a directory")
        .file("tree", "now a file")
        .link("usr/bin/su2", "usr/bin/su")
        .finish();
    let mut top = LayerTar::new().dir("./", 0o755).dir("var/", 0o755).dir("var/many/", 0o1777);
    for i in 0..300usize {
        top = top.file(&format!("var/many/file-{i}"), noise(i * 37, i as u64));
    }
    let top = top.file("usr/bin/ping", "replaced").finish();
    vec![bottom, middle, top]
}

fn unpack(layers: &[Vec<u8>], dir: &Path) -> std::path::PathBuf {
    let mut layout = Layout::new();
    // This umoci knows no zstd.
    let layers = layers.iter().map(|tar| (tar.clone(), Compression::Gzip)).collect();
    let image = layout.image(&ImageSpec { layers, ..ImageSpec::default() });
    layout.name(image, "latest");
    let bundle = dir.join("bundle");
    let reference = format!("{}:latest", layout.path().display());
    run(Command::new("umoci").args(["unpack", "--image"]).arg(reference).arg(&bundle));
    bundle.join("rootfs")
}

/// Says so past the test harness, which keeps back what passing tests print.
fn skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or("test").to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED in {test}: {why}");
}

pub fn is_root() -> bool {
    let output = run(Command::new("id").arg("-u"));
    let is_root = output.stdout == b"0\n";
    if !is_root {
        skipped("needs root, to unpack owners and devices");
    }
    is_root
}

/// Compares with what Linux shows of the image, where it can be mounted.
pub fn compare_mounted(built: &Built, expected: &Snapshot, dir: &Path) {
    let mount = dir.join("mount");
    fs::create_dir(&mount).unwrap();
    let mut command = Command::new("mount");
    command.args(["-t", "erofs", "-o", "loop,ro"]).arg(&built.path).arg(&mount);
    let output = command.output().unwrap();
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        skipped(&format!("this machine does not mount EROFS: {}", why.trim()));
        return;
    }
    let mounted = std::panic::catch_unwind(|| of_directory(&mount));
    run(Command::new("umount").arg(&mount));
    assert_same(expected, &mounted.unwrap(), "mounted by Linux");
}

#[test]
fn umoci_linux_and_fsck_see_the_same_tree() {
    if !is_root() {
        return;
    }
    let layers = everything();
    let lab = Lab::new(layers.clone());
    let built = lab.build();
    let dir = tempfile::tempdir().unwrap();
    let unpacked = of_directory(&unpack(&layers, dir.path()));
    let ours = of_image(&built.reader());
    assert_eq!(ours[&b"/usr/bin/su"[..]].nlink, 2);
    assert_eq!(ours[&b"/usr/share/note"[..]].xattrs[0].1, b"one\ntwo");
    assert_same(&unpacked, &ours, "umoci");
    compare_mounted(&built, &ours, dir.path());
    compare_extracted(&built, &ours, dir.path());
}

/// Compares with what fsck.erofs makes of the image.
pub fn compare_extracted(built: &Built, expected: &Snapshot, dir: &Path) {
    let extracted = dir.join("extracted");
    let mut command = Command::new("fsck.erofs");
    command.arg(format!("--extract={}", extracted.display())).arg("--preserve");
    run(command.arg(&built.path));
    // Version 1.5 extracts hard links as copies, and no attributes.
    let comparable = |snapshot: &Snapshot| -> Snapshot {
        let mut snapshot = snapshot.clone();
        for meta in snapshot.values_mut() {
            meta.nlink = 0;
            meta.xattrs.clear();
            // It changes owners last, which clears the set-uid bit.
            meta.mode &= !0o6000;
            // It restores a link's time to its own clock.
            if meta.mode & 0o170_000 == 0o120_000 {
                meta.mtime = (0, 0);
            }
        }
        snapshot
    };
    assert_same(&comparable(&of_directory(&extracted)), &comparable(expected), "fsck.erofs");
}

#[test]
fn images_of_mkfs_are_read_and_equal_ours() {
    if !is_root() {
        return;
    }
    let layers = everything();
    let built = Lab::new(layers.clone()).build();
    let dir = tempfile::tempdir().unwrap();
    let rootfs = unpack(&layers, dir.path());
    for (name, options) in
        [("plain", &[][..]), ("chunks", &["--chunksize=4096"]), ("time", &["--ignore-mtime"])]
    {
        let path = dir.path().join(name);
        run(Command::new("mkfs.erofs").arg("--quiet").args(options).arg(&path).arg(&rootfs));
        let reader = Reader::open(fs::File::open(&path).unwrap(), 0).unwrap();
        let mut theirs = of_image(&reader);
        let mut ours = of_image(&built.reader());
        if name == "time" {
            for meta in theirs.values_mut().chain(ours.values_mut()) {
                meta.mtime = (0, 0);
            }
        }
        assert_same(&theirs, &ours, name);
        if name == "plain" {
            let theirs = fs::metadata(&path).unwrap().len();
            // Theirs has no hash tree.
            let ours = u64::from(built.root.verity.blocks) * 4096;
            assert!(ours <= theirs, "{ours} bytes, mkfs.erofs {theirs}");
        }
    }
}

#[test]
fn sparse_files_mount() {
    let tar = LayerTar::new()
        .pax(&[("GNU.sparse.size", b"1000000"), ("GNU.sparse.map", b"0,5,500000,4,999999,1")])
        .file("sparse", "firstsecd!")
        .file("plain", "x")
        .finish();
    let lab = Lab::new([tar]);
    let built = lab.build();
    let dir = tempfile::tempdir().unwrap();
    let ours = of_image(&built.reader());
    assert_eq!(ours[&b"/sparse"[..]].mtime.0, TIME as i64);
    if is_root() {
        compare_mounted(&built, &ours, dir.path());
    }
    // Extraction by fsck.erofs 1.5 is no witness: it leaves the holes out.
    let read = built.reader().read_file(b"sparse", 1 << 20).unwrap().unwrap();
    assert_eq!(read.len(), 1_000_000);
    let parts = (&read[..5], &read[500_000..500_004], read[999_999]);
    assert_eq!(parts, (&b"first"[..], &b"secd"[..], b'!'));
}

#[test]
fn images_without_memory_for_tails_mount() {
    let lab = Lab::new(everything());
    let options = Options { tail_memory: 5000, ..Options::default() };
    let built = lab.build_with("tight", &options).unwrap();
    built.fsck();
    let ours = of_image(&built.reader());
    assert_same(&of_image(&lab.build().reader()), &ours, "tail memory");
    if is_root() {
        compare_mounted(&built, &ours, lab.dir.path());
    }
}

#[test]
fn a_real_image_equals_what_umoci_unpacks() {
    if !is_root() {
        return;
    }
    let layout = test_images::build("nginx").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("bundle");
    let reference = format!("{}:latest", layout.display());
    run(Command::new("umoci").args(["unpack", "--image"]).arg(reference).arg(&bundle));
    let lab = Lab::of_layout(&layout);
    let built = lab.build();
    let ours = of_image(&built.reader());
    assert_same(&of_directory(&bundle.join("rootfs")), &ours, "umoci");
    compare_mounted(&built, &ours, dir.path());
}

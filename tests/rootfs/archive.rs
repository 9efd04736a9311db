//! What archives can say: long names, owners, times, attributes, devices, sparse files.

use std::{fs, os::unix::fs::FileExt, process::Command};

use dock2uni::rootfs::Error;
use dock2uni_format::erofs::{Layout, Time, decode_dev};

use crate::{
    common::{layout::noise, run},
    support::{Lab, LayerTar, raw_header},
};

#[test]
fn pax_records_reach_the_inode() {
    let long = format!("{}/{}", "d".repeat(150), "f".repeat(200));
    let capability = b"\x01\0\0\x02\0\x04\0\n\0\0\0\0\0\0\0\0\0\0\0\0";
    let lab = Lab::new([LayerTar::new()
        .pax(&[
            ("path", long.as_bytes()),
            ("uid", b"4000000000"),
            ("gid", b"3000000000"),
            ("mtime", b"-1.25"),
            ("SCHILY.xattr.security.capability", capability),
            ("SCHILY.xattr.user.empty", b""),
            ("SCHILY.xattr.user.text", b"a=b"),
        ])
        .file("short", "data")
        .file("after", "plain")
        .finish()]);
    let built = lab.build();
    let node = built.node(&long).unwrap();
    assert_eq!((node.inode.uid, node.inode.gid), (4_000_000_000, 3_000_000_000));
    assert_eq!(built.reader().mtime(&node), Time { secs: -2, nanos: 750_000_000 });
    let xattrs = built.reader().xattrs(&node).unwrap();
    let expected: [(&[u8], &[u8]); 3] =
        [(b"security.capability", capability), (b"user.empty", b""), (b"user.text", b"a=b")];
    assert!(xattrs.iter().map(|(n, v)| (n.as_slice(), v.as_slice())).eq(expected));
    let after = built.node("after").unwrap();
    assert_eq!(after.inode.uid, 0);
    assert!(built.reader().xattrs(&after).unwrap().is_empty());
}

#[test]
fn global_records_hold_until_replaced() {
    let mut global = raw_header(b"pax_global", b"", tar::EntryType::XGlobalHeader, 0o644, 0);
    let text = b"12 uid=1234\n12 gid=5678\n30 SCHILY.xattr.user.from=all\n13 path=evil\n";
    global.set_size(text.len() as u64);
    global.set_cksum();
    let lab = Lab::new([LayerTar::new()
        .header(&global, text)
        .file("a", "a")
        .pax(&[("uid", b"7")])
        .file("b", "b")
        .finish()]);
    let built = lab.build();
    assert_eq!(built.paths(), ["/a", "/b"]);
    let owner = |path| built.node(path).map(|node| (node.inode.uid, node.inode.gid)).unwrap();
    assert_eq!(owner("a"), (1234, 5678));
    assert_eq!(owner("b"), (7, 5678));
    let xattrs = built.reader().xattrs(&built.node("b").unwrap()).unwrap();
    assert_eq!(xattrs, [(b"user.from".to_vec(), b"all".to_vec())]);
}

/// Whoever writes an archive and doesn't close it leaves out the last entry's padding and the end
/// (umoci 0.4's `insert` of a file does): all that there was is there. Docker takes such layers.
#[test]
fn archives_that_end_with_the_last_data_are_whole() {
    let whole = LayerTar::new().file("a", "first").file("b", "second").finish();
    for cut in [4 * 512, 3 * 512 + 300, 3 * 512 + 6] {
        let lab = Lab::new([whole[..cut].to_vec()]);
        let built = lab.build();
        assert_eq!(built.paths(), ["/a", "/b"], "{cut}");
        assert_eq!(built.text("b").as_deref(), Some("second"), "{cut}");
    }
    // With a byte of the data less it is not.
    let error = Lab::new([whole[..3 * 512 + 5].to_vec()]).error();
    assert!(error.to_string().contains("not a valid tar archive"), "{error}");
}

#[test]
fn gnu_long_names_and_links() {
    let (name, target) = ("n/".repeat(80) + "end", "t".repeat(300));
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = raw_header(b"", b"", tar::EntryType::Symlink, 0o777, 0);
    builder.append_link(&mut header, &name, &target).unwrap();
    let built = Lab::new([builder.into_inner().unwrap()]).build();
    let node = built.node(&name).unwrap();
    assert_eq!(built.reader().read_link(&node).unwrap(), target.as_bytes());
}

#[test]
fn modes_devices_fifos_and_special_bits() {
    use tar::EntryType::{Block, Char, Fifo, Regular};
    let device = |name: &[u8], kind, major, minor| {
        let mut header = raw_header(name, b"", kind, 0o660, 0);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        header.set_cksum();
        header
    };
    let lab = Lab::new([LayerTar::new()
        .header(&device(b"null", Char, 1, 3), b"")
        .header(&device(b"disk", Block, 259, 70_000), b"")
        .raw(b"pipe", b"", Fifo, 0o600, b"")
        .raw(b"su", b"", Regular, 0o4755, b"x")
        .dir("tmp/", 0o1777)
        .finish()]);
    let built = lab.build();
    let inode = |path| built.node(path).unwrap().inode;
    assert_eq!((inode("null").mode, decode_dev(inode("null").u)), (0o20660, (1, 3)));
    assert_eq!((inode("disk").mode, decode_dev(inode("disk").u)), (0o60660, (259, 70_000)));
    assert_eq!(inode("pipe").mode, 0o10600);
    assert_eq!(inode("su").mode, 0o104_755);
    assert_eq!(inode("tmp").mode, 0o41777);
}

#[test]
fn names_need_not_be_text() {
    let lab = Lab::new([LayerTar::new()
        .raw(b"\xff\xfe\n", b"", tar::EntryType::Regular, 0o644, b"x")
        .raw(b"!before dot", b"", tar::EntryType::Regular, 0o644, b"y")
        .finish()]);
    let built = lab.build();
    let read = |path: &[u8]| built.reader().read_file(path, 10).unwrap();
    assert_eq!(read(b"/\xff\xfe\n").as_deref(), Some(&b"x"[..]));
    assert_eq!(read(b"/!before dot").as_deref(), Some(&b"y"[..]));
}

#[test]
fn attributes_without_a_place_are_reported() {
    let lab = Lab::new([LayerTar::new()
        .pax(&[("SCHILY.xattr.system.nfs4_acl", b"x")])
        .file("a", "a")
        .finish()]);
    let built = lab.build();
    assert_eq!(built.root.warnings.len(), 1);
    assert!(built.root.warnings[0].contains("system.nfs4_acl"), "{:?}", built.root.warnings);
}

#[test]
fn sparse_files_of_every_dialect_keep_their_holes() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = [("big", 64u64 << 20, 10_000_000u64), ("small", 3000, 0), ("hole", 1 << 30, 0)];
    for (name, size, at) in sizes {
        let file = fs::File::create(dir.path().join(name)).unwrap();
        file.set_len(size).unwrap();
        if name != "hole" {
            file.write_all_at(&noise(1500, 5), at).unwrap();
            // Many segments, so that maps need more than one block.
            for i in 1..60u64.min(size / 1_000_000 + 1) {
                file.write_all_at(b"segment", i * 1_000_000).unwrap();
            }
        }
    }
    for format in [
        "--format=oldgnu",
        "--format=gnu",
        "--format=pax --sparse-version=1.0",
        "--format=pax --sparse-version=0.1",
        "--format=pax --sparse-version=0.0",
    ] {
        let archive = dir.path().join("sparse.tar");
        run(Command::new("tar")
            .arg("-C")
            .arg(dir.path())
            .arg("-S")
            .args(format.split(' '))
            .arg("-cf")
            .arg(&archive)
            .args(["big", "small", "hole"]));
        let archive = fs::read(&archive).unwrap();
        assert!(archive.len() < 2 << 20, "tar made no sparse archive");
        let built = Lab::new([archive]).build();
        assert!(built.root.len < 2 << 20, "{format}: {} bytes", built.root.len);
        assert_eq!(built.node("big").unwrap().inode.layout, Layout::Chunk);
        assert_eq!(built.node("hole").unwrap().inode.size, 1 << 30, "{format}");
        for name in ["big", "small"] {
            let read = built.reader().read_file(name.as_bytes(), 1 << 30).unwrap().unwrap();
            assert!(read == fs::read(dir.path().join(name)).unwrap(), "{format}: {name}");
        }
    }
}

#[test]
fn enormous_sparse_files_cost_nothing() {
    // 8 TiB with one byte at the end of the first TiB.
    let records: [(&str, &[u8]); 4] = [
        ("GNU.sparse.major", b"0"),
        ("GNU.sparse.minor", b"1"),
        ("GNU.sparse.size", b"8796093022208"),
        ("GNU.sparse.map", b"1099511627775,1"),
    ];
    let tar = LayerTar::new().pax(&records).file("huge", "!").finish();
    let built = Lab::new([tar]).build_with("root", &Default::default()).unwrap();
    assert!(built.root.len < 64 << 20, "{}", built.root.len);
    let node = built.node("huge").unwrap();
    assert_eq!(node.inode.size, 8 << 40);
    let mut byte = [0; 3];
    built.reader().read_at(&node, (1 << 40) - 2, &mut byte).unwrap();
    assert_eq!(&byte, b"\0!\0");
}

#[test]
fn unsupported_entry_types_are_named() {
    let tar = LayerTar::new().raw(b"v", b"", tar::EntryType::new(b'M'), 0o644, b"").finish();
    let error = Lab::new([tar]).error();
    assert!(matches!(&error, Error::Tar { entry, .. } if entry == "v"), "{error}");
    assert!(error.to_string().contains("entry type `M`"), "{error}");
}

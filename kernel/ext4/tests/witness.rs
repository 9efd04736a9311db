//! Volumes as e2fsprogs sees them, and those of e2fsprogs as we see them.

mod support;

use dock2uni_ext4::*;
use support::*;

#[test]
fn new_volumes_are_clean() {
    for mib in [8, 17, 64, 129, 300] {
        let disk = Disk::made(mib);
        disk.check();
        let mut volume = disk.open();
        assert!(names(&mut volume, ROOT).unwrap().is_empty());
        volume.close().unwrap();
        disk.check();
    }
}

#[test]
fn a_tree_of_everything_is_clean_and_reads_back() {
    let disk = Disk::made(64);
    let mut volume = disk.open();
    let mut random = Random(7);
    let big = random.bytes(3_000_001);
    let file = create(&mut volume, &disk, ROOT, "big", &big);
    create(&mut volume, &disk, ROOT, "small", b"hello");
    let dir = volume.create(ROOT, Some(b"dir"), &new_file(0o40_755)).unwrap().ino;
    let sub = volume.create(dir, Some(b"sub"), &new_file(0o40_700)).unwrap().ino;
    create(&mut volume, &disk, sub, "deep", &big[..5000]);
    for (name, target) in
        [("fast", "x".repeat(59)), ("slow", "y".repeat(60)), ("long", "z".repeat(4000))]
    {
        let link = NewFile { target: target.as_bytes(), ..new_file(0o120_777) };
        let inode = volume.create(dir, Some(name.as_bytes()), &link).unwrap();
        assert_eq!(volume.read_link(&inode).unwrap(), target.as_bytes());
    }
    for (name, device) in [("null", (1, 3)), ("large", (259, 70_000))] {
        let node = NewFile { device, ..new_file(0o20_666) };
        let inode = volume.create(dir, Some(name.as_bytes()), &node).unwrap();
        assert_eq!(inode.device(), device);
    }
    volume.create(dir, Some(b"fifo"), &new_file(0o10_600)).unwrap();
    // A sparse file with many extents, so that its tree gets levels.
    let sparse = volume.create(ROOT, Some(b"sparse"), &new_file(0o100_600)).unwrap().ino;
    for n in 0..1500u64 {
        let at = (n * 7919 % 1500) * 2 * BLOCK as u64;
        write(&mut volume, &disk, sparse, at, &[n as u8; BLOCK]).unwrap();
    }
    volume.link(sub, b"other", file).unwrap();
    for (name, len) in
        [("user.small", 10), ("user.large", 2000), ("security.x", 0), ("trusted.y", 50)]
    {
        volume.set_xattr(file, name.as_bytes(), Some(&big[..len]), false, false).unwrap();
    }
    volume.close().unwrap();
    disk.check();

    let mut volume = disk.open();
    let found = volume.lookup(sub, b"other").unwrap();
    assert_eq!(found, file);
    assert!(read(&mut volume, &disk, file).unwrap() == big);
    assert_eq!(volume.inode(file).unwrap().links(), 2);
    assert_eq!(volume.xattr(file, b"user.large").unwrap().unwrap(), &big[..2000]);
    assert_eq!(volume.xattr(file, b"security.x").unwrap().unwrap(), b"");
    let list = volume.xattr_names(file).unwrap();
    assert_eq!(list.iter().filter(|&&byte| byte == 0).count(), 4);
    volume.set_xattr(file, b"user.small", None, false, true).unwrap();
    assert_eq!(
        volume.set_xattr(file, b"user.small", None, false, true).err(),
        Some(Error::NotFound)
    );
    let content = read(&mut volume, &disk, sparse).unwrap();
    for n in 0..1500usize {
        let at = (n * 7919 % 1500) * 2 * BLOCK;
        assert!(content[at..at + BLOCK].iter().all(|&byte| byte == n as u8), "{n}");
        assert!(
            content.get(at + BLOCK..at + 2 * BLOCK).is_none_or(|hole| hole.iter().all(|&b| b == 0))
        );
    }
    // Punching every fourth block splits and empties leaves.
    for n in 0..700u32 {
        volume.punch(sparse, n * 4, n * 4 + 1).unwrap();
    }
    volume.punch(sparse, 100, 1400).unwrap();
    volume.truncate(file, 100_000).unwrap();
    volume.truncate(sparse, 2000 * BLOCK as u64).unwrap();
    volume.commit().unwrap();
    volume.close().unwrap();
    disk.check();
    let mut volume = disk.open();
    assert_eq!(read(&mut volume, &disk, file).unwrap(), &big[..100_000]);
    let inode = volume.unlink(ROOT, b"sparse").unwrap();
    assert_eq!(inode.links(), 0);
    volume.release(sparse).unwrap();
    assert_eq!(volume.unlink(ROOT, b"dir").err(), Some(Error::NotEmpty));
    let gone = volume.create(ROOT, Some(b"gone"), &new_file(0o40_755)).unwrap().ino;
    volume.unlink(ROOT, b"gone").unwrap();
    let late = volume.create(gone, Some(b"late"), &new_file(0o100_644));
    assert_eq!(late.err(), Some(Error::NotFound));
    assert_eq!(volume.link(gone, b"late", file).err(), Some(Error::NotFound));
    // Not released: as if somebody had it open when the machine goes off.

    volume.close().unwrap();
    disk.check();
}

#[test]
fn directories_grow_to_trees_and_shrink() {
    let disk = Disk::made(256);
    let mut volume = disk.open();
    let dir = volume.create(ROOT, Some(b"many"), &new_file(0o40_755)).unwrap().ino;
    let target = volume.create(ROOT, Some(b"one"), &new_file(0o100_644)).unwrap().ino;
    // Names of one inode: what is tried is the directory. Long ones, so that the tree gets levels.
    let name = |n: u32| format!("{n:06}-{}", "n".repeat(180 + n as usize % 60)).into_bytes();
    for n in 0..20_000 {
        volume.link(dir, &name(n), target).unwrap();
    }
    volume.close().unwrap();
    disk.check();
    let mut volume = disk.open();
    for n in 0..20_000 {
        assert_eq!(volume.lookup(dir, &name(n)), Ok(target), "{n}");
    }
    assert_eq!(volume.lookup(dir, b"absent"), Err(Error::NotFound));
    assert_eq!(names(&mut volume, dir).unwrap().len(), 20_000);
    for n in (0..20_000).filter(|n| n % 3 != 0) {
        volume.unlink(dir, &name(n)).unwrap();
    }
    for n in 0..20_000 {
        assert_eq!(volume.lookup(dir, &name(n)).is_ok(), n % 3 == 0);
    }
    volume.close().unwrap();
    disk.check();
}

#[test]
fn renames_of_every_kind() {
    use volume::Move;
    let disk = Disk::made(16);
    let mut volume = disk.open();
    let a = volume.create(ROOT, Some(b"a"), &new_file(0o40_755)).unwrap().ino;
    let b = volume.create(ROOT, Some(b"b"), &new_file(0o40_755)).unwrap().ino;
    let sub = volume.create(a, Some(b"sub"), &new_file(0o40_755)).unwrap().ino;
    let file = create(&mut volume, &disk, a, "file", b"1");
    let other = create(&mut volume, &disk, b, "other", b"2");
    let step = |name: &'static [u8], ino, target, exchange| Move {
        from: a,
        name,
        ino,
        to: b,
        new_name: b"other",
        target,
        exchange,
    };
    volume.rename(&step(b"file", file, Some(other), true)).unwrap();
    assert_eq!((volume.lookup(a, b"file"), volume.lookup(b, b"other")), (Ok(other), Ok(file)));
    volume.rename(&step(b"file", other, Some(file), false)).unwrap();
    assert_eq!(volume.lookup(b, b"other"), Ok(other));
    volume.release(file).unwrap();
    volume.rename(&step(b"sub", sub, Some(other), true)).unwrap();
    assert_eq!(volume.lookup(sub, b".."), Ok(b));
    assert_eq!(volume.inode(b).unwrap().links(), 3);
    volume
        .rename(&Move {
            from: b,
            name: b"other",
            ino: sub,
            to: b,
            new_name: b"x",
            target: None,
            exchange: false,
        })
        .unwrap();
    volume.close().unwrap();
    disk.check();
}

#[test]
fn volumes_of_mke2fs_are_read_and_written() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    std::fs::create_dir_all(tree.join("sub")).unwrap();
    let mut random = Random(3);
    let big = random.bytes(1_234_567);
    std::fs::write(tree.join("big"), &big).unwrap();
    std::os::unix::fs::symlink("t".repeat(100), tree.join("sub/link")).unwrap();
    for n in 0..3000 {
        std::fs::write(tree.join(format!("sub/file-{n}")), [n as u8; 10]).unwrap();
    }
    let image = dir.path().join("image");
    let image = image.to_str().unwrap();
    for options in
        [&["-E", "lazy_itable_init=0"][..], &["-O", "^metadata_csum,^64bit"], &["-O", "^dir_index"]]
    {
        let args = [&["-q", "-b", "4096", "-d", tree.to_str().unwrap()], options, &[image, "200M"]]
            .concat();
        let _ = std::fs::remove_file(image);
        let (code, text) = run("mkfs.ext4", &args);
        assert_eq!(code, 0, "{text}");
        // Gives directories the trees that a kernel would have made.
        run("e2fsck", &["-fyD", image]);
        let disk = Disk::new(std::fs::read(image).unwrap());
        let mut volume = disk.open();
        let file = volume.lookup(ROOT, b"big").unwrap();
        assert!(read(&mut volume, &disk, file).unwrap() == big);
        let sub = volume.lookup(ROOT, b"sub").unwrap();
        let link = volume.lookup(sub, b"link").unwrap();
        let link = volume.inode(link).unwrap();
        assert_eq!(volume.read_link(&link).unwrap(), [b't'; 100]);
        for n in 0..3000 {
            let ino = volume.lookup(sub, format!("file-{n}").as_bytes()).unwrap();
            assert_eq!(read(&mut volume, &disk, ino).unwrap(), [n as u8; 10]);
        }
        for n in 0..3000 {
            create(&mut volume, &disk, sub, &format!("new-{n}"), &[1; 5000]);
            if n % 2 == 0 {
                let inode = volume.unlink(sub, format!("file-{n}").as_bytes()).unwrap();
                volume.release(inode.ino).unwrap();
            }
        }
        create(&mut volume, &disk, ROOT, "wide", &vec![3; 100 << 20]);
        volume.close().unwrap();
        disk.check();
        disk.save(image.as_ref());
        let (_, text) = run("debugfs", &["-R", "cat /sub/new-7", image]);
        assert!(text.contains(&"\u{1}".repeat(5000)));
    }
}

#[test]
fn a_full_volume_says_so_and_stays_whole() {
    let disk = Disk::made(8);
    let mut volume = disk.open();
    let mut made = 0;
    let error = loop {
        let name = format!("file-{made}");
        let result = volume
            .create(ROOT, Some(name.as_bytes()), &new_file(0o100_644))
            .and_then(|inode| write(&mut volume, &disk, inode.ino, 0, &[9; 3 * BLOCK]));
        match result {
            Ok(()) => made += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error, Error::NoSpace);
    assert!(made > 100);
    volume.commit().unwrap();
    // What is removed can be used again at once.
    for n in 0..10 {
        let inode = volume.unlink(ROOT, format!("file-{n}").as_bytes()).unwrap();
        volume.release(inode.ino).unwrap();
    }
    for n in 0..10 {
        create(&mut volume, &disk, ROOT, &format!("again-{n}"), &[8; 3 * BLOCK]);
    }
    volume.close().unwrap();
    disk.check();
}

//! Damaged and hostile volumes: errors, never a panic, a hang, or memory without bounds.

mod support;

use dock2uni_ext4::*;
use support::*;

/// Calls everything that there is, on everything that is found.
fn use_all(disk: &Disk) {
    let Ok(mut volume) = Volume::open(Box::new(disk.clone()), false, NOW) else { return };
    let mut dirs = vec![ROOT];
    let mut seen = Vec::new();
    while let Some(dir) = dirs.pop() {
        if seen.contains(&dir) || seen.len() > 40 {
            continue;
        }
        seen.push(dir);
        for (name, ino) in names(&mut volume, dir).unwrap_or_default().into_iter().take(200) {
            let _ = volume.lookup(dir, &name);
            let Ok(inode) = volume.inode(ino) else { continue };
            let _ = volume.xattr_names(ino);
            let _ = volume.set_xattr(ino, b"user.new", Some(&[1; 100]), false, false);
            match inode.file_type() {
                FileType::Directory => dirs.push(ino),
                FileType::Symlink => drop(volume.read_link(&inode)),
                FileType::Regular if inode.size() < 8 << 20 => {
                    let _ = read(&mut volume, disk, ino);
                    let _ = write(&mut volume, disk, ino, 64 * BLOCK as u64, &[1; 3 * BLOCK]);
                    let _ = volume.punch(ino, 1, 3);
                    let _ = volume.truncate(ino, 5000);
                }
                _ => {}
            }
            if ino % 3 == 0
                && let Ok(inode) = volume.unlink(dir, &name)
                && inode.links() == 0
            {
                let _ = volume.release(ino);
            }
        }
        for n in 0..5 {
            let name = format!("a rather long name for a new file {n}");
            let _ = volume.create(dir, Some(name.as_bytes()), &new_file(0o100_644));
        }
    }
    let _ = volume.usage();
    let _ = volume.commit();
    let _ = volume.close();
}

fn populated(options: &[&str]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let image = image.to_str().unwrap();
    let mut args = vec!["-q", "-b", "4096", "-J", "size=4"];
    args.extend(options);
    args.extend([image, "12M"]);
    let (code, text) = run("mkfs.ext4", &args);
    assert_eq!(code, 0, "{text}");
    let disk = Disk::new(std::fs::read(image).unwrap());
    let mut volume = disk.open();
    let sub = volume.create(ROOT, Some(b"sub"), &new_file(0o40_755)).unwrap().ino;
    for n in 0..150 {
        create(&mut volume, &disk, sub, &format!("a file with a long name {n}"), &[n; 5000]);
    }
    let sparse = create(&mut volume, &disk, ROOT, "sparse", b"x");
    for n in 0..400 {
        write(&mut volume, &disk, sparse, n * 8192, &[7; BLOCK]).unwrap();
    }
    let link = NewFile { target: &[b'l'; 100], ..new_file(0o120_777) };
    let link = volume.create(ROOT, Some(b"link"), &link).unwrap().ino;
    volume.set_xattr(sparse, b"user.big", Some(&[5; 1000]), false, false).unwrap();
    volume.set_xattr(link, b"trusted.x", Some(&[5; 10]), false, false).unwrap();
    volume.unlink(sub, b"a file with a long name 7").unwrap();
    volume.commit().unwrap();
    // As a crash leaves it: with a journal to be replayed and an orphan.
    disk.bytes()
}

#[test]
fn flipped_bits_never_panic() {
    let mut random = Random(5);
    for options in [&["-O", "^metadata_csum"][..], &[]] {
        let good = populated(options);
        use_all(&Disk::new(good.clone()));
        // Blocks that aren't zeros: that is where something can break.
        let blocks: Vec<usize> = (0..good.len() / BLOCK)
            .filter(|&at| good[at * BLOCK..][..BLOCK].iter().any(|&byte| byte != 0))
            .collect();
        for _ in 0..250 {
            let mut bad = good.clone();
            for _ in 0..1 + random.below(20) {
                let block = match random.below(4) {
                    0 => random.below(3),
                    _ => blocks[random.below(blocks.len())],
                };
                let at = block * BLOCK + random.below(BLOCK);
                bad[at] = match random.below(3) {
                    0 => random.next() as u8,
                    1 => bad[at] ^ 1 << random.below(8),
                    _ => [0, 0xff][random.below(2)],
                };
            }
            use_all(&Disk::new(bad));
        }
    }
}

#[test]
fn a_checksum_that_is_wrong_is_noticed() {
    let disk = Disk::made(16);
    let mut volume = disk.open();
    let ino = create(&mut volume, &disk, ROOT, "file", b"x");
    volume.close().unwrap();
    let start = disk.bytes();
    // The file's inode, by its distinctive owner.
    let needle = [232, 3, 1, 0];
    let at = (0..start.len() - 4)
        .step_by(2)
        .find(|&at| start[at..at + 2] == needle[..2] && start[at + 22..at + 24] == [0xe9, 3]);
    let mut bytes = start;
    bytes[at.unwrap()] ^= 1;
    let disk = Disk::new(bytes);
    let mut volume = disk.open();
    assert_eq!(volume.inode(ino).err(), Some(Error::Corrupt("checksum of an inode")));
    assert!(volume.set(ino, &Attributes::default()).is_err());
    // Found while changing something: no more changes, and e2fsck is told.
    assert!(volume.is_read_only());
    volume.close().unwrap();
    let state = u16::from_le_bytes([disk.bytes()[1024 + 0x3a], disk.bytes()[1024 + 0x3b]]);
    assert_eq!(state & 2, 2);
}

#[test]
fn what_is_not_a_volume_is_refused() {
    let open = |disk: &Disk| Volume::open(Box::new(disk.clone()), false, NOW).err();
    assert!(matches!(open(&Disk::zeros(8)), Some(Error::Unsupported(_))));
    let disk = Disk::made(16);
    let mut bytes = disk.bytes();
    bytes.truncate(8 << 20);
    assert!(matches!(open(&Disk::new(bytes)), Some(Error::Corrupt(_))));
}

//! The disk loses power at any moment: between flushes, any of the writes may be missing.

mod support;

use std::collections::BTreeMap;

use dock2uni_ext4::*;
use support::*;

/// What must be there once a commit has returned: names with their contents.
type Promise = BTreeMap<String, Vec<u8>>;

/// Makes, overwrites, renames and removes files, commits now and then, and remembers after how
/// many writes which state was promised.
fn work(disk: &Disk, random: &mut Random, steps: usize) -> Vec<(usize, Promise)> {
    let mut volume = disk.open();
    let mut now = Promise::new();
    let mut promised = vec![(0, Promise::new())];
    for step in 0..steps {
        let name = format!("file-{}", random.below(60));
        match random.below(8) {
            0..=3 => {
                let len = random.below(40_000);
                let bytes = random.bytes(len);
                let tmp = create(&mut volume, disk, ROOT, &format!("tmp-{step}"), &bytes);
                let target = volume.lookup(ROOT, name.as_bytes()).ok();
                volume
                    .rename(&volume::Move {
                        from: ROOT,
                        name: format!("tmp-{step}").as_bytes(),
                        ino: tmp,
                        to: ROOT,
                        new_name: name.as_bytes(),
                        target,
                        exchange: false,
                    })
                    .unwrap();
                if let Some(target) = target {
                    volume.release(target).unwrap();
                }
                now.insert(name, bytes);
            }
            4 => {
                if let Ok(ino) = volume.lookup(ROOT, name.as_bytes()) {
                    volume.unlink(ROOT, name.as_bytes()).unwrap();
                    // Sometimes still open at the crash.
                    if random.below(3) > 0 {
                        volume.release(ino).unwrap();
                    }
                    now.remove(&name);
                }
            }
            5 => {
                if let Ok(ino) = volume.lookup(ROOT, name.as_bytes()) {
                    let content = now.get_mut(&name).unwrap();
                    let len = random.below(content.len() / BLOCK + 1) * BLOCK;
                    volume.truncate(ino, len as u64).unwrap();
                    content.truncate(len);
                }
            }
            6 => {
                let dir = format!("dir-{}", random.below(5));
                match volume.lookup(ROOT, dir.as_bytes()) {
                    Ok(ino) => {
                        volume.unlink(ROOT, dir.as_bytes()).unwrap();
                        volume.release(ino).unwrap();
                    }
                    Err(_) => {
                        volume.create(ROOT, Some(dir.as_bytes()), &new_file(0o40_755)).unwrap();
                    }
                }
            }
            _ => {
                volume.commit().unwrap();
                if volume.journal_is_full() || random.below(10) == 0 {
                    volume.checkpoint().unwrap();
                }
                promised.push((disk.0.lock().unwrap().log.as_ref().unwrap().len(), now.clone()));
            }
        }
    }
    promised
}

/// What the disk holds if power fails after `cut` of its writes.
fn lose_power(start: &[u8], log: &[Step], cut: usize, random: &mut Random) -> Disk {
    let safe = log[..cut].iter().rposition(Option::is_none).map_or(0, |at| at + 1);
    let mut bytes = start.to_vec();
    for (index, write) in log[..cut].iter().enumerate() {
        let Some((at, data)) = write else { continue };
        if index < safe || random.below(2) == 0 {
            bytes[*at as usize..][..data.len()].copy_from_slice(data);
        }
    }
    Disk::new(bytes)
}

#[test]
fn no_cut_breaks_the_volume_or_a_promise() {
    let mut random = Random(11);
    // Small, so that blocks are used again and again.
    let disk = Disk::made(16);
    let start = disk.bytes();
    disk.0.lock().unwrap().log = Some(Vec::new());
    let promised = work(&disk, &mut random, 400);
    let log = disk.0.lock().unwrap().log.take().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    for round in 0..60 {
        let cut = random.below(log.len());
        let mut lost = lose_power(&start, &log, cut, &mut random);
        if round % 3 == 0 {
            // Linux's recovery (which makes `lost+found`), and nothing to mend but what the journal and the orphans say.
            lost.save(&path);
            let (code, text) = run("e2fsck", &["-fp", path.to_str().unwrap()]);
            assert!(code <= 1, "cut {cut}: {text}");
            lost = Disk::new(std::fs::read(&path).unwrap());
            lost.check();
        }
        let mut volume = lost.open();
        let (_, promise) = promised.iter().rev().find(|(at, _)| *at <= cut).unwrap();
        let next = promised.iter().find(|(at, _)| *at > cut);
        let mut found = Promise::new();
        for (name, ino) in names(&mut volume, ROOT).unwrap() {
            let name = String::from_utf8(name).unwrap();
            if !name.starts_with("dir-") && name != "lost+found" {
                let data = read(&mut volume, &lost, ino).unwrap_or_else(|error| {
                    lost.save(std::path::Path::new("/tmp/bad.img"));
                    panic!("cut {cut}, round {round}: {name} is inode {ino}: {error:?}");
                });
                found.insert(name, data);
            }
        }
        // The commit under way may have made it.
        assert!(
            found == *promise || next.is_some_and(|(_, next)| found == *next),
            "cut {cut} of {}: {:?} instead of {:?}",
            log.len(),
            found.iter().map(|(name, data)| (name, data.len())).collect::<Vec<_>>(),
            promise.iter().map(|(name, data)| (name, data.len())).collect::<Vec<_>>()
        );
        volume.close().unwrap();
        lost.check();
    }
}

#[test]
fn a_failing_disk_is_an_error_and_the_volume_read_only() {
    for fails_after in (0..400).step_by(7) {
        let disk = Disk::made(8);
        let mut volume = disk.open();
        disk.0.lock().unwrap().fails_after = Some(fails_after);
        let mut result = Ok(());
        for n in 0..40 {
            let name = format!("file-{n}");
            result = volume
                .create(ROOT, Some(name.as_bytes()), &new_file(0o100_644))
                .and_then(|_| volume.commit().map(drop));
            if result.is_err() {
                break;
            }
        }
        disk.0.lock().unwrap().fails_after = None;
        if result.is_err() {
            assert!(volume.is_read_only());
            assert!(volume.create(ROOT, Some(b"x"), &new_file(0o100_644)).is_err());
            assert!(volume.close().is_err());
        } else {
            volume.close().unwrap();
        }
        disk.open().close().unwrap();
        disk.check();
    }
}

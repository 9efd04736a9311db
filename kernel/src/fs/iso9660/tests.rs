use super::*;
use alloc::format;
use std::fs;
use std::process::Command;

/// A reader of bytes, as disks read.
fn reader(bytes: &[u8]) -> impl Fn(u64, &mut [u8]) -> Result<()> + '_ {
    move |at, out| {
        let at = usize::try_from(at).map_err(|_| Errno::EINVAL)?;
        let end = at.checked_add(out.len()).ok_or(Errno::EINVAL)?;
        out.copy_from_slice(bytes.get(at..end).ok_or(Errno::EINVAL)?);
        Ok(())
    }
}

/// All files of a disk with their paths.
fn tree(bytes: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let read = reader(bytes);
    let (_, root) = volume(&read).ok_or(Errno::EINVAL)?;
    let (mut all, mut left) = (Vec::new(), MAX_BYTES);
    let mut work = vec![(Vec::new(), root)];
    while let Some((path, extent)) = work.pop() {
        for entry in entries(&read, extent, &mut left)? {
            let path = [&path[..], b"/", &entry.name].concat();
            match entry.dir {
                true => work.push((path, entry.extent)),
                false => all.push((path, contents(&read, entry.extent, &mut left)?)),
            }
        }
    }
    all.sort();
    Ok(all)
}

/// What xorriso makes of some files; `None`, and a word about it, if it isn't there.
fn image(files: &[(&str, &[u8])]) -> Option<Vec<u8>> {
    let dir = std::env::temp_dir().join(format!("iso9660-{}", std::process::id()));
    let root = dir.join("root");
    for (name, bytes) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let iso = dir.join("out.iso");
    let made = Command::new("xorrisofs")
        .args(["-quiet", "-follow-links", "-volid", "secrets", "-joliet", "-rock"])
        .args(["-partition_cyl_align", "on", "-output"])
        .args([&iso, &root])
        .status();
    let bytes = made.is_ok().then(|| fs::read(iso).unwrap());
    fs::remove_dir_all(dir).unwrap();
    if bytes.is_none() {
        std::eprintln!("SKIPPED: no xorrisofs");
    }
    bytes
}

#[test]
fn files_are_found_by_their_whole_names_and_damage_is_no_disaster() {
    let (large, long) = (vec![7; 5000], "Long.Name_".repeat(25));
    let many: Vec<_> =
        (0..200).map(|n| format!("many/key-{n:03}-with-a-rather-long-name")).collect();
    let mut files: Vec<(&str, &[u8])> = vec![
        ("password", b"s3cret"),
        ("Mixed.Case-key", b""),
        ("tls/server.key", &large),
        (&long, b"long"),
    ];
    files.extend(many.iter().map(|name| (name.as_str(), name.as_bytes())));
    let Some(mut bytes) = image(&files) else { return };
    let mut expected: Vec<_> = files
        .iter()
        .map(|(name, bytes)| (format!("/{name}").into_bytes(), bytes.to_vec()))
        .collect();
    expected.sort();
    assert_eq!(tree(&bytes), Ok(expected));
    let (label, _) = volume(&reader(&bytes)).unwrap();
    assert_eq!(label.trim_ascii_end(), b"secrets");

    // Bytes of the tables wrong in their turn: an error, or other names, within bounds.
    for at in (16 * SECTOR..bytes.len().min(64 * SECTOR)).step_by(37) {
        let kept = bytes[at];
        bytes[at] ^= 0x55;
        let _ = tree(&bytes);
        bytes[at] = kept;
    }
    let _ = tree(&bytes[..20 * SECTOR]);
    assert_eq!(volume(&reader(&bytes[..16 * SECTOR])), None);
}

#[test]
fn what_is_in_itself_ends() {
    let mut bytes = vec![0; 20 * SECTOR];
    let at = 18 * SECTOR;
    // A directory record with the name `x`, for the directory that it is in.
    let mut record = [0; 42];
    (record[0], record[2], record[11], record[25], record[32]) = (42, 18, 8, 2, 1);
    record[33] = b'x';
    record[34..40].copy_from_slice(b"NM\x06\x01\x00x");
    bytes[at..at + 42].copy_from_slice(&record);
    bytes[16 * SECTOR..][..6].copy_from_slice(b"\x01CD001");
    bytes[16 * SECTOR + 128..][..2].copy_from_slice(&[0, 8]);
    bytes[16 * SECTOR + 156..][..34].copy_from_slice(&record[..34]);
    assert_eq!(tree(&bytes), Err(Errno::EFBIG));
}

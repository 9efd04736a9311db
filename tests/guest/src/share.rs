//! What holds for files in a directory that others may change at any time: one of the host.
//!
//! Run with such a directory at /tmp; elsewhere it is an ordinary one.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

use crate::harness::*;

cases![files_names_and_attributes, mappings_and_reads_agree, a_thousand_names_are_listed];

fn files_names_and_attributes() {
    let base = match fs::read("/tmp/sub/from-host") {
        Ok(bytes) => {
            assert_eq!(bytes, vec![b'h'; 200_000]);
            "/tmp".to_owned()
        }
        Err(_) => scratch(),
    };
    let at = |name: &str| format!("{base}/{name}");
    let path = &at("from-guest");
    let mut file = File::create(path).unwrap();
    file.write_all(&vec![b'x'; 300_000]).unwrap();
    file.sync_all().unwrap();
    assert_eq!(file.metadata().unwrap().len(), 300_000);
    file.set_len(10).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.write_all(&vec![b'g'; 300_000]).unwrap();
    drop(file);
    let mut file = OpenOptions::new().append(true).read(true).open(path).unwrap();
    file.write_all(b"tail").unwrap();
    let mut tail = [0; 6];
    file.read_exact_at(&mut tail, 299_998).unwrap();
    assert_eq!(&tail, b"ggtail");
    file.set_len(300_000).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
    let meta = fs::metadata(path).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.nlink(), meta.len()), (0o640, 1, 300_000));
    fs::hard_link(path, at("removed")).unwrap();
    assert_eq!(fs::metadata(path).unwrap().nlink(), 2);
    fs::rename(at("removed"), at("sub-removed")).unwrap();
    fs::remove_file(at("sub-removed")).unwrap();
    std::os::unix::fs::symlink("from-guest", at("link")).unwrap();
    assert_eq!(fs::metadata(at("link")).unwrap().len(), 300_000);
    fs::create_dir(at("dir")).unwrap();
    fs::write(at("dir/x"), "x").unwrap();
    assert_eq!(fs::remove_dir(at("dir")).unwrap_err().raw_os_error(), Some(libc::ENOTEMPTY));
    fs::remove_dir_all(at("dir")).unwrap();
    assert!(File::open(at("dir/x")).is_err());
    unsafe {
        fails!(libc::mkdir(c(&at("link")).as_ptr(), 0o755), EEXIST);
        fails!(libc::open(c(&at("absent")).as_ptr(), libc::O_RDONLY), ENOENT);
    }
}

fn mappings_and_reads_agree() {
    let path = format!("{}/mapped", scratch());
    let mut file =
        OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
    file.write_all(&[b'a'; 10_000]).unwrap();
    unsafe {
        use std::os::fd::AsRawFd;
        let map = libc::mmap(
            std::ptr::null_mut(),
            10_000,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        );
        assert_ne!(map, libc::MAP_FAILED);
        let bytes = std::slice::from_raw_parts_mut(map.cast::<u8>(), 10_000);
        assert!(bytes.iter().all(|&byte| byte == b'a'));
        bytes[5000] = b'm';
        let mut one = [0];
        file.read_exact_at(&mut one, 5000).unwrap();
        assert_eq!(&one, b"m");
        file.write_all_at(b"w", 6000).unwrap();
        assert_eq!(std::ptr::read_volatile(&bytes[6000]), b'w');
        bytes[9999] = b'z';
        ok(libc::msync(map, 10_000, libc::MS_SYNC));
        ok(libc::munmap(map, 10_000));
    }
    drop(file);
    let mut all = Vec::new();
    File::open(&path).unwrap().read_to_end(&mut all).unwrap();
    assert_eq!((all.len(), all[5000], all[6000], all[9999]), (10_000, b'm', b'w', b'z'));
}

fn a_thousand_names_are_listed() {
    let dir = format!("{}/names", scratch());
    fs::create_dir(&dir).unwrap();
    for n in 0..1000 {
        File::create(format!("{dir}/a rather long name for a file {n}")).unwrap();
    }
    let mut names: Vec<_> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 1000);
    fs::remove_dir_all(&dir).unwrap();
}

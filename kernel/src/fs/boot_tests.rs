use super::boot;
use super::memfs::{MemFs, Options};
use super::walk::Resolver;
use super::{FileType, ops};
use crate::io::IoDst;
use dock2uni_format::record::Record;
use linux_raw_sys::general::*;
use std::string::String;
use std::vec::Vec;

fn read(r: &Resolver<'_>, name: &str) -> String {
    let file = ops::open(r, name.as_bytes(), O_RDONLY, 0, 0)
        .unwrap_or_else(|error| panic!("{name}: {error:?}"));
    let mut all = Vec::new();
    let mut buf = std::vec![0; 1000];
    loop {
        let n = file
            .ops
            .read_at(&file, all.len() as u64, &mut IoDst::kernel(&mut buf))
            .unwrap_or_else(|error| panic!("{name}: {error:?}"));
        if n == 0 {
            return String::from_utf8_lossy(&all).into_owned();
        }
        all.extend_from_slice(&buf[..n]);
    }
}

/// Reads every file below a directory. Returns how many.
fn read_all(r: &Resolver<'_>, dir: &str) -> usize {
    let file = ops::open(r, dir.as_bytes(), O_RDONLY | O_DIRECTORY, 0, 0).unwrap();
    let mut names = Vec::new();
    file.ops
        .read_dir(&file, 0, &mut |ino, _, kind, name| {
            assert!(ino != 0);
            names.push((String::from_utf8(name.to_vec()).unwrap(), kind));
            true
        })
        .unwrap();
    let mut count = 0;
    for (name, kind) in names {
        let path = std::format!("{dir}/{name}");
        if name == "." || name == ".." {
            continue;
        }
        let found = r.lookup(path.as_bytes(), false).unwrap();
        assert_eq!(found.dentry.kind().unwrap() as u8, kind, "{path}");
        match found.dentry.kind().unwrap() {
            FileType::Directory => count += read_all(r, &path),
            FileType::Regular => {
                read(r, &path);
                count += 1;
            }
            _ => {}
        }
    }
    count
}

#[test]
fn a_container_finds_its_surroundings() {
    let record = Record {
        hostname: "box".into(),
        cwd: b"/srv/app".to_vec(),
        volumes: std::vec![b"/var/lib/data".to_vec()],
        net: dock2uni_format::record::Net {
            dns: std::vec!["10.0.0.1".into()],
            hosts: std::vec![("db".into(), "10.0.0.5".into())],
            ..Default::default()
        },
        ..Record::default()
    };
    let root = MemFs::tmpfs(&Options { mode: 0o755, ..Options::default() });
    boot::mount_over(root, &record).unwrap();
    let context = boot::first_context(&record).unwrap();
    let r = Resolver::kernel().unwrap();
    assert_eq!(super::walk::name_of(&context.cwd(), &context.root()), b"/srv/app");
    assert!(r.lookup(b"/var/lib/data", true).unwrap().dentry.is_dir());
    assert_eq!(read(&r, "/etc/hostname"), "box\n");
    assert!(read(&r, "/etc/hosts").contains("10.0.0.5\tdb\n"));
    assert_eq!(read(&r, "/etc/resolv.conf"), "nameserver 10.0.0.1\n");
    for dir in ["/dev/shm", "/dev/pts", "/proc/sys/kernel", "/sys/fs/cgroup"] {
        assert!(r.lookup(dir.as_bytes(), true).unwrap().dentry.is_dir(), "{dir}");
    }
    assert_eq!(read(&r, "/sys/devices/system/cpu/online"), "0\n");
    assert_eq!(read(&r, "/proc/sys/net/core/somaxconn"), "4096\n");
    assert_eq!(read(&r, "/sys/fs/cgroup/memory.max"), "max\n");
    assert!(read_all(&r, "/sys") > 50);
    let open = |name: &str, flags| ops::open(&r, name.as_bytes(), flags, 0, 0).map(drop);
    assert_eq!(open("/dev/tty", O_RDWR), Err(crate::Errno::ENXIO));
    assert_eq!(
        open("/sys/kernel/mm/transparent_hugepage/enabled", O_WRONLY),
        Err(crate::Errno::EROFS)
    );
    assert_eq!(open("/proc/version_signature", O_RDONLY), Err(crate::Errno::ENOENT));
    for name in
        ["/proc/meminfo", "/proc/cpuinfo", "/proc/stat", "/proc/uptime", "/proc/filesystems"]
    {
        assert!(!read(&r, name).is_empty(), "{name}");
    }
    read_all(&r, "/proc/sys");
    let zero = ops::open(&r, b"/dev/zero", O_RDWR, 0, 0).unwrap();
    let mut bytes = [7; 16];
    zero.ops.read_at(&zero, 0, &mut IoDst::kernel(&mut bytes)).unwrap();
    assert_eq!(bytes, [0; 16]);
    let full = ops::open(&r, b"/dev/full", O_RDWR, 0, 0).unwrap();
    let mut src = crate::io::IoSrc::kernel(b"x");
    assert_eq!(full.ops.write_at(&full, 0, &mut src), Err(crate::Errno::ENOSPC));
    // Files are written and read back through the page cache.
    ops::write_file(b"/tmpfile", 0o600, &[5; 10_000]).unwrap();
    assert_eq!(read(&r, "/tmpfile").len(), 10_000);
}

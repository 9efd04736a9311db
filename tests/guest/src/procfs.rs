//! /proc, /sys and /dev as programs read them.

use crate::harness::*;
use crate::harness::{self, pipe};
use libc::*;
use std::fs::{read, read_dir, read_link, read_to_string};

cases![
    self_describes_this_process,
    maps_show_mappings,
    descriptors_are_links,
    other_processes_are_listed,
    system_files_parse,
    cpus_are_counted_alike,
    sysctls_can_be_read,
    devices_exist,
    stat_line_survives_odd_names,
    what_was_moved_is_counted,
    who_logged_in_is_said_once,
    scores_follow_their_bias,
    the_dead_are_shown_until_they_are_waited_for,
    those_who_must_not_be_dumped_are_not_looked_into,
    namespaces_are_files,
    mapped_files_are_links,
    sockets_are_listed_with_their_files,
    sockets_are_told_by_netlink,
];

fn self_describes_this_process() {
    let pid = unsafe { getpid() };
    assert_eq!(read_link("/proc/self").unwrap().to_str().unwrap(), pid.to_string());
    let status = read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(&format!("{name}:")));
        line.unwrap_or_else(|| panic!("no {name}")).split_once(':').unwrap().1.trim().to_owned()
    };
    assert_eq!((field("Pid"), field("PPid")), (pid.to_string(), unsafe { getppid() }.to_string()));
    assert_eq!(field("Uid").split_whitespace().count(), 4);
    assert!(field("State").starts_with('R'));
    for name in [
        "VmSize",
        "VmRSS",
        "VmPeak",
        "Threads",
        "SigBlk",
        "SigIgn",
        "SigCgt",
        "CapEff",
        "Cpus_allowed_list",
    ] {
        field(name);
    }
    let cmdline = read("/proc/self/cmdline").unwrap();
    assert_eq!(cmdline.last(), Some(&0));
    assert!(
        cmdline.split(|&byte| byte == 0).next()
            == std::env::args().next().as_deref().map(str::as_bytes)
    );
    assert!(read_link("/proc/self/exe").unwrap().is_absolute());
    assert_eq!(read_link("/proc/self/cwd").unwrap(), std::env::current_dir().unwrap());
    assert_eq!(read_link("/proc/self/root").unwrap().to_str().unwrap(), "/");
    let environment = read("/proc/self/environ").unwrap();
    assert!(environment.is_empty() || environment.last() == Some(&0));
    let statm: Vec<u64> = read_to_string("/proc/self/statm")
        .unwrap()
        .split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect();
    assert!(statm.len() == 7 && statm[0] >= statm[1] && statm[1] > 0);
    assert!(read_to_string("/proc/self/limits").unwrap().contains("Max open files"));
    assert!(
        read_to_string("/proc/self/mounts")
            .unwrap()
            .lines()
            .any(|line| line.split(' ').nth(1) == Some("/proc"))
    );
    assert!(read_to_string("/proc/self/mountinfo").unwrap().contains(" / / "));
    assert!(read_to_string("/proc/self/cgroup").unwrap().contains(":/"));
}

fn maps_show_mappings() {
    unsafe {
        let at = mmap(std::ptr::null_mut(), 3 * 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
            as usize;
        ok(mprotect((at + 4096) as *mut c_void, 4096, PROT_READ | PROT_WRITE));
        let maps = read_to_string("/proc/self/maps").unwrap();
        let wanted = format!("{:x}-{:x} rw-p 00000000 00:00 0", at + 4096, at + 8192);
        assert!(
            maps.lines().any(|line| line.trim_end().starts_with(&wanted)),
            "{wanted} in\n{maps}"
        );
        assert!(maps.lines().any(|line| line.ends_with("[stack]")));
        let exe = read_link("/proc/self/exe").unwrap();
        assert!(
            maps.lines().any(|line| line.contains("r-xp") && line.ends_with(exe.to_str().unwrap()))
        );
        let smaps = read_to_string("/proc/self/smaps").unwrap();
        assert!(smaps.contains("Rss:") && smaps.contains("Private_Dirty:"));
    }
}

fn descriptors_are_links() {
    let (r, w) = pipe();
    let target = read_link(format!("/proc/self/fd/{r}")).unwrap();
    assert!(target.to_str().unwrap().starts_with("pipe:["));
    assert_eq!(target, read_link(format!("/proc/self/fd/{w}")).unwrap());
    let names: Vec<i32> = read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    assert!(names.contains(&r) && names.contains(&w));
    let info = read_to_string(format!("/proc/self/fdinfo/{w}")).unwrap();
    assert!(info.contains("pos:\t0") && info.contains("flags:\t01"), "{info}");
}

fn other_processes_are_listed() {
    let pid = child(|| {
        pause_ms(10_000);
        0
    });
    let listed = read_dir("/proc")
        .unwrap()
        .any(|entry| entry.unwrap().file_name().to_str() == Some(&pid.to_string()));
    assert!(listed);
    let stat = read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split_whitespace().collect();
    assert!(fields.len() >= 50, "{} fields", fields.len() + 2);
    assert_eq!(fields[1], unsafe { getpid() }.to_string());
    unsafe { kill(pid, SIGKILL) };
    let stat = || read_to_string(format!("/proc/{pid}/stat")).unwrap();
    for _ in 0..500 {
        if stat().contains(") Z ") {
            break;
        }
        pause_ms(20);
    }
    assert!(stat().contains(") Z "), "{}", stat());
    wait_for(pid);
    assert!(read_to_string(format!("/proc/{pid}/stat")).is_err());
}

fn system_files_parse() {
    let meminfo = read_to_string("/proc/meminfo").unwrap();
    let kib = |name: &str| -> u64 {
        let line = meminfo.lines().find(|line| line.starts_with(&format!("{name}:")));
        line.unwrap_or_else(|| panic!("no {name}"))
            .split_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap()
    };
    assert!(kib("MemTotal") > kib("MemFree"));
    for name in
        ["MemAvailable", "Buffers", "Cached", "SwapTotal", "SwapFree", "Shmem", "Committed_AS"]
    {
        kib(name);
    }
    let stat = read_to_string("/proc/stat").unwrap();
    assert!(stat.starts_with("cpu ") && stat.contains("\ncpu0 ") && stat.contains("\nbtime "));
    assert_eq!(read_to_string("/proc/loadavg").unwrap().split_whitespace().count(), 5);
    assert!(read_to_string("/proc/version").unwrap().starts_with("Linux version "));
    assert!(read_to_string("/proc/filesystems").unwrap().contains("tmpfs"));
    assert!(read_to_string("/proc/cpuinfo").unwrap().contains("processor\t: 0"));
    for file in
        ["/proc/net/tcp", "/proc/net/udp", "/proc/net/unix", "/proc/net/dev", "/proc/net/route"]
    {
        assert!(!read_to_string(file).unwrap().is_empty(), "{file}");
    }
}

fn cpus_are_counted_alike() {
    let online = read_to_string("/sys/devices/system/cpu/online").unwrap();
    let last: usize = online.trim().rsplit(['-', ',']).next().unwrap().parse().unwrap();
    let by_sysconf = unsafe { sysconf(_SC_NPROCESSORS_ONLN) };
    assert_eq!(last as i64 + 1, by_sysconf);
    let in_stat = read_to_string("/proc/stat")
        .unwrap()
        .lines()
        .filter(|line| line.starts_with("cpu"))
        .count();
    assert_eq!(in_stat as i64 - 1, by_sysconf);
}

fn sysctls_can_be_read() {
    for (file, minimum) in [
        ("/proc/sys/kernel/ngroups_max", 65536),
        ("/proc/sys/kernel/cap_last_cap", 30),
        ("/proc/sys/kernel/pid_max", 1000),
        ("/proc/sys/vm/overcommit_memory", 0),
        ("/proc/sys/vm/max_map_count", 65530),
        ("/proc/sys/net/core/somaxconn", 128),
        ("/proc/sys/fs/file-max", 1000),
        ("/proc/sys/fs/nr_open", 1000),
    ] {
        let text = read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"));
        let value: u64 = text.trim().parse().unwrap();
        assert!(value >= minimum, "{file}: {value}");
    }
    assert_eq!(read_to_string("/proc/sys/kernel/ostype").unwrap(), "Linux\n");
    let id = read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(id.trim().len(), 36);
}

fn devices_exist() {
    use std::os::unix::fs::FileTypeExt;
    for name in ["null", "zero", "full", "random", "urandom", "tty"] {
        let meta = std::fs::metadata(format!("/dev/{name}"))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(meta.file_type().is_char_device(), "{name}");
    }
    for (name, target) in
        [("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1")]
    {
        assert_eq!(read_link(format!("/dev/{name}")).unwrap().to_str().unwrap(), target);
    }
    assert!(std::fs::metadata("/dev/shm").unwrap().is_dir());
    std::fs::write("/dev/shm/guest-tests", b"x").unwrap();
    std::fs::remove_file("/dev/shm/guest-tests").unwrap();
    std::fs::write("/dev/null", b"x").unwrap();
}

fn stat_line_survives_odd_names() {
    unsafe { prctl(PR_SET_NAME, c"a) R (b".as_ptr()) };
    let stat = read_to_string("/proc/self/stat").unwrap();
    let (head, tail) = stat.rsplit_once(") ").unwrap();
    assert!(head.ends_with("(a) R (b"));
    assert!(tail.starts_with("R "));
}

fn what_was_moved_is_counted() {
    let counts = || {
        let text = read_to_string("/proc/self/io").unwrap();
        let value = |line: &str| line.split_once(": ").unwrap().1.parse::<u64>().unwrap();
        text.lines().take(4).map(value).collect::<Vec<_>>()
    };
    let (r, w) = pipe();
    let before = counts();
    unsafe {
        for _ in 0..3 {
            libc::write(w, [7u8; 1000].as_ptr().cast(), 1000);
        }
        assert_eq!(libc::read(r, [0u8; 2500].as_mut_ptr().cast(), 2500), 2500);
        // Their own place in a file, and several pieces at once, count as well.
        let file = ok(memfd_create(c"counted".as_ptr(), 0));
        assert_eq!(pwrite(file, [7u8; 4000].as_ptr().cast(), 4000, 100), 4000);
        let piece = iovec { iov_base: [0u8; 100].as_mut_ptr().cast(), iov_len: 100 };
        assert_eq!(preadv(file, [piece, piece].as_ptr(), 2, 0), 200);
    }
    let after = counts();
    let more = |at: usize| after[at] - before[at];
    // Reading the counts counts, too.
    assert!(more(0) >= 2700 && more(1) >= 7000, "{before:?} {after:?}");
    assert!(more(2) >= 2 && more(3) >= 4, "{before:?} {after:?}");
}

fn who_logged_in_is_said_once() {
    const NOBODY: &str = "4294967295";
    let login = || read_to_string("/proc/self/loginuid");
    let session = || read_to_string("/proc/self/sessionid").unwrap();
    // Linux can be built without, and whoever started the tests may have logged in.
    if !matches!(login().as_deref(), Ok(NOBODY)) {
        return;
    }
    let say = |uid: &str| std::fs::write("/proc/self/loginuid", uid);
    child_passes(|| unsafe {
        assert_eq!(session(), NOBODY);
        assert_eq!(say("somebody").unwrap_err().raw_os_error(), Some(EINVAL));
        ok(setresuid(1234, 1234, 1234));
        ok(prctl(PR_SET_DUMPABLE, 1));
        say("1000").unwrap();
        assert_eq!(login().unwrap(), "1000");
        let number = session();
        assert_ne!(number, NOBODY);
        assert_eq!(say("1001").unwrap_err().raw_os_error(), Some(EPERM));
        child_passes(|| {
            assert_eq!((login().unwrap(), session()), ("1000".into(), number.clone()));
        });
    });
    assert_eq!(login().unwrap(), NOBODY);
}

fn scores_follow_their_bias() {
    let score = || {
        let text = read_to_string("/proc/self/oom_score").unwrap();
        text.trim().parse::<u32>().unwrap()
    };
    let bias = |value: &str| std::fs::write("/proc/self/oom_score_adj", value);
    child_passes(|| {
        let before = score();
        bias("500").unwrap();
        assert!(score() > before && score() >= 1000, "{before} {}", score());
        // Containers may be without CAP_SYS_RESOURCE, which it takes to be spared.
        if bias("-1000").is_ok() {
            assert_eq!(score(), 0);
        }
    });
    child_passes(|| {
        unsafe { ok(setresuid(1234, 1234, 1234)) };
        unsafe { ok(prctl(PR_SET_DUMPABLE, 1)) };
        bias("500").unwrap();
        // Back to what it was, but not below that.
        bias("0").unwrap();
        assert_eq!(bias("-1").unwrap_err().raw_os_error(), Some(EACCES));
    });
}

fn the_dead_are_shown_until_they_are_waited_for() {
    unsafe {
        let pid = child(|| {
            prctl(PR_SET_NAME, c"a (dead) one".as_ptr());
            ok(setpriority(PRIO_PROCESS, 0, 7));
            ok(setresgid(11, 12, 13));
            ok(setresuid(21, 22, 23));
            0
        });
        let mut info: siginfo_t = std::mem::zeroed();
        ok(waitid(P_PID, pid as u32, &mut info, WEXITED | WNOWAIT));
        let at = |name: &str| format!("/proc/{pid}/{name}");
        for dir in ["", &format!("task/{pid}/")] {
            let text = |name: &str| read_to_string(at(&format!("{dir}{name}"))).unwrap();
            assert_eq!(text("comm"), "a (dead) one\n");
            let stat = text("stat");
            assert!(stat.starts_with(&format!("{pid} (a (dead) one) Z {} ", getpid())), "{stat}");
            let rest: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
            assert_eq!((rest[15], rest[16], rest[17]), ("27", "7", "1"), "{stat}");
            assert_eq!(text("cmdline"), "");
            assert_eq!(text("maps"), "");
            let status = text("status");
            for line in [
                "Name:\ta (dead) one",
                "State:\tZ (zombie)",
                &format!("Pid:\t{pid}"),
                "Uid:\t21\t22\t23\t22",
                "Gid:\t11\t12\t13\t12",
                "FDSize:\t0",
                "Threads:\t1",
            ] {
                assert!(status.lines().any(|other| other == line), "{line}: {status}");
            }
            assert!(!status.contains("VmSize") && !status.contains("Umask"), "{status}");
        }
        let meta = std::fs::metadata(at("")).unwrap();
        use std::os::unix::fs::MetadataExt;
        assert_eq!((meta.uid(), meta.gid()), (22, 12));
        let threads: Vec<_> =
            read_dir(at("task")).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(threads, [std::ffi::OsString::from(pid.to_string())]);
        assert_eq!(read_link(at("exe")).unwrap_err().raw_os_error(), Some(ENOENT));
        assert_eq!(getpriority(PRIO_PROCESS, pid as u32), 7);
        wait_for(pid);
        assert!(!std::path::Path::new(&at("")).exists());
    }
}

fn those_who_must_not_be_dumped_are_not_looked_into() {
    use std::os::unix::fs::MetadataExt;
    child_passes(|| unsafe {
        ok(setresgid(11, 11, 11));
        ok(setresuid(21, 21, 21));
        // Whoever changes identity isn't dumped, and what is not for all belongs to root.
        let owner = |path: &str| std::fs::metadata(path).unwrap().uid();
        let all = ["/proc/self/", "/proc/self/task", "/proc/self/stat", "/proc/self/fd"];
        assert_eq!(all.map(owner), [21, 21, 0, 0]);
        // One's own descriptors can be used all the same.
        let (reader, writer) = pipe();
        std::fs::write(format!("/proc/self/fd/{writer}"), "x").unwrap();
        assert_eq!(harness::read(reader, 1), b"x");
        assert!(read_dir("/proc/self/fd").unwrap().count() >= 5);
        assert_eq!(std::fs::read("/proc/self/environ").unwrap_err().raw_os_error(), Some(EACCES));
        let parent = getpid();
        let secret = |name: &str| {
            std::fs::read(format!("/proc/{parent}/{name}")).map_err(|error| error.raw_os_error())
        };
        let look = |allowed: bool| {
            child_passes(|| {
                assert_eq!(secret("environ").is_ok(), allowed);
                assert_eq!(read_dir(format!("/proc/{parent}/fd")).is_ok(), allowed);
                assert_eq!(read_link(format!("/proc/{parent}/exe")).is_ok(), allowed);
                assert!(secret("stat").is_ok());
            });
        };
        look(false);
        ok(prctl(PR_SET_DUMPABLE, 1));
        assert_eq!(all.map(owner), [21; 4]);
        look(true);
        ok(prctl(PR_SET_DUMPABLE, 0));
        look(false);
    });
}

fn namespaces_are_files() {
    use std::os::unix::fs::MetadataExt;
    const NS_GET_USERNS: c_ulong = 0xb701;
    const NS_GET_PARENT: c_ulong = 0xb702;
    const NS_GET_NSTYPE: c_ulong = 0xb703;
    const NEWTIME: c_int = 0x80;
    let kinds = [
        ("cgroup", CLONE_NEWCGROUP),
        ("ipc", CLONE_NEWIPC),
        ("mnt", CLONE_NEWNS),
        ("net", CLONE_NEWNET),
        ("pid", CLONE_NEWPID),
        ("time", NEWTIME),
        ("user", CLONE_NEWUSER),
        ("uts", CLONE_NEWUTS),
    ];
    let open = |path: &str| ok(unsafe { open(c(path).as_ptr(), O_RDONLY | O_CLOEXEC) });
    let dev = std::fs::metadata("/proc/self/ns/uts").unwrap().dev();
    for (name, flag) in kinds {
        let path = format!("/proc/self/ns/{name}");
        let meta = std::fs::metadata(&path).unwrap();
        assert!(meta.is_file() && meta.dev() == dev, "{name}");
        let text = read_link(&path).unwrap();
        assert_eq!(text.to_str().unwrap(), format!("{name}:[{}]", meta.ino()));
        let fd = open(&path);
        unsafe {
            let mut stat: stat = std::mem::zeroed();
            ok(fstat(fd, &mut stat));
            assert_eq!(stat.st_ino, meta.ino());
            assert_eq!(ok(ioctl(fd, NS_GET_NSTYPE)), flag);
            let other = if flag == CLONE_NEWUTS { CLONE_NEWIPC } else { CLONE_NEWUTS };
            fails!(setns(fd, other), EINVAL);
            if flag == CLONE_NEWUSER {
                fails!(setns(fd, flag), EINVAL);
            } else {
                let users = ok(ioctl(fd, NS_GET_USERNS));
                ok(fstat(users, &mut stat));
                assert_eq!(stat.st_ino, std::fs::metadata("/proc/self/ns/user").unwrap().ino());
                // Where it is already.
                child_passes(|| {
                    ok(setns(fd, 0));
                    ok(setns(fd, flag));
                });
                if flag != CLONE_NEWPID {
                    fails!(ioctl(fd, NS_GET_PARENT), EINVAL);
                }
            }
            close(fd);
        }
    }
    unsafe { fails!(setns(open("/dev/null"), 0), EINVAL) };
    // Mounts of another namespace are those that one sees who joins it.
    let dir = scratch();
    let (reader, writer) = pipe();
    let (waits, ends) = pipe();
    let other = child(|| unsafe {
        close(ends);
        ok(unshare(CLONE_NEWNS));
        ok(mount(
            c"none".as_ptr(),
            c"/".as_ptr(),
            std::ptr::null(),
            MS_REC | MS_PRIVATE,
            std::ptr::null(),
        ));
        let kind = c"tmpfs".as_ptr();
        ok(mount(kind, c(&dir).as_ptr(), kind, 0, std::ptr::null()));
        std::fs::write(format!("{dir}/there"), "").unwrap();
        harness::write(writer, b"x");
        harness::read(waits, 1);
        0
    });
    assert_eq!(harness::read(reader, 1), b"x");
    let theirs = format!("/proc/{other}/ns/mnt");
    assert_ne!(read_link(&theirs).unwrap(), read_link("/proc/self/ns/mnt").unwrap());
    let pidfd = ok(unsafe { syscall(SYS_pidfd_open, other, 0) }) as c_int;
    for (fd, flag) in [(open(&theirs), 0), (pidfd, CLONE_NEWNS | CLONE_NEWUTS)] {
        child_passes(|| {
            assert!(!std::path::Path::new(&format!("{dir}/there")).exists());
            ok(unsafe { setns(fd, flag) });
            assert!(std::path::Path::new(&format!("{dir}/there")).exists());
            assert_eq!(std::env::current_dir().unwrap().to_str(), Some("/"));
            assert_eq!(read_link(&theirs).unwrap(), read_link("/proc/self/ns/mnt").unwrap());
        });
    }
    unsafe { fails!(setns(pidfd, 0), EINVAL) };
    unsafe { close(ends) };
    wait_for(other);
}

fn mapped_files_are_links() {
    use std::os::unix::fs::MetadataExt;
    let path = format!("{}/mapped", scratch());
    std::fs::write(&path, [1; 8192]).unwrap();
    let fd = ok(unsafe { open(c(&path).as_ptr(), O_RDONLY) });
    let at = unsafe { mmap(std::ptr::null_mut(), 8192, PROT_READ, MAP_PRIVATE, fd, 0) };
    assert_ne!(at, MAP_FAILED);
    let name = format!("{:x}-{:x}", at as usize, at as usize + 8192);
    let link = format!("/proc/self/map_files/{name}");
    let listed = || {
        let names = read_dir("/proc/self/map_files").unwrap();
        names.map(|entry| entry.unwrap().file_name()).any(|found| found.to_str() == Some(&name))
    };
    assert!(listed());
    assert_eq!(read_link(&link).unwrap().to_str(), Some(&*path));
    let ino = |path: &str| std::fs::metadata(path).unwrap().ino();
    assert_eq!(ino(&link), ino(&path));
    assert_eq!(read(&link).unwrap().len(), 8192);
    // Not for everybody, even of what is one's own.
    child_passes(|| unsafe {
        ok(setresuid(21, 21, 21));
        ok(prctl(PR_SET_DUMPABLE, 1));
        assert_eq!(read_link(&link).unwrap().to_str(), Some(&*path));
        assert_eq!(read(&link).unwrap_err().raw_os_error(), Some(EPERM));
    });
    ok(unsafe { munmap(at, 8192) });
    assert!(!listed() && std::fs::metadata(&link).is_err());
}

fn inode_of(fd: i32) -> u64 {
    let mut stat: stat = unsafe { std::mem::zeroed() };
    ok(unsafe { fstat(fd, &mut stat) });
    stat.st_ino
}

/// User and inode of the socket between two ports (0: none) in a file of /proc/net.
fn listed(file: &str, local: u16, remote: u16) -> (u32, u64) {
    let text = read_to_string(format!("/proc/net/{file}")).unwrap();
    let ends = |line: &&str| {
        let mut words = line.split_whitespace().skip(1);
        let mut port = || {
            let (_, port) = words.next()?.split_once(':')?;
            u16::from_str_radix(port, 16).ok()
        };
        (port(), port()) == (Some(local), Some(remote))
    };
    let line = text.lines().find(ends).unwrap_or_else(|| panic!("{local} {remote}: {text}"));
    let words: Vec<&str> = line.split_whitespace().collect();
    (words[7].parse().unwrap(), words[9].parse().unwrap())
}

fn sockets_are_listed_with_their_files() {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsRawFd;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    assert_eq!(listed("tcp", port, 0), (0, inode_of(listener.as_raw_fd())));
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let own = client.local_addr().unwrap().port();
    assert_eq!(listed("tcp", own, port), (0, inode_of(client.as_raw_fd())));
    // Nobody has it yet.
    assert_eq!(listed("tcp", port, own).1, 0);
    let (server, _) = listener.accept().unwrap();
    assert_eq!(listed("tcp", port, own), (0, inode_of(server.as_raw_fd())));
    let six = TcpListener::bind("[::1]:0").unwrap();
    let number = six.local_addr().unwrap().port();
    assert_eq!(listed("tcp6", number, 0).1, inode_of(six.as_raw_fd()));
    // Whose it is says who made it.
    child_passes(|| unsafe {
        ok(setresuid(21, 21, 21));
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let number = udp.local_addr().unwrap().port();
        assert_eq!(listed("udp", number, 0), (21, inode_of(udp.as_raw_fd())));
    });
    let raw = ok(unsafe { socket(AF_INET, SOCK_RAW, 199) });
    assert_eq!(listed("raw", 199, 0).1, inode_of(raw));
    let packet = ok(unsafe { socket(AF_PACKET, SOCK_RAW, 0) });
    let text = read_to_string("/proc/net/packet").unwrap();
    let ino = inode_of(packet).to_string();
    assert!(text.lines().any(|line| line.split_whitespace().last() == Some(&ino)), "{text}");
    // Unix sockets have numbers, and perhaps names.
    let path = format!("{}/socket", scratch());
    let named = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
    let text = read_to_string("/proc/net/unix").unwrap();
    let line = |fd: i32| {
        let ino = inode_of(fd).to_string();
        let found = text.lines().find(|line| line.split_whitespace().nth(6) == Some(&ino));
        found.unwrap_or_else(|| panic!("{ino}: {text}")).split_whitespace().collect::<Vec<_>>()
    };
    assert_eq!(line(named.as_raw_fd())[3..6], ["00010000", "0001", "01"]);
    assert_eq!(line(named.as_raw_fd())[7..], [&*path]);
    for socket in [&one, &other] {
        assert_eq!(line(socket.as_raw_fd())[3..6], ["00000000", "0001", "03"]);
        assert_eq!(line(socket.as_raw_fd()).len(), 7);
    }
}

/// Dumps sockets by `NETLINK_SOCK_DIAG`: the bodies of the answers.
fn diagnosed(request: &[u8]) -> Vec<Vec<u8>> {
    unsafe {
        let fd = ok(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
        let mut message = Vec::new();
        message.extend((16 + request.len() as u32).to_ne_bytes());
        // SOCK_DIAG_BY_FAMILY, a request for all.
        message.extend(20u16.to_ne_bytes());
        message.extend(0x301u16.to_ne_bytes());
        message.extend([7u8, 0, 0, 0, 0, 0, 0, 0]);
        message.extend(request);
        ok(send(fd, message.as_ptr().cast(), message.len(), 0));
        let mut bodies = Vec::new();
        loop {
            let bytes = harness::read(fd, 64 << 10);
            let mut rest = &bytes[..];
            while rest.len() >= 16 {
                let len = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
                let kind = u16::from_ne_bytes([rest[4], rest[5]]);
                assert_eq!(rest[8], 7, "its number");
                match kind {
                    20 => bodies.push(rest[16..len].to_vec()),
                    // NLMSG_DONE
                    3 => {
                        close(fd);
                        return bodies;
                    }
                    kind => panic!("{kind}: {:?}", &rest[16..len]),
                }
                rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

/// The value of an attribute behind a message's `fixed` bytes.
fn attribute(body: &[u8], fixed: usize, wanted: u16) -> Option<&[u8]> {
    let mut rest = &body[fixed..];
    while rest.len() >= 4 {
        let half = |at: usize| u16::from_ne_bytes([rest[at], rest[at + 1]]);
        let len = usize::from(half(0));
        if half(2) == wanted {
            return Some(&rest[4..len]);
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

fn sockets_are_told_by_netlink() {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let own = client.local_addr().unwrap().port();
    let (_server, _) = listener.accept().unwrap();
    let word = |body: &[u8], at: usize| u32::from_ne_bytes(body[at..at + 4].try_into().unwrap());
    // TCP of IPv4 from one port, in states of a mask, with TCP_INFO.
    let ask = |port: u16, states: u32| {
        let mut request = [0u8; 56];
        (request[0], request[1], request[2]) = (AF_INET as u8, IPPROTO_TCP as u8, 2);
        request[4..8].copy_from_slice(&states.to_ne_bytes());
        request[8..10].copy_from_slice(&port.to_be_bytes());
        diagnosed(&request)
    };
    let found = ask(port, 1 << 10);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0][0], found[0][1]), (AF_INET as u8, 10));
    assert_eq!(found[0][4..6], port.to_be_bytes());
    assert_eq!(found[0][8..12], [127, 0, 0, 1]);
    assert_eq!(u64::from(word(&found[0], 68)), inode_of(listener.as_raw_fd()));
    let found = ask(own, 1 << 1);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0][6..8], port.to_be_bytes());
    assert_eq!(u64::from(word(&found[0], 68)), inode_of(client.as_raw_fd()));
    assert_eq!(attribute(&found[0], 72, 2).unwrap()[0], 1, "TCP_INFO has its state");
    assert!(ask(own, 1 << 10).is_empty());
    // Listeners of IPv6 say whether they take IPv4.
    let six = TcpListener::bind("[::]:0").unwrap();
    let mut request = [0u8; 64];
    (request[0], request[1]) = (AF_INET6 as u8, IPPROTO_TCP as u8);
    request[4..8].copy_from_slice(&(1u32 << 10).to_ne_bytes());
    request[8..10].copy_from_slice(&six.local_addr().unwrap().port().to_be_bytes());
    let found = diagnosed(&request[..56]);
    assert_eq!(attribute(&found[0], 72, 11), Some(&[0][..]));
    // A protocol with a long number (INET_DIAG_REQ_PROTOCOL: MPTCP) is another one.
    request[56..58].copy_from_slice(&8u16.to_ne_bytes());
    request[58..60].copy_from_slice(&3u16.to_ne_bytes());
    request[60..].copy_from_slice(&262u32.to_ne_bytes());
    assert!(diagnosed(&request).is_empty());
    // Unix sockets, with names and peers.
    let path = format!("{}/socket", scratch());
    let named = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut request = [0u8; 24];
    request[0] = AF_UNIX as u8;
    request[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
    request[12] = 1 | 4;
    let found = diagnosed(&request);
    let of = |fd: i32| found.iter().find(|body| u64::from(word(body, 4)) == inode_of(fd)).unwrap();
    let listener = of(named.as_raw_fd());
    assert_eq!((listener[1], listener[2]), (SOCK_STREAM as u8, 10));
    let name = attribute(listener, 16, 0).unwrap();
    assert_eq!(name.strip_suffix(&[0]).unwrap_or(name), path.as_bytes());
    for (this, that) in [(&one, &other), (&other, &one)] {
        let body = of(this.as_raw_fd());
        assert_eq!(body[2], 1);
        let peer = attribute(body, 16, 2).unwrap();
        assert_eq!(u64::from(word(peer, 0)), inode_of(that.as_raw_fd()));
    }
}

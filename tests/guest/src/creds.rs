//! Users, groups, capabilities, resource limits, system names.

use crate::harness::*;
use libc::*;
use std::mem::zeroed;
use std::ptr::null;

cases![
    dropping_root_is_final,
    saved_ids_allow_switching,
    groups_are_kept,
    capabilities_follow_the_user,
    no_new_privs_sticks,
    limits_bind,
    host_name_can_be_set_by_root,
    user_processes_cannot_signal_others,
    prctl_names_the_thread,
    getrandom_gives_bytes,
    unknown_calls_are_enosys,
];

fn dropping_root_is_final() {
    child_passes(|| unsafe {
        ok(setgroups(0, null()));
        ok(setgid(1000));
        ok(setuid(1000));
        assert_eq!((getuid(), geteuid(), getgid(), getegid()), (1000, 1000, 1000, 1000));
        fails!(setuid(0), EPERM);
        fails!(setgid(0), EPERM);
        fails!(setgroups(0, null()), EPERM);
    });
}

fn saved_ids_allow_switching() {
    child_passes(|| unsafe {
        ok(setresuid(1000, 1001, 1002));
        let (mut r, mut e, mut s) = (0, 0, 0);
        ok(getresuid(&mut r, &mut e, &mut s));
        assert_eq!((r, e, s), (1000, 1001, 1002));
        ok(seteuid(1002));
        ok(seteuid(1000));
        fails!(seteuid(5), EPERM);
        fails!(setreuid(5, u32::MAX), EPERM);
    });
    child_passes(|| unsafe {
        ok(seteuid(1000));
        assert_eq!(getuid(), 0);
        ok(seteuid(0));
    });
}

fn groups_are_kept() {
    child_passes(|| unsafe {
        let wanted = [3u32, 9, 4];
        ok(setgroups(3, wanted.as_ptr()));
        let mut got = [0u32; 8];
        assert_eq!(getgroups(0, got.as_mut_ptr()), 3);
        fails!(getgroups(2, got.as_mut_ptr()), EINVAL);
        assert_eq!(getgroups(8, got.as_mut_ptr()), 3);
        let mut got = got[..3].to_vec();
        got.sort();
        assert_eq!(got, [3, 4, 9]);
    });
}

fn effective_caps() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("CapEff:")).unwrap();
    u64::from_str_radix(line[7..].trim(), 16).unwrap()
}

fn capabilities_follow_the_user() {
    child_passes(|| unsafe {
        assert_ne!(effective_caps(), 0);
        ok(seteuid(1000));
        assert_eq!(effective_caps(), 0);
        ok(seteuid(0));
        assert_ne!(effective_caps(), 0);
        ok(prctl(PR_SET_KEEPCAPS, 1));
        ok(setuid(1000));
        assert_eq!(effective_caps(), 0);
        // Kept in the permitted set, so it can be raised again.
        let header = [0x2008_0522u32, 0];
        let mut data = [0u32; 6];
        ok(syscall(SYS_capget, &header, &mut data));
        assert_ne!(data[1], 0);
        data[0] = data[1];
        data[3] = data[4];
        ok(syscall(SYS_capset, &header, &data));
        assert_ne!(effective_caps(), 0);
    });
}

fn no_new_privs_sticks() {
    child_passes(|| unsafe {
        assert_eq!(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0);
        ok(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        fails!(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0), EINVAL);
        assert_eq!(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
    });
}

fn limits_bind() {
    child_passes(|| unsafe {
        let mut limit: rlimit = zeroed();
        ok(getrlimit(RLIMIT_STACK, &mut limit));
        assert!(limit.rlim_cur >= 1 << 20);
        fails!(getrlimit(99, &mut limit), EINVAL);
        let bad = rlimit { rlim_cur: 10, rlim_max: 5 };
        fails!(setrlimit(RLIMIT_NOFILE, &bad), EINVAL);
        let low = rlimit { rlim_cur: 50, rlim_max: 100 };
        ok(setrlimit(RLIMIT_NOFILE, &low));
        ok(setuid(1000));
        fails!(setrlimit(RLIMIT_NOFILE, &rlimit { rlim_cur: 50, rlim_max: 200 }), EPERM);
        ok(setrlimit(RLIMIT_NOFILE, &rlimit { rlim_cur: 100, rlim_max: 100 }));
    });
}

fn host_name_can_be_set_by_root() {
    child_passes(|| unsafe {
        let mut name: utsname = zeroed();
        ok(uname(&mut name));
        let text = |field: &[c_char]| {
            std::ffi::CStr::from_ptr(field.as_ptr()).to_str().unwrap().to_owned()
        };
        assert_eq!(
            (text(&name.sysname).as_str(), text(&name.machine).as_str()),
            ("Linux", "x86_64")
        );
        let before = text(&name.nodename);
        ok(sethostname(c"renamed".as_ptr(), 7));
        ok(uname(&mut name));
        assert_eq!(text(&name.nodename), "renamed");
        assert_eq!(std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), "renamed\n");
        ok(sethostname(before.as_ptr().cast(), before.len()));
        fails!(sethostname(c"x".as_ptr(), 100), EINVAL);
        ok(setuid(1000));
        fails!(sethostname(c"x".as_ptr(), 1), EPERM);
    });
}

fn user_processes_cannot_signal_others() {
    let parent = unsafe { getpid() };
    child_passes(|| unsafe {
        ok(setuid(1000));
        fails!(kill(parent, SIGTERM), EPERM);
        fails!(kill(parent, 0), EPERM);
        ok(kill(getpid(), 0));
    });
}

fn prctl_names_the_thread() {
    unsafe {
        ok(prctl(PR_SET_NAME, c"a-name-that-is-too-long".as_ptr()));
        let mut name = [0u8; 16];
        ok(prctl(PR_GET_NAME, name.as_mut_ptr()));
        assert_eq!(&name, b"a-name-that-is-\0");
        assert_eq!(std::fs::read_to_string("/proc/self/comm").unwrap(), "a-name-that-is-\n");
        fails!(prctl(123_456, 0, 0, 0, 0), EINVAL);
        assert_eq!(prctl(PR_GET_DUMPABLE), 1);
        fails!(prctl(PR_CAPBSET_READ, 99, 0, 0, 0), EINVAL);
    }
}

fn getrandom_gives_bytes() {
    unsafe {
        let (mut a, mut b) = ([0u8; 300], [0u8; 300]);
        assert_eq!(getrandom(a.as_mut_ptr().cast(), 300, 0), 300);
        assert_eq!(getrandom(b.as_mut_ptr().cast(), 300, GRND_NONBLOCK), 300);
        assert_ne!(a, b);
        fails!(getrandom(a.as_mut_ptr().cast(), 1, 0x100), EINVAL);
    }
}

fn unknown_calls_are_enosys() {
    unsafe {
        fails!(syscall(5000), ENOSYS);
        fails!(syscall(-1), ENOSYS);
        fails!(syscall(174), ENOSYS);
    }
}

//! Keys and keyrings (keyrings(7)).

use crate::harness::{c, child_passes, ok};
use libc::*;
use std::ptr::null;

cases![
    keys_are_added_found_and_read,
    keyrings_hold_keys_and_each_other,
    keys_end,
    permissions_of_keys_bind,
    tasks_have_keyrings,
    users_have_so_many_keys,
    big_keys_do_not_take_all_memory,
    what_makes_no_sense_is_refused,
];

const THREAD: i64 = -1;
const PROCESS: i64 = -2;
const SESSION: i64 = -3;
const USER: i64 = -4;

const GET_KEYRING_ID: i64 = 0;
const JOIN_SESSION: i64 = 1;
const UPDATE: i64 = 2;
const REVOKE: i64 = 3;
const SETPERM: i64 = 5;
const DESCRIBE: i64 = 6;
const CLEAR: i64 = 7;
const LINK: i64 = 8;
const UNLINK: i64 = 9;
const SEARCH: i64 = 10;
const READ: i64 = 11;
const SET_REQKEY: i64 = 14;
const SET_TIMEOUT: i64 = 15;
const INVALIDATE: i64 = 21;

unsafe fn add(kind: &str, name: &str, payload: &[u8], ring: i64) -> i64 {
    let (kind, name) = (c(kind), c(name));
    let at = if payload.is_empty() { null() } else { payload.as_ptr() };
    unsafe { syscall(SYS_add_key, kind.as_ptr(), name.as_ptr(), at, payload.len(), ring) }
}

unsafe fn request(kind: &str, name: &str, ring: i64) -> i64 {
    let (kind, name) = (c(kind), c(name));
    unsafe { syscall(SYS_request_key, kind.as_ptr(), name.as_ptr(), null::<u8>(), ring) }
}

unsafe fn keyctl(command: i64, a: i64, b: i64, c: i64, d: i64) -> i64 {
    unsafe { syscall(SYS_keyctl, command, a, b, c, d) }
}

unsafe fn read_key(key: i64) -> Vec<u8> {
    let mut buf = vec![0u8; 4096];
    let len = ok(unsafe { keyctl(READ, key, buf.as_mut_ptr() as i64, 4096, 0) });
    buf.truncate(len as usize);
    buf
}

unsafe fn describe(key: i64) -> String {
    let mut buf = vec![0u8; 4096];
    let len = ok(unsafe { keyctl(DESCRIBE, key, buf.as_mut_ptr() as i64, 4096, 0) });
    assert_eq!(buf[len as usize - 1], 0);
    String::from_utf8(buf[..len as usize - 1].to_vec()).unwrap()
}

fn keys_are_added_found_and_read() {
    unsafe {
        let key = ok(add("user", "a name", b"payload", PROCESS));
        assert_eq!(read_key(key), b"payload");
        assert_eq!(describe(key), "user;0;0;3f010000;a name");
        // Without room for all of it, the length is told alone.
        let mut small = [7u8; 4];
        assert_eq!(keyctl(READ, key, small.as_mut_ptr() as i64, 4, 0), 7);
        assert_eq!(keyctl(READ, key, 0, 0, 0), 7);
        // The same name again is the same key.
        assert_eq!(add("user", "a name", b"other", PROCESS), key);
        assert_eq!(read_key(key), b"other");
        ok(keyctl(UPDATE, key, b"third".as_ptr() as i64, 5, 0));
        assert_eq!(read_key(key), b"third");
        assert_eq!(request("user", "a name", 0), key);
        fails!(request("user", "another", 0), ENOKEY);
        let secret = ok(add("logon", "service:name", b"secret", PROCESS));
        fails!(keyctl(READ, secret, 0, 0, 0), EOPNOTSUPP);
        assert_eq!(describe(secret), "logon;0;0;3d010000;service:name");
    }
}

fn keyrings_hold_keys_and_each_other() {
    unsafe {
        let ring = ok(add("keyring", "ring", b"", PROCESS));
        let inner = ok(add("keyring", "inner", b"", ring));
        let key = ok(add("user", "deep", b"x", inner));
        let (kind, name) = (c("user"), c("deep"));
        let (kind, name) = (kind.as_ptr() as i64, name.as_ptr() as i64);
        assert_eq!(keyctl(SEARCH, ring, kind, name, 0), key);
        assert_eq!(read_key(inner), (key as i32).to_ne_bytes());
        fails!(keyctl(LINK, ring, inner, 0, 0), EDEADLK);
        fails!(keyctl(LINK, ring, ring, 0, 0), EDEADLK);
        fails!(keyctl(LINK, ring, key, 0, 0), ENOTDIR);
        ok(keyctl(LINK, key, ring, 0, 0));
        ok(keyctl(UNLINK, key, inner, 0, 0));
        fails!(keyctl(UNLINK, key, inner, 0, 0), ENOENT);
        ok(keyctl(CLEAR, ring, 0, 0, 0));
        assert_eq!(read_key(ring), b"");
        fails!(keyctl(SEARCH, ring, kind, name, 0), ENOKEY);
        fails!(keyctl(UPDATE, ring, name, 1, 0), EOPNOTSUPP);
    }
}

fn keys_end() {
    unsafe {
        // Where all is looked for: the one keyring that has them.
        ok(keyctl(JOIN_SESSION, 0, 0, 0, 0));
        let [revoked, timed, gone] =
            ["revoked", "timed", "gone"].map(|name| ok(add("user", name, b"x", SESSION)));
        ok(keyctl(REVOKE, revoked, 0, 0, 0));
        fails!(keyctl(READ, revoked, 0, 0, 0), EKEYREVOKED);
        fails!(request("user", "revoked", 0), EKEYREVOKED);
        ok(keyctl(SET_TIMEOUT, timed, 1, 0, 0));
        crate::harness::pause_ms(1200);
        fails!(keyctl(READ, timed, 0, 0, 0), EKEYEXPIRED);
        fails!(request("user", "timed", 0), ENOKEY);
        ok(keyctl(INVALIDATE, gone, 0, 0, 0));
        // It is as if it weren't there, in Linux once somebody has come to collect it.
        let start = std::time::Instant::now();
        while request("user", "gone", 0) != -1 || *__errno_location() != ENOKEY {
            assert!(start.elapsed().as_secs() < 180);
            crate::harness::pause_ms(5);
        }
        // A new one takes the place.
        let again = ok(add("user", "revoked", b"y", SESSION));
        assert_ne!(again, revoked);
    }
}

fn permissions_of_keys_bind() {
    unsafe {
        let key = ok(add("user", "guarded", b"x", PROCESS));
        // The possessor may view, search and change it; what can be searched can be read.
        ok(keyctl(SETPERM, key, 0x2900_0000, 0, 0));
        assert_eq!(read_key(key), b"x");
        fails!(keyctl(UPDATE, key, b"y".as_ptr() as i64, 1, 0), EACCES);
        fails!(keyctl(LINK, key, SESSION, 0, 0), EACCES);
        fails!(add("user", "guarded", b"z", PROCESS), EACCES);
        fails!(keyctl(SETPERM, key, 0x4000_0000, 0, 0), EINVAL);
        ok(keyctl(SETPERM, key, 0x3f00_0000, 0, 0));
        assert_eq!(read_key(key), b"x");
        // What can't be searched isn't possessed.
        ok(keyctl(SETPERM, key, 0x3700_0000, 0, 0));
        fails!(keyctl(READ, key, 0, 0, 0), EACCES);
        // Another process doesn't possess it, and isn't granted anything.
        child_passes(|| {
            fails!(keyctl(READ, key, 0, 0, 0), EACCES);
            fails!(keyctl(DESCRIBE, key, 0, 0, 0), EACCES);
        });
    }
}

fn tasks_have_keyrings() {
    unsafe {
        fails!(keyctl(GET_KEYRING_ID, THREAD, 0, 0, 0), ENOKEY);
        let thread = ok(keyctl(GET_KEYRING_ID, THREAD, 1, 0, 0));
        let process = ok(keyctl(GET_KEYRING_ID, PROCESS, 1, 0, 0));
        let session = ok(keyctl(JOIN_SESSION, 0, 0, 0, 0));
        assert_eq!(describe(thread), "keyring;0;0;3f010000;_tid");
        assert_eq!(describe(process), "keyring;0;0;3f010000;_pid");
        assert_eq!(describe(session), "keyring;0;0;3f030000;_ses");
        assert_eq!(keyctl(GET_KEYRING_ID, SESSION, 0, 0, 0), session);
        let user = ok(keyctl(GET_KEYRING_ID, USER, 0, 0, 0));
        assert_eq!(describe(user).rsplit(';').next(), Some("_uid.0"));
        ok(add("user", "of the session", b"x", SESSION));
        child_passes(|| {
            // The session goes on, the others are a process's own.
            assert_eq!(keyctl(GET_KEYRING_ID, SESSION, 0, 0, 0), session);
            fails!(keyctl(GET_KEYRING_ID, PROCESS, 0, 0, 0), ENOKEY);
            fails!(keyctl(GET_KEYRING_ID, THREAD, 0, 0, 0), ENOKEY);
            ok(request("user", "of the session", 0));
            assert_ne!(ok(keyctl(JOIN_SESSION, 0, 0, 0, 0)), session);
            fails!(request("user", "of the session", 0), ENOKEY);
        });
        std::thread::spawn(move || {
            assert_eq!(keyctl(GET_KEYRING_ID, PROCESS, 0, 0, 0), process);
            assert_ne!(ok(keyctl(GET_KEYRING_ID, THREAD, 0, 0, 0)), thread);
        })
        .join()
        .unwrap();
        assert_eq!(keyctl(SET_REQKEY, 1, 0, 0, 0), 0);
        assert_eq!(keyctl(SET_REQKEY, -1, 0, 0, 0), 1);
        let keys = std::fs::read_to_string("/proc/keys").unwrap();
        let line = keys.lines().find(|line| line.starts_with(&format!("{session:08x}"))).unwrap();
        assert!(line.ends_with("keyring   _ses: 1"), "{line}");
    }
}

fn users_have_so_many_keys() {
    child_passes(|| unsafe {
        ok(setuid(5432));
        ok(keyctl(JOIN_SESSION, 0, 0, 0, 0));
        let used = || {
            let users = std::fs::read_to_string("/proc/key-users").unwrap();
            let line = users.lines().find(|line| line.trim_start().starts_with("5432:")).unwrap();
            let bytes = line.split_whitespace().last().unwrap();
            let (used, most) = bytes.split_once('/').unwrap();
            (used.parse::<usize>().unwrap(), most.parse::<usize>().unwrap())
        };
        let (before, most) = used();
        ok(add("user", "0123", &[0; 100], SESSION));
        // Its name with an end, the payload, the link.
        assert_eq!(used().0, before + 5 + 100 + 4);
        let left = most - used().0 - 9;
        fails!(add("user", "4567", &vec![0; left + 1], SESSION), EDQUOT);
        ok(add("user", "4567", &vec![0; left], SESSION));
        assert_eq!(used().0, most);
        ok(keyctl(CLEAR, SESSION, 0, 0, 0));
        for _ in 0..1000 {
            if used().0 == before {
                return;
            }
            // Linux collects them at its leisure.
            crate::harness::pause_ms(10);
        }
        panic!("{:?} are not {before}", used());
    });
}

fn what_makes_no_sense_is_refused() {
    unsafe {
        fails!(add("user", "empty", b"", PROCESS), EINVAL);
        fails!(add("user", "", b"x", PROCESS), EINVAL);
        fails!(add("keyring", "ring", b"x", PROCESS), EINVAL);
        fails!(add("keyring", ".ring", b"", PROCESS), EPERM);
        fails!(add("logon", "no service", b"x", PROCESS), EINVAL);
        fails!(add(".type", "x", b"x", PROCESS), EPERM);
        fails!(add("no such type", "x", b"x", PROCESS), ENODEV);
        fails!(add(&"t".repeat(40), "x", b"x", PROCESS), EINVAL);
        fails!(add("user", "x", b"x", 0), EINVAL);
        fails!(add("user", "x", &[0; 32768], PROCESS), EINVAL);
        let kind = c("user");
        let nowhere = null::<u8>();
        fails!(syscall(SYS_add_key, kind.as_ptr(), kind.as_ptr(), nowhere, 64, PROCESS), EFAULT);
        fails!(keyctl(READ, 0, 0, 0, 0), ENOKEY);
        fails!(keyctl(DESCRIBE, 0, 0, 0, 0), EINVAL);
        fails!(keyctl(READ, 1, 0, 0, 0), ENOKEY);
        fails!(keyctl(GET_KEYRING_ID, -6, 0, 0, 0), EINVAL);
        fails!(keyctl(99, 0, 0, 0, 0), EOPNOTSUPP);
    }
}

fn big_keys_do_not_take_all_memory() {
    child_passes(|| unsafe {
        let big = vec![1u8; 1 << 20];
        let fill = || {
            (0..40)
                .take_while(|number| add("big_key", &number.to_string(), &big, PROCESS) > 0)
                .count()
        };
        // Linux may be built without them, and has room for all.
        let first = fill();
        if first == 0 {
            return;
        }
        if first < 40 {
            fails!(add("big_key", "one more", &big, PROCESS), EDQUOT);
        }
        ok(keyctl(CLEAR, PROCESS, 0, 0, 0));
        assert_eq!(fill(), first);
        // A smaller payload makes room.
        if first < 40 {
            let key = ok(request("big_key", "0", 0));
            ok(keyctl(UPDATE, key, big.as_ptr() as i64, 10, 0));
            assert_eq!(fill(), first);
        }
    });
}

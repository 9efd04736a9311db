//! Ends: of files, of what is sent, of what is waited for.

use crate::harness::{c, child, child_passes, ok, pipe, scratch, until_asleep, wait_for};
use libc::*;

cases![
    ends_that_no_file_can_have_are_refused,
    what_is_made_when_read_has_no_end,
    a_directory_is_not_sent,
    who_wrote_a_part_hears_of_the_end,
    no_directory_is_replaced_by_its_dot,
    memory_that_nobody_writes_by_a_mapping_is_sealed,
    what_has_ended_is_not_waited_for_to_stop,
    a_tracee_is_waited_for_as_any_kind_of_child,
    what_stays_where_it_is_may_be_renamed,
    nobody_has_a_disk_priority_at_first,
    a_changed_program_has_no_capabilities,
];

fn ends_that_no_file_can_have_are_refused() {
    unsafe {
        let fd = ok(memfd_create(c"end".as_ptr(), 0));
        let mut byte = [0u8; 3];
        let at = byte.as_mut_ptr().cast::<c_void>();
        for offset in [i64::MAX, i64::MAX - 2] {
            fails!(pread(fd, at, 3, offset), EINVAL);
            fails!(pwrite(fd, at, 3, offset), EINVAL);
        }
        assert_eq!(pread(fd, at, 3, i64::MAX - 3), 0);
        let mut offset = i64::MAX - 1;
        fails!(sendfile(fd, fd, &mut offset, 3), EINVAL);
    }
}

fn what_is_made_when_read_has_no_end() {
    unsafe {
        let fd = ok(open(c"/proc/meminfo".as_ptr(), O_RDONLY));
        fails!(lseek(fd, 0, SEEK_END), EINVAL);
        assert_eq!(lseek(fd, 1000, SEEK_CUR), 1000);
        close(fd);
        let fd = ok(open(c"/sys/devices".as_ptr(), O_RDONLY));
        ok(lseek(fd, 0, SEEK_END));
        close(fd);
    }
}

fn a_directory_is_not_sent() {
    unsafe {
        let (dir, fd) = (ok(open(c"/".as_ptr(), O_RDONLY)), ok(memfd_create(c"out".as_ptr(), 0)));
        fails!(sendfile(fd, dir, std::ptr::null_mut(), 1), EINVAL);
        fails!(sendfile(fd, fd, std::ptr::null_mut(), usize::MAX), EINVAL);
        close(dir);
        close(fd);
    }
}

fn memory_that_nobody_writes_by_a_mapping_is_sealed() {
    unsafe {
        let new = |len| {
            let fd = ok(memfd_create(c"sealed".as_ptr(), MFD_ALLOW_SEALING));
            ok(ftruncate(fd, len));
            fd
        };
        let fd = new(4096);
        let map = |prot, flags| {
            let at = mmap(std::ptr::null_mut(), 4096, prot, flags, fd, 0);
            assert_ne!(at, MAP_FAILED);
            at
        };
        for prot in [PROT_READ, PROT_WRITE] {
            let at = map(prot, MAP_SHARED);
            fails!(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EBUSY);
            // Nor when it is somebody else's.
            child_passes(|| {
                munmap(at, 4096);
                fails!(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EBUSY);
            });
            ok(munmap(at, 4096));
        }
        map(PROT_READ | PROT_WRITE, MAP_PRIVATE);
        ok(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
        // What must not grow takes nothing into the page that has its end.
        let fd = new(4096 + 3072);
        ok(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW));
        let data = [1u8; 8192];
        fails!(pwrite(fd, data.as_ptr().cast(), 2048, 4096 + 2048), EPERM);
        assert_eq!(pwrite(fd, data.as_ptr().cast(), 8192, 0), 4096);
        assert_eq!(pwrite(fd, data.as_ptr().cast(), 1024, 4096 + 2048), 1024);
    }
}

fn what_has_ended_is_not_waited_for_to_stop() {
    unsafe {
        let pid = child(|| 0);
        let mut info: siginfo_t = std::mem::zeroed();
        ok(waitid(P_PID, pid as u32, &mut info, WEXITED | WNOWAIT));
        fails!(waitid(P_PID, pid as u32, &mut info, WSTOPPED), ECHILD);
        fails!(waitid(P_PID, pid as u32, &mut info, WSTOPPED | WNOHANG), ECHILD);
        assert_eq!(wait_for(pid), 0);
    }
}

fn nobody_has_a_disk_priority_at_first() {
    child_passes(|| unsafe {
        let get = || syscall(SYS_ioprio_get, 1, 0);
        assert_eq!(get(), 0);
        ok(syscall(SYS_ioprio_set, 1, 0, 3 << 13));
        assert_eq!(get(), 3 << 13);
    });
}

fn a_changed_program_has_no_capabilities() {
    let path = c(&format!("{}/program", scratch()));
    unsafe {
        let fd = ok(open(path.as_ptr(), O_CREAT | O_RDWR, 0o666));
        let name = c"security.capability".as_ptr();
        // VFS_CAP_REVISION_2, and CAP_NET_BIND_SERVICE permitted.
        let caps = [0x0200_0001u32, 1 << 10, 0, 0, 0];
        if fsetxattr(fd, name, caps.as_ptr().cast(), 20, 0) != 0 {
            return;
        }
        let has = || fgetxattr(fd, name, std::ptr::null_mut(), 0);
        assert_eq!(has(), 20);
        assert_eq!(libc::write(fd, caps.as_ptr().cast(), 1), 1);
        fails!(has(), ENODATA);
        close(fd);
    }
}

fn who_wrote_a_part_hears_of_the_end() {
    unsafe {
        let (input, output) = pipe();
        let size = ok(fcntl(output, F_GETPIPE_SZ)) as usize;
        let pid = child(|| {
            close(input);
            let mut set: sigset_t = std::mem::zeroed();
            sigaddset(&mut set, SIGPIPE);
            sigprocmask(SIG_BLOCK, &set, std::ptr::null_mut());
            let data = vec![1u8; 2 * size];
            let written = libc::write(output, data.as_ptr().cast(), data.len());
            let now = timespec { tv_sec: 0, tv_nsec: 0 };
            let told = sigtimedwait(&set, std::ptr::null_mut(), &now);
            i32::from(written != size as isize || told != SIGPIPE)
        });
        until_asleep(pid);
        close(input);
        assert_eq!(wait_for(pid), 0);
        close(output);
    }
}

fn no_directory_is_replaced_by_its_dot() {
    let [one, two] = ["one", "two"].map(|name| format!("{}/{name}", scratch()));
    unsafe {
        ok(mkdir(c(&one).as_ptr(), 0o755));
        ok(mkdir(c(&two).as_ptr(), 0o755));
        let to = c(&format!("{two}/."));
        let rename = |flags| renameat2(AT_FDCWD, c(&one).as_ptr(), AT_FDCWD, to.as_ptr(), flags);
        fails!(rename(0), EBUSY);
        fails!(rename(RENAME_NOREPLACE), EEXIST);
    }
}

fn a_tracee_is_waited_for_as_any_kind_of_child() {
    unsafe {
        let pid = child(|| {
            ok(ptrace(PTRACE_TRACEME, 0, 0, 0));
            7
        });
        let (mut status, mut info) = (0, std::mem::zeroed());
        ok(waitid(P_PID, pid as u32, &mut info, WEXITED | WNOWAIT));
        assert_eq!(wait4(pid, &mut status, __WCLONE, std::ptr::null_mut()), pid);
        assert_eq!(WEXITSTATUS(status), 7);
        let pid = child(|| 0);
        fails!(wait4(pid, &mut status, __WCLONE, std::ptr::null_mut()), ECHILD);
        assert_eq!(wait_for(pid), 0);
    }
}

fn what_stays_where_it_is_may_be_renamed() {
    let path = c(&format!("{}/file", scratch()));
    unsafe {
        close(ok(open(path.as_ptr(), O_CREAT | O_WRONLY, 0o600)));
        ok(chmod(c(&scratch()).as_ptr(), 0o755));
        child_passes(|| {
            if setuid(65534) == 0 {
                ok(rename(path.as_ptr(), path.as_ptr()));
                fails!(unlink(path.as_ptr()), EACCES);
            }
        });
    }
}

//! Pseudoterminals, the line discipline and job control (pty(7), termios(3), tty_ioctl(4)).

use crate::harness::{c, child, child_passes, ok, pause_ms, read, wait_for, write};
use std::mem::zeroed;

cases! {
    a_pair_has_a_number_a_node_and_a_lock,
    input_is_edited_echoed_and_read_by_lines,
    output_is_processed_and_reaches_the_master,
    raw_mode_passes_everything_on,
    vmin_and_vtime_bound_a_read,
    interrupt_characters_signal_the_foreground_group,
    the_window_size_is_shared_and_changes_are_told,
    closing_the_slave_ends_the_masters_input,
    closing_the_master_hangs_the_session_up,
    packet_mode_tells_of_flushes_and_stops,
    full_buffers_block_writers_and_report_it,
    sessions_acquire_and_lose_their_terminal,
    background_groups_are_stopped_when_they_touch_the_terminal,
    orphaned_groups_get_errors_instead,
    the_peer_can_be_opened_without_a_name,
    terminals_have_their_own_numbers_and_places,
    hung_up_terminals_read_as_ended,
}

/// A pair: master, slave. The slave is nobody's controlling terminal.
fn pair() -> (i32, i32) {
    unsafe {
        let master = ok(libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY));
        ok(libc::grantpt(master));
        ok(libc::unlockpt(master));
        let slave = ok(libc::open(name(master).as_ptr(), libc::O_RDWR | libc::O_NOCTTY));
        (master, slave)
    }
}

fn name(master: i32) -> std::ffi::CString {
    let mut number = 0;
    ok(unsafe { libc::ioctl(master, libc::TIOCGPTN, &mut number) });
    c(&format!("/dev/pts/{number}"))
}

fn change(fd: i32, change: impl FnOnce(&mut libc::termios)) {
    unsafe {
        let mut termios = zeroed();
        ok(libc::tcgetattr(fd, &mut termios));
        change(&mut termios);
        ok(libc::tcsetattr(fd, libc::TCSANOW, &termios));
    }
}

fn raw(fd: i32) {
    change(fd, |termios| unsafe { libc::cfmakeraw(termios) });
}

fn waiting(fd: i32, events: i16, ms: i32) -> i16 {
    let mut poll = libc::pollfd { fd, events, revents: 0 };
    ok(unsafe { libc::poll(&mut poll, 1, ms) });
    poll.revents
}

fn nonblocking(fd: i32) {
    ok(unsafe { libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK) });
}

/// Makes the caller lead a session with the slave as its terminal.
fn take_terminal(slave: i32) {
    unsafe {
        ok(libc::setsid());
        ok(libc::ioctl(slave, libc::TIOCSCTTY, 0));
    }
}

fn a_pair_has_a_number_a_node_and_a_lock() {
    unsafe {
        let master = ok(libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY));
        let node = name(master);
        fails!(libc::open(node.as_ptr(), libc::O_RDWR | libc::O_NOCTTY), EIO);
        let mut locked = 0;
        ok(libc::ioctl(master, 0x8004_5439, &mut locked)); // TIOCGPTLCK
        assert_eq!(locked, 1);
        ok(libc::unlockpt(master));
        let slave = ok(libc::open(node.as_ptr(), libc::O_RDWR | libc::O_NOCTTY));
        let mut stat: libc::stat = zeroed();
        ok(libc::fstat(slave, &mut stat));
        assert_eq!(stat.st_mode & libc::S_IFMT, libc::S_IFCHR);
        assert_eq!(libc::major(stat.st_rdev), 136);
        assert_eq!(stat.st_uid, libc::geteuid());
        assert!(libc::isatty(slave) == 1 && libc::isatty(master) == 1);
        let mut shown = [0 as libc::c_char; 64];
        assert_eq!(libc::ttyname_r(slave, shown.as_mut_ptr(), 64), 0);
        assert_eq!(std::ffi::CStr::from_ptr(shown.as_ptr()), node.as_c_str());
        let (other, _) = pair();
        assert_ne!(name(other), node);
        // The node goes with the master.
        ok(libc::close(master));
        fails!(libc::open(node.as_ptr(), libc::O_RDWR | libc::O_NOCTTY), ENOENT);
        let mut fs: libc::statfs = zeroed();
        ok(libc::statfs(c"/dev/pts".as_ptr(), &mut fs));
        assert_eq!(fs.f_type, 0x1cd1);
    }
}

fn input_is_edited_echoed_and_read_by_lines() {
    let (master, slave) = pair();
    write(master, b"ab\x7fc");
    assert_eq!(waiting(slave, libc::POLLIN, 0), 0);
    write(master, b"\rmore\n\x04");
    assert_eq!(read(slave, 100), b"ac\n");
    assert_eq!(read(slave, 2), b"mo");
    assert_eq!(read(slave, 100), b"re\n");
    assert_eq!(read(slave, 100), b"");
    // Linux may hand the echo over in pieces.
    let echo = b"ab\x08 \x08c\r\nmore\r\n";
    let mut seen = Vec::new();
    while seen.len() < echo.len() {
        seen.extend(read(master, 100));
    }
    assert_eq!(seen, echo);
    // Without echo nothing comes back.
    change(slave, |termios| termios.c_lflag &= !libc::ECHO);
    write(master, b"secret\n");
    assert_eq!(read(slave, 100), b"secret\n");
    assert_eq!(waiting(master, libc::POLLIN, 0), 0);
}

fn output_is_processed_and_reaches_the_master() {
    let (master, slave) = pair();
    write(slave, b"one\ntwo\n");
    assert_eq!(read(master, 100), b"one\r\ntwo\r\n");
    change(slave, |termios| termios.c_oflag &= !libc::OPOST);
    write(slave, b"one\n");
    assert_eq!(read(master, 100), b"one\n");
}

fn raw_mode_passes_everything_on() {
    let (master, slave) = pair();
    raw(slave);
    write(master, b"\x03\x04\r\x7f");
    assert_eq!(read(slave, 100), b"\x03\x04\r\x7f");
    assert_eq!(waiting(master, libc::POLLIN, 0), 0);
    // Settings asked through the master are the slave's.
    unsafe {
        let mut termios: libc::termios = zeroed();
        ok(libc::tcgetattr(master, &mut termios));
        assert_eq!(termios.c_lflag & (libc::ICANON | libc::ECHO | libc::ISIG), 0);
        let mut count = -1;
        write(slave, b"12345");
        assert_eq!(waiting(master, libc::POLLIN, 5000), libc::POLLIN);
        ok(libc::ioctl(master, libc::FIONREAD, &mut count));
        assert_eq!(count, 5);
        write(master, b"123");
        assert_eq!(waiting(slave, libc::POLLIN, 5000), libc::POLLIN);
        ok(libc::ioctl(slave, libc::FIONREAD, &mut count));
        assert_eq!(count, 3);
        ok(libc::tcflush(slave, libc::TCIFLUSH));
        ok(libc::ioctl(slave, libc::FIONREAD, &mut count));
        assert_eq!(count, 0);
    }
}

fn vmin_and_vtime_bound_a_read() {
    let (master, slave) = pair();
    let set = |min: u8, time: u8| {
        change(slave, |termios| {
            unsafe { libc::cfmakeraw(termios) };
            termios.c_cc[libc::VMIN] = min;
            termios.c_cc[libc::VTIME] = time;
        });
    };
    set(0, 0);
    assert_eq!(read(slave, 10), b"");
    set(0, 1);
    let started = std::time::Instant::now();
    assert_eq!(read(slave, 10), b"");
    assert!(started.elapsed().as_millis() >= 90);
    set(3, 0);
    write(master, b"ab");
    assert_eq!(waiting(slave, libc::POLLIN, 0), 0);
    write(master, b"cd");
    assert_eq!(read(slave, 10), b"abcd");
    // Between bytes, a tenth of a second.
    set(5, 1);
    write(master, b"xy");
    assert_eq!(read(slave, 10), b"xy");
}

fn interrupt_characters_signal_the_foreground_group() {
    let (master, slave) = pair();
    for (byte, signal) in [(3u8, libc::SIGINT), (28, libc::SIGQUIT), (26, libc::SIGTSTP)] {
        let pid = child(|| {
            take_terminal(slave);
            // Default actions; a stop needs a parent in the session.
            let inner = child(|| {
                unsafe {
                    ok(libc::setpgid(0, 0));
                    libc::signal(libc::SIGTTOU, libc::SIG_IGN);
                    ok(libc::tcsetpgrp(slave, libc::getpid()));
                    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
                    libc::setrlimit(libc::RLIMIT_CORE, &none);
                }
                write(slave, b"!");
                pause_ms(20_000);
                1
            });
            let mut status = 0;
            ok(unsafe { libc::waitpid(inner, &mut status, libc::WUNTRACED) });
            let got = if libc::WIFSTOPPED(status) {
                libc::WSTOPSIG(status)
            } else {
                libc::WTERMSIG(status)
            };
            unsafe { libc::kill(inner, libc::SIGKILL) };
            i32::from(got != signal)
        });
        while !read(master, 1).contains(&b'!') {}
        write(master, &[b'x', byte]);
        let status = wait_for(pid);
        assert_eq!(status, 0, "signal {signal}");
        // The character is shown.
        assert!(read(master, 100).ends_with(&[b'^', byte ^ 0x40]));
    }
}

fn the_window_size_is_shared_and_changes_are_told() {
    let (master, slave) = pair();
    let size = libc::winsize { ws_row: 30, ws_col: 100, ws_xpixel: 1, ws_ypixel: 2 };
    let pid = child(|| unsafe {
        take_terminal(slave);
        let mut set: libc::sigset_t = zeroed();
        libc::sigaddset(&mut set, libc::SIGWINCH);
        libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        write(slave, b"!");
        let limit = libc::timespec { tv_sec: 10, tv_nsec: 0 };
        let got = libc::sigtimedwait(&set, std::ptr::null_mut(), &limit);
        i32::from(got != libc::SIGWINCH)
    });
    assert_eq!(read(master, 1), b"!");
    unsafe {
        ok(libc::ioctl(master, libc::TIOCSWINSZ, &size));
        let mut seen: libc::winsize = zeroed();
        ok(libc::ioctl(slave, libc::TIOCGWINSZ, &mut seen));
        assert_eq!((seen.ws_row, seen.ws_col, seen.ws_ypixel), (30, 100, 2));
    }
    assert_eq!(wait_for(pid), 0);
}

fn closing_the_slave_ends_the_masters_input() {
    let (master, slave) = pair();
    write(slave, b"last");
    ok(unsafe { libc::close(slave) });
    assert_eq!(waiting(master, libc::POLLIN, 0), libc::POLLIN | libc::POLLHUP);
    assert_eq!(read(master, 100), b"last");
    unsafe {
        let mut buf = [0u8; 8];
        fails!(libc::read(master, buf.as_mut_ptr().cast(), 8), EIO);
        assert_eq!(waiting(master, libc::POLLIN, 0), libc::POLLHUP);
        // Opened again, it works again.
        let slave = ok(libc::open(name(master).as_ptr(), libc::O_RDWR | libc::O_NOCTTY));
        write(slave, b"back");
        assert_eq!(read(master, 100), b"back");
    }
}

fn closing_the_master_hangs_the_session_up() {
    let (master, slave) = pair();
    let (gate, go) = crate::harness::pipe();
    let pid = child(|| unsafe {
        libc::close(master);
        take_terminal(slave);
        let mut set: libc::sigset_t = zeroed();
        libc::sigaddset(&mut set, libc::SIGHUP);
        libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        write(go, b"!");
        let limit = libc::timespec { tv_sec: 10, tv_nsec: 0 };
        let got = libc::sigtimedwait(&set, std::ptr::null_mut(), &limit);
        fails!(libc::open(c"/dev/tty".as_ptr(), libc::O_RDWR), ENXIO);
        i32::from(got != libc::SIGHUP)
    });
    assert_eq!(read(gate, 1), b"!");
    unsafe {
        ok(libc::close(slave));
        ok(libc::close(master));
    }
    assert_eq!(wait_for(pid), 0);
}

fn hung_up_terminals_read_as_ended() {
    let (master, slave) = pair();
    write(master, b"unread\n");
    unsafe {
        ok(libc::close(master));
        assert_eq!(read(slave, 10), b"");
        fails!(libc::write(slave, b"x".as_ptr().cast(), 1), EIO);
        let mut termios: libc::termios = zeroed();
        fails!(libc::ioctl(slave, libc::TCGETS, &mut termios), EIO);
        let all = libc::POLLIN | libc::POLLOUT;
        assert_eq!(waiting(slave, all, 0), all | libc::POLLHUP | libc::POLLERR);
    }
}

fn packet_mode_tells_of_flushes_and_stops() {
    let (master, slave) = pair();
    let on = 1;
    ok(unsafe { libc::ioctl(master, libc::TIOCPKT, &on) });
    write(slave, b"data");
    assert_eq!(read(master, 100), b"\0data");
    ok(unsafe { libc::tcflush(slave, libc::TCIFLUSH) });
    assert!(waiting(master, libc::POLLPRI, 0) & libc::POLLPRI != 0);
    assert_eq!(read(master, 100), [1]);
    write(master, b"\x13");
    assert_eq!(read(master, 100), [4]);
    write(master, b"\x11");
    assert_eq!(read(master, 100), [8]);
    raw(slave);
    assert_eq!(read(master, 100), [16]);
    let off = 0;
    ok(unsafe { libc::ioctl(master, libc::TIOCPKT, &off) });
    write(slave, b"data");
    assert_eq!(read(master, 100), b"data");
}

fn full_buffers_block_writers_and_report_it() {
    let (master, slave) = pair();
    raw(slave);
    nonblocking(slave);
    nonblocking(master);
    let fill = |fd: i32| unsafe {
        let (mut total, piece) = (0, [b'x'; 1000]);
        loop {
            let n = libc::write(fd, piece.as_ptr().cast(), piece.len());
            if n < 0 {
                assert_eq!(*libc::__errno_location(), libc::EAGAIN);
                return total;
            }
            total += n as usize;
            assert!(total < 1 << 20);
        }
    };
    let drain = |fd: i32, total: usize| {
        let mut seen = 0;
        while seen < total {
            assert!(waiting(fd, libc::POLLIN, 5000) & libc::POLLIN != 0, "{seen} of {total}");
            seen += read(fd, 4096).len();
        }
    };
    let mut printed = fill(slave);
    // Linux moves what was written on by and by, which makes room again.
    while waiting(slave, libc::POLLOUT, 0) != 0 {
        printed += fill(slave);
        assert!(printed < 1 << 20);
    }
    assert!(printed >= 2048);
    drain(master, printed);
    assert_eq!(waiting(slave, libc::POLLOUT, 1000), libc::POLLOUT);
    let typed = fill(master);
    assert!(typed >= 2048);
    drain(slave, typed);
}

fn sessions_acquire_and_lose_their_terminal() {
    let (master, slave) = pair();
    child_passes(|| unsafe {
        fails!(libc::ioctl(slave, libc::TIOCSCTTY, 0), EPERM);
        ok(libc::setsid());
        fails!(libc::open(c"/dev/tty".as_ptr(), libc::O_RDWR), ENXIO);
        fails!(libc::tcgetpgrp(slave), ENOTTY);
        // Opening without O_NOCTTY acquires it.
        let fd = ok(libc::open(name(master).as_ptr(), libc::O_RDWR));
        assert_eq!(libc::tcgetpgrp(fd), libc::getpgrp());
        assert_eq!(libc::tcgetsid(fd), libc::getpid());
        let tty = ok(libc::open(c"/dev/tty".as_ptr(), libc::O_RDWR));
        write(tty, b"here");
        assert_eq!(read(master, 10), b"here");
        // Another session can't have it.
        child_passes(|| {
            ok(libc::setsid());
            fails!(libc::tcgetpgrp(fd), ENOTTY);
            libc::close(libc::open(name(master).as_ptr(), libc::O_RDWR));
            fails!(libc::open(c"/dev/tty".as_ptr(), libc::O_RDWR), ENXIO);
        });
        // A child inherits it and may give it up for itself.
        child_passes(|| {
            let own = ok(libc::open(c"/dev/tty".as_ptr(), libc::O_RDWR));
            ok(libc::ioctl(own, libc::TIOCNOTTY));
            fails!(libc::open(c"/dev/tty".as_ptr(), libc::O_RDWR), ENXIO);
        });
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        assert_ne!(fields[4], "0");
        assert_eq!(fields[5], libc::getpgrp().to_string());
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
        libc::signal(libc::SIGCONT, libc::SIG_IGN);
        ok(libc::ioctl(tty, libc::TIOCNOTTY));
        fails!(libc::tcgetpgrp(fd), ENOTTY);
    });
}

/// Runs `body` in a background group of a session that has the terminal; returns its wait status,
/// stops included.
fn in_background(slave: i32, body: impl FnOnce() -> i32) -> i32 {
    let (out, into) = crate::harness::pipe();
    let pid = child(|| {
        take_terminal(slave);
        let inner = child(|| {
            ok(unsafe { libc::setpgid(0, 0) });
            body()
        });
        let mut status = 0;
        ok(unsafe { libc::waitpid(inner, &mut status, libc::WUNTRACED) });
        unsafe { libc::kill(inner, libc::SIGKILL) };
        write(into, &status.to_ne_bytes());
        0
    });
    assert_eq!(wait_for(pid), 0);
    i32::from_ne_bytes(read(out, 4).try_into().unwrap())
}

fn background_groups_are_stopped_when_they_touch_the_terminal() {
    let (master, slave) = pair();
    let stopped_by = |status: i32| libc::WIFSTOPPED(status).then(|| libc::WSTOPSIG(status));
    let reads = || i32::from(read(slave, 1).is_empty());
    assert_eq!(stopped_by(in_background(slave, reads)), Some(libc::SIGTTIN));
    // Writing only with TOSTOP.
    let writes = || {
        write(slave, b"hello");
        0
    };
    assert_eq!(in_background(slave, writes), 0);
    assert_eq!(read(master, 10), b"hello");
    change(slave, |termios| termios.c_lflag |= libc::TOSTOP);
    assert_eq!(stopped_by(in_background(slave, writes)), Some(libc::SIGTTOU));
    // Changing settings always; not while the signal is ignored or blocked.
    let sets = || {
        change(slave, |termios| termios.c_lflag &= !libc::TOSTOP);
        0
    };
    assert_eq!(stopped_by(in_background(slave, sets)), Some(libc::SIGTTOU));
    let sets_deaf = || {
        unsafe { libc::signal(libc::SIGTTOU, libc::SIG_IGN) };
        sets()
    };
    assert_eq!(in_background(slave, sets_deaf), 0);
    let takes = || unsafe { libc::tcsetpgrp(slave, libc::getpid()) };
    assert_eq!(stopped_by(in_background(slave, takes)), Some(libc::SIGTTOU));
    // A reader that ignores the signal gets an error.
    let reads_deaf = || unsafe {
        libc::signal(libc::SIGTTIN, libc::SIG_IGN);
        let mut byte = 0u8;
        fails!(libc::read(slave, (&raw mut byte).cast(), 1), EIO);
        0
    };
    assert_eq!(in_background(slave, reads_deaf), 0);
}

fn orphaned_groups_get_errors_instead() {
    let (_master, slave) = pair();
    let (out, into) = crate::harness::pipe();
    let leader = child(|| {
        take_terminal(slave);
        // Its parent ends: nobody in the session but in another group looks after it.
        let middle = child(|| {
            let parent = unsafe { libc::getpid() };
            child(|| unsafe {
                ok(libc::setpgid(0, 0));
                while libc::getppid() == parent {
                    pause_ms(5);
                }
                // In a test run by the machine's first process that one could be in the session.
                if libc::getsid(libc::getppid()) == libc::getsid(0) {
                    write(into, b"y");
                    return 0;
                }
                let mut byte = 0u8;
                fails!(libc::read(slave, (&raw mut byte).cast(), 1), EIO);
                // Stopping signals have no effect.
                libc::raise(libc::SIGTSTP);
                write(into, b"y");
                0
            });
            pause_ms(50);
            0
        });
        wait_for(middle);
        // It writes before its terminal is hung up.
        waiting(out, libc::POLLIN, 50_000);
        0
    });
    assert_eq!(wait_for(leader), 0);
    unsafe { libc::close(into) };
    assert_eq!(read(out, 1), b"y");
}

fn the_peer_can_be_opened_without_a_name() {
    unsafe {
        let master = ok(libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY));
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
        fails!(libc::ioctl(master, 0x5441, flags), EIO);
        ok(libc::unlockpt(master));
        let slave = ok(libc::ioctl(master, 0x5441, flags)); // TIOCGPTPEER
        assert_eq!(libc::fcntl(slave, libc::F_GETFD), libc::FD_CLOEXEC);
        write(slave, b"peer");
        assert_eq!(read(master, 10), b"peer");
        let link = std::fs::read_link(format!("/proc/self/fd/{slave}")).unwrap();
        assert_eq!(link.to_str().unwrap(), name(master).to_str().unwrap());
    }
}

fn terminals_have_their_own_numbers_and_places() {
    let mut pairs: Vec<_> = (0..20).map(|_| pair()).collect();
    let mut names: Vec<_> = pairs.iter().map(|pair| name(pair.0)).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 20);
    // A number that was given back is the next one's, if no stranger on this machine takes it first.
    let again = (0..100).any(|_| {
        let (master, slave) = pairs.remove(3);
        let gone = name(master);
        unsafe {
            libc::close(master);
            libc::close(slave);
        }
        pairs.push(pair());
        name(pairs[19].0) == gone
    });
    assert!(again, "numbers are not given out again");
    // Plain files aren't terminals.
    unsafe {
        let (out, _) = crate::harness::pipe();
        assert_eq!(libc::isatty(out), 0);
        fails!(libc::tcgetpgrp(out), ENOTTY);
    }
}

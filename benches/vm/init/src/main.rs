//! The first program of the Linux microVM: as little as a Linux needs to run a container's
//! entrypoint.
//!
//! It loads the drivers that Debian's cloud kernel has as modules, mounts the EROFS root with a
//! tmpfs above it, gives the network interface the address QEMU's user network expects, and becomes
//! the program that `/entrypoint` in the initramfs names (`cwd`, `uid`, `gid`, environment and
//! arguments: one NUL-terminated string each, an empty one ending the environment).
//!
//! A fixed address and no udev: faster than any distribution's own way up, so that the comparison
//! favours Linux.

use std::ffi::{CStr, CString};
use std::io::Error;
use std::ptr::null;

fn main() {
    if let Err(why) = boot() {
        eprintln!("linux-init: {why}");
        // SAFETY: ends the VM; nothing here is needed any more.
        unsafe { libc::reboot(libc::RB_POWER_OFF) };
    }
}

fn boot() -> Result<(), String> {
    mount(c"devtmpfs", c"/dev", c"devtmpfs", 0, c"")?;
    for name in lines("/modules")? {
        load_module(&name)?;
    }
    let entrypoint =
        std::fs::read("/entrypoint").map_err(|error| format!("/entrypoint: {error}"))?;
    mount(c"/dev/vda", c"/lower", c"erofs", libc::MS_RDONLY, c"")?;
    mount(c"tmpfs", c"/upper", c"tmpfs", 0, c"")?;
    for dir in ["/upper/data", "/upper/work"] {
        std::fs::create_dir(dir).map_err(|error| format!("{dir}: {error}"))?;
    }
    let options = c"lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work";
    mount(c"overlay", c"/root", c"overlay", 0, options)?;
    for dir in ["/root/dev", "/root/proc", "/root/sys", "/root/run", "/root/tmp"] {
        let _ = std::fs::create_dir(dir);
    }
    mount(c"/dev", c"/root/dev", c"", libc::MS_MOVE, c"")?;
    mount(c"proc", c"/root/proc", c"proc", 0, c"")?;
    mount(c"sysfs", c"/root/sys", c"sysfs", 0, c"")?;
    std::fs::create_dir_all("/root/dev/shm").map_err(|error| format!("/dev/shm: {error}"))?;
    mount(c"shm", c"/root/dev/shm", c"tmpfs", 0, c"mode=1777")?;
    for (link, target) in
        [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")]
    {
        let _ = std::os::unix::fs::symlink(target, format!("/root/dev/{link}"));
    }
    for name in [c"lo", c"eth0"] {
        interface_up(name)?;
    }
    std::env::set_current_dir("/root").map_err(|error| format!("/root: {error}"))?;
    mount(c".", c"/", c"", libc::MS_MOVE, c"")?;
    // SAFETY: plain call with a valid string.
    check(unsafe { libc::chroot(c".".as_ptr()) }, "chroot")?;
    become_program(&entrypoint)
}

fn check(result: libc::c_int, what: &str) -> Result<(), String> {
    if result < 0 { Err(format!("{what}: {}", Error::last_os_error())) } else { Ok(()) }
}

fn lines(path: &str) -> Result<Vec<String>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn mount(
    source: &CStr,
    target: &CStr,
    kind: &CStr,
    flags: u64,
    options: &CStr,
) -> Result<(), String> {
    // SAFETY: all strings are valid and terminated.
    let result = unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, options.as_ptr().cast())
    };
    check(result, &format!("mount {target:?}"))
}

fn load_module(name: &str) -> Result<(), String> {
    use std::os::fd::AsRawFd;
    let file = std::fs::File::open(name).map_err(|error| format!("{name}: {error}"))?;
    // SAFETY: the descriptor is open and the parameter string is empty and terminated.
    let result =
        unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
    check(result as i32, name)
}

/// Brings an interface up; `eth0` gets 10.0.2.15/24 and the default route by 10.0.2.2.
fn interface_up(name: &CStr) -> Result<(), String> {
    // SAFETY: the structures are plain old data, fully initialised, and outlive the calls.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        check(socket, "socket")?;
        let mut request: libc::ifreq = std::mem::zeroed();
        for (slot, byte) in request.ifr_name.iter_mut().zip(name.to_bytes()) {
            *slot = *byte as libc::c_char;
        }
        let address = |bytes: [u8; 4]| {
            let mut address: libc::sockaddr = std::mem::zeroed();
            address.sa_family = libc::AF_INET as u16;
            for (slot, byte) in address.sa_data[2..6].iter_mut().zip(bytes) {
                *slot = byte as libc::c_char;
            }
            address
        };
        if name == c"eth0" {
            request.ifr_ifru.ifru_addr = address([10, 0, 2, 15]);
            check(libc::ioctl(socket, libc::SIOCSIFADDR, &request), "SIOCSIFADDR")?;
            request.ifr_ifru.ifru_netmask = address([255, 255, 255, 0]);
            check(libc::ioctl(socket, libc::SIOCSIFNETMASK, &request), "SIOCSIFNETMASK")?;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        check(libc::ioctl(socket, libc::SIOCSIFFLAGS, &request), "SIOCSIFFLAGS")?;
        if name == c"eth0" {
            let mut route: libc::rtentry = std::mem::zeroed();
            route.rt_dst = address([0, 0, 0, 0]);
            route.rt_genmask = address([0, 0, 0, 0]);
            route.rt_gateway = address([10, 0, 2, 2]);
            route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
            check(libc::ioctl(socket, libc::SIOCADDRT, &route), "SIOCADDRT")?;
        }
        libc::close(socket);
    }
    Ok(())
}

fn become_program(description: &[u8]) -> Result<(), String> {
    let broken = || String::from("/entrypoint is malformed");
    let mut words = description.strip_suffix(b"\0").ok_or_else(broken)?.split(|&byte| byte == 0);
    let mut word = || words.next().ok_or_else(broken);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let cwd = text(word()?);
    let uid: u32 = text(word()?).parse().map_err(|_| broken())?;
    let gid: u32 = text(word()?).parse().map_err(|_| broken())?;
    let mut env = Vec::new();
    loop {
        let entry = word()?;
        if entry.is_empty() {
            break;
        }
        env.push(CString::new(entry).map_err(|_| broken())?);
    }
    let argv: Result<Vec<CString>, _> = words.map(CString::new).collect();
    let argv = argv.map_err(|_| broken())?;
    let program = argv.first().ok_or_else(broken)?;
    std::env::set_current_dir(&cwd).map_err(|error| format!("{cwd}: {error}"))?;
    // A name without a slash is looked up where the image's own PATH says.
    let path = env.iter().find_map(|entry| entry.as_bytes().strip_prefix(b"PATH="));
    let mut places = vec![program.clone()];
    if !program.as_bytes().contains(&b'/') {
        let dirs = path.unwrap_or_default().split(|&byte| byte == b':');
        let full = dirs.map(|dir| CString::new([dir, b"/", program.as_bytes()].concat()));
        places = full.collect::<Result<_, _>>().map_err(|_| broken())?;
    }
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([null()]).collect()
    };
    // SAFETY: both vectors are terminated by null and their strings outlive the call.
    unsafe {
        check(libc::setgroups(0, null()), "setgroups")?;
        check(libc::setgid(gid), "setgid")?;
        check(libc::setuid(uid), "setuid")?;
        for place in &places {
            libc::execve(place.as_ptr(), pointers(&argv).as_ptr(), pointers(&env).as_ptr());
        }
    }
    Err(format!("{program:?}: {}", Error::last_os_error()))
}

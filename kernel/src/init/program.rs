//! Starting the main process, as the boot record says.

use crate::drivers::{console, tty};
use crate::errno::{Errno, Result};
use crate::fs::walk::Resolver;
use crate::fs::{FdTable, File, boot, ops, perm};
use crate::syscall::lock;
use crate::task::Creds;
use crate::task::exec::{Main, spawn_main};
use crate::task::rlimit::{Rlimit, Rlimits};
use crate::task::session::Terminal;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use dock2uni_format::record::{Limit, Record, Syscalls};
use linux_raw_sys::general::{O_NOCTTY, O_RDONLY, O_RDWR, O_WRONLY};

/// Starts the program. The error is for the user.
pub(super) fn start(record: &Record) -> core::result::Result<(), String> {
    let name = record.argv.first().map(|name| String::from_utf8_lossy(name)).unwrap_or_default();
    if record.argv.is_empty() {
        return Err("the image names no program: convert it with a command".into());
    }
    spawn(record).map_err(|error| match error {
        Errno::ENOENT => {
            format!("`{name}`: no such file in the image, or the program's interpreter is missing")
        }
        Errno::EACCES => format!("`{name}`: may not be executed (permission denied)"),
        Errno::ENOEXEC => format!("`{name}`: not a program for x86_64 Linux"),
        Errno::ENOMEM => format!("`{name}`: not enough memory to start it; give the machine more"),
        other => format!("`{name}`: can't be started ({other:?})"),
    })
}

fn spawn(record: &Record) -> Result<()> {
    let creds = creds(record);
    let fs = boot::first_context(record)?;
    tty::init();
    tty::console::init(record.tty);
    let files = streams(record)?;
    let terminal = tty::console::terminal().map(|tty| {
        // The main process gets number 1.
        tty.adopt(1);
        tty.clone() as Arc<dyn Terminal>
    });
    match &record.syscalls {
        Syscalls::All => {}
        Syscalls::Record => lock::record(),
        Syscalls::Only(calls) => lock::lock(calls),
    }
    let rlimits = rlimits(record)?;
    let (argv, envp) = (&record.argv, &record.env);
    spawn_main(Main { argv, envp, creds, fs, files, terminal, rlimits })?;
    Ok(())
}

/// The user that the image says.
pub(super) fn creds(record: &Record) -> Creds {
    let user = &record.user;
    match user.uid {
        0 if user.gid == 0 && user.groups.is_empty() => Creds::root(),
        _ => Creds::for_user(user.uid, user.gid, user.groups.clone()),
    }
}

/// The limits that containers have, and what the record has in their place.
pub(super) fn rlimits(record: &Record) -> Result<Rlimits> {
    let mut limits = Rlimits::default();
    for Limit { resource, soft, hard } in record.limits.iter().copied() {
        limits.set(resource.into(), Rlimit { soft, hard }, true)?;
    }
    Ok(limits)
}

/// Opens a file on the kernel's behalf.
pub(super) fn open_kernel(name: &[u8], flags: u32) -> Result<Arc<File>> {
    ops::open(&Resolver::kernel()?, name, flags, 0, 0)
}

/// Standard input, output and error: the console. Without `-i` there is no input, as with `docker
/// run`.
fn streams(record: &Record) -> Result<FdTable> {
    let files = FdTable::new();
    let limit = 3;
    if record.tty {
        let name = b"/dev/console";
        let terminal = open_kernel(name, O_RDWR | O_NOCTTY)?;
        let place = Resolver::kernel()?.lookup(name, true)?;
        ops::chown(&perm::Kernel, &place, Some(record.user.uid), None)?;
        for _ in 0..3 {
            files.alloc(terminal.clone(), false, limit)?;
        }
        return Ok(files);
    }
    let input = match record.stdin {
        true => console::open(O_RDONLY),
        false => open_kernel(b"/dev/null", O_RDWR)?,
    };
    files.alloc(input, false, limit)?;
    let output = console::open(O_WRONLY);
    files.alloc(output.clone(), false, limit)?;
    files.alloc(output, false, limit)?;
    Ok(files)
}

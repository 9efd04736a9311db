//! Starting the main process, as the boot record says.

use crate::drivers::console;
use crate::errno::{Errno, Result};
use crate::fs::walk::Resolver;
use crate::fs::{FdTable, boot, ops};
use crate::task::Creds;
use crate::task::exec::{Main, spawn_main};
use alloc::format;
use alloc::string::String;
use dock2uni_format::record::Record;
use linux_raw_sys::general::{O_RDWR, O_WRONLY};

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
    let user = &record.user;
    let creds = match user.uid {
        0 if user.gid == 0 && user.groups.is_empty() => Creds::root(),
        _ => Creds::for_user(user.uid, user.gid, user.groups.clone()),
    };
    let fs = boot::first_context(record)?;
    let files = streams()?;
    spawn_main(Main { argv: &record.argv, envp: &record.env, creds, fs, files })?;
    Ok(())
}

/// Standard input, output and error: the console. Without a terminal there is no
/// input, as with `docker run` without `-i`.
fn streams() -> Result<FdTable> {
    let files = FdTable::new();
    let limit = 3;
    let input = ops::open(&Resolver::kernel()?, b"/dev/null", O_RDWR, 0, 0)?;
    files.alloc(input, false, limit)?;
    let output = console::open(O_WRONLY);
    files.alloc(output.clone(), false, limit)?;
    files.alloc(output, false, limit)?;
    Ok(files)
}

//! Runs a command in place of this process, to be killed when the parent dies.
//!
//! QEMU would outlive a `dock2uni run` that is killed by SIGKILL. The kernel's parent-death signal
//! prevents that, but must be set in the child, between fork and exec; this is that place.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Failure, exit};

pub fn exec(own_memory: bool, command: &[OsString]) -> Result<u8, Failure> {
    let kill = Some(rustix::process::Signal::KILL);
    rustix::process::set_parent_process_death_signal(kill)
        .map_err(|error| Failure::io("cannot set the parent-death signal".into(), error.into()))?;
    if own_memory {
        // What starts this may hold itself to less than its machine takes.
        let maximum = getrlimit(Resource::As).maximum;
        setrlimit(Resource::As, Rlimit { current: maximum, maximum })
            .map_err(|error| Failure::io("cannot lift the memory limit".into(), error.into()))?;
    }
    let Some((program, args)) = command.split_first() else {
        return Err(Failure::new(exit::USAGE, "no command", None));
    };
    let error = Command::new(program).args(args).exec();
    Err(Failure::io(format!("cannot start `{}`", program.to_string_lossy()), error))
}

//! Cases for the kernel's Linux ABI. Each passes on Linux and in the VM alike.
//!
//! ```text
//! guest-tests                 run every case
//! guest-tests --list          name them
//! guest-tests WORD...         run those whose name contains one of the words
//! guest-tests --after NAME    run those behind that one
//! guest-tests --times N WORD...    run them again and again
//! guest-tests --volume-load DIR LAST    see `volume`
//! guest-tests --fuzz SECONDS [SEED]    random system calls (fuzz.rs)
//! guest-tests --soak REQUESTS FORKS    the same things again and again (soak.rs)
//! guest-tests --connections COUNT      so many at once (crowd.rs)
//! guest-tests --directory, --large-file    see `bulk`
//! guest-tests --pressure FILE DIR      less memory than files (pressure.rs)
//! guest-tests --scale, --fork-resident     see `cpus`
//! guest-tests --fill, --failing, --resolver    see `trouble`
//! ```
//!
//! A case is a function that panics when something isn't as Linux has it. It runs in a process of
//! its own, with a time limit, so that a crash or a hang fails one case. The exit status is 0 if
//! every case passed.

#[macro_use]
mod harness;

mod bulk;
mod conformance;
mod cores;
mod cpus;
mod creds;
mod crowd;
mod datagrams;
mod edges;
mod ends;
mod events;
mod exec;
mod files;
mod filters;
mod fuzz;
mod ipc;
mod isolation;
mod keys;
mod leases;
mod memory;
mod mounts;
mod network;
mod pidfds;
mod pipes;
mod pressure;
mod process;
mod procfs;
mod runtimes;
mod settings;
mod share;
mod signals;
mod soak;
mod sockets;
mod states;
mod terminals;
mod threads;
mod time;
mod traces;
mod trouble;
mod volume;

fn main() {
    let mut cases = Vec::new();
    for family in [
        process::CASES,
        pidfds::CASES,
        exec::CASES,
        signals::CASES,
        threads::CASES,
        memory::CASES,
        isolation::CASES,
        files::CASES,
        pipes::CASES,
        ipc::CASES,
        conformance::CASES,
        events::CASES,
        sockets::CASES,
        states::CASES,
        network::CASES,
        datagrams::CASES,
        filters::CASES,
        terminals::CASES,
        time::CASES,
        traces::CASES,
        creds::CASES,
        procfs::CASES,
        settings::CASES,
        share::CASES,
        runtimes::CASES,
        crowd::CASES,
        bulk::CASES,
        cores::CASES,
        cpus::CASES,
        edges::CASES,
        ends::CASES,
        mounts::CASES,
        leases::CASES,
        keys::CASES,
    ] {
        cases.extend_from_slice(family);
    }
    std::process::exit(harness::main(&cases));
}

//! The boot flow, from the machine's memory map to the main process, and its end.
//!
//! Memory, the machine and the scheduler come up on the boot CPU alone. What may sleep (disks, the
//! root filesystem) comes up in a kernel thread, which starts the main process and ends.

mod end;
mod health;
mod program;
mod record;
mod resolver;
mod stop;

use crate::arch::{self, BootInfo, cpu};
use crate::task::sched;
use crate::{debug, error};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::ops::Range;
use dock2uni_format::record::Record;
use dock2uni_format::status::Status;

pub use end::panicked;

/// Goes on from the machine-dependent start-up, on the boot CPU with interrupts off.
pub fn start(boot: &'static BootInfo, free: &[Range<usize>]) -> ! {
    let mut usable = [(0, 0); 96];
    for (slot, range) in usable.iter_mut().zip(free) {
        *slot = (range.start, range.len());
    }
    // SAFETY: once, before anything allocates; `free` is RAM that nobody uses.
    unsafe { crate::mm::init(&usable[..free.len().min(usable.len())], &[]) };
    arch::init(boot);
    crate::time::clock::init();
    // Before the others run: idle CPUs look at the scheduler's state of every CPU.
    if let Err(why) = sched::init_cpu() {
        panic!("no memory for the scheduler: {why:?}");
    }
    let cpus = arch::smp::start(secondary);
    debug!("boot: {cpus} CPUs, up after {} us", arch::clock::now_ns() / 1000);
    crate::selftest::run(boot);
    crate::task::exit::on_main_exit(&end::MainProcess);
    crate::task::oom::init();
    if let Err(why) = sched::spawn_kernel("init", move || bring_up(boot)) {
        panic!("no memory for the first thread: {why:?}");
    }
    enter_idle()
}

fn secondary() -> ! {
    crate::selftest::join();
    if let Err(why) = sched::init_cpu() {
        panic!("no memory for the scheduler: {why:?}");
    }
    enter_idle()
}

fn enter_idle() -> ! {
    // Until here nobody may be preempted, since there is nobody to go on with.
    cpu::set_preempt_count(0);
    arch::irq::enable();
    sched::run_idle()
}

/// The first thread: devices, root filesystem, main process.
fn bring_up(boot: &'static BootInfo) {
    if let Err(why) = start_main(boot) {
        error!("dock2uni: {why}");
        end::report(Status::Failed(&why));
        arch::power::power_off(1)
    }
}

fn start_main(boot: &BootInfo) -> Result<(), String> {
    crate::net::init();
    crate::drivers::virtio::probe(boot.cmdline());
    let found = record::find(boot)?;
    let (mut record, root) = found.into_root()?;
    // The answer travels while the root is mounted.
    crate::net::configure(&record.net, &record.hostname);
    crate::fs::boot::mount_namespace(root, &record)
        .map_err(|error| alloc::format!("the root filesystem can't be mounted: {error:?}"))?;
    crate::fs::volumes::mount(&record.mounts)?;
    crate::fs::volumes::add_variables(&mut record)?;
    debug!("boot: root mounted after {} us", arch::clock::now_ns() / 1000);
    await_network(&record);
    debug!("boot: network after {} us", arch::clock::now_ns() / 1000);
    if crate::uts::HOST.set(record.hostname.as_bytes()).is_err() {
        error!("the host name `{}` is too long; the name is localhost", record.hostname);
    }
    for (name, value) in &record.settings {
        crate::fs::procfs::set_sysctl(name, value).map_err(|error| {
            alloc::format!("the setting {name}={value} can't be made ({error:?})")
        })?;
    }
    stop::listen(&record).map_err(|error| alloc::format!("no memory to start ({error:?})"))?;
    let record = Arc::new(record);
    program::start(&record)?;
    end::report(Status::Start { ns: arch::clock::now_ns() });
    health::start(&record).map_err(|error| alloc::format!("no memory to start ({error:?})"))?;
    debug!("boot: main process started after {} us", arch::clock::now_ns() / 1000);
    Ok(())
}

/// Gives DHCP a moment, since many programs look up their address once when they start, and writes
/// what it said to where programs look for it.
fn await_network(record: &Record) {
    const PATIENCE: u64 = 2_000_000_000;
    if !crate::net::wait_configured(&record.net, PATIENCE) {
        debug!("boot: no IPv4 address");
    }
    let stack = crate::net::stack();
    let config = stack.config();
    let address = config.addresses.iter().find(|cidr| cidr.addr.is_ipv4());
    let address = address.map(|cidr| cidr.addr.to_string());
    let text = crate::net::resolv_conf();
    let mut written = crate::fs::boot::write_replacing(crate::fs::boot::RESOLV_CONF, &text)
        .and_then(|()| crate::fs::boot::write_hosts(record, address.as_deref()));
    // What the user has chosen stays.
    if stack.device().is_some() && !config.dns_fixed {
        written = written.and_then(|()| resolver::follow(text));
    }
    if let Err(why) = written {
        error!("/etc/resolv.conf and /etc/hosts can't be written: {why:?}");
    }
}

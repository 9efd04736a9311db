//! The life of a user task in the kernel: run the program until it needs something, serve it,
//! deliver signals.

use super::signal::{self, SigInfo, Signal, code, deliver};
use super::thread::Work;
use super::{current, exit, sched};
use crate::arch::user::{UserContext, UserExit, enter};
use crate::sync::softirq;

/// Runs the current task's program until it ends.
pub(super) fn run() -> ! {
    let task = current();
    // SAFETY: this is the task itself, and everything below gets the reference from here.
    let context = unsafe { task.user_context() };
    loop {
        let work = task.work();
        if !work.is_empty() {
            look_around(context);
        }
        match enter(context, || task.work().intersects(Work::URGENT)) {
            UserExit::Syscall => crate::syscall::enter(context),
            UserExit::Interrupt => {
                sched::account_user();
                softirq::run_pending();
            }
            UserExit::Fault { vector, error, addr } => fault(context, vector, error, addr),
        }
    }
}

/// What the task has to do by now; `enter` asks again for what comes up meanwhile.
#[cold]
fn look_around(context: &mut UserContext) {
    let task = current();
    exit::die_if_doomed(task);
    if task.work().intersects(Work::TRACE | Work::RETRAP) {
        super::trace::on_interrupt(context);
    }
    if task.work().intersects(Work::SIGNAL | Work::STOP | Work::RESTORE_MASK) {
        deliver::deliver(context);
    }
    if task.work().contains(Work::RSEQ) {
        super::rseq::update(context);
    }
}

/// A CPU exception in the program.
fn fault(context: &UserContext, vector: u8, error: u32, addr: usize) {
    let (signal, cause) = match vector {
        0 => (Signal::FPE, 1),
        1 => (Signal::TRAP, 2),
        3 => (Signal::TRAP, code::SI_KERNEL),
        6 => (Signal::ILL, 2),
        14 => match page_fault(addr, error) {
            None => return,
            Some(what) => what,
        },
        16 | 19 => (Signal::FPE, 7),
        17 => (Signal::BUS, code::BUS_ADRALN),
        12 => (Signal::BUS, code::SI_KERNEL),
        _ => (Signal::SEGV, code::SI_KERNEL),
    };
    current().set_last_fault([vector.into(), error as usize, addr]);
    let addr = match vector {
        14 => addr,
        0 | 6 | 16 | 19 => context.rip,
        _ => 0,
    };
    signal::send::force(signal, SigInfo::fault(signal, cause, addr));
}

fn page_fault(addr: usize, error: u32) -> Option<(Signal, i32)> {
    use crate::mm::FaultError;
    let (write, exec) = (error & 2 != 0, error & 16 != 0);
    match crate::mm::handle_fault(addr, write, exec) {
        Ok(()) => None,
        Err(FaultError::Unmapped) => Some((Signal::SEGV, code::SEGV_MAPERR)),
        Err(FaultError::Forbidden) => Some((Signal::SEGV, code::SEGV_ACCERR)),
        Err(FaultError::NoPage) => Some((Signal::BUS, code::BUS_ADRERR)),
        // The OOM killer chose this process, or nobody was left to choose.
        Err(FaultError::NoMemory) => exit::exit_group(9),
    }
}

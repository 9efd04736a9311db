//! Choosing whom to kill when memory is gone.

use super::signal::send::{Force, send};
use super::signal::{SigInfo, Signal};
use super::{Process, Work, current, for_each_process, sched};
use crate::arch::{PAGE_SIZE, clock};
use crate::error;
use crate::mm::oom::{OomKiller, badness, set_killer};
use crate::sync::Mutex;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How long a victim gets to end before the next is chosen, in nanoseconds.
const PATIENCE: u64 = 500_000_000;
/// How long one call waits.
const STEP: u64 = 5_000_000;

struct Killer;

/// Makes the process table the place where victims are chosen.
pub fn init() {
    set_killer(&Killer);
}

/// One choice at a time; when the last one was made.
static CHOOSING: Mutex<()> = Mutex::new(());
static LAST: AtomicU64 = AtomicU64::new(0);

fn is_dying(process: &Process) -> bool {
    process.threads().iter().all(|task| task.work().contains(Work::DIE))
}

impl OomKiller for Killer {
    fn kill_one(&self) -> bool {
        if current().is_kernel() || current().work().contains(Work::DIE) {
            return false;
        }
        {
            let _one = CHOOSING.lock();
            let now = clock::now_ns();
            if LAST.load(Relaxed) == 0 || now - LAST.load(Relaxed) > PATIENCE {
                if !choose() {
                    return false;
                }
                LAST.store(now.max(1), Relaxed);
            }
        }
        if current().work().contains(Work::DIE) {
            return false;
        }
        sched::sleep_until(clock::now_ns() + STEP);
        !current().work().contains(Work::DIE)
    }
}

/// Pages that the end of a process would give back; `None` if it has no memory of its own.
fn pages(process: &Process) -> Option<usize> {
    let space = process.main_thread()?.mm()?;
    Some(space.rss().total() + space.page_table_pages())
}

/// How much killing a process would help, in pages; `None` if it must not be killed, or has none.
pub fn score(process: &Process) -> Option<u64> {
    badness(pages(process)?, process.oom_score_adj.load(Relaxed))
}

/// Kills the process whose end helps most. False if there is none.
fn choose() -> bool {
    let mut worst: Option<(u64, usize, Arc<Process>)> = None;
    for_each_process(|process| {
        if process.is_zombie() || is_dying(process) {
            return;
        }
        let Some(pages) = pages(process) else { return };
        let Some(score) = badness(pages, process.oom_score_adj.load(Relaxed)) else { return };
        if worst.as_ref().is_none_or(|(most, ..)| score > *most) {
            worst = Some((score, pages, process.clone()));
        }
    });
    let Some((_, pages, victim)) = worst else { return false };
    let info = crate::mm::meminfo();
    let kib = |bytes: usize| bytes / 1024;
    let comm = victim.main_thread().map(|task| task.comm());
    error!(
        "out of memory: killing process {} ({}), which uses {} KiB; of {} KiB in all, {} are free, {} cached, {} in the \
         kernel's heap. Give the VM more memory (`-m`), or limit what the program uses",
        victim.pid(),
        comm.as_ref().map_or("?", |comm| core::str::from_utf8(comm.bytes()).unwrap_or("?")),
        kib(pages * PAGE_SIZE),
        kib(info.total),
        kib(info.free),
        kib(info.cached),
        kib(info.slab),
    );
    // The main process is not spared: often it is all there is. Without a value, sending can't fail.
    let _ = send(&victim, None, Signal::KILL, SigInfo::kernel(Signal::KILL), Force::Outside);
    true
}

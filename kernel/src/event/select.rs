//! Waiting for one of several files: the core of poll(2) and select(2).

use super::{Events, PollTable};
use crate::errno::{Errno, Result};
use crate::fs::File;
use crate::sync::{Observer, WaitError, WaitMode, WaitQueue};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

/// One file and what is asked of it.
pub struct Watch {
    /// The caller's number of it.
    pub fd: i32,
    /// The file; `None` for an entry to skip.
    pub file: Option<Arc<File>>,
    /// What the caller wants to hear of (errors and hang-ups are always told).
    pub events: Events,
    /// The answer.
    pub ready: Events,
}

/// Becomes true on the first wake-up of any watched file.
struct Notifier {
    fired: AtomicBool,
    queue: WaitQueue,
}

impl Observer for Notifier {
    fn notify(&self, _events: Events) -> bool {
        self.fired.store(true, Ordering::SeqCst);
        self.queue.wake_all(Events::ALL);
        false
    }
}

/// Fills in `ready` of each watch, waiting until one is or `deadline` (monotonic nanoseconds;
/// `Some(0)` is at once) passes. Returns how many are ready; `ERESTARTNOHAND` if a signal comes
/// first (poll(2) and select(2) never restart after a handler).
pub fn wait(watches: &mut [Watch], deadline: Option<u64>) -> Result<usize> {
    let ready = scan(watches, &mut PollTable::query());
    if ready > 0 || deadline == Some(0) {
        return Ok(ready);
    }
    let notifier = Arc::new(Notifier { fired: AtomicBool::new(false), queue: WaitQueue::new() });
    let observer: Arc<dyn Observer> = notifier.clone();
    let mut table = PollTable::observing(&observer, false);
    let mut ready = scan(watches, &mut table);
    let _registrations = table.into_registrations();
    loop {
        if ready > 0 {
            return Ok(ready);
        }
        let fired = || notifier.fired.swap(false, Ordering::SeqCst).then_some(());
        match notifier.queue.wait(WaitMode::Interruptible, deadline, fired) {
            Ok(()) => ready = scan(watches, &mut PollTable::query()),
            Err(WaitError::TimedOut) => return Ok(scan(watches, &mut PollTable::query())),
            Err(WaitError::Interrupted) => return Err(Errno::ERESTARTNOHAND),
        }
    }
}

fn scan(watches: &mut [Watch], table: &mut PollTable<'_>) -> usize {
    let mut ready = 0;
    for watch in watches {
        if let Some(file) = &watch.file {
            let told = watch.events | Events::ERR | Events::HUP;
            watch.ready = file.ops.poll(file, table) & told;
        }
        ready += usize::from(!watch.ready.is_empty());
    }
    ready
}

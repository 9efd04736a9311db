//! The stop request: a press of the power button asks the main process to end, as `docker stop`
//! does.

use crate::arch::power;
use crate::debug;
use crate::errno::Result;
use crate::event::Events;
use crate::sync::WaitQueue;
use crate::task::signal::send::{Force, send};
use crate::task::signal::{SigInfo, Signal};
use crate::task::{pid, sched};
use core::sync::atomic::{AtomicBool, Ordering};
use dock2uni_format::record::Record;

static PRESSED: AtomicBool = AtomicBool::new(false);
static WAITING: WaitQueue = WaitQueue::new();

/// Starts listening. `record` has the signal, and the seconds after which the main process is
/// killed.
pub(super) fn listen(record: &Record) -> Result<()> {
    let signal = Signal::new(record.stop_signal.into()).unwrap_or(Signal::TERM);
    let grace = u64::from(record.stop_grace_secs) * crate::time::SECOND;
    sched::spawn_kernel("stop", move || stop(signal, grace))?;
    power::on_button(|| {
        PRESSED.store(true, Ordering::Release);
        WAITING.wake_all(Events::IN);
    });
    Ok(())
}

fn stop(signal: Signal, grace: u64) {
    WAITING.wait_uninterruptible(|| PRESSED.load(Ordering::Acquire).then_some(()));
    debug!("stop: asked for, sending signal {}", signal.number());
    send_to_main(signal);
    let deadline = crate::time::now_ns() + grace;
    sched::sleep_until(deadline);
    // Still here: the machine goes off with the main process.
    send_to_main(Signal::KILL);
}

fn send_to_main(signal: Signal) {
    if let Some(main) = pid::find_process(1) {
        // Without a value to carry, sending can't fail.
        let _ = send(&main, None, signal, SigInfo::kernel(signal), Force::Outside);
    }
}

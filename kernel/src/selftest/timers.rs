//! Timers: never early, and in order.

use crate::arch::{clock, irq};
use crate::sync::IrqLock;
use crate::time::{Timer, TimerTarget};
use alloc::sync::Arc;
use alloc::vec::Vec;

static FIRED: IrqLock<Vec<(usize, u64)>> = IrqLock::new(Vec::new());

struct Probe(usize);

impl TimerTarget for Probe {
    fn expired(&self) {
        FIRED.lock().push((self.0, clock::now_ns()));
    }
}

/// Arms several timers in disorder and one that is cancelled.
pub fn run() -> Result<(), &'static str> {
    FIRED.lock().reserve(16);
    let now = clock::now_ns();
    let deadlines = [30, 10, 50, 20, 40].map(|ms| now + ms * 1_000_000);
    let timers: Vec<Timer> =
        (0..deadlines.len()).map(|index| Timer::new(Arc::new(Probe(index)))).collect();
    irq::enable();
    for (timer, deadline) in timers.iter().zip(deadlines) {
        timer.arm(deadline);
    }
    let cancelled = Timer::new(Arc::new(Probe(99)));
    cancelled.arm(now + 25_000_000);
    cancelled.cancel();
    while clock::now_ns() < now + 80_000_000 {
        core::hint::spin_loop();
    }
    irq::disable();
    let fired = FIRED.lock();
    let order: Vec<usize> = fired.iter().map(|entry| entry.0).collect();
    if order != [1, 3, 0, 4, 2] {
        return Err("timers fired in the wrong order, or not all of them");
    }
    if fired.iter().any(|&(index, at)| at < deadlines[index]) {
        return Err("a timer fired early");
    }
    Ok(())
}

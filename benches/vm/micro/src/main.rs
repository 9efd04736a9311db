//! Times single operations of the kernel that it runs on.
//!
//! ```text
//! micro-bench              time everything
//! micro-bench --list       name what there is
//! micro-bench WORD...      time what has one of the words in its name
//! micro-bench BATCHES [WORD...]    as many batches of each
//! ```
//!
//! Each result is a line `micro NAME: NS`: nanoseconds by CLOCK_MONOTONIC for one operation. What is
//! timed is a batch of many, several times, and the fastest batch counts: what disturbs a batch only
//! ever makes it slower.

mod channels;
mod events;
mod files;
mod memory;
mod peer;
mod process;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Something that is timed: its name, and what measures it.
type Case = (&'static str, fn() -> f64);

/// How many batches there are.
static BATCHES: AtomicU64 = AtomicU64::new(100);
/// How long each takes at least: long against the clock's own cost, short against what a busy host
/// leaves a VM at a time.
const LONG: Duration = Duration::from_millis(1);

fn main() {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(number) = words.first().and_then(|word| word.parse().ok()) {
        BATCHES.store(number, Ordering::Relaxed);
        words.remove(0);
    }
    // What exec is timed with.
    if words.first().is_some_and(|word| word == "--nothing") {
        return;
    }
    let families = [process::CASES, memory::CASES, channels::CASES, events::CASES, files::CASES];
    for (name, measure) in families.into_iter().flatten() {
        if words.first().is_some_and(|word| word == "--list") {
            println!("{name}");
        } else if words.is_empty() || words.iter().any(|word| name.contains(word.as_str())) {
            println!("micro {name}: {:.1}", measure());
        }
    }
}

/// Nanoseconds for one operation, of which `batch` does as many as it is told to.
fn fastest(mut batch: impl FnMut(u64)) -> f64 {
    let mut time = |count| {
        let start = Instant::now();
        batch(count);
        start.elapsed()
    };
    let mut count = 1;
    while time(count) < LONG {
        count *= 2;
    }
    let best = (0..BATCHES.load(Ordering::Relaxed)).map(|_| time(count)).min().unwrap_or_default();
    best.as_nanos() as f64 / count as f64
}

/// The result of a call, if it did not fail. A measure of something that does not work is none.
#[track_caller]
fn ok(result: impl TryInto<i64>) -> i64 {
    let result = result.try_into().unwrap_or(-1);
    assert!(result >= 0, "{}", std::io::Error::last_os_error());
    result
}

//! Work that several threads take from, with pieces that come back after a while.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::Options;

/// Longest wait before a piece is tried again.
const LONGEST: Duration = Duration::from_secs(300);

/// Pieces of work by number.
pub struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    delay: Duration,
}

struct State {
    /// Number and how often it was tried.
    ready: VecDeque<(usize, u32)>,
    /// The same, by when it is ready.
    later: BinaryHeap<Reverse<(Instant, usize, u32)>>,
    /// Pieces that are not done with.
    open: usize,
}

impl Queue {
    /// A queue of these.
    pub fn new(pieces: impl Iterator<Item = usize>, options: &Options) -> Queue {
        let ready: VecDeque<_> = pieces.map(|piece| (piece, 0)).collect();
        let open = ready.len();
        let state = Mutex::new(State { ready, later: BinaryHeap::new(), open });
        Queue { state, changed: Condvar::new(), delay: options.retry_delay }
    }

    /// The next piece and how often it was tried before; waits for one that comes back. `None` when
    /// all are done with.
    pub fn next(&self) -> Option<(usize, u32)> {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            while let Some(Reverse((at, piece, attempt))) = state.later.peek().copied()
                && at <= now
            {
                state.later.pop();
                state.ready.push_back((piece, attempt));
            }
            if let Some(piece) = state.ready.pop_front() {
                return Some(piece);
            }
            if state.open == 0 {
                return None;
            }
            let until = state.later.peek().map(|Reverse((at, ..))| *at);
            state = match until {
                Some(at) => {
                    let wait = at.saturating_duration_since(now);
                    let waited = self.changed.wait_timeout(state, wait);
                    waited.unwrap_or_else(|poison| poison.into_inner()).0
                }
                None => self.changed.wait(state).unwrap_or_else(|poison| poison.into_inner()),
            };
        }
    }

    /// Puts a piece back that was tried `attempt` times before this one; returns the wait, which
    /// doubles each time. Half of it is left to chance (by the clock), so that what failed together
    /// isn't tried together.
    pub fn again(&self, piece: usize, attempt: u32) -> Duration {
        let full = self.delay.saturating_mul(1 << attempt.min(16)).min(LONGEST);
        let nanos = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().subsec_nanos();
        let wait = full / 2 + full.mul_f64(f64::from(nanos % 1000) / 2000.0);
        self.lock().later.push(Reverse((Instant::now() + wait, piece, attempt + 1)));
        self.changed.notify_all();
        wait
    }

    /// A piece is done with.
    pub fn done(&self) {
        self.lock().open -= 1;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_piece_is_done_once_and_those_that_fail_come_back() {
        let options = Options {
            out: "x".into(),
            formats: Vec::new(),
            place: None,
            compression: None,
            jobs: 3,
            retries: 2,
            retry_delay: Duration::from_millis(1),
        };
        let queue = Queue::new(0..50, &options);
        let (tries, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while let Some((piece, attempt)) = queue.next() {
                        tries.fetch_add(1, Ordering::Relaxed);
                        if piece % 10 == 0 && attempt < 2 {
                            queue.again(piece, attempt);
                        } else {
                            done.lock().unwrap().push(piece);
                            queue.done();
                        }
                    }
                });
            }
        });
        let mut done = done.into_inner().unwrap();
        done.sort_unstable();
        assert_eq!(done, (0..50).collect::<Vec<_>>());
        assert_eq!(tries.into_inner(), 50 + 5 * 2);
    }
}

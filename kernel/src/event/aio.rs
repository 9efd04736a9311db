//! Linux asynchronous I/O contexts (io_setup(2)).
//!
//! Requests are served when they are submitted, as Linux serves those of buffered files; a context
//! holds what is to be said about them. Its id is the address of a page in the program's memory:
//! libaio looks there for a ring of events, and asks the kernel if there isn't one.

use crate::errno::{Errno, Result};
use crate::event::Events;
use crate::sync::{SpinLock, WaitError, WaitMode, WaitQueue};
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// `struct io_event`: the request's word, its address, result, second result.
pub type Completion = [u64; 4];

struct State {
    done: VecDeque<Completion>,
    destroyed: bool,
}

/// A context.
pub struct Context {
    /// Its id.
    pub id: usize,
    capacity: usize,
    state: SpinLock<State>,
    queue: WaitQueue,
}

impl Context {
    /// An empty context for so many requests.
    pub fn new(id: usize, capacity: usize) -> Result<Context> {
        let mut done = VecDeque::new();
        done.try_reserve_exact(capacity).map_err(|_| Errno::ENOMEM)?;
        let state = SpinLock::new(State { done, destroyed: false });
        Ok(Context { id, capacity, state, queue: WaitQueue::new() })
    }

    /// Requests it was made for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Whether one more request may be submitted.
    pub fn has_room(&self) -> bool {
        self.state.lock().done.len() < self.capacity
    }

    /// Adds the result of a request.
    pub fn complete(&self, completion: Completion) {
        self.state.lock().done.push_back(completion);
        self.queue.wake_all(Events::ALL);
    }

    /// Nobody gets anything from it any more (io_destroy(2)).
    pub fn destroy(&self) {
        self.state.lock().destroyed = true;
        self.queue.wake_all(Events::ALL);
    }

    /// Takes up to `most` results, after waiting for `least` of them until `deadline` (monotonic
    /// nanoseconds).
    pub fn take(
        &self,
        least: usize,
        most: usize,
        deadline: Option<u64>,
    ) -> Result<Vec<Completion>> {
        let mut taken = Vec::new();
        let attempt = || {
            let mut state = self.state.lock();
            let n = state.done.len().min(most - taken.len());
            taken.extend(state.done.drain(..n));
            (taken.len() >= least || state.destroyed).then_some(())
        };
        match self.queue.wait(WaitMode::Interruptible, deadline, attempt) {
            Err(WaitError::Interrupted) if taken.is_empty() => Err(Errno::EINTR),
            _ => Ok(taken),
        }
    }
}

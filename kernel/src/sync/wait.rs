//! Wait queues: where tasks sleep and pollers listen until something becomes true.

use super::IrqLock;
use crate::event::Events;
use crate::task::{Task, current_arc, sched};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering, fence};

/// Gets told of events on a [`WaitQueue`] without being a sleeping task (epoll's way in).
pub trait Observer: Send + Sync {
    /// Called for each wake-up, with interrupts off and the queue locked: must not sleep, must not
    /// touch this queue. Returns whether it took the event (counts against the exclusive wake-ups).
    fn notify(&self, events: Events) -> bool;
}

enum Waiter {
    Task(Arc<Task>),
    Observer(Arc<dyn Observer>),
}

struct Entry {
    id: u64,
    exclusive: bool,
    waiter: Waiter,
}

struct Inner {
    entries: VecDeque<Entry>,
    next_id: u64,
}

/// How a sleeping task may be disturbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitMode {
    /// Any deliverable signal ends the wait.
    Interruptible,
    /// Only a fatal signal ends the wait.
    Killable,
    /// Nothing but the condition or the deadline ends the wait.
    Uninterruptible,
}

/// Why a wait ended without its condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitError {
    /// A signal is pending.
    Interrupted,
    /// The deadline has passed.
    TimedOut,
}

/// Tasks and observers waiting for one thing.
///
/// The waker makes the condition true first and calls [`wake`](WaitQueue::wake) afterwards; the
/// waiter queues itself first and checks the condition afterwards, so no wake-up is lost.
pub struct WaitQueue {
    len: AtomicUsize,
    inner: IrqLock<Inner>,
}

impl WaitQueue {
    /// An empty queue.
    pub const fn new() -> Self {
        WaitQueue {
            len: AtomicUsize::new(0),
            inner: IrqLock::new(Inner { entries: VecDeque::new(), next_id: 0 }),
        }
    }

    /// Sleeps until `condition` gives a value.
    ///
    /// `deadline` is a point of monotonic time in nanoseconds. `condition` is called in task
    /// context with no locks held; it may take locks of its own.
    pub fn wait<T>(
        &self,
        mode: WaitMode,
        deadline: Option<u64>,
        condition: impl FnMut() -> Option<T>,
    ) -> Result<T, WaitError> {
        self.wait_inner(mode, deadline, false, condition)
    }

    /// As [`wait`](WaitQueue::wait), but of several such waiters one wake-up wakes only the first.
    pub fn wait_exclusive<T>(
        &self,
        mode: WaitMode,
        deadline: Option<u64>,
        condition: impl FnMut() -> Option<T>,
    ) -> Result<T, WaitError> {
        self.wait_inner(mode, deadline, true, condition)
    }

    /// Sleeps until `condition` gives a value; only that ends the wait.
    pub fn wait_uninterruptible<T>(&self, condition: impl FnMut() -> Option<T>) -> T {
        match self.wait_inner(WaitMode::Uninterruptible, None, false, condition) {
            Ok(value) => value,
            Err(_) => unreachable!("an uninterruptible wait without a deadline has no other end"),
        }
    }

    fn wait_inner<T>(
        &self,
        mode: WaitMode,
        deadline: Option<u64>,
        exclusive: bool,
        mut condition: impl FnMut() -> Option<T>,
    ) -> Result<T, WaitError> {
        if let Some(value) = condition() {
            return Ok(value);
        }
        let task = current_arc();
        loop {
            // In this order: a wake-up takes the entry, and must not find the task still awake then, or
            // the task would sleep on a queue that has forgotten it.
            task.prepare_to_sleep(mode);
            let id = self.enqueue(Waiter::Task(task.clone()), exclusive);
            let outcome = if let Some(value) = condition() {
                Some(Ok(value))
            } else if task.wait_disturbed(mode) {
                Some(Err(WaitError::Interrupted))
            } else if deadline.is_some_and(|at| crate::arch::clock::now_ns() >= at) {
                Some(Err(WaitError::TimedOut))
            } else {
                sched::block(deadline);
                None
            };
            task.finish_sleep();
            let still_queued = self.remove(id);
            if let Some(outcome) = outcome {
                // An exclusive wake-up spent on us must not be lost when we leave without using it.
                if exclusive && !still_queued && outcome.is_err() {
                    self.wake(Events::ALL, 1);
                }
                return outcome;
            }
        }
    }

    /// Wakes every non-exclusive waiter and up to `exclusive` exclusive ones, first come first
    /// served. Callable from interrupt handlers.
    pub fn wake(&self, events: Events, exclusive: usize) -> usize {
        // Pairs with the fence in `enqueue`: either we see the entry or the waiter sees the
        // condition.
        fence(Ordering::SeqCst);
        if self.len.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        let mut inner = self.inner.lock();
        let mut left = exclusive;
        let mut woken = 0;
        let mut at = 0;
        while at < inner.entries.len() {
            let entry = &inner.entries[at];
            if entry.exclusive && left == 0 {
                at += 1;
                continue;
            }
            let (taken, remove) = match &entry.waiter {
                Waiter::Task(task) => (sched::wake(task), true),
                Waiter::Observer(observer) => (observer.notify(events), false),
            };
            if taken {
                woken += 1;
                left -= usize::from(entry.exclusive);
            }
            if remove {
                inner.entries.remove(at);
            } else {
                at += 1;
            }
        }
        self.len.store(inner.entries.len(), Ordering::Relaxed);
        woken
    }

    /// Wakes every waiter, exclusive or not.
    pub fn wake_all(&self, events: Events) -> usize {
        self.wake(events, usize::MAX)
    }

    /// Wakes every non-exclusive waiter and one exclusive one.
    pub fn wake_one(&self, events: Events) -> usize {
        self.wake(events, 1)
    }

    /// Whether anybody waits or listens.
    pub fn is_empty(&self) -> bool {
        self.len.load(Ordering::SeqCst) == 0
    }

    fn enqueue(&self, waiter: Waiter, exclusive: bool) -> u64 {
        let mut inner = self.inner.lock();
        let id = inner.next_id;
        inner.next_id += 1;
        let entry = Entry { id, exclusive, waiter };
        // Exclusive waiters stand behind the others, so that a walk meets every non-exclusive one
        // first.
        if exclusive {
            inner.entries.push_back(entry);
        } else {
            inner.entries.push_front(entry);
        }
        self.len.store(inner.entries.len(), Ordering::Relaxed);
        drop(inner);
        fence(Ordering::SeqCst);
        #[cfg(test)]
        if let Some(meanwhile) = tests::QUEUED.take() {
            meanwhile(self);
        }
        id
    }

    /// Removes an entry; returns whether it was still there.
    fn remove(&self, id: u64) -> bool {
        let mut inner = self.inner.lock();
        let at = inner.entries.iter().position(|entry| entry.id == id);
        let entry = at.and_then(|at| inner.entries.remove(at));
        self.len.store(inner.entries.len(), Ordering::Relaxed);
        drop(inner);
        entry.is_some()
    }

    /// Adds an observer that stays until the registration is dropped.
    pub fn observe(self: &Arc<Self>, observer: Arc<dyn Observer>, exclusive: bool) -> Registration {
        let id = self.enqueue(Waiter::Observer(observer), exclusive);
        Registration { queue: self.clone(), id }
    }
}

impl Default for WaitQueue {
    fn default() -> Self {
        WaitQueue::new()
    }
}

/// Keeps an [`Observer`] on a queue.
pub struct Registration {
    queue: Arc<WaitQueue>,
    id: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.queue.remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    std::thread_local! {
        /// What "another CPU" does right after the next waiter has queued itself.
        pub(super) static QUEUED: Cell<Option<fn(&WaitQueue)>> = const { Cell::new(None) };
    }

    /// A task for this thread; kept for good, since tests on other threads have theirs.
    fn become_task() {
        sched::init_cpu().unwrap();
        core::mem::forget(current_arc());
    }

    #[test]
    fn a_wake_between_queuing_and_sleeping_is_not_lost() {
        become_task();
        for exclusive in [false, true] {
            let queue = WaitQueue::new();
            // Somebody else took what the wake-up was for: the waiter must queue itself again, not
            // sleep on a queue that has forgotten it.
            QUEUED.set(Some(|queue| assert_eq!(queue.wake_one(Events::IN), 1)));
            let mut looked = 0;
            let result = queue.wait_inner(WaitMode::Uninterruptible, None, exclusive, || {
                looked += 1;
                (looked == 3).then_some(looked)
            });
            assert_eq!(result, Ok(3));
            assert!(queue.is_empty());
        }
    }

    #[test]
    fn a_wake_after_the_last_look_is_not_lost() {
        become_task();
        let queue = WaitQueue::new();
        let mut looked = 0;
        let result = queue.wait(WaitMode::Interruptible, None, || {
            looked += 1;
            if looked == 2 {
                // The condition becomes true behind the back of this look.
                assert_eq!(queue.wake_all(Events::IN), 1);
            }
            (looked > 2).then_some(())
        });
        assert_eq!((result, looked), (Ok(()), 3));
    }

    #[test]
    fn an_exclusive_wake_spent_on_one_who_leaves_goes_to_the_next() {
        struct Next(AtomicUsize);
        impl Observer for Next {
            fn notify(&self, _events: Events) -> bool {
                self.0.fetch_add(1, Ordering::Relaxed);
                true
            }
        }
        become_task();
        let queue = Arc::new(WaitQueue::new());
        let next = Arc::new(Next(AtomicUsize::new(0)));
        let mut registration = None;
        let mut looked = 0;
        let result = queue.wait_exclusive::<()>(WaitMode::Uninterruptible, Some(1), || {
            looked += 1;
            if looked == 2 {
                registration = Some(queue.observe(next.clone(), true));
                assert_eq!(queue.wake_one(Events::IN), 1);
                assert_eq!(next.0.load(Ordering::Relaxed), 0);
            }
            None
        });
        assert_eq!(result, Err(WaitError::TimedOut));
        assert_eq!(next.0.load(Ordering::Relaxed), 1);
    }
}

//! The table of all tasks and processes by number.

use super::{Process, Task};
use crate::errno::{Errno, Result};
use crate::map::Tree;
use crate::sync::SpinLock;
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

/// Numbers run up to this and start again (`/proc/sys/kernel/pid_max`).
pub const PID_MAX: i32 = 32768;

/// The number at which they start again.
pub fn limit() -> i32 {
    TABLE.lock().limit
}

/// Changes it. EINVAL outside of what Linux takes.
pub fn set_limit(limit: i64) -> Result<()> {
    const RANGE: core::ops::RangeInclusive<i64> = 301..=4_194_304;
    let limit = RANGE.contains(&limit).then_some(limit as i32).ok_or(Errno::EINVAL)?;
    TABLE.lock().limit = limit;
    Ok(())
}
/// After the first round, low numbers stay free for what starts early.
const RESERVED: i32 = 300;

/// What a number stands for. One number may name a task, its process, a process group and a session
/// at once.
#[derive(Default)]
struct Entry {
    task: Weak<Task>,
    process: Weak<Process>,
    /// How many of: task, process, group members, session members use the number.
    uses: u32,
}

/// Allocates numbers: the next free one after the last.
struct Table {
    entries: Tree<Box<Entry>>,
    last: i32,
    limit: i32,
}

fn key(number: i32) -> u128 {
    number as u32 as u128
}

impl Table {
    const fn new(limit: i32) -> Table {
        Table { entries: Tree::new(), last: 0, limit }
    }

    fn alloc(&mut self) -> Result<i32> {
        for _ in 0..self.limit {
            let wraps = self.last + 1 >= self.limit;
            self.last = if wraps { RESERVED.min(self.limit - 1) } else { self.last + 1 };
            if !self.entries.contains_key(key(self.last)) {
                let entry = Entry { uses: 1, ..Entry::default() };
                self.entries.insert(key(self.last), Box::new(entry));
                return Ok(self.last);
            }
        }
        Err(Errno::EAGAIN)
    }

    fn release(&mut self, number: i32) {
        if let Some(entry) = self.entries.get_mut(key(number)) {
            entry.uses -= 1;
            if entry.uses == 0 {
                self.entries.remove(key(number));
            }
        }
    }
}

static TABLE: SpinLock<Table> = SpinLock::new(Table::new(PID_MAX));

/// Keeps a number from being given out again.
#[derive(Debug)]
pub struct PidRef(i32);

impl PidRef {
    /// A number nobody uses. EAGAIN when all are taken.
    pub fn alloc() -> Result<PidRef> {
        Ok(PidRef(TABLE.lock().alloc()?))
    }
    /// Another reference to a number in use.
    pub fn again(&self) -> PidRef {
        if let Some(entry) = TABLE.lock().entries.get_mut(key(self.0)) {
            entry.uses += 1;
        }
        PidRef(self.0)
    }
    /// The number.
    pub fn number(&self) -> i32 {
        self.0
    }
    /// Makes the number find `task`.
    pub fn bind_task(&self, task: &Arc<Task>) {
        if let Some(entry) = TABLE.lock().entries.get_mut(key(self.0)) {
            entry.task = Arc::downgrade(task);
        }
    }
    /// Makes the number find `process`.
    pub fn bind_process(&self, process: &Arc<Process>) {
        if let Some(entry) = TABLE.lock().entries.get_mut(key(self.0)) {
            entry.process = Arc::downgrade(process);
        }
    }
    /// Makes the number find no task.
    pub fn unbind_task(&self) {
        if let Some(entry) = TABLE.lock().entries.get_mut(key(self.0)) {
            entry.task = Weak::new();
        }
    }
    /// Makes the number find no process (it was reaped).
    pub fn unbind_process(&self) {
        if let Some(entry) = TABLE.lock().entries.get_mut(key(self.0)) {
            entry.process = Weak::new();
        }
    }
}

impl Drop for PidRef {
    fn drop(&mut self) {
        TABLE.lock().release(self.0);
    }
}

/// The process with this number, zombies included.
pub fn find_process(pid: i32) -> Option<Arc<Process>> {
    let weak = TABLE.lock().entries.get(key(pid))?.process.clone();
    weak.upgrade()
}

/// The process with this number, or the one whose thread has it: kill(2) takes either.
pub fn find_process_of(number: i32) -> Option<Arc<Process>> {
    find_process(number).or_else(|| Some(find_task(number)?.process().clone()))
}

/// The task (thread) with this number.
pub fn find_task(tid: i32) -> Option<Arc<Task>> {
    let weak = TABLE.lock().entries.get(key(tid))?.task.clone();
    weak.upgrade()
}

/// Every process in order of its number, zombies included.
pub fn processes() -> Vec<Arc<Process>> {
    let weak: Vec<_> = TABLE.lock().entries.values().map(|entry| entry.process.clone()).collect();
    weak.into_iter().filter_map(|process| process.upgrade()).collect()
}

/// The number given out last (`/proc/loadavg`).
pub fn last() -> i32 {
    TABLE.lock().last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_not_reused_at_once_and_run_out_cleanly() {
        let mut table = Table::new(6);
        assert_eq!((1..6).map(|_| table.alloc().unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert_eq!(table.alloc(), Err(Errno::EAGAIN));
        table.release(5);
        assert_eq!(table.alloc(), Ok(5));
    }

    #[test]
    fn a_number_lives_as_long_as_its_last_use() {
        let first = PidRef::alloc().unwrap();
        let second = first.again();
        let number = first.number();
        drop(first);
        assert!(TABLE.lock().entries.contains_key(key(number)));
        drop(second);
        assert!(!TABLE.lock().entries.contains_key(key(number)));
    }
}

//! Futexes (futex(7)): sleeping on a word of user memory.
//!
//! | module | what it holds |
//! |---|---|
//! | [`queue`] | the hashed wait queues |
//! | [`ops`] | wait, wake, requeue, wake-op on them |
//! | [`pi`] | the operations that hand over a lock's ownership |
//! | [`robust`] | what the death of a thread does to locks it held |
//!
//! A word is known by a [`Key`]: the address space and address for private futexes, the memory
//! object and offset for shared ones, so that processes which map the same page at different
//! addresses meet.

pub mod ops;
pub mod pi;
mod queue;
pub mod robust;

pub use queue::Key;

use crate::errno::{Errno, Result};
use crate::io::check_user;
use crate::mm::{FutexKey, fault_in_user};
use crate::task::current;

/// The word's key. EINVAL for a misaligned address, EFAULT for one that can't be read; a private one
/// need not be there.
fn key(addr: usize, private: bool) -> Result<Key> {
    if !addr.is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    check_user(addr, 4)?;
    if !private && ops::load(addr).is_none() {
        fault_in_user(addr, 4, false)?;
    }
    let found =
        current().with_mm(|mm| mm.futex_key(addr, private)).unwrap_or(Err(Errno::EFAULT))?;
    // Spaces and objects are numbered apart: the lowest bit tells which kind of number it is.
    Ok(match found {
        // A shared futex in private memory is another than the private one at the same place; words
        // lie at multiples of four.
        FutexKey::Private { space, addr } => (space as usize * 2, addr | usize::from(!private)),
        FutexKey::Shared { object, offset } => (object as usize * 2 + 1, offset as usize),
    })
}

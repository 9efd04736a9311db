//! How much of pipes each user has (pipe(7), "/proc files").

use super::PIPE_BUF;
use crate::map::Sorted;
use crate::sync::SpinLock;
use core::sync::atomic::{AtomicI64, Ordering::SeqCst};

/// Pages of pipes that a user may have before further ones are small (`fs.pipe-user-pages-soft`), and
/// at all (`fs.pipe-user-pages-hard`); 0: no limit.
pub static SOFT_PAGES: AtomicI64 = AtomicI64::new(16384);
/// See [`SOFT_PAGES`].
pub static HARD_PAGES: AtomicI64 = AtomicI64::new(0);

/// Pages of pipes by user.
static CHARGED: SpinLock<Sorted<u32, i64>> = SpinLock::new(Sorted::new());

/// Who pays for a pipe, and which limits are none.
#[derive(Clone, Copy, Debug)]
pub struct Holder {
    /// The real user.
    pub uid: u32,
    /// Has CAP_SYS_RESOURCE: `fs.pipe-max-size` doesn't count.
    pub resource: bool,
    /// Has that or CAP_SYS_ADMIN: the limits of pages don't.
    pub exempt: bool,
}

/// Charges a user with `new` bytes of pipes in place of `old`. Returns all pages of the user.
pub(super) fn charge(uid: u32, old: usize, new: usize) -> i64 {
    let mut charged = CHARGED.lock();
    let sum = charged.get_or_insert_with(uid, || 0);
    *sum += (new / PIPE_BUF) as i64 - (old / PIPE_BUF) as i64;
    let pages = *sum;
    if pages == 0 {
        charged.remove(&uid);
    }
    pages
}

/// Whether so many pages are more than a limit.
pub(super) fn beyond(pages: i64, limit: &AtomicI64) -> bool {
    let limit = limit.load(SeqCst);
    limit > 0 && pages > limit
}

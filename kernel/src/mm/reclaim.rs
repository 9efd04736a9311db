//! Making room: dropping cached pages that can be read again.

use super::{cache, frame};

/// Drops up to about `want` frames of clean, idle cache pages; returns how many. Never sleeps and
/// only tries locks, so it may be called from any allocation.
pub fn shrink(want: usize) -> usize {
    cache::shrink(want)
}

/// Drops some cache pages if free memory is low. Task context, no locks held.
pub fn balance() {
    if frame::is_low() {
        reclaim(64);
    }
}

/// As [`shrink`], but if idle pages don't suffice it also takes pages out of address spaces that
/// haven't used them lately; not the last ones of files, for an instruction that needs two of them
/// would wait forever if each drove the other out. Task context, no locks held.
pub fn reclaim(want: usize) -> usize {
    let mut freed = cache::shrink(want);
    // The first round may only clear the marks of use. One that frees anything leaves time for pages
    // to be used again.
    for _ in 0..2 {
        if freed > 0 || cache::is_scarce() || cache::age_mappings() == 0 {
            break;
        }
        freed = cache::shrink(want);
    }
    freed
}

//! Making room: dropping cached pages that can be read again.

use super::{cache, frame};

/// Drops up to about `want` frames of clean, idle cache pages; returns how many. Never sleeps and only tries locks,
/// so it may be called from any allocation.
pub fn shrink(want: usize) -> usize {
    cache::shrink(want)
}

/// Drops some cache pages if free memory is low. Task context, no locks held.
pub fn balance() {
    if frame::is_low() {
        shrink(64);
    }
}

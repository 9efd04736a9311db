//! When memory is gone.

use super::reclaim;
use crate::errno::{Errno, Result};
use crate::sync::Once;

/// Chooses and kills a process. The process table implements it.
pub trait OomKiller: Send + Sync {
    /// Picks the process with the largest [`badness`], logs its name and usage and kills it; or
    /// finds that one is dying already. Waits until that may have freed something. False if the
    /// caller itself must give up: it is the victim, or nobody is left to kill. Task context, no
    /// locks held.
    fn kill_one(&self) -> bool;
}

static KILLER: Once<&'static dyn OomKiller> = Once::new();
static CLEANER: Once<fn() -> bool> = Once::new();

/// Names what makes dirty pages of files clean, once: it waits until some are, and is false if there
/// are none or none become so. Task context, no locks held but those of writers.
pub fn set_cleaner(cleaner: fn() -> bool) {
    let _ = CLEANER.set(cleaner);
}

/// Names the killer, once at boot.
pub fn set_killer(killer: &'static dyn OomKiller) {
    let _ = KILLER.set(killer);
}

/// Frees memory by whatever it takes, but for a program's `own` memory not by the last pages of files.
/// ENOMEM if the caller must give up. Task context, no locks held.
pub fn make_room(own: bool) -> Result<()> {
    if !(own && super::cache::is_scarce()) && reclaim::reclaim(64) > 0 {
        return Ok(());
    }
    if CLEANER.get().is_some_and(|clean| clean()) && reclaim::reclaim(64) > 0 {
        return Ok(());
    }
    match KILLER.get() {
        Some(killer) if killer.kill_one() => Ok(()),
        _ => Err(Errno::ENOMEM),
    }
}

/// How much killing a process would help: its pages, moved by its `oom_score_adj` (-1000 to 1000,
/// thousandths of all memory). `None` if it must not be killed.
pub fn badness(resident_pages: usize, oom_score_adj: i32) -> Option<u64> {
    if oom_score_adj <= -1000 {
        return None;
    }
    let total = super::frame::total_frames() as i64;
    let adjusted = resident_pages as i64 + i64::from(oom_score_adj) * total / 1000;
    Some(adjusted.max(1) as u64)
}

//! What the programs use of the image, told to the host over the status channel: for
//! `dock2uni trace`, on `d2u.witness`.
//!
//! Nothing is kept here but one bit for what was told: in the names' entries for files, in two
//! tables for calls and ports. A name that was dropped from memory meanwhile is told again, which
//! does no harm.

use crate::drivers::virtio::console;
use crate::fs::{Path, mount, walk};
use crate::net::addr::{SocketAddr, is_loopback};
use crate::sync::Once;
use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use dock2uni_format::status::{Status, Use, escape};

/// Lines about files that are sent at most: a program may make up names without end.
const MAX_LINES: u32 = 1 << 18;

static ON: AtomicBool = AtomicBool::new(false);
static LINES: AtomicU32 = AtomicU32::new(0);
static CALLS: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];
static PORTS: Once<Box<[AtomicU64]>> = Once::new();

/// Starts telling.
pub fn start() {
    ON.store(true, Relaxed);
}

/// Whether anything is to be told.
#[inline]
pub fn on() -> bool {
    ON.load(Relaxed)
}

/// Tells that a file was looked up, opened or executed.
#[cold]
pub fn file(path: &Path, how: Use) {
    if !path.dentry.tell(how as u32) || LINES.fetch_add(1, Relaxed) >= MAX_LINES {
        return;
    }
    let Some(root) = mount::root() else { return };
    console::tell(Status::Used(how, &escape(&walk::name_of(path, root))));
}

/// Tells that a system call was made.
pub fn call(number: usize) {
    let Some(word) = CALLS.get(number / 64) else { return };
    let bit = 1 << (number % 64);
    if word.load(Relaxed) & bit == 0 && word.fetch_or(bit, Relaxed) & bit == 0 {
        console::tell(Status::Call(number as u32));
    }
}

/// Tells that somebody listens on a TCP port; told without being asked, since it says when a server
/// is ready.
pub fn listens(addr: SocketAddr) {
    // A bit for each port, and one for each of loopback.
    let ports = PORTS.get_or_init(|| (0..2048).map(|_| AtomicU64::new(0)).collect());
    let (port, local) = (addr.port(), is_loopback(&addr.ip()));
    let bit = 1 << (port % 64);
    let word = usize::from(port) / 64 + if local { 1024 } else { 0 };
    if ports[word].fetch_or(bit, Relaxed) & bit == 0 {
        console::tell(if local { Status::ListensLocally(port) } else { Status::Listens(port) });
    }
}

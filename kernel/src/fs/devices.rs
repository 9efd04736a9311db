//! Device numbers: which driver opens a device node.

use super::Path;
use super::inode::{Opened, dev_major, dev_minor, mode::*};
use crate::errno::{Errno, Result};
use crate::sync::SpinLock;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

/// Opens a device: minor number, open flags, the node's name.
pub type Opener = fn(u32, u32, &Path) -> Result<Opened>;

struct Driver {
    block: bool,
    major: u32,
    minors: RangeInclusive<u32>,
    open: Opener,
}

static DRIVERS: SpinLock<Vec<Driver>> = SpinLock::new(Vec::new());

/// Announces who opens character devices of a major number and range of minors.
pub fn register_char(major: u32, minors: RangeInclusive<u32>, open: Opener) {
    DRIVERS.lock().push(Driver { block: false, major, minors, open });
}

/// Announces who opens block devices.
pub fn register_block(major: u32, minors: RangeInclusive<u32>, open: Opener) {
    DRIVERS.lock().push(Driver { block: true, major, minors, open });
}

/// Opens the device of a node. ENXIO if no driver has that number.
pub fn open(mode: u32, rdev: u64, flags: u32, path: &Path) -> Result<Opened> {
    let block = mode & S_IFMT == S_IFBLK;
    let (major, minor) = (dev_major(rdev), dev_minor(rdev));
    let open = {
        let drivers = DRIVERS.lock();
        // Those announced later come first.
        let found = drivers.iter().rev().find(|driver| {
            driver.block == block && driver.major == major && driver.minors.contains(&minor)
        });
        found.map(|driver| driver.open)
    };
    open.ok_or(Errno::ENXIO)?(minor, flags, path)
}

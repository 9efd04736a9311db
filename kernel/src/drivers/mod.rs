//! Devices.

pub mod block;
pub mod console;
#[cfg(guest)]
pub mod pci;
pub mod partition;
pub mod tty;
pub mod virtio;

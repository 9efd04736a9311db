//! Devices.

pub mod block;
pub mod console;
pub mod loopback;
pub mod partition;
#[cfg(guest)]
pub mod pci;
pub mod tty;
pub mod virtio;

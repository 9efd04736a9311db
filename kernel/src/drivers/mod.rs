//! Devices.

pub mod block;
pub mod console;
pub mod tty;
pub mod virtio;

//! Devices.

pub mod block;
pub mod tty;
pub mod virtio;

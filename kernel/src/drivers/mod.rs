//! Devices.

pub mod tty;

//! The dock2uni libOS: a Linux-ABI kernel for one image.
//!
//! Guest builds (`cfg(guest)`) are `no_std` and run on [`arch`]'s x86_64 half. Host builds replace
//! that half by a hosted one, so the same logic runs in `cargo test`.
#![cfg_attr(guest, no_std)]

extern crate alloc;

pub mod arch;
pub mod bpf;
pub mod drivers;
pub mod errno;
pub mod event;
pub mod fs;
#[cfg(guest)]
pub mod init;
pub mod io;
pub mod ipc;
pub mod live;
pub mod log;
pub mod map;
pub mod mm;
pub mod net;
pub mod random;
#[cfg(guest)]
pub mod selftest;
pub mod setting;
pub mod sync;
pub mod syscall;
pub mod task;
pub mod time;
pub mod uts;
pub mod witness;

pub use errno::{Errno, Result};

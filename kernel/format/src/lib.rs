//! Structures that cross the border between the converter and the kernel.
//!
//! - [`record`]: the boot record, which tells the kernel what to run and how.
//! - [`ksyms`]: the kernel's symbol table, for backtraces.
//! - [`relocs`]: where the kernel holds addresses of itself, so that it can move.
//! - [`settings`]: which of its settings a record may change.
//! - [`status`]: what the kernel tells the host while it runs.
//! - [`syscalls`]: their names, in traces of the one and reports of the other.
//! - [`erofs`]: the on-disk structures of the read-only root filesystem.
//! - [`verity`]: where its hash tree lies.
//! - [`lz4`]: how its files may be compressed.
//!
//! Both sides are built from one source tree and travel in one image, so the
//! formats need no negotiation; the version in the record catches a mix-up.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod control;
pub mod erofs;
pub mod ksyms;
pub mod lz4;
pub mod record;
pub mod relocs;
pub mod settings;
pub mod status;
pub mod syscalls;
pub mod verity;

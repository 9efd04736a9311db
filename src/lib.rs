//! dock2uni turns a container image into a unikernel: one bootable VM image that holds the
//! application, its files and the dock2uni kernel.
//!
//! The pipeline, one module per arrow, one type in and one type out:
//!
//! ```text
//! reference -> source -> Image -> rootfs -> Tree + data -> erofs -> root image
//!                                 config -> boot record -> disk -> bootable image -> vmm
//! ```
#![forbid(unsafe_code)]

pub mod artifact;
pub mod atomic;
pub mod browse;
mod buffer;
mod causes;
pub mod cli;
pub mod config;
pub mod convert;
pub mod disk;
pub mod dockerfile;
mod environment;
pub mod erofs;
pub mod fleet;
#[doc(hidden)]
pub mod fuzz;
pub mod guest;
mod lock;
pub mod pipeline;
pub mod plan;
pub mod provenance;
pub mod rootfs;
pub mod roots;
pub mod sbom;
#[cfg(feature = "service")]
pub mod service;
pub mod signature;
pub mod slim;
pub mod source;
pub mod syscalls;
pub mod template;
pub mod trial;
mod uncached;
mod units;
pub mod vmm;
pub mod volume;

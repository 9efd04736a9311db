//! Runs a fleet on this machine: a VM for each instance of each service, on a private network.
//!
//! ```text
//! Workloads ─ prepare ─> Spec ─ state directory ─> supervisor (a process) ─> VMs, gateway, logs
//!                                     ^ │
//!                             ps, logs, down
//! ```
//!
//! The supervisor is a process of its own, whether somebody watches or not. It holds the lock of its
//! [`state`] directory while it lives, and its VMs end with it, however it ends. Whoever wants to
//! know or change something speaks to its socket.

pub(crate) mod baked;
mod error;
pub mod logs;
pub mod net;
mod prepare;
mod spec;
pub mod state;
pub mod supervisor;

pub use error::Error;
pub use prepare::{Settings, prepare, without_scheduled};
pub use spec::{Instance, Need, Spec};

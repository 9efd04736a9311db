//! Fleets: what runs today, and what of it will run as VMs.
//!
//! ```text
//! Compose files ──┐
//! Kubernetes ─────┼─> Inventory of Workloads ──> Plan: digest, verdict, sizes, notes
//! list, registry ─┘
//! ```
//!
//! Every source yields [`Workload`]s, which say in one vocabulary what is to run and what the
//! source asked for that a VM has no counterpart for ([`Note`]). [`plan`] brings in each image once
//! and says beforehand what will become of it.

pub mod catalog;
pub mod compose;
pub mod convert;
pub mod cron;
pub mod docker;
mod error;
pub mod export;
mod html;
pub mod kube;
mod list;
pub mod name;
pub mod plan;
mod quantity;
mod source;
pub mod up;
mod workload;
mod yaml;

pub use error::Error;
pub use html::page;
pub use plan::{Plan, plan};
pub use source::{Inputs, Inventory, Source, compose_files, read};
pub use workload::{
    Attachment, Build, Condition, Dependency, HOST_GATEWAY, Health, Image, Kind, Manifest, Mount,
    MountKind, Note, Origin, PortMap, Reach, Resources, Restart, Role, Schedule, Service,
    ServicePort, Severity, Test, Value, Variable, Workload,
};

//! Fleets: what is said of them, converted and run, against a real registry and real VMs.

#[path = "../common/mod.rs"]
mod common;
mod convert;
mod export;
mod kube;
mod nomad;
mod plan;
mod secrets;
mod up;

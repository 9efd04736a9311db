//! The service with its real parts: docker-registry and its notifications, PostgreSQL, skopeo, VMs.

#[path = "../common/mod.rs"]
mod common;

mod api;
mod kills;
mod load;
mod postgres;
mod push;
mod queue;
mod scale;
mod service;
mod webhooks;

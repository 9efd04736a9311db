//! The service with its real parts: docker-registry and its notifications, PostgreSQL, skopeo, VMs.

#[path = "../common/mod.rs"]
mod common;

mod api;
mod browser;
mod kills;
mod kubernetes;
mod load;
mod operate;
mod pages;
mod postgres;
mod push;
mod queue;
mod service;
mod store;
mod traces;
mod trials;
mod webhooks;

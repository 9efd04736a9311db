//! The service: converts what is pushed to registries, and what it is asked for.
//!
//! ```text
//! webhooks, polls, API -> Request -> queue -> worker -> conversion -> publish -> callback
//!        rules (config)              SQLite,  threads   a process    directory,
//!                                    Postgres           of its own   objects, registry
//! ```
//!
//! [`server::run`] is a server with workers of its own; [`server::work`] workers alone, on any number of
//! machines, over one PostgreSQL. Everything that is accepted is in the [`queue`] before the answer
//! goes out; everything that a worker has is leased, so that whatever is killed at whatever moment,
//! each job ends once.

pub mod callback;
pub mod config;
pub mod convert;
pub mod http;
pub mod job;
pub mod log;
pub mod metrics;
pub mod outgoing;
pub mod pattern;
mod poll;
pub mod publish;
pub mod queue;
pub mod secret;
pub mod server;
pub mod tls;
pub mod trace;
pub mod trial;
pub mod webhook;
pub mod worker;

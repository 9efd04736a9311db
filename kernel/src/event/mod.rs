//! Readiness: poll, select, epoll, and the files that exist only to be waited for.

pub mod epoll;
pub mod poll;
pub use poll::{Events, PollTable};

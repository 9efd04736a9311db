//! Readiness: poll, select, epoll, and the files that exist only to be waited for.

pub mod aio;
pub mod dnotify;
pub mod epoll;
pub mod eventfd;
pub mod inotify;
pub mod pidfd;
pub mod poll;
pub mod select;
pub mod sigio;
pub mod signalfd;
pub mod timerfd;
pub use poll::{Events, PollTable};

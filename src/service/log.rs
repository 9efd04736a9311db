//! The service's own log: one line for each thing that happens, on standard error, as JSON or text.

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt};

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Text,
    /// For programs: an object a line.
    Json,
}

/// Begins to log. What is less weighty than `level` is left out.
pub fn start(form: Form, level: LevelFilter) {
    let registry = Registry::default().with(level);
    // A second start, in tests, changes nothing.
    let _ = match form {
        Form::Json => registry
            .with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr))
            .try_init(),
        Form::Text => {
            let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
            registry.with(fmt::layer().with_ansi(ansi).with_writer(std::io::stderr)).try_init()
        }
    };
}

//! Shell scripts, read for what they will start.

mod builtins;
mod eval;
mod expand;
mod files;
mod outcome;
mod parse;
mod refusal;
mod state;
mod test;

#[cfg(test)]
mod tests;

pub use eval::walk;
pub use expand::matches;
pub use outcome::{How, Outcome, Run, Start, Value, World};
pub use refusal::Refusal;

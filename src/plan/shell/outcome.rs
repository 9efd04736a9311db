//! What a script sees, and what is known of it afterwards.

use std::collections::{BTreeMap, BTreeSet};

use super::refusal::Refusal;

/// A text, if it is known.
pub type Value = Option<String>;

/// What a script can see of its surroundings.
pub trait World {
    /// Contents of a text file.
    fn read(&self, path: &str) -> Option<String>;
    /// Type of the file at a path, links followed: `f`, `d`, or another letter of `find -type`.
    fn kind(&self, path: &str) -> Option<char>;
    /// Whether a file may be executed.
    fn executable(&self, path: &str) -> bool;
    /// Length of a file in bytes.
    fn size(&self, path: &str) -> u64;
    /// Whether a name is a program in PATH.
    fn which(&self, name: &str) -> Option<String>;
    /// Names in a directory.
    fn list(&self, path: &str) -> Vec<String>;
    /// Where data are kept that outlive a container.
    fn volumes(&self) -> &[String];
}

/// How a program is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It takes the script's place.
    Exec,
    /// The script waits for it.
    Call,
    /// It runs beside the script.
    Background,
}

/// A program that the script starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its arguments; `None` for those that are not known.
    pub argv: Vec<Value>,
    /// Whether the list of arguments is known to end where `argv` ends.
    pub whole: bool,
    /// Whether it is certain to be reached, if nothing fails before.
    pub certain: bool,
    /// How.
    pub how: How,
    /// Whether it is asked for its output only.
    pub asked: bool,
}

/// What is known of a script.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Programs that it starts, in order.
    pub runs: Vec<Run>,
    /// Files that it reads as scripts.
    pub sourced: BTreeSet<String>,
    /// Absolute paths that it names.
    pub mentions: BTreeSet<String>,
    /// Where it ends, without success, for want of variables.
    pub refusals: Vec<Refusal>,
    /// Whether all of it was understood and walked.
    pub complete: bool,
}

/// Where a script starts from.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// `$0`.
    pub name: String,
    /// `$1` on.
    pub args: Vec<Value>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub cwd: String,
    /// Effective user ID, if known.
    pub uid: Option<u32>,
}

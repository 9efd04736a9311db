//! What is known at one point of the walk.

use std::collections::BTreeMap;

use super::outcome::Value;

/// Whether the walk goes on behind a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    On,
    /// Out of the function or sourced file.
    Return,
    /// The script is over.
    End,
    /// The script is over, and says that it failed.
    Fail,
}

impl Flow {
    /// Whether there is nothing else behind this way: it goes on, or the script has failed.
    pub fn is_on_or_failed(self) -> bool {
        matches!(self, Flow::On | Flow::Fail)
    }
}

/// What is known at one point of the walk.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub vars: BTreeMap<String, Value>,
    /// Arguments; `None` if not even their number is known.
    pub args: Option<Vec<Value>>,
    pub cwd: Value,
    /// Whether variables that were never set may be set all the same.
    pub murky: bool,
    /// Whether this point is certain to be reached, if nothing fails before.
    pub certain: bool,
    pub flow: Flow,
}

impl State {
    /// A variable; unset ones are empty.
    pub fn var(&self, name: &str) -> Value {
        match self.vars.get(name) {
            Some(value) => value.clone(),
            None if self.murky => None,
            None => Some(String::new()),
        }
    }

    /// Whether a variable is set.
    pub fn is_set(&self, name: &str) -> Option<bool> {
        match self.vars.get(name) {
            Some(_) => Some(true),
            None if self.murky => None,
            None => Some(false),
        }
    }

    pub fn set(&mut self, name: &str, value: Value) {
        self.vars.insert(name.to_owned(), value);
    }

    /// What two ways that join here have in common.
    pub fn join(&mut self, other: State) {
        if other.flow != Flow::On {
            // Only this way goes on, if any does.
            self.certain &= other.flow == Flow::Fail || self.flow == other.flow;
            if self.flow == Flow::Fail {
                // It may be over without having failed.
                self.flow = other.flow;
            }
            return;
        }
        if self.flow != Flow::On {
            *self = State { certain: self.flow == Flow::Fail && other.certain, ..other };
            return;
        }
        for (name, value) in &mut self.vars {
            if other.vars.get(name) != Some(value) {
                *value = None;
            }
        }
        for name in other.vars.keys() {
            self.vars.entry(name.clone()).or_insert(None);
        }
        if self.args != other.args {
            self.args = match (self.args.take(), other.args) {
                (Some(mine), Some(theirs)) if mine.len() == theirs.len() => {
                    let both = mine.into_iter().zip(theirs);
                    Some(both.map(|(a, b)| if a == b { a } else { None }).collect())
                }
                _ => None,
            };
        }
        if self.cwd != other.cwd {
            self.cwd = None;
        }
        self.murky |= other.murky;
    }
}

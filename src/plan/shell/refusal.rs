//! Scripts that end at once where something was not set: `[ -n "$PASSWORD" ] || exit 1`.

use super::parse::{Command, Part, Pipeline, Word, is_text};
use super::state::State;

/// Variables of one condition that are remembered.
const MAX_VARIABLES: usize = 8;

/// A script ends without success because none of some variables is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Names of the variables, in the order in which they were asked for.
    pub variables: Vec<String>,
    /// What it ends with.
    pub status: u8,
    /// Whether it is certain to come there.
    pub certain: bool,
    /// Whether it is if there are no files but those that the image has.
    pub fresh: bool,
}

/// The variables that conditions ask to be set, or not to be, and that are empty.
pub fn empty<'p>(tests: impl Iterator<Item = &'p Pipeline>, state: &State) -> Vec<String> {
    let mut found = Vec::new();
    for command in tests.flat_map(|test| &test.commands) {
        let words = match command {
            Command::Simple { words, .. } => match words.split_first() {
                Some((name, rest)) if is_text(name, "[") => rest,
                Some((name, rest)) if is_text(name, "test") => rest,
                _ => continue,
            },
            Command::Test(words) => words,
            _ => continue,
        };
        let words = words.strip_suffix(&[vec![text("]")]]).unwrap_or(words);
        for (index, word) in words.iter().enumerate() {
            let asked = match index.checked_sub(1).map(|before| &words[before]) {
                Some(before) => ["-z", "-n", "!"].iter().any(|flag| is_text(before, flag)),
                None => words.len() == 1,
            };
            if asked {
                variables(word, state, &mut found);
            }
        }
    }
    found
}

fn text(text: &str) -> Part {
    Part::Text { text: text.to_owned(), quoted: false }
}

/// The environment's variables in a word that are empty.
fn variables(word: &Word, state: &State, found: &mut Vec<String>) {
    for part in word {
        let Part::Variable { name, .. } = part else { continue };
        let name = match name.strip_prefix('!') {
            Some(through) => state.var(through),
            None => Some(name.clone()),
        };
        let Some(name) = name.filter(|name| is_environment(name)) else { continue };
        let empty = state.var(&name).is_some_and(|value| value.is_empty());
        if empty && found.len() < MAX_VARIABLES && !found.contains(&name) {
            found.push(name);
        }
    }
}

/// Whether a name is one that a user would set, as scripts are written.
pub fn is_environment(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

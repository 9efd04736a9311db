//! Chains of causes, in words.

use std::error::Error;

/// The words of an error's causes, without those that the one before has said: some libraries repeat
/// their cause in their own text.
pub(crate) fn causes(error: &dyn Error) -> Vec<String> {
    let mut said = error.to_string();
    let mut all = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !said.contains(&words) {
            all.push(words.clone());
            said = words;
        }
        cause = error.source();
    }
    all
}

/// An error and its causes on one line.
pub(crate) fn line(error: &dyn Error) -> String {
    let words: Vec<String> = std::iter::once(error.to_string()).chain(causes(error)).collect();
    words.join(": ")
}

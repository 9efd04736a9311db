//! Patterns for repositories and tags.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// A text with wildcards: `?` is one character, `*` any number of them but `/`, `**` any number of
/// all of them. A `!` in front makes it a pattern for what must not match, see [`Patterns`].
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    negative: bool,
    parts: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Char(char),
    One,
    Many,
    Any,
}

impl FromStr for Pattern {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Pattern, Self::Err> {
        let (negative, body) = match text.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let mut parts = Vec::new();
        for c in body.chars() {
            let part = match (c, parts.last()) {
                ('*', Some(Part::Many | Part::Any)) => {
                    parts.pop();
                    Part::Any
                }
                ('*', _) => Part::Many,
                ('?', _) => Part::One,
                (c, _) => Part::Char(c),
            };
            parts.push(part);
        }
        Ok(Pattern { text: text.to_owned(), negative, parts })
    }
}

impl Pattern {
    /// Whether the wildcards can stand for what `text` has in their places. Takes time of the order of
    /// both lengths multiplied, whatever the pattern.
    pub fn matches(&self, text: &str) -> bool {
        // The set of places in the pattern that can have been reached, after each character.
        let mut reached = vec![false; self.parts.len() + 1];
        reached[0] = true;
        self.pass(&mut reached);
        for c in text.chars() {
            let mut next = vec![false; self.parts.len() + 1];
            for (place, part) in self.parts.iter().enumerate().filter(|(place, _)| reached[*place])
            {
                match part {
                    Part::Char(wanted) if *wanted == c => next[place + 1] = true,
                    Part::One if c != '/' => next[place + 1] = true,
                    Part::Many if c != '/' => next[place] = true,
                    Part::Any => next[place] = true,
                    _ => {}
                }
            }
            self.pass(&mut next);
            reached = next;
        }
        reached[self.parts.len()]
    }

    /// Wildcards may stand for nothing.
    fn pass(&self, reached: &mut [bool]) {
        for (place, part) in self.parts.iter().enumerate() {
            if reached[place] && matches!(part, Part::Many | Part::Any) {
                reached[place + 1] = true;
            }
        }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

/// Several patterns: one of them must match, and none of those with a `!`. None at all, or only ones
/// with `!`, let everything else through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns(Vec<Pattern>);

impl Patterns {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `text` is what they ask for.
    pub fn match_text(&self, text: &str) -> bool {
        if self.0.iter().any(|pattern| pattern.negative && pattern.matches(text)) {
            return false;
        }
        let mut positive = self.0.iter().filter(|pattern| !pattern.negative).peekable();
        positive.peek().is_none() || positive.any(|pattern| pattern.matches(text))
    }
}

impl<'de> Deserialize<'de> for Patterns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Patterns, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Texts {
            One(String),
            Many(Vec<String>),
        }
        let texts = match Texts::deserialize(deserializer)? {
            Texts::One(text) => vec![text],
            Texts::Many(texts) => texts,
        };
        Ok(Patterns(
            texts
                .iter()
                .map(|text| match text.parse() {
                    Ok(pattern) => pattern,
                    Err(never) => match never {},
                })
                .collect(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        pattern.parse::<Pattern>().unwrap().matches(text)
    }

    #[test]
    fn wildcards_stop_at_slashes_unless_doubled() {
        for (pattern, text, expected) in [
            ("team/app", "team/app", true),
            ("team/app", "team/app2", false),
            ("team/*", "team/app", true),
            ("team/*", "team/a/b", false),
            ("team/**", "team/a/b", true),
            ("**/app", "a/b/app", true),
            ("**", "", true),
            ("*", "", true),
            ("v?.*", "v1.27", true),
            ("v?.*", "v12.7", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXcYb", false),
            ("é?", "éé", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn no_pattern_takes_long() {
        let pattern = "*a".repeat(200) + "b";
        assert!(!matches(&pattern, &"a".repeat(5000)));
    }

    #[test]
    fn exclamation_marks_exclude() {
        #[derive(Deserialize)]
        struct File {
            p: Patterns,
        }
        let patterns = |text: &str| toml::from_str::<File>(text).unwrap().p;
        let some = patterns("p = [\"v*\", \"!*-rc*\"]");
        assert!(some.match_text("v1") && !some.match_text("v1-rc2") && !some.match_text("x"));
        let rest = patterns("p = \"!latest\"");
        assert!(rest.match_text("v1") && !rest.match_text("latest"));
        assert!(Patterns::default().match_text("anything"));
    }
}

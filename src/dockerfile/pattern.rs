//! Patterns of names: Go's `filepath.Match` for sources, and the same with `**` and exceptions for
//! `.dockerignore` and `--exclude`.
//!
//! References: Go `path/filepath` ("Match"), Docker build context ("`.dockerignore` files").

/// A part of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Char(char),
    /// `?`: one character but the slash.
    One,
    /// `*`: any of those.
    Star,
    /// `[a-z]`, `[^a-z]`.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// `**/`: directories, or none. Two parts: the choice, and the inside.
    Deep,
    DeepInside,
    /// `**` at the end: everything.
    All,
}

/// A pattern for paths without a leading slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<Part>);

impl Pattern {
    /// Reads a pattern; `deep` says whether `**` is special.
    ///
    /// # Errors
    /// In words, if a bracket or an escape has no end.
    pub fn new(text: &str, deep: bool) -> Result<Pattern, String> {
        let mut parts = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '*' if chars.peek() == Some(&'*') => {
                    while chars.next_if_eq(&'*').is_some() {}
                    if !deep {
                        parts.push(Part::Star);
                        continue;
                    }
                    let slash = chars.next_if_eq(&'/').is_some();
                    if !slash && chars.peek().is_none() {
                        parts.push(Part::All);
                    } else {
                        parts.extend([Part::Deep, Part::DeepInside]);
                    }
                }
                '*' => parts.push(Part::Star),
                '?' => parts.push(Part::One),
                '[' => parts.push(class(&mut chars).ok_or_else(|| malformed(text))?),
                '\\' => parts.push(Part::Char(chars.next().ok_or_else(|| malformed(text))?)),
                _ => parts.push(Part::Char(c)),
            }
        }
        Ok(Pattern(parts))
    }

    /// Whether it matches all of `path`.
    pub fn matches(&self, path: &str) -> bool {
        let parts = &self.0;
        let mut live = vec![false; parts.len() + 1];
        live[0] = true;
        skip(parts, &mut live);
        for c in path.chars() {
            let mut next = vec![false; parts.len() + 1];
            for (at, part) in parts.iter().enumerate().filter(|(at, _)| live[*at]) {
                match part {
                    Part::Char(wanted) => next[at + 1] |= *wanted == c,
                    Part::One => next[at + 1] |= c != '/',
                    Part::Star => next[at] |= c != '/',
                    Part::Class { negated, ranges } => {
                        let inside = ranges.iter().any(|(low, high)| (*low..=*high).contains(&c));
                        next[at + 1] |= c != '/' && inside != *negated;
                    }
                    Part::Deep => {}
                    Part::DeepInside => {
                        next[at] = true;
                        next[at + 1] |= c == '/';
                    }
                    Part::All => next[at] = true,
                }
            }
            skip(parts, &mut next);
            live = next;
        }
        live[parts.len()]
    }
}

/// Follows the parts that may match nothing.
fn skip(parts: &[Part], live: &mut [bool]) {
    for (at, part) in parts.iter().enumerate() {
        match part {
            Part::Star | Part::All => live[at + 1] |= live[at],
            Part::Deep if live[at] => {
                live[at + 1] = true;
                live[at + 2] = true;
            }
            _ => {}
        }
    }
}

fn malformed(text: &str) -> String {
    format!("`{text}` is not a pattern: a bracket or an escape has no end")
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Part> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        let low = match chars.next()? {
            ']' if !ranges.is_empty() => return Some(Part::Class { negated, ranges }),
            '\\' => chars.next()?,
            c => c,
        };
        let mut high = low;
        if chars.next_if_eq(&'-').is_some() {
            high = match chars.next()? {
                '\\' => chars.next()?,
                c => c,
            };
        }
        ranges.push((low, high));
    }
}

/// Whether a source is a pattern rather than a name.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', '\\'])
}

/// A list of patterns and exceptions, of which the last match counts.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    rules: Vec<(Pattern, bool)>,
}

/// Which rules have matched a directory: its contents are matched by them too.
pub type Matched = Vec<bool>;

impl Rules {
    /// Reads the lines of a `.dockerignore`.
    ///
    /// # Errors
    /// In words, if a pattern is malformed.
    pub fn parse(text: &str) -> Result<Rules, String> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        // A `#` starts a comment in the first column alone.
        Rules::new(text.lines().filter(|line| !line.starts_with('#')))
    }

    /// Rules of separate patterns.
    ///
    /// # Errors
    /// As [`Rules::parse`].
    pub fn new<'t>(patterns: impl IntoIterator<Item = &'t str>) -> Result<Rules, String> {
        let mut rules = Vec::new();
        for pattern in patterns {
            let pattern = pattern.trim();
            let (pattern, exception) =
                pattern.strip_prefix('!').map_or((pattern, false), |rest| (rest.trim(), true));
            let cleaned = clean(pattern);
            if !cleaned.is_empty() {
                rules.push((Pattern::new(&cleaned, true)?, exception));
            }
        }
        Ok(Rules { rules })
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether what is in an excluded directory may be included again.
    pub fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|(_, exception)| *exception)
    }

    /// Whether `path` is excluded, given what its directory matched; and what it matched itself.
    pub fn check(&self, path: &str, parent: Option<&Matched>) -> (bool, Matched) {
        let mut excluded = false;
        let mut matched = Vec::with_capacity(self.rules.len());
        for (index, (pattern, exception)) in self.rules.iter().enumerate() {
            let hit = parent.is_some_and(|parent| parent[index]) || pattern.matches(path);
            if hit {
                excluded = !exception;
            }
            matched.push(hit);
        }
        (excluded, matched)
    }

    /// Whether `path` or a directory above it is excluded.
    pub fn excludes(&self, path: &str) -> bool {
        let mut parent: Option<Matched> = None;
        let mut excluded = false;
        for (at, _) in path.match_indices('/').chain([(path.len(), "")]) {
            let (hit, matched) = self.check(&path[..at], parent.as_ref());
            (excluded, parent) = (hit, Some(matched));
        }
        excluded
    }
}

/// `/a/./b//c/../d/` is `a/b/d`; what would climb out stays at the top.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_patterns() {
        for (pattern, path, expected) in [
            ("*.txt", "a.txt", true),
            ("*.txt", "d/a.txt", false),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[a\\]]x", "]x", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("d/*/f", "d/e/f", true),
            ("a**b", "axxb", true),
        ] {
            let compiled = Pattern::new(pattern, false).unwrap();
            assert_eq!(compiled.matches(path), expected, "{pattern} {path}");
        }
        assert!(Pattern::new("[a", false).is_err());
        assert!(Pattern::new("a\\", false).is_err());
    }

    #[test]
    fn ignore_files() {
        for (text, ignored, kept) in [
            ("*.log", vec!["a.log"], vec!["d/a.log", "a.logs"]),
            ("**/*.log", vec!["a.log", "d/e/a.log"], vec!["a.txt"]),
            ("/target/", vec!["target", "target/x/y"], vec!["a/target"]),
            ("# no\n\n a \n", vec!["a", "a/b"], vec!["# no", "b"]),
            ("*\n!src\n", vec!["Cargo.toml", "doc/x"], vec!["src", "src/main.rs"]),
            ("docs\n!docs/keep.md", vec!["docs", "docs/a.md"], vec!["docs/keep.md"]),
            ("!a\na", vec!["a"], vec!["b"]),
            ("a/**", vec!["a/b", "a/b/c"], vec!["a", "b"]),
            ("a/**/z", vec!["a/z", "a/b/c/z"], vec!["z", "a/zz"]),
            ("**", vec!["a", "a/b"], vec![]),
            ("./x/../y", vec!["y", "y/z"], vec!["x"]),
            ("**/.git", vec![".git", "sub/.git/config"], vec![".gitignore"]),
        ] {
            let rules = Rules::parse(text).unwrap();
            for path in ignored {
                assert!(rules.excludes(path), "{text:?} should exclude {path}");
            }
            for path in kept {
                assert!(!rules.excludes(path), "{text:?} should keep {path}");
            }
        }
        assert!(Rules::parse("[x").is_err());
    }

    #[test]
    fn a_hostile_pattern_takes_no_time() {
        let pattern = Pattern::new(&("*a".repeat(200) + "c"), false).unwrap();
        assert!(!pattern.matches(&"a".repeat(4000)));
    }
}

//! Words of instructions: quotes, escapes and variables, as BuildKit's shell lexer reads them.
//!
//! Reference: Dockerfile reference, "Environment replacement".

use std::ops::Range;

use super::text::split;

/// Longest result of an expansion, in bytes: doubling arguments must end somewhere.
const MAX_LEN: usize = 1 << 20;
/// Most characters that all patterns of one word may be tried at.
const MAX_STEPS: usize = 4_000_000;
/// Deepest nesting of `${a:-${b:-...}}`.
const MAX_DEPTH: u32 = 64;

/// Where variables' values come from.
pub trait Lookup {
    /// The value; `None` if the variable isn't set.
    fn get(&self, name: &str) -> Option<String>;
}

impl<F: Fn(&str) -> Option<String>> Lookup for F {
    fn get(&self, name: &str) -> Option<String> {
        self(name)
    }
}

/// Expands a word: variables are replaced, quotes and escapes removed.
///
/// # Errors
/// In words: a substitution that isn't one, a variable that must be set, a quote without end, or a
/// result that is too long.
pub fn expand(word: &str, escape: char, vars: &dyn Lookup) -> Result<String, String> {
    Lexer::new(word, escape, vars, true).whole()
}

/// Replaces variables in a here-document. Quotes stay, but a backslash goes and protects what follows
/// it, whatever it is and whatever the escape directive says: so does BuildKit.
///
/// # Errors
/// As [`expand`].
pub fn expand_text(text: &str, vars: &dyn Lookup) -> Result<String, String> {
    Lexer::new(text, '\\', vars, false).whole()
}

/// Splits a line into words and expands each; a variable may bring in several words.
///
/// # Errors
/// As [`expand`].
pub fn expand_words(line: &str, escape: char, vars: &dyn Lookup) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    for span in split(line, escape) {
        let word = &line[span];
        let expanded = expand(word, escape, vars)?;
        if word.contains(['"', '\'']) {
            words.push(expanded);
        } else {
            words.extend(expanded.split_ascii_whitespace().map(str::to_owned));
        }
    }
    Ok(words)
}

/// Reads `NAME=VALUE ...`, or the old `NAME VALUE` that ENV and LABEL know. Nothing is expanded.
///
/// # Errors
/// In words, if a part has no `=`.
pub fn pairs(line: &str, escape: char) -> Result<Vec<(String, String)>, String> {
    let spans: Vec<Range<usize>> = split(line, escape);
    let Some(first) = spans.first() else { return Ok(Vec::new()) };
    if !line[first.clone()].contains('=') {
        let value = line[first.end..].trim();
        let name = line[first.clone()].to_owned();
        if value.is_empty() {
            return Err(format!("`{name}` has no value; write `{name}=VALUE`"));
        }
        return Ok(vec![(name, value.to_owned())]);
    }
    let pair = |span: Range<usize>| {
        let word = &line[span];
        let (name, value) = word
            .split_once('=')
            .ok_or_else(|| format!("`{word}` is not of the form NAME=VALUE"))?;
        if name.is_empty() {
            return Err(format!("`{word}` has no name before the `=`"));
        }
        Ok((name.to_owned(), value.to_owned()))
    };
    spans.into_iter().map(pair).collect()
}

struct Lexer<'a> {
    chars: Vec<char>,
    at: usize,
    escape: char,
    vars: &'a dyn Lookup,
    /// Whether quotes are removed.
    unquote: bool,
    depth: u32,
    steps: usize,
}

impl<'a> Lexer<'a> {
    fn new(text: &str, escape: char, vars: &'a dyn Lookup, unquote: bool) -> Lexer<'a> {
        let chars = text.chars().collect();
        Lexer { chars, at: 0, escape, vars, unquote, depth: 0, steps: 0 }
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    fn whole(mut self) -> Result<String, String> {
        self.until(None, false)
    }

    /// Reads up to `stop`, which is consumed, or to the end. `raw` keeps escapes, for patterns.
    fn until(&mut self, stop: Option<char>, raw: bool) -> Result<String, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("substitutions are nested more than {MAX_DEPTH} deep"));
        }
        let mut out = String::new();
        loop {
            if out.len() > MAX_LEN {
                return Err(format!("the expansion is longer than {MAX_LEN} bytes"));
            }
            let Some(c) = self.next() else {
                if let Some(stop) = stop {
                    return Err(format!("a substitution has no closing `{stop}`"));
                }
                break;
            };
            match c {
                _ if Some(c) == stop => break,
                '\'' if self.unquote => self.single_quoted(&mut out)?,
                '"' if self.unquote => self.double_quoted(&mut out)?,
                '$' => out.push_str(&self.dollar()?),
                _ if c == self.escape => match self.next() {
                    Some(next) if raw => out.extend([c, next]),
                    Some(next) => out.push(next),
                    None => {}
                },
                _ => out.push(c),
            }
        }
        self.depth -= 1;
        Ok(out)
    }

    fn single_quoted(&mut self, out: &mut String) -> Result<(), String> {
        loop {
            match self.next() {
                Some('\'') => return Ok(()),
                Some(c) => out.push(c),
                None => return Err("a single quote has no end".into()),
            }
        }
    }

    fn double_quoted(&mut self, out: &mut String) -> Result<(), String> {
        loop {
            match self.next() {
                Some('"') => return Ok(()),
                Some('$') => out.push_str(&self.dollar()?),
                Some(c) if c == self.escape => match self.next() {
                    Some(next) if next == '"' || next == '$' || next == self.escape => {
                        out.push(next);
                    }
                    Some(next) => out.extend([c, next]),
                    None => return Err("a double quote has no end".into()),
                },
                Some(c) => out.push(c),
                None => return Err("a double quote has no end".into()),
            }
        }
    }

    /// What stands for the substitution after a `$`.
    fn dollar(&mut self) -> Result<String, String> {
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".into());
            }
            return Ok(self.vars.get(&name).unwrap_or_default());
        }
        self.at += 1;
        let name = self.name();
        if name.is_empty() {
            return Err("a substitution `${...}` has no name".into());
        }
        let value = self.vars.get(&name);
        match self.next() {
            Some('}') => Ok(value.unwrap_or_default()),
            Some(':') => match self.next() {
                Some(modifier @ ('+' | '-' | '?')) => {
                    self.alternative(&name, modifier, value.filter(|v| !v.is_empty()))
                }
                other => Err(unsupported(&name, ':', other)),
            },
            Some(modifier @ ('+' | '-' | '?')) => self.alternative(&name, modifier, value),
            Some(modifier @ ('#' | '%')) => {
                let longest = self.peek() == Some(modifier);
                self.at += usize::from(longest);
                let pattern = self.pattern('}')?;
                let text: Vec<char> = value.unwrap_or_default().chars().collect();
                let left = if modifier == '#' {
                    let cut = self.matched(&pattern, &text, longest)?.unwrap_or(0);
                    &text[cut..]
                } else {
                    // A suffix is a prefix read backwards.
                    let pattern: Vec<Glob> = pattern.into_iter().rev().collect();
                    let backwards: Vec<char> = text.iter().rev().copied().collect();
                    let cut = self.matched(&pattern, &backwards, longest)?.unwrap_or(0);
                    &text[..text.len() - cut]
                };
                Ok(left.iter().collect())
            }
            Some('/') => {
                let all = self.peek() == Some('/');
                self.at += usize::from(all);
                let pattern = self.pattern('/')?;
                // It is taken as it is written, with its escapes.
                let with = self.until(Some('}'), true)?;
                self.replace(&value.unwrap_or_default(), &pattern, &with, all)
            }
            other => Err(unsupported(&name, '}', other)),
        }
    }

    /// `:-`, `:+`, `:?` and the same without colon, for which an empty value counts.
    fn alternative(
        &mut self,
        name: &str,
        modifier: char,
        value: Option<String>,
    ) -> Result<String, String> {
        let word = self.until(Some('}'), false)?;
        match (modifier, value) {
            ('-', Some(value)) | ('?', Some(value)) => Ok(value),
            ('-', None) | ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            _ if word.is_empty() => Err(format!("the variable `{name}` is not set")),
            _ => Err(format!("{name}: {word}")),
        }
    }

    /// A name, a number, or one special character as shells have them.
    fn name(&mut self) -> String {
        let start = self.at;
        match self.peek() {
            Some(c) if c.is_ascii_digit() => {
                while self.peek().is_some_and(|c| c.is_ascii_digit()) {
                    self.at += 1;
                }
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => self.at += 1,
            _ => {
                while self.peek().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
                    self.at += 1;
                }
            }
        }
        self.chars[start..self.at].iter().collect()
    }

    fn pattern(&mut self, stop: char) -> Result<Vec<Glob>, String> {
        let text = self.until(Some(stop), true)?;
        let mut glob = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            glob.push(match c {
                '*' => Glob::Any,
                '?' => Glob::One,
                _ if c == self.escape => Glob::Char(chars.next().unwrap_or(c)),
                _ => Glob::Char(c),
            });
        }
        Ok(glob)
    }

    /// Length of the shortest or longest start of `text` that `pattern` matches.
    fn matched(
        &mut self,
        pattern: &[Glob],
        text: &[char],
        longest: bool,
    ) -> Result<Option<usize>, String> {
        // The places in the pattern that can be reached with so much of the text.
        let mut live = vec![false; pattern.len() + 1];
        live[0] = true;
        skip_stars(pattern, &mut live);
        let mut best = None;
        for at in 0..=text.len() {
            if live[pattern.len()] {
                best = Some(at);
                if !longest {
                    break;
                }
            }
            let Some(&c) = text.get(at) else { break };
            let mut next = vec![false; pattern.len() + 1];
            let mut any = false;
            for (place, glob) in pattern.iter().enumerate().filter(|(place, _)| live[*place]) {
                match glob {
                    Glob::Any => next[place] = true,
                    Glob::One => next[place + 1] = true,
                    Glob::Char(wanted) => next[place + 1] |= *wanted == c,
                }
                any |= next[place] || next[place + 1];
            }
            self.steps += pattern.len() + 1;
            if self.steps > MAX_STEPS {
                return Err("a pattern is too expensive to apply".into());
            }
            if !any {
                break;
            }
            live = next;
            skip_stars(pattern, &mut live);
        }
        Ok(best)
    }

    fn replace(
        &mut self,
        value: &str,
        pattern: &[Glob],
        with: &str,
        all: bool,
    ) -> Result<String, String> {
        let text: Vec<char> = value.chars().collect();
        let mut out = String::new();
        let mut at = 0;
        let mut done = pattern.is_empty();
        while at < text.len() {
            let found = if done { None } else { self.matched(pattern, &text[at..], true)? };
            match found {
                Some(len) if len > 0 => {
                    out.push_str(with);
                    at += len;
                    done = !all;
                }
                _ => {
                    out.push(text[at]);
                    at += 1;
                }
            }
            if out.len() > MAX_LEN {
                return Err(format!("the expansion is longer than {MAX_LEN} bytes"));
            }
        }
        Ok(out)
    }
}

/// A part of a pattern.
#[derive(Clone, Copy)]
enum Glob {
    Any,
    One,
    Char(char),
}

fn skip_stars(pattern: &[Glob], live: &mut [bool]) {
    for (place, glob) in pattern.iter().enumerate() {
        if live[place] && matches!(glob, Glob::Any) {
            live[place + 1] = true;
        }
    }
}

fn unsupported(name: &str, wanted: char, found: Option<char>) -> String {
    match found {
        Some(found) if wanted == ':' => format!("`${{{name}:{found}` is no known substitution"),
        Some(found) => format!("`${{{name}{found}` is no known substitution"),
        None => format!("the substitution `${{{name}` has no end"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(name: &str) -> Option<String> {
        let value = match name {
            "A" => "one",
            "EMPTY" => "",
            "PATHS" => "/usr/local/lib:/usr/lib",
            "FILE" => "archive.tar.gz",
            "WORDS" => "x  y",
            "BRACE" => "a}b",
            _ => return None,
        };
        Some(value.into())
    }

    fn word(text: &str) -> String {
        expand(text, '\\', &vars).unwrap_or_else(|error| format!("error: {error}"))
    }

    #[test]
    fn quotes_escapes_and_variables() {
        for (text, expected) in [
            ("plain", "plain"),
            ("$A", "one"),
            ("${A}b$A", "onebone"),
            ("'$A'", "$A"),
            ("\"$A b\"", "one b"),
            ("\\$A", "$A"),
            ("\"\\$A \\\" \\x\"", "$A \" \\x"),
            ("a\\ b", "a b"),
            ("$", "$"),
            ("a$ b", "a$ b"),
            ("$UNSET-", "-"),
            ("$1x", "x"),
            ("end\\", "end"),
        ] {
            assert_eq!(word(text), expected, "{text}");
        }
    }

    #[test]
    fn modifiers() {
        for (text, expected) in [
            ("${UNSET:-x $A}", "x one"),
            ("${EMPTY:-x}", "x"),
            ("${EMPTY-x}", ""),
            ("${UNSET-x}", "x"),
            ("${A:+y}", "y"),
            ("${EMPTY:+y}", ""),
            ("${EMPTY+y}", "y"),
            ("${UNSET+y}", ""),
            ("${UNSET:-${EMPTY:-deep}}", "deep"),
            ("${A:?no}", "one"),
            ("${PATHS#*/}", "usr/local/lib:/usr/lib"),
            ("${PATHS##*/}", "lib"),
            ("${PATHS%/*}", "/usr/local/lib:/usr"),
            ("${PATHS%%:*}", "/usr/local/lib"),
            ("${FILE%.gz}", "archive.tar"),
            ("${FILE#a?c}", "hive.tar.gz"),
            ("${FILE%nothing}", "archive.tar.gz"),
            ("${FILE/a/A}", "Archive.tar.gz"),
            ("${FILE//a/A}", "Archive.tAr.gz"),
            ("${PATHS/\\/usr/X}", "X/local/lib:/usr/lib"),
            ("${FILE/.*/-$A}", "archive-one"),
            ("${FILE//r/}", "achive.ta.gz"),
            ("${FILE/archive/a\\/b}", "a\\/b.tar.gz"),
            ("${BRACE%\\}b}", "a"),
        ] {
            assert_eq!(word(text), expected, "{text}");
        }
        assert_eq!(word("${UNSET:?must be set}"), "error: UNSET: must be set");
        assert_eq!(word("${UNSET?}"), "error: the variable `UNSET` is not set");
    }

    #[test]
    fn what_is_no_substitution_is_named() {
        for text in ["${}", "${A", "${A:x}", "${A^^}", "'a", "\"a", "${A:-b"] {
            assert!(word(text).starts_with("error: "), "{text}: {}", word(text));
        }
        let deep = format!("{}x{}", "${U:-".repeat(1000), "}".repeat(1000));
        assert!(word(&deep).contains("nested"), "{}", word(&deep));
        let long = |name: &str| (name == "L").then(|| "a".repeat(700_000));
        assert!(expand("$L$L$L", '\\', &long).unwrap_err().contains("longer than"));
        assert!(expand("${L//a*b/x}", '\\', &long).unwrap_err().contains("expensive"));
    }

    #[test]
    fn here_documents_keep_their_quotes() {
        let text = expand_text("a \"$A\" '$A' \\$A \\n \\\\ x\\\n\n", &vars).unwrap();
        assert_eq!(text, "a \"one\" 'one' $A n \\ x\n\n");
    }

    #[test]
    fn words_split_after_expansion_unless_quoted() {
        assert_eq!(expand_words("80 $WORDS", '\\', &vars).unwrap(), ["80", "x", "y"]);
        assert_eq!(expand_words("\"$WORDS\" 1", '\\', &vars).unwrap(), ["x  y", "1"]);
    }

    #[test]
    fn pairs_in_both_forms() {
        let read = |text: &str| pairs(text, '\\');
        let own = |list: &[(&str, &str)]| -> Vec<(String, String)> {
            list.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect()
        };
        assert_eq!(
            read("a=1 b=\"x y\" c=p\\ q").unwrap(),
            own(&[("a", "1"), ("b", "\"x y\""), ("c", "p\\ q")])
        );
        assert_eq!(read("name the  rest = $x").unwrap(), own(&[("name", "the  rest = $x")]));
        assert!(read("a=1 b").is_err());
        assert!(read("alone").is_err());
        assert!(read("=x").is_err());
    }
}

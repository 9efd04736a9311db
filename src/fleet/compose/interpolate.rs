//! `${VARIABLE}` in Compose files (compose-spec, 12-interpolation.md).

use std::collections::BTreeMap;

/// Deepest nesting of `${A:-${B:-...}}`.
const MAX_DEPTH: usize = 32;
/// Longest result of one value, in bytes.
const MAX_LEN: usize = 1 << 20;

/// Variables by name.
pub type Variables = BTreeMap<String, String>;

/// Why a text could not be expanded.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// `${NAME:?text}` or `${NAME?text}`, and NAME is missing.
    Required {
        /// The variable.
        name: String,
        /// The text.
        text: String,
    },
    /// The text is not of the form.
    Syntax(String),
}

/// Expands `text`. Variables without a value become empty; their names go to `missing`.
pub fn expand(
    text: &str,
    variables: &Variables,
    missing: &mut Vec<String>,
) -> Result<String, Fault> {
    let mut expander = Expander { variables, missing };
    let mut out = String::with_capacity(text.len());
    let rest = expander.run(text, &mut out, None, 0)?;
    debug_assert!(rest.is_empty(), "without a closing brace to look for all is read");
    Ok(out)
}

struct Expander<'a> {
    variables: &'a Variables,
    missing: &'a mut Vec<String>,
}

impl Expander<'_> {
    /// Expands up to `until` (at this level of braces) or the end; returns what follows.
    fn run<'t>(
        &mut self,
        mut text: &'t str,
        out: &mut String,
        until: Option<char>,
        depth: usize,
    ) -> Result<&'t str, Fault> {
        if depth > MAX_DEPTH {
            return Err(Fault::Syntax(format!("more than {MAX_DEPTH} expressions in each other")));
        }
        loop {
            if out.len() > MAX_LEN {
                return Err(Fault::Syntax(format!("it expands to more than {MAX_LEN} bytes")));
            }
            let stop = |c: char| c == '$' || Some(c) == until;
            let Some(at) = text.find(stop) else {
                out.push_str(text);
                return match until {
                    None => Ok(""),
                    Some(_) => Err(Fault::Syntax("a `${` is not closed".to_owned())),
                };
            };
            out.push_str(&text[..at]);
            text = &text[at..];
            let Some(after) = text.strip_prefix('$') else {
                // The closing brace, which is one byte.
                return Ok(&text[1..]);
            };
            text = match after.chars().next() {
                Some('$') => {
                    out.push('$');
                    &after[1..]
                }
                Some('{') => self.braced(&after[1..], out, depth)?,
                Some(c) if is_start(c) => {
                    let len = name_len(after);
                    self.plain(&after[..len], out);
                    &after[len..]
                }
                _ => {
                    return Err(Fault::Syntax(
                        "a `$` is neither followed by a name nor by `{` (write `$$` for a dollar \
                         sign)"
                            .to_owned(),
                    ));
                }
            };
        }
    }

    fn plain(&mut self, name: &str, out: &mut String) {
        match self.variables.get(name) {
            Some(value) => out.push_str(value),
            None => self.missing.push(name.to_owned()),
        }
    }

    /// `NAME}`, or `NAME` with an operator and a word that may hold expressions itself.
    fn braced<'t>(
        &mut self,
        text: &'t str,
        out: &mut String,
        depth: usize,
    ) -> Result<&'t str, Fault> {
        let len = name_len(text);
        let (name, rest) = text.split_at(len);
        if !name.chars().next().is_some_and(is_start) {
            return Err(Fault::Syntax("a `${` is not followed by a name".to_owned()));
        }
        if let Some(rest) = rest.strip_prefix('}') {
            self.plain(name, out);
            return Ok(rest);
        }
        let (colon, rest) = match rest.strip_prefix(':') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let operator = rest.chars().next();
        let Some(operator @ ('-' | '?' | '+')) = operator else {
            return Err(Fault::Syntax(format!("`${{{name}` goes on in a way that has no meaning")));
        };
        let value = self.variables.get(name).filter(|value| !colon || !value.is_empty()).cloned();
        // The word is expanded in any case, to find its end; what it lacks counts only if used.
        let (mut word, before) = (String::new(), self.missing.len());
        let rest = self.run(&rest[1..], &mut word, Some('}'), depth + 1);
        let used = matches!((operator, &value), ('-' | '?', None) | ('+', Some(_)));
        if !used {
            self.missing.truncate(before);
        }
        let rest = rest?;
        match (operator, value) {
            ('-', Some(value)) => out.push_str(&value),
            ('-', None) | ('+', Some(_)) => out.push_str(&word),
            ('?', Some(value)) => out.push_str(&value),
            ('?', None) => return Err(Fault::Required { name: name.to_owned(), text: word }),
            _ => {}
        }
        Ok(rest)
    }
}

fn is_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

fn name_len(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        [("A", "one"), ("B", ""), ("TAG", "1.2")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    #[test]
    fn every_form() {
        for (text, expected) in [
            ("x$A-y", "xone-y"),
            ("${A}${TAG}", "one1.2"),
            ("$$A", "$A"),
            ("${B:-d}|${B-d}|${C:-d}|${C-d}", "d||d|d"),
            ("${A:+set}|${B:+set}|${B+set}|${C+set}", "set||set|"),
            ("${C:-${D:-deep $A}}", "deep one"),
            ("${A:?never}", "one"),
            ("${A:-unused ${Z:-y}}", "one"),
            ("ünï $A", "ünï one"),
        ] {
            let mut missing = Vec::new();
            assert_eq!(expand(text, &variables(), &mut missing).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_missing_is_named_once_it_matters() {
        let mut missing = Vec::new();
        assert_eq!(expand("$X ${Y} ${A:-$Z}", &variables(), &mut missing), Ok("  one".to_owned()));
        assert_eq!(missing, ["X", "Y"]);
        let required = expand("${X:?set it}", &variables(), &mut missing);
        assert_eq!(required, Err(Fault::Required { name: "X".into(), text: "set it".into() }));
    }

    #[test]
    fn broken_ones_are_errors_and_deep_ones_end() {
        let deep = "${A:-".repeat(10_000);
        for text in ["$", "a $-", "${", "${A", "${A:-x", "${1}", "${A!b}", "${}", &deep] {
            let result = expand(text, &variables(), &mut Vec::new());
            assert!(matches!(result, Err(Fault::Syntax(_))), "{text}: {result:?}");
        }
    }
}

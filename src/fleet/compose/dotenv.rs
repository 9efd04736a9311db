//! `.env` and `env_file` files (compose-spec, "Env_file format").

use super::interpolate::{self, Variables};
use crate::fleet::Error;
use crate::fleet::yaml::Place;

/// Reads a file's text. Later lines see the variables of earlier ones, and those of `outer`, which
/// win.
pub fn parse(text: &str, name: &str, outer: &Variables) -> Result<Vec<(String, String)>, Error> {
    let mut known = outer.clone();
    let mut found = Vec::new();
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut number = 0;
    while !rest.is_empty() {
        let (line, mut after) = split_line(rest);
        number += 1;
        let place = Place::top(name).key(format!("line {number}"));
        let trimmed = line.trim();
        let trimmed = trimmed.strip_prefix("export ").unwrap_or(trimmed).trim_start();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            rest = after;
            continue;
        }
        let Some((key, value)) = trimmed.split_once('=') else {
            // A bare name takes the value of the outer environment, if there is one.
            if let Some(value) = outer.get(trimmed) {
                found.push((trimmed.to_owned(), value.clone()));
            }
            rest = after;
            continue;
        };
        let key = key.trim_end();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(place.error(format!("`{key}` is not the name of a variable")));
        }
        let value = value.trim_start();
        let value = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                // A quoted value may go on over lines.
                let start = rest.len() - after.len() - line_tail(rest, value, after);
                let body = &rest[start + 1..];
                let end = closing(body, quote)
                    .ok_or_else(|| place.error(format!("the quote {quote} is not closed")))?;
                let (inside, behind) = (&body[..end], &body[end + 1..]);
                number += inside.matches('\n').count();
                after = split_line(behind).1;
                if quote == '"' {
                    expand(&unescape(inside), &known, &place)?
                } else {
                    inside.to_owned()
                }
            }
            _ => {
                let end = value.find(" #").unwrap_or(value.len());
                expand(value[..end].trim_end(), &known, &place)?
            }
        };
        if !outer.contains_key(key) {
            known.insert(key.to_owned(), value.clone());
        }
        found.push((key.to_owned(), value));
        rest = after;
    }
    Ok(found)
}

/// The first line without its end, and what follows.
fn split_line(text: &str) -> (&str, &str) {
    match text.split_once('\n') {
        Some((line, after)) => (line.strip_suffix('\r').unwrap_or(line), after),
        None => (text, ""),
    }
}

/// How many bytes lie between the start of `value` and the start of `after`, both parts of `rest`.
fn line_tail(rest: &str, value: &str, after: &str) -> usize {
    let line = &rest[..rest.len() - after.len()];
    // `value` was cut from `line` with only white space taken off its end.
    let at = line.rfind(value).unwrap_or(0);
    line.len() - at
}

fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            c if c == quote => return Some(at),
            _ => {}
        }
    }
    None
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some('t') => out.push('\t'),
                // A dollar sign that is not to be expanded.
                Some('$') => out.push_str("$$"),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            c => out.push(c),
        }
    }
    out
}

fn expand(text: &str, known: &Variables, place: &Place<'_>) -> Result<String, Error> {
    interpolate::expand(text, known, &mut Vec::new()).map_err(|fault| super::fault(fault, place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let text = "# comment\nA=1\nexport B = two words # tail\nC='$A #x'\nD=\"$A\\n${A}\"\r\nE=\n\
                    F=\"over\nlines\" # c\nG=${A}-$H\nH\nI=a#b\n";
        let outer: Variables = [("H".to_owned(), "host".to_owned())].into();
        let found = parse(text, "x.env", &outer).unwrap();
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "$A #x"),
            ("D", "1\n1"),
            ("E", ""),
            ("F", "over\nlines"),
            ("G", "1-host"),
            ("H", "host"),
            ("I", "a#b"),
        ];
        assert_eq!(found, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }

    #[test]
    fn errors_name_the_line() {
        let error = parse("A=1\nB=\"open\n", "x.env", &Variables::new()).unwrap_err();
        assert_eq!(error.to_string(), "x.env: line 2: the quote \" is not closed");
        assert!(parse("two words=1\n", "x.env", &Variables::new()).is_err());
    }
}

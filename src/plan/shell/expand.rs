//! Words to texts: the expansions of POSIX XCU 2.6 as far as values are known.

use super::eval::Walk;
use super::outcome::Value;
use super::parse::{Part, Word};
use super::refusal;
use super::state::State;

/// Longest text that is kept.
const MAX_TEXT: usize = 64 << 10;

/// A word as one text, as in an assignment.
pub fn text(walk: &mut Walk<'_>, word: &Word, state: &State) -> Value {
    let mut out = String::new();
    for part in word {
        out.push_str(&value(walk, part, state)?);
        if out.len() > MAX_TEXT {
            return None;
        }
    }
    Some(out)
}

/// The end of a word that is written out, from a slash on: what is known of a path whose start isn't.
pub fn tail(word: &Word) -> Option<String> {
    let written = |part: &Part| match part {
        Part::Text { text, .. } => Some(text.clone()),
        _ => None,
    };
    let mut parts: Vec<String> = word.iter().rev().map_while(written).collect();
    parts.reverse();
    let text = parts.concat();
    text.find('/').map(|at| text[at..].to_owned()).filter(|tail| tail.len() > 1)
}

/// A word as a pattern: what is quoted stands for itself.
pub fn pattern(walk: &mut Walk<'_>, word: &Word, state: &State) -> Value {
    let mut out = String::new();
    for part in word {
        let text = value(walk, part, state)?;
        let literal = match part {
            Part::Text { quoted, .. } | Part::Variable { quoted, .. } => *quoted,
            _ => false,
        };
        for c in text.chars() {
            if literal && "*?[]\\".contains(c) {
                out.push('\\');
            }
            out.push(c);
        }
    }
    Some(out)
}

/// A word as the fields that it gives; `None` if their number is not known.
pub fn fields(walk: &mut Walk<'_>, word: &Word, state: &State) -> Option<Vec<Value>> {
    if let [Part::Variable { name, op: None, .. }] = &word[..]
        && (name == "@" || name == "*")
    {
        return state.args.clone();
    }
    // `${1+"$@"}`
    if let [Part::Variable { name, op: Some((op, inner)), .. }] = &word[..]
        && op.ends_with('+')
        && matches!(&inner[..], [Part::Variable { name, .. }] if name == "@")
    {
        return match variable(walk, name, state) {
            Some(_) => state.args.clone(),
            None => None,
        };
    }
    let whole = text(walk, word, state);
    let splits = word.iter().any(|part| match part {
        Part::Text { .. } => false,
        Part::Variable { quoted, .. } | Part::Output { quoted, .. } => !quoted,
        Part::Arithmetic => false,
    });
    match whole {
        None if splits => None,
        None => Some(vec![None]),
        Some(text) if splits => {
            Some(text.split_ascii_whitespace().map(|field| Some(field.to_owned())).collect())
        }
        Some(text) => {
            walk.mention(&text);
            Some(vec![Some(text)])
        }
    }
}

fn value(walk: &mut Walk<'_>, part: &Part, state: &State) -> Value {
    match part {
        Part::Text { text, .. } => Some(text.clone()),
        Part::Arithmetic => None,
        Part::Output { body, .. } => {
            let text = walk.output(body, state)?;
            Some(text.trim_end_matches('\n').to_owned())
        }
        Part::Variable { name, op: None, .. } => variable(walk, name, state),
        Part::Variable { name, op: Some((op, argument)), .. } => {
            operated(walk, name, op, argument, state)
        }
    }
}

fn variable(walk: &Walk<'_>, name: &str, state: &State) -> Value {
    if let Some(index) = name.strip_prefix("FUNCNAME[").and_then(|rest| rest.strip_suffix(']')) {
        return frame(walk, index);
    }
    let name = name.strip_suffix("[0]").unwrap_or(name);
    if let Some(name) = name.strip_prefix('#').filter(|name| !name.is_empty()) {
        if name == "FUNCNAME[@]" || name == "FUNCNAME[*]" {
            let depth = walk.frames.len();
            return Some(if depth > 0 { depth + 1 } else { 0 }.to_string());
        }
        if name == "@" || name == "*" {
            return state.args.as_ref().map(|args| args.len().to_string());
        }
        return variable(walk, name, state).map(|value| value.chars().count().to_string());
    }
    if let Some(name) = name.strip_prefix('!').filter(|name| !name.is_empty()) {
        let name = variable(walk, name, state)?;
        return variable(walk, &name, state);
    }
    if name.contains('[') {
        return None;
    }
    match name {
        "0" | "BASH_SOURCE" => Some(walk.name.clone()),
        "#" => state.args.as_ref().map(|args| args.len().to_string()),
        "@" | "*" => {
            let args: Option<Vec<String>> = state.args.as_ref()?.iter().cloned().collect();
            Some(args?.join(" "))
        }
        "?" | "$" | "!" | "-" | "RANDOM" | "SECONDS" | "LINENO" | "PPID" | "FUNCNAME" => None,
        "UID" | "EUID" => walk.uid.map(|uid| uid.to_string()),
        _ => match name.parse::<usize>() {
            Ok(number) => match &state.args {
                None => None,
                Some(args) => match args.get(number.wrapping_sub(1)) {
                    Some(value) => value.clone(),
                    None => Some(String::new()),
                },
            },
            Err(_) => state.var(name),
        },
    }
}

/// A name on bash's stack of functions, the script itself (`main`) being the lowest.
fn frame(walk: &Walk<'_>, index: &str) -> Value {
    let index: usize = index.parse().ok()?;
    let depth = walk.frames.len();
    Some(match depth.checked_sub(index) {
        Some(0) if depth > 0 => "main".to_owned(),
        Some(at @ 1..) => walk.frames[at - 1].clone(),
        _ => String::new(),
    })
}

/// `${name op argument}`
fn operated(walk: &mut Walk<'_>, name: &str, op: &str, argument: &Word, state: &State) -> Value {
    let is_set = match name.parse::<usize>() {
        Ok(0) => Some(true),
        Ok(number) => state.args.as_ref().map(|args| args.len() >= number),
        Err(_) => state.is_set(name),
    };
    let current = variable(walk, name, state);
    let present = if op.starts_with(':') && op.len() > 1 {
        current.as_ref().map(|value| !value.is_empty())
    } else {
        is_set
    };
    match op {
        ":-" | "-" | ":=" | "=" => match present {
            Some(true) => current,
            Some(false) => text(walk, argument, state),
            None => None,
        },
        ":+" | "+" => match present {
            Some(true) => text(walk, argument, state),
            Some(false) => Some(String::new()),
            None => None,
        },
        ":?" | "?" => {
            if present == Some(false) && refusal::is_environment(name) {
                walk.refuse(vec![name.to_owned()], 1, state);
            }
            current
        }
        "#" | "##" | "%" | "%%" => {
            let pattern = pattern(walk, argument, state)?;
            Some(strip(&current?, &pattern, op))
        }
        ":" => substring(&current?, &text(walk, argument, state)?),
        ",," => current.map(|value| value.to_lowercase()),
        "^^" => current.map(|value| value.to_uppercase()),
        "/" | "//" => {
            let (value, argument) = (current?, text(walk, argument, state)?);
            let (from, to) = argument.split_once('/').unwrap_or((&argument, ""));
            if from.is_empty() || from.contains(['*', '?', '[', '\\']) {
                return None;
            }
            let out =
                if op == "//" { value.replace(from, to) } else { value.replacen(from, to, 1) };
            Some(out).filter(|out| out.len() <= MAX_TEXT)
        }
        _ => None,
    }
}

/// Removes the shortest or longest match of a pattern from one end.
fn strip(value: &str, pattern: &str, op: &str) -> String {
    let front = op.starts_with('#');
    let longest = op.len() == 2;
    // Patterns are matched at most this often.
    if value.len() > 4096 {
        return value.to_owned();
    }
    let mut cuts: Vec<usize> = value.char_indices().map(|(at, _)| at).collect();
    cuts.push(value.len());
    if front == longest {
        cuts.reverse();
    }
    for cut in cuts {
        let (head, tail) = value.split_at(cut);
        let (part, rest) = if front { (head, tail) } else { (tail, head) };
        if matches(pattern, part) {
            return rest.to_owned();
        }
    }
    value.to_owned()
}

/// `${name:offset:length}` with plain numbers.
fn substring(value: &str, argument: &str) -> Value {
    let (offset, length) = match argument.split_once(':') {
        Some((offset, length)) => (offset, Some(length.trim().parse::<usize>().ok()?)),
        None => (argument, None),
    };
    let offset = offset.trim().parse::<i64>().ok()?;
    let chars: Vec<char> = value.chars().collect();
    let start = if offset < 0 {
        chars.len().checked_sub(usize::try_from(offset.unsigned_abs()).ok()?)?
    } else {
        usize::try_from(offset).ok()?.min(chars.len())
    };
    let end = length.map_or(chars.len(), |length| start.saturating_add(length).min(chars.len()));
    Some(chars[start..end].iter().collect())
}

/// Shell patterns: `*`, `?`, `[...]`, and `\` before what stands for itself.
///
/// Takes time by the product of the lengths at most, whatever the pattern.
pub fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    // Where to go on if this attempt fails: after the last star, one character further.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() || p < pattern.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p + 1, t));
            p += 1;
            continue;
        }
        if t < text.len()
            && let Some(next) = one(&pattern, p, text[t])
        {
            (p, t) = (next, t + 1);
            continue;
        }
        match star {
            Some((after, from)) if from < text.len() => {
                star = Some((after, from + 1));
                (p, t) = (after, from + 1);
            }
            _ => return false,
        }
    }
    true
}

/// Matches one character; where the pattern goes on if it does.
fn one(pattern: &[char], at: usize, c: char) -> Option<usize> {
    match *pattern.get(at)? {
        '?' => Some(at + 1),
        '\\' => (*pattern.get(at + 1)? == c).then_some(at + 2),
        '[' => {
            let mut i = at + 1;
            let negated = matches!(pattern.get(i), Some('!' | '^'));
            i += usize::from(negated);
            let first = i;
            let mut hit = false;
            loop {
                let low = *pattern.get(i)?;
                if low == ']' && i > first {
                    break;
                }
                if pattern.get(i + 1) == Some(&'-') && pattern.get(i + 2).is_some_and(|&c| c != ']')
                {
                    hit |= low <= c && c <= pattern[i + 2];
                    i += 3;
                } else {
                    hit |= low == c;
                    i += 1;
                }
            }
            (hit != negated).then_some(i + 1)
        }
        own => (own == c).then_some(at + 1),
    }
}

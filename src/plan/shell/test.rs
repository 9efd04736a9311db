//! Conditions: `[ ... ]` and `[[ ... ]]`.

use super::eval::Walk;
use super::expand::{self, matches};
use super::outcome::Value;
use super::parse::{Part, Word, is_text};
use super::state::State;

/// Nesting of conditions that is followed.
const MAX_DEPTH: u32 = 16;

/// `[ ... ]` or `test ...`, expanded already. `tails`: the ends of words as [`expand::tail`] gives
/// them, if they are known.
pub fn single(
    walk: &mut Walk<'_>,
    argv: &[Value],
    tails: &[Option<String>],
    state: &State,
) -> Option<bool> {
    let mut words: Vec<Value> = argv[1..].to_vec();
    if argv[0].as_deref() == Some("[") {
        words.pop();
    }
    let terms = words.into_iter().enumerate().map(|(at, value)| {
        let tail = tails.get(at + 1).cloned().flatten();
        Term { pattern: value.clone(), value, tail, own: true }
    });
    Terms { walk, state, terms: terms.collect(), at: 0, double: false, depth: 0 }.whole()
}

/// `[[ ... ]]`
pub fn double(walk: &mut Walk<'_>, words: &[Word], state: &State) -> Option<bool> {
    let terms = words.iter().map(|word| {
        let own = word.iter().all(|part| matches!(part, Part::Text { quoted: false, .. }));
        let value = walk.text(word, state);
        let pattern = walk.pattern(word, state);
        if is_text(word, "=~") {
            return Term { value: None, pattern: None, tail: None, own: true };
        }
        Term { value, pattern, tail: expand::tail(word), own }
    });
    let terms = terms.collect();
    Terms { walk, state, terms, at: 0, double: true, depth: 0 }.whole()
}

struct Term {
    value: Value,
    pattern: Value,
    /// The end of a path, if the value isn't known.
    tail: Option<String>,
    /// Whether it may be an operator.
    own: bool,
}

struct Terms<'a, 'w> {
    walk: &'a mut Walk<'w>,
    state: &'a State,
    terms: Vec<Term>,
    at: usize,
    double: bool,
    depth: u32,
}

impl Terms<'_, '_> {
    fn whole(mut self) -> Option<bool> {
        if self.terms.is_empty() {
            return Some(false);
        }
        let result = self.or();
        // What was not read to its end was not understood.
        result.filter(|_| self.at >= self.terms.len())
    }

    fn operator(&self, ahead: usize) -> Option<&str> {
        let term = self.terms.get(self.at + ahead)?;
        term.value.as_deref().filter(|_| term.own)
    }

    fn or(&mut self) -> Option<bool> {
        let word = if self.double { "||" } else { "-o" };
        let mut result = self.and();
        while self.operator(0) == Some(word) {
            self.at += 1;
            let other = self.and();
            result = match (result, other) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            };
        }
        result
    }

    fn and(&mut self) -> Option<bool> {
        let word = if self.double { "&&" } else { "-a" };
        let mut result = self.term();
        while self.operator(0) == Some(word) {
            self.at += 1;
            let other = self.term();
            result = match (result, other) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            };
        }
        result
    }

    fn term(&mut self) -> Option<bool> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            self.at = self.terms.len() + 1;
            return None;
        }
        let result = self.term_within();
        self.depth -= 1;
        result
    }

    fn term_within(&mut self) -> Option<bool> {
        let left = self.terms.len() - self.at.min(self.terms.len());
        if self.operator(0) == Some("!") && left > 1 {
            self.at += 1;
            return self.term().map(|known| !known);
        }
        if self.operator(0) == Some("(") && left > 2 {
            self.at += 1;
            let result = self.or();
            if self.operator(0) == Some(")") {
                self.at += 1;
            }
            return result;
        }
        if left >= 3
            && let Some(operator) = self.operator(1).map(str::to_owned)
            && BINARY.contains(&operator.as_str())
        {
            let (first, second) = (self.at, self.at + 2);
            self.at += 3;
            return self.binary(first, &operator, second);
        }
        if left >= 3 && self.terms[self.at + 1].value.is_none() && self.double {
            // `=~`
            self.at += 3;
            return None;
        }
        if left >= 2
            && let Some(operator) = self.operator(0).map(str::to_owned)
            && operator.len() == 2
            && operator.starts_with('-')
        {
            let Term { value, tail, .. } = &self.terms[self.at + 1];
            let (operand, tail) = (value.clone(), tail.clone());
            self.at += 2;
            return match (operand, tail) {
                (None, Some(tail)) if FILES.contains(&operator.as_str()) => {
                    self.walk.is_absent_in_volumes(&tail).then_some(false)
                }
                (operand, _) => self.unary(&operator, operand),
            };
        }
        self.at += 1;
        self.terms.get(self.at - 1)?.value.as_ref().map(|text| !text.is_empty())
    }

    fn binary(&self, first: usize, operator: &str, second: usize) -> Option<bool> {
        let left = self.terms[first].value.as_ref()?;
        let number = |value: &Value| value.as_ref()?.trim().parse::<i64>().ok();
        let right = &self.terms[second];
        let numbers = || Some((number(&self.terms[first].value)?, number(&right.value)?));
        Some(match operator {
            "=" | "==" if self.double => matches(right.pattern.as_ref()?, left),
            "!=" if self.double => !matches(right.pattern.as_ref()?, left),
            "=" | "==" => left == right.value.as_ref()?,
            "!=" => left != right.value.as_ref()?,
            "-eq" => numbers().map(|(a, b)| a == b)?,
            "-ne" => numbers().map(|(a, b)| a != b)?,
            "-lt" => numbers().map(|(a, b)| a < b)?,
            "-le" => numbers().map(|(a, b)| a <= b)?,
            "-gt" => numbers().map(|(a, b)| a > b)?,
            "-ge" => numbers().map(|(a, b)| a >= b)?,
            _ => return None,
        })
    }

    fn unary(&mut self, operator: &str, operand: Value) -> Option<bool> {
        let text = operand?;
        match operator {
            "-n" => return Some(!text.is_empty()),
            "-z" => return Some(text.is_empty()),
            "-v" => return self.state.is_set(&text),
            "-t" => return Some(false),
            _ => {}
        }
        self.walk.mention(&text);
        let path = self.walk.absolute(&text, self.state)?;
        // What is not in the image may be made before the script comes here.
        let there = self.walk.world.kind(&path);
        match (operator, there) {
            (operator, None) if FILES.contains(&operator) => {
                self.walk.is_absent(&path).then_some(false)
            }
            ("-e" | "-r" | "-w", Some(_)) => Some(true),
            ("-f", Some(kind)) => Some(kind == 'f'),
            ("-d", Some(kind)) => Some(kind == 'd'),
            ("-S", Some(kind)) => Some(kind == 's'),
            ("-s", Some(_)) => Some(self.walk.world.size(&path) > 0),
            ("-x", Some(_)) => Some(self.walk.world.executable(&path)),
            _ => None,
        }
    }
}

/// Questions about a file that are answered with no if there is none.
const FILES: [&str; 11] = ["-e", "-f", "-d", "-s", "-x", "-r", "-w", "-L", "-h", "-S", "-p"];

const BINARY: [&str; 13] =
    ["=", "==", "!=", "-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-nt", "-ot", "-ef", "<"];

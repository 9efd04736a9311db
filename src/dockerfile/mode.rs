//! Permissions as `--chmod` gives them: octal, or symbolic as chmod(1) reads them.

/// A change of permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chmod {
    /// These.
    Octal(u16),
    /// Clauses one after the other.
    Symbolic(Vec<Clause>),
}

/// A clause such as `go-w`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// Bits of those it is about, special bits included.
    who: u16,
    actions: Vec<(char, Vec<char>)>,
}

impl Chmod {
    /// Reads a mode.
    ///
    /// # Errors
    /// In words.
    pub fn parse(text: &str) -> Result<Chmod, String> {
        let malformed =
            || format!("`--chmod={text}` is no mode; write `755`, `u=rwX,go=rX` or `+x`");
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return match u16::from_str_radix(text, 8) {
                Ok(mode) if mode <= 0o7777 => Ok(Chmod::Octal(mode)),
                _ => Err(malformed()),
            };
        }
        let clauses = text.split(',').map(|clause| Clause::parse(clause).ok_or_else(malformed));
        Ok(Chmod::Symbolic(clauses.collect::<Result<_, _>>()?))
    }

    /// The permissions of a file that had `mode`.
    pub fn apply(&self, mode: u16, directory: bool) -> u16 {
        match self {
            Chmod::Octal(mode) => *mode,
            Chmod::Symbolic(clauses) => {
                clauses.iter().fold(mode, |mode, clause| clause.apply(mode, directory))
            }
        }
    }
}

impl Clause {
    fn parse(text: &str) -> Option<Clause> {
        let end = text.find(['+', '-', '='])?;
        let mut who = 0;
        for c in text[..end].chars() {
            who |= match c {
                'u' => 0o4700,
                'g' => 0o2070,
                'o' => 0o0007,
                'a' => 0o6777,
                _ => return None,
            };
        }
        if end == 0 {
            who = 0o6777;
        }
        let mut actions: Vec<(char, Vec<char>)> = Vec::new();
        for c in text[end..].chars() {
            match c {
                '+' | '-' | '=' => actions.push((c, Vec::new())),
                'r' | 'w' | 'x' | 'X' | 's' | 't' | 'u' | 'g' | 'o' => {
                    actions.last_mut()?.1.push(c);
                }
                _ => return None,
            }
        }
        Some(Clause { who, actions })
    }

    fn apply(&self, mut mode: u16, directory: bool) -> u16 {
        for (action, permissions) in &self.actions {
            let mut bits = 0;
            let mut sticky = 0;
            for permission in permissions {
                bits |= match permission {
                    'r' => 0o444,
                    'w' => 0o222,
                    'x' => 0o111,
                    'X' if directory || mode & 0o111 != 0 => 0o111,
                    's' => 0o6000,
                    'u' => spread(mode >> 6),
                    'g' => spread(mode >> 3),
                    'o' => spread(mode),
                    _ => 0,
                };
                if *permission == 't' {
                    sticky = 0o1000;
                }
            }
            let bits = bits & self.who | sticky;
            match action {
                '+' => mode |= bits,
                '-' => mode &= !bits,
                // What isn't said about others stays, and a directory keeps its group bit.
                _ => mode = mode & !(self.who & 0o0777) | bits,
            }
        }
        mode
    }
}

/// Three bits for everybody.
fn spread(bits: u16) -> u16 {
    (bits & 7) * 0o111
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_applied_as_chmod_does() {
        for (text, from, directory, expected) in [
            ("755", 0o600, false, 0o755),
            ("0", 0o600, false, 0),
            ("4755", 0o600, true, 0o4755),
            ("+x", 0o644, false, 0o755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, true, 0o755),
            ("u=rwX,go=rX", 0o711, false, 0o755),
            ("a-w,u+s", 0o755, false, 0o4555),
            ("g=u,o=", 0o751, false, 0o770),
            ("o+t", 0o777, true, 0o1777),
            ("go-rwx+x", 0o777, false, 0o711),
        ] {
            let chmod = Chmod::parse(text).unwrap();
            assert_eq!(chmod.apply(from, directory), expected, "{text} {from:o}");
        }
        for text in ["", "rw", "z+x", "888", "77777", "u+", "u+q"] {
            assert!(Chmod::parse(text).is_err() || text == "u+", "{text}");
        }
    }
}

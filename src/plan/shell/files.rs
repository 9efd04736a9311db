//! Whether files that the image does not have may be there by the time a script asks for them.

use super::eval::Walk;
use super::outcome::{Run, Value};

/// Programs that make no files but those that they are told to by name.
const TAME: &[&str] = &[
    "awk", "basename", "cat", "chgrp", "chmod", "chown", "cut", "date", "dirname", "env", "expr",
    "find", "getent", "grep", "gosu", "head", "hostname", "id", "locale", "ls", "mkdir", "rm",
    "sed", "seq", "sleep", "sort", "stat", "su-exec", "tail", "tr", "uname", "wc", "whoami",
];

/// Whether a command may make a file at a path.
fn may_make(Run { argv, asked, .. }: &Run, path: &str) -> bool {
    let Some(Some(program)) = argv.first() else { return true };
    let name = program.rsplit('/').next().unwrap_or(program);
    let word = |wanted: &str| argv.iter().any(|word| word.as_deref() == Some(wanted));
    if *asked && !name.starts_with("mk") || word("--help") || word("--version") {
        // It answers a question.
        return false;
    }
    let named = |word: &Value| match word {
        Some(word) => word.trim_end_matches('/') == path,
        None => true,
    };
    !TAME.contains(&name) || argv[1..].iter().any(named)
}

impl Walk<'_> {
    /// Whether there is certainly no file at a path that the image has nothing at.
    pub fn is_absent(&self, path: &str) -> bool {
        let name = path.trim_end_matches('/').rsplit('/').next();
        let written = |write: &Option<String>| write.is_none() || write.as_deref() == name;
        self.absent
            && !self.writes.iter().any(written)
            && !self.outcome.runs.iter().any(|run| may_make(run, path))
    }

    /// Whether there is certainly no file at the end `tail` of a path whose start is not known: what a
    /// script finds out before it looks for something in there is where the data are.
    pub fn is_absent_in_volumes(&self, tail: &str) -> bool {
        let volumes = self.world.volumes();
        let absent = |volume: &String| {
            let path = format!("{}{tail}", volume.trim_end_matches('/'));
            self.world.kind(&path).is_none() && self.is_absent(&path)
        };
        !volumes.is_empty() && volumes.iter().all(absent)
    }
}

//! What can go wrong between a Dockerfile and an image.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::ast::Lines;
use super::text::line_number;
use crate::source;

/// Most lines of an instruction that are quoted.
const MAX_QUOTED: usize = 8;

/// A place in a Dockerfile, with the lines that are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file as the user named it.
    pub file: String,
    /// First line, from 1.
    pub line: usize,
    /// The lines.
    pub quoted: Vec<String>,
}

impl Place {
    /// The place of `lines` in `text`.
    pub fn new(file: &str, text: &str, lines: &Lines) -> Place {
        let line = line_number(text, lines.start);
        let last = line_number(text, lines.end.saturating_sub(1).max(lines.start));
        let count = (last - line + 1).min(MAX_QUOTED);
        let shown = text.lines().skip(line - 1).take(count).map(|line| {
            let line = line.trim_end();
            line.char_indices().nth(160).map_or(line, |(at, _)| &line[..at]).to_owned()
        });
        Place { file: file.to_owned(), line, quoted: shown.collect() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  --> {}:{}", self.file, self.line)?;
        let width = (self.line + self.quoted.len()).to_string().len();
        for (index, text) in self.quoted.iter().enumerate() {
            write!(f, "\n{:>width$} | {text}", self.line + index)?;
        }
        Ok(())
    }
}

/// A failed build. [`Error::hint`] says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The Dockerfile isn't one.
    #[error("{reason}\n{place}")]
    Syntax {
        /// Where.
        place: Place,
        /// What is wrong.
        reason: String,
    },
    /// An instruction can't be carried out.
    #[error("{reason}\n{place}")]
    Instruction {
        /// Where.
        place: Place,
        /// What is wrong.
        reason: String,
        /// What to do.
        hint: Option<String>,
    },
    /// A command of `RUN` failed.
    #[error("`{command}` {end}\n{place}{}", tail(output))]
    Run {
        /// Where.
        place: Place,
        /// What was run.
        command: String,
        /// How it ended: `exited with status 2`.
        end: String,
        /// The last of what it printed.
        output: Vec<String>,
    },
    /// An image can't be had.
    #[error("cannot get the image `{image}`\n{place}")]
    Image {
        /// Where.
        place: Place,
        /// The reference.
        image: String,
        /// Why.
        #[source]
        source: Box<source::Error>,
    },
    /// An argument of the build itself is wrong.
    #[error("{what}")]
    Usage {
        /// What is wrong.
        what: String,
        /// What to do.
        hint: Option<String>,
    },
    /// There is no such stage to build.
    #[error("the Dockerfile has no stage `{target}`")]
    Target {
        /// Name given.
        target: String,
        /// Names there are.
        stages: Vec<String>,
    },
    /// This system doesn't let commands be isolated.
    #[error("commands of RUN can't be isolated here: {reason}")]
    Sandbox {
        /// What is missing.
        reason: String,
        /// What to do.
        hint: Option<String>,
    },
    /// A layer is damaged.
    #[error(transparent)]
    Rootfs(#[from] crate::rootfs::Error),
    /// The layer store, or an image out of it.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// A file can't be read or written.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// Verb.
        action: &'static str,
        /// Object.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The build was told to stop.
    #[error("the build was interrupted")]
    Interrupted,
    /// A stage that this one needs has failed, and has said so.
    #[error("stage `{0}` failed")]
    Stage(String),
}

fn tail(output: &[String]) -> String {
    if output.is_empty() {
        return String::new();
    }
    let mut text = String::from("\n  the last of its output:");
    for line in output {
        text.push_str("\n    ");
        text.push_str(line);
    }
    text
}

impl Error {
    /// A failed file operation.
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Error {
        Error::Io { action, path: path.to_owned(), source }
    }

    /// Wrong arguments.
    pub(super) fn usage(what: impl Into<String>, hint: impl Into<Option<&'static str>>) -> Error {
        Error::Usage { what: what.into(), hint: hint.into().map(str::to_owned) }
    }

    /// What the user can do, if there is something to say beyond the message.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Instruction { hint, .. }
            | Error::Usage { hint, .. }
            | Error::Sandbox { hint, .. } => hint.clone(),
            Error::Image { source, .. } => source.hint(),
            Error::Source(source) => source.hint(),
            Error::Rootfs(source) => source.hint().map(str::to_owned),
            Error::Target { stages, .. } if stages.is_empty() => {
                Some("no stage has a name; leave `--target` out, or give a number".into())
            }
            Error::Target { stages, .. } => Some(format!("its stages are {}", stages.join(", "))),
            Error::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("free some space, or set DOCK2UNI_STORE to a directory on another disk".into())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_quotes_its_lines() {
        let text = "FROM a\nRUN one \\\n  two\nCMD x\n";
        let place = Place::new("Dockerfile", text, &(7..23));
        assert_eq!(place.to_string(), "  --> Dockerfile:2\n2 | RUN one \\\n3 |   two");
    }
}

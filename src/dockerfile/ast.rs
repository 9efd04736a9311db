//! Dockerfiles as types: stages and instructions, before variables are known.

use std::ops::Range;

use super::text::Heredoc;

/// A Dockerfile.
#[derive(Clone, Debug)]
pub struct Dockerfile {
    /// Its name, for messages.
    pub name: String,
    /// Its text.
    pub text: String,
    /// The escape character.
    pub escape: char,
    /// What the `syntax` directive asks for.
    pub syntax: Option<String>,
    /// `ARG` before the first `FROM`.
    pub args: Vec<(Pair, Lines)>,
    /// In order.
    pub stages: Vec<Stage>,
}

/// A name and perhaps a value, quoted as written.
pub type Pair = (String, Option<String>);
/// Offsets of an instruction in the text.
pub type Lines = Range<usize>;

/// From one `FROM` to the next.
#[derive(Clone, Debug)]
pub struct Stage {
    /// `AS` name, in lower case.
    pub name: Option<String>,
    /// Image or stage, not yet expanded.
    pub image: String,
    /// `--platform`, not yet expanded.
    pub platform: Option<String>,
    /// Where the `FROM` is.
    pub lines: Lines,
    /// The instruction on one line.
    pub text: String,
    /// What follows it.
    pub instructions: Vec<Instruction>,
}

/// An instruction.
#[derive(Clone, Debug)]
pub struct Instruction {
    /// What it says.
    pub kind: Kind,
    /// The whole of it on one line, without here-documents.
    pub text: String,
    /// Where it is.
    pub lines: Lines,
}

/// What an instruction says.
#[derive(Clone, Debug)]
pub enum Kind {
    /// `ADD`
    Add(Copy),
    /// `ARG`
    Arg(Vec<Pair>),
    /// `CMD`
    Cmd(Command),
    /// `COPY`
    Copy(Copy),
    /// `ENTRYPOINT`
    Entrypoint(Command),
    /// `ENV`
    Env(Vec<(String, String)>),
    /// `EXPOSE`: the words, still to be expanded and split.
    Expose(String),
    /// `HEALTHCHECK`
    Healthcheck(Healthcheck),
    /// `LABEL`
    Label(Vec<(String, String)>),
    /// `MAINTAINER`
    Maintainer(String),
    /// `ONBUILD`: the instruction, here-documents and all.
    Onbuild(String),
    /// `RUN`
    Run(Run),
    /// `SHELL`
    Shell(Vec<String>),
    /// `STOPSIGNAL`
    StopSignal(String),
    /// `USER`
    User(String),
    /// `VOLUME`
    Volume(Vec<String>),
    /// `WORKDIR`
    Workdir(String),
}

/// Shell form or exec form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A line for the shell.
    Shell(String),
    /// Program and arguments.
    Exec(Vec<String>),
}

/// `COPY` or `ADD`. Texts are not yet expanded.
#[derive(Clone, Debug, Default)]
pub struct Copy {
    /// Stage, image or context to copy from.
    pub from: Option<String>,
    /// Owner.
    pub chown: Option<String>,
    /// Permissions.
    pub chmod: Option<String>,
    /// The layer doesn't depend on those below.
    pub link: bool,
    /// Keep the sources' directories.
    pub parents: bool,
    /// What not to copy.
    pub exclude: Vec<String>,
    /// `ADD`: digest of what is fetched.
    pub checksum: Option<String>,
    /// `ADD`: keep a repository's `.git`.
    pub keep_git_dir: bool,
    /// `ADD`: whether archives are unpacked.
    pub unpack: Option<bool>,
    /// What to copy.
    pub sources: Vec<Source>,
    /// Where to.
    pub dest: String,
}

/// A source of `COPY` or `ADD`.
#[derive(Clone, Debug)]
pub enum Source {
    /// A name, a pattern, or an address.
    Path(String),
    /// A file given in the Dockerfile.
    Heredoc(Heredoc),
}

/// `RUN`
#[derive(Clone, Debug)]
pub struct Run {
    /// `--mount`s as written.
    pub mounts: Vec<String>,
    /// `--network`
    pub network: Option<String>,
    /// `--security`
    pub security: Option<String>,
    /// What to run.
    pub command: Command,
    /// Here-documents of the command.
    pub heredocs: Vec<Heredoc>,
}

/// `HEALTHCHECK`
#[derive(Clone, Debug)]
pub enum Healthcheck {
    /// None, even if the base has one.
    None,
    /// A check with its options, durations in nanoseconds.
    Check {
        /// What to run.
        command: Command,
        /// Between checks.
        interval: Option<i64>,
        /// Longest time of one.
        timeout: Option<i64>,
        /// Time for the start.
        start_period: Option<i64>,
        /// Between checks during the start.
        start_interval: Option<i64>,
        /// Failures that make it unhealthy.
        retries: Option<i64>,
    },
}

impl Dockerfile {
    /// The stage with this number or name that comes before stage `before`.
    pub fn stage_before(&self, name: &str, before: usize) -> Option<usize> {
        let earlier = &self.stages[..before.min(self.stages.len())];
        if let Ok(number) = name.parse::<usize>() {
            return (number < earlier.len()).then_some(number);
        }
        // A name may be given twice; the one nearest counts.
        earlier
            .iter()
            .rposition(|stage| stage.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(name)))
    }
}

impl Stage {
    /// How the stage is called in messages: its name or its number.
    pub fn label(&self, index: usize) -> String {
        self.name.clone().unwrap_or_else(|| format!("stage-{index}"))
    }
}

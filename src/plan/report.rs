//! What a plan says, for programs and people. Everything is plain data: it goes to JSON and back.

use serde::{Deserialize, Serialize};

/// Whether the image will run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing speaks against it.
    Runs,
    /// It will run, and some things will be different from what the image may expect.
    RunsWithNotes,
    /// It will not do what it is for.
    WontRun,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Verdict::Runs => "runs",
            Verdict::RunsWithNotes => "runs with notes",
            Verdict::WontRun => "won't run",
        })
    }
}

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It keeps the image from running.
    Blocker,
    /// Worth knowing.
    Note,
}

/// Kind of a finding: a script ends because a variable is not set.
pub const VARIABLE: &str = "variable";

/// One reason for the verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How much it weighs.
    pub severity: Severity,
    /// Its kind, for programs: `missing-library`, `volume`, ...
    pub id: String,
    /// What was found.
    pub text: String,
    /// The way out, if there is one.
    pub advice: Option<String>,
}

/// A step from the image's command to a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What leads here: `image`, `#!`, a wrapper's name, `exec`, `last command`.
    pub by: String,
    /// The command; `null` for words that are not known before it runs.
    pub argv: Vec<Option<String>>,
    /// Its file, links resolved.
    pub path: Option<String>,
}

/// A program that will run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// `main`, `service`, `health` or `helper`.
    pub role: String,
    /// Its file, links resolved.
    pub path: String,
    /// Its arguments; `null` for words that are not known before it runs.
    pub argv: Vec<Option<String>>,
    /// The user that a wrapper changes to; `null` if it stays the image's.
    pub user: Option<String>,
    /// Whether it is certain to be run.
    pub certain: bool,
    /// Its loader (PT_INTERP); `null` if it is linked statically.
    pub interpreter: Option<String>,
    /// The package it belongs to.
    pub package: Option<String>,
    /// How it came to be.
    pub steps: Vec<Step>,
}

/// A file of machine code that is loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Its path, links resolved.
    pub path: String,
    /// Length in bytes.
    pub size: u64,
    /// How it was found: `start`, `interpreter`, `cache`, `runpath`, `dlopen`, ...
    pub how: String,
    /// Files that need it.
    pub needed_by: Vec<String>,
    /// The package it belongs to.
    pub package: Option<String>,
}

/// A language runtime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runtime {
    /// `python`, `node`, ...
    pub language: String,
    /// Its program.
    pub program: String,
    /// Its version, if it is told.
    pub version: Option<String>,
    /// Directories of its library and modules.
    pub directories: Vec<String>,
    /// Installed modules, with versions where they are told.
    pub modules: Vec<String>,
    /// Number of modules in machine code.
    pub extensions: usize,
}

/// The distribution's packages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packages {
    /// `dpkg`, `apk` or `rpm`.
    pub manager: String,
    /// How many are installed.
    pub installed: usize,
    /// Those that own what runs.
    pub running: Vec<String>,
    /// Those that the running ones need, by their own word.
    pub needed: Vec<String>,
}

/// System calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Syscalls {
    /// Calls that the programs and their libraries can make.
    pub reachable: Vec<String>,
    /// Those that the kernel answers with ENOSYS, with the files that can make them.
    pub missing: Vec<MissingCall>,
    /// Places whose call number is not a constant, over all files.
    pub indirect: usize,
    /// Files whose code was not looked at.
    pub skipped: Vec<String>,
}

/// A call that the kernel does not serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingCall {
    /// Its name.
    pub name: String,
    /// Files that can make it.
    pub from: Vec<String>,
    /// Whether more than a C library's own code can make it.
    pub by_program: bool,
}

/// What the image expects of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// Exposed ports, `80/tcp`.
    pub ports: Vec<String>,
    /// Volumes.
    pub volumes: Vec<String>,
    /// The user it runs as: user and group ID.
    pub user: Option<(u32, u32)>,
    /// Files with capabilities or set-user-ID among what runs.
    pub privileged: Vec<String>,
    /// Devices that programs name, and whether the machine has them.
    pub devices: Vec<(String, bool)>,
    /// Other things: `tun`, `fuse`, `io_uring`, `ebpf`, `kvm`, `modules`, `containers`, ...
    pub features: Vec<String>,
}

/// Estimated memory in MiB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Code and read-only data of all that is loaded.
    pub code: u64,
    /// Writable data of the programs.
    pub data: u64,
    /// What the runtime is known to take beyond.
    pub runtime: u64,
    /// What to give the machine: `--memory`.
    pub suggested: u64,
    /// What the estimate rests on.
    pub basis: String,
}

/// What the image runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runs {
    /// Command and arguments.
    pub argv: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// Names of environment variables.
    pub env: Vec<String>,
    /// Stop signal.
    pub stop_signal: String,
    /// The health check's command.
    pub healthcheck: Option<Vec<String>>,
}

/// All that is known about an image before it boots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The reference that it was found by.
    pub image: String,
    /// Digest of its manifest.
    pub manifest: String,
    /// Digest of its configuration.
    pub config: String,
    /// Number of layers, and their bytes as stored.
    pub layers: usize,
    /// Bytes of the layers as stored.
    pub compressed: u64,
    /// Operating system, by its own word.
    pub distribution: Option<String>,
    /// Whether it will run.
    pub verdict: Verdict,
    /// Why; blockers first.
    pub findings: Vec<Finding>,
    /// What it runs; `null` if that could not be told.
    pub runs: Option<Runs>,
    /// Programs, the main one first.
    pub programs: Vec<Program>,
    /// Scripts on the way to them.
    pub scripts: Vec<String>,
    /// Files of machine code that are loaded.
    pub objects: Vec<Object>,
    /// Character set conversions (gconv) that may be loaded: their directory.
    pub gconv: Option<String>,
    /// Language runtimes.
    pub runtimes: Vec<Runtime>,
    /// The distribution's packages.
    pub packages: Option<Packages>,
    /// System calls.
    pub syscalls: Syscalls,
    /// What it expects of the machine.
    pub needs: Needs,
    /// How much memory it will take.
    pub memory: Memory,
}

//! What can be wrong with a configuration.

/// Why an image cannot be run as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The blob is no image configuration.
    #[error("the image's configuration cannot be read")]
    Json(#[source] serde_json::Error),
    /// Neither Entrypoint nor Cmd nor arguments.
    #[error("the image says no command to run, and none was given")]
    NoCommand,
    /// Cannot be passed to a program.
    #[error("an argument of the command contains a NUL byte")]
    NulInArgument,
    /// `--workdir` is relative.
    #[error("the working directory `{0}` is not an absolute path")]
    RelativeWorkdir(String),
    /// A file where the working directory should be.
    #[error("the working directory `{0}` is not a directory in the image")]
    WorkdirNotADirectory(String),
    /// Bad VOLUME.
    #[error("the volume `{0}` is not an absolute path below `/`")]
    Volume(String),
    /// Bad `--hostname`.
    #[error("`{0}` is not a host name")]
    Hostname(String),
    /// Bad `--ip`.
    #[error("`{0}` is not an address of a host with its prefix length")]
    Address(String),
    /// Two of `--ip` of one family.
    #[error("`{0}` is a second address of its family")]
    SecondAddress(std::net::IpAddr),
    /// `--ip` with `--network none`.
    #[error("an address was given, and no network")]
    AddressWithoutNetwork,
    /// `--gateway` in no network of an `--ip`.
    #[error("the gateway `{0}` is in no network of the VM's addresses")]
    Gateway(std::net::IpAddr),
    /// Bad `--add-host`.
    #[error("`{0}` is not a name and an address")]
    AddHost(String),
    /// Bad `--ulimit`.
    #[error("`{0}` is not a limit")]
    Limit(String),
    /// No such resource.
    #[error("`{0}` is not a resource that has a limit")]
    UnknownLimit(String),
    /// `nofile` above what tables of descriptors hold.
    #[error("{0} open files are more than a process can have")]
    TooManyFiles(u64),
    /// Bad `--sysctl`.
    #[error("`{0}` is not a setting and its value")]
    Setting(String),
    /// No such setting, or it can't be changed.
    #[error("the guest's kernel has no setting `{0}` that can be changed")]
    UnknownSetting(String),
    /// Bad STOPSIGNAL.
    #[error("`{0}` is not a signal")]
    Signal(String),
    /// Bad EXPOSE.
    #[error("the image exposes `{0}`, which is not a port")]
    ExposedPort(String),
    /// Bad HEALTHCHECK.
    #[error("the image's health check cannot be used: {0}")]
    Healthcheck(String),
    /// Bad `--env`.
    #[error("`{0}` is not an environment variable")]
    Env(String),
    /// Bad line of `--env-file`.
    #[error("{file}:{line}: {what}")]
    EnvFile {
        /// Name of the file.
        file: String,
        /// Line number from 1.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// Not in the passwd file.
    #[error("the user `{0}` is not in the image's /etc/passwd")]
    UnknownUser(String),
    /// Not in the group file.
    #[error("the group `{0}` is not in the image's /etc/group")]
    UnknownGroup(String),
    /// The program cannot be started.
    #[error("the program `{program}` {what}")]
    Program {
        /// As the image or the user named it.
        program: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The program is nowhere in the search path.
    #[error("the program `{program}` is in no directory of PATH ({search})")]
    NotInPath {
        /// As the image or the user named it.
        program: String,
        /// The value of PATH.
        search: String,
    },
    /// An interpreter cannot be started.
    #[error("`{program}` needs the interpreter `{interpreter}`, which {what}")]
    Interpreter {
        /// The script or ELF file.
        program: String,
        /// What it names.
        interpreter: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A chain of scripts.
    #[error("`{0}` is a script at the end of too long a chain of interpreters")]
    TooManyInterpreters(String),
    /// Wrong architecture.
    #[error("`{program}` is a program for another machine ({machine})")]
    Machine {
        /// Path in the image.
        program: String,
        /// What it is for.
        machine: String,
    },
    /// Neither ELF nor script.
    #[error("`{0}` is neither an ELF program nor a script that starts with `#!`")]
    NotAProgram(String),
    /// Bad headers.
    #[error("`{0}` is a damaged ELF file")]
    MalformedElf(String),
    /// The root filesystem could not be read.
    #[error("reading the image's root filesystem")]
    Io(#[from] std::io::Error),
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Error::NoCommand => "give the command after the reference, or `--entrypoint`",
            Error::RelativeWorkdir(_) => "start it with `/`",
            Error::WorkdirNotADirectory(_) => "choose another with `--workdir`",
            Error::Hostname(_) => "use letters, digits, `-` and `.`, 64 characters at most",
            Error::Address(_) => "write it with its prefix length, as 10.0.0.5/24 or fd00::5/64",
            Error::SecondAddress(_) => "give one IPv4 and one IPv6 address at most",
            Error::AddressWithoutNetwork => "leave `--network none` or `--ip` away",
            Error::Gateway(_) => "give an `--ip` whose network it is in",
            Error::AddHost(_) => "write it as NAME:ADDRESS",
            Error::Limit(_) => {
                "write it as NAME=SOFT[:HARD], such as nofile=1024:2048; -1 is no limit, and the soft \
                 limit is not above the hard one"
            }
            Error::UnknownLimit(_) => {
                "as, core, cpu, data, fsize, locks, memlock, msgqueue, nice, nofile, nproc, rss, \
                 rtprio, rttime, sigpending and stack are"
            }
            Error::TooManyFiles(_) => "1048576 is the most",
            Error::Setting(_) => "write it as NAME=VALUE, such as net.core.somaxconn=1024",
            Error::UnknownSetting(_) => {
                "leave it out; ARCHITECTURE.md says where the list of those is that it has"
            }
            Error::Signal(_) => {
                "use a name such as SIGQUIT or SIGRTMIN+3, or a number up to 64; \
                 `--stop-signal` overrides the image's"
            }
            Error::Env(_) => "write it as NAME=value, or NAME to pass this process's value on",
            Error::UnknownUser(_) | Error::UnknownGroup(_) => {
                "use a number, or `--user` to choose another"
            }
            Error::Program { .. } | Error::NotInPath { .. } => {
                "check Entrypoint and Cmd of the image; `--entrypoint` overrides them"
            }
            Error::Interpreter { .. } => {
                "the image must hold the interpreter: add it, or link the program statically"
            }
            Error::Machine { .. } => "build or pull the image for linux/amd64",
            Error::NotAProgram(_) => "a script needs a first line such as `#!/bin/sh`",
            _ => return None,
        })
    }
}

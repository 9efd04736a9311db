//! Failures, printed once.

use std::error::Error;
use std::fmt::Write as _;
use std::io::ErrorKind;

use super::exit;
use crate::source::{self, Class};
use crate::{
    artifact, browse, causes, config, convert, disk, dockerfile, plan, rootfs, signature, slim,
    syscalls, template, trial, vmm, volume,
};

/// An error on its way to the user.
#[derive(Debug)]
pub struct Failure {
    error: Box<dyn Error>,
    hint: Option<String>,
    /// Exit status.
    pub code: u8,
}

impl Failure {
    /// A failure with words of its own.
    pub fn new(code: u8, text: impl Into<String>, hint: Option<&str>) -> Failure {
        let text: String = text.into();
        Failure { error: text.into(), hint: hint.map(str::to_owned), code }
    }

    /// A failure of a file operation.
    pub fn io(what: String, source: std::io::Error) -> Failure {
        let code = match source.kind() {
            std::io::ErrorKind::NotFound => exit::NOT_FOUND,
            _ => exit::IO,
        };
        Failure { error: Box::new(Context { what, source }), hint: None, code }
    }

    /// The same failure with other advice.
    pub fn with_hint(mut self, hint: &str) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// The same failure, of one service among others.
    pub fn about(mut self, service: &str) -> Failure {
        let text = format!("`{service}` cannot be prepared: {}", causes::line(&*self.error));
        self.error = text.into();
        self
    }

    /// The same failure, before the application ran.
    pub fn before_run(mut self) -> Failure {
        self.code = exit::VM;
        self
    }

    /// The failure as the reason why one image of many is not to be had.
    pub fn into_problem(self) -> crate::fleet::plan::Problem {
        let of_source = self.error.downcast_ref::<source::Error>();
        crate::fleet::plan::Problem {
            text: causes::line(&*self.error),
            hint: self.hint,
            transient: of_source.is_some_and(source::Error::is_transient),
        }
    }

    /// Writes the chain of causes and the hint to standard error.
    pub fn print(&self) {
        eprint!("{}", self.text());
    }

    fn text(&self) -> String {
        let mut text = format!("error: {}\n", self.error);
        for cause in causes::causes(&*self.error) {
            // Writing to a string does not fail.
            let _ = writeln!(text, "  because: {cause}");
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "hint: {hint}");
        }
        text
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{what}")]
struct Context {
    what: String,
    source: std::io::Error,
}

impl From<crate::source::Error> for Failure {
    fn from(error: crate::source::Error) -> Failure {
        let code = class_code(error.class());
        Failure { hint: error.hint(), error: Box::new(error), code }
    }
}

fn class_code(class: Class) -> u8 {
    match class {
        Class::Usage => exit::USAGE,
        Class::NotFound => exit::NOT_FOUND,
        Class::Auth => exit::AUTH,
        Class::Network => exit::NETWORK,
        Class::Corrupt => exit::CORRUPT,
        Class::Unsupported => exit::UNSUPPORTED,
        Class::Untrusted => exit::UNTRUSTED,
        Class::Io | Class::DiskFull => exit::IO,
    }
}

#[cfg(feature = "service")]
impl From<crate::service::server::Error> for Failure {
    fn from(error: crate::service::server::Error) -> Failure {
        use crate::service::server::Error;
        let code = match &error {
            Error::Config(_) | Error::NoQueue | Error::Trace(_) => exit::USAGE,
            Error::Tls(_) | Error::Path { .. } | Error::Listen { .. } => exit::IO,
            _ => exit::FAILURE,
        };
        Failure { hint: error.hint().map(str::to_owned), error: Box::new(error), code }
    }
}

impl From<signature::Error> for Failure {
    fn from(error: signature::Error) -> Failure {
        let code = match &error {
            signature::Error::Source(source) => class_code(source.class()),
            signature::Error::Unsigned { .. } | signature::Error::Rejected { .. } => {
                exit::UNTRUSTED
            }
            _ => exit::USAGE,
        };
        Failure { hint: error.hint(), error: Box::new(error), code }
    }
}

impl From<dockerfile::Error> for Failure {
    fn from(error: dockerfile::Error) -> Failure {
        use dockerfile::Error;
        let code = match error {
            Error::Source(source) => return source.into(),
            Error::Image { ref source, .. } => class_code(source.class()),
            Error::Usage { .. } => exit::USAGE,
            Error::Target { .. } => exit::NOT_FOUND,
            Error::Sandbox { .. } => exit::UNSUPPORTED,
            Error::Interrupted => exit::INTERRUPTED,
            Error::Rootfs(ref error) => rootfs_code(error),
            Error::Io { ref source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                exit::NOT_FOUND
            }
            Error::Io { .. } => exit::IO,
            _ => exit::BUILD,
        };
        Failure { hint: error.hint(), error: Box::new(error), code }
    }
}

impl From<convert::Error> for Failure {
    fn from(error: convert::Error) -> Failure {
        let code = match &error {
            convert::Error::Rootfs(error) => rootfs_code(error),
            convert::Error::Config(error) => config_code(error),
            convert::Error::Disk(error) => disk_code(error),
            convert::Error::Root(_) => exit::CORRUPT,
            convert::Error::Write { .. } => exit::IO,
            convert::Error::NoKernel(_) => exit::FAILURE,
            convert::Error::NoOutput | convert::Error::RootOnCd | convert::Error::OtherDisk(_) => {
                exit::USAGE
            }
        };
        Failure { hint: error.hint().map(str::to_owned), error: Box::new(error), code }
    }
}

impl From<syscalls::Error> for Failure {
    fn from(error: syscalls::Error) -> Failure {
        let code = match &error {
            syscalls::Error::Io { source, .. } if source.kind() != ErrorKind::NotFound => exit::IO,
            syscalls::Error::Io { .. } | syscalls::Error::NoRecording => exit::NOT_FOUND,
            syscalls::Error::Unknown { .. } | syscalls::Error::NoImage => exit::USAGE,
        };
        Failure { hint: error.hint().map(str::to_owned), error: Box::new(error), code }
    }
}

impl From<config::Error> for Failure {
    fn from(error: config::Error) -> Failure {
        let code = config_code(&error);
        Failure { hint: error.hint().map(str::to_owned), error: Box::new(error), code }
    }
}

impl From<plan::remote::RemoteError> for Failure {
    fn from(error: plan::remote::RemoteError) -> Failure {
        match error {
            plan::remote::RemoteError::Source(error) => error.into(),
            plan::remote::RemoteError::Plan(error) => error.into(),
        }
    }
}

impl From<plan::Error> for Failure {
    fn from(error: plan::Error) -> Failure {
        let code = match &error {
            plan::Error::Rootfs(error) => rootfs_code(error),
            plan::Error::Config(error) => config_code(error),
            plan::Error::Root(_) => exit::CORRUPT,
            plan::Error::Temporary(_) => exit::IO,
        };
        Failure { hint: error.hint().map(str::to_owned), error: Box::new(error), code }
    }
}

impl From<trial::Error> for Failure {
    fn from(error: trial::Error) -> Failure {
        let hint = error.hint().map(str::to_owned);
        match error {
            trial::Error::Vm(error) => error.into(),
            trial::Error::Command { .. } => {
                Failure { hint, error: Box::new(error), code: exit::NOT_FOUND }
            }
            _ => Failure { hint, error: Box::new(error), code: exit::FAILURE },
        }
    }
}

impl From<slim::Error> for Failure {
    fn from(error: slim::Error) -> Failure {
        let hint = error.hint().map(str::to_owned);
        let code = match error {
            slim::Error::Plan(error) => return error.into(),
            slim::Error::Convert(error) => return error.into(),
            slim::Error::Trial(error) => return error.into(),
            slim::Error::WontRun(_) => exit::UNSUPPORTED,
            slim::Error::Unanswered { .. } => exit::UNVERIFIED,
            slim::Error::Temporary(_) => exit::IO,
        };
        Failure { hint, error: Box::new(error), code }
    }
}

impl From<trial::trace::Error> for Failure {
    fn from(error: trial::trace::Error) -> Failure {
        let code = match &error {
            trial::trace::Error::Read { .. } => exit::NOT_FOUND,
            _ => exit::CORRUPT,
        };
        Failure { hint: Some(error.hint().to_owned()), error: Box::new(error), code }
    }
}

impl From<disk::Error> for Failure {
    fn from(error: disk::Error) -> Failure {
        let code = disk_code(&error);
        Failure { hint: error.hint().map(str::to_owned), error: Box::new(error), code }
    }
}

impl From<artifact::Error> for Failure {
    fn from(error: artifact::Error) -> Failure {
        use artifact::Error;
        match error {
            Error::Source(error) => error.into(),
            Error::Disk(error) => error.into(),
            error => {
                let code = match &error {
                    Error::Root(_) | Error::Layout { .. } => exit::CORRUPT,
                    Error::Destination(_) => exit::USAGE,
                    _ => exit::IO,
                };
                Failure { hint: error.hint(), error: Box::new(error), code }
            }
        }
    }
}

impl From<template::Error> for Failure {
    fn from(error: template::Error) -> Failure {
        match error {
            template::Error::Disk(error) => error.into(),
            error => Failure { hint: error.hint(), error: Box::new(error), code: exit::USAGE },
        }
    }
}

impl From<browse::Error> for Failure {
    fn from(error: browse::Error) -> Failure {
        use browse::Error;
        let code = match &error {
            Error::Open { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                exit::NOT_FOUND
            }
            Error::NotFound(_) => exit::NOT_FOUND,
            Error::Disk(error) => disk_code(error),
            Error::NotFile(_) => exit::USAGE,
            Error::Read(_) | Error::Name(_) | Error::Endless(_) => exit::CORRUPT,
            Error::Open { .. } | Error::Exists(_) | Error::Write { .. } | Error::Output { .. } => {
                exit::IO
            }
        };
        Failure { hint: error.hint().map(str::to_owned), error: Box::new(error), code }
    }
}

impl From<vmm::Error> for Failure {
    fn from(error: vmm::Error) -> Failure {
        let code = match &error {
            vmm::Error::Failed(_) => exit::NOT_STARTED,
            vmm::Error::Interrupted => exit::INTERRUPTED,
            _ => exit::VM,
        };
        Failure { hint: error.hint().map(str::to_owned), error: Box::new(error), code }
    }
}

impl From<volume::Error> for Failure {
    fn from(error: volume::Error) -> Failure {
        use volume::Error;
        let code = match &error {
            Error::Name(_)
            | Error::Size(_)
            | Error::Spec { .. }
            | Error::NotADirectory(_)
            | Error::Twice(_) => exit::USAGE,
            Error::NotFound(_) => exit::NOT_FOUND,
            Error::NotAVolume(_) => exit::CORRUPT,
            Error::Io { source, .. } if source.kind() == ErrorKind::NotFound => exit::NOT_FOUND,
            Error::Io { .. } => exit::IO,
            _ => exit::FAILURE,
        };
        Failure { hint: error.hint().map(str::to_owned), error: Box::new(error), code }
    }
}

fn rootfs_code(error: &rootfs::Error) -> u8 {
    if error.is_bad_image() { exit::CORRUPT } else { exit::IO }
}

fn config_code(error: &config::Error) -> u8 {
    use config::Error;
    match error {
        Error::RelativeWorkdir(_)
        | Error::Hostname(_)
        | Error::Env(_)
        | Error::EnvFile { .. }
        | Error::NulInArgument => exit::USAGE,
        Error::Json(_) => exit::CORRUPT,
        Error::Io(_) => exit::IO,
        _ => exit::UNSUPPORTED,
    }
}

fn disk_code(error: &disk::Error) -> u8 {
    match error {
        disk::Error::Io(_) => exit::IO,
        disk::Error::Table(_)
        | disk::Error::CutOff(_)
        | disk::Error::Missing(_)
        | disk::Error::File { .. }
        | disk::Error::Record(_) => exit::CORRUPT,
        disk::Error::FileUses { .. } => exit::UNSUPPORTED,
        disk::Error::Signer { .. } => exit::USAGE,
        disk::Error::RootTooLarge(_) => exit::UNSUPPORTED,
        _ => exit::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_printed_once_with_the_hint_last() {
        let source = std::io::Error::other("no space");
        let error = convert::Error::Write { path: "/x/y.img".into(), source };
        let failure = Failure::from(error);
        assert_eq!(failure.text(), "error: `/x/y.img` cannot be written\n  because: no space\n");
        assert_eq!(failure.code, exit::IO);
        let failure = Failure::from(vmm::Error::MicrovmDisk);
        assert_eq!(
            failure.text(),
            "error: the microvm machine cannot boot from disk\n\
             hint: use `--machine q35` or `--boot direct`\n"
        );
    }
}

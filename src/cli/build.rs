//! Building Dockerfiles: arguments to options, interrupts to a cancelled build.

use std::path::Path;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::args::{BuildArgs, BuildNetwork};
use super::progress::Display;
use super::{Failure, exit};
use crate::dockerfile::{self, Cancel, Network, Options, Progress, Secret};
use crate::source::{self, Image, Store};

/// Builds the Dockerfile of a directory. An interrupt stops it and clears up.
pub fn build(
    context: &Path,
    args: &BuildArgs,
    source: &source::Options,
    store: &Store,
    display: &Display,
) -> Result<Image, Failure> {
    let options = options(context, args)?;
    let cancel = Cancel::default();
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|error| Failure::io("cannot wait for signals".into(), error))?;
    let handle = signals.handle();
    let watcher = {
        let cancel = cancel.clone();
        std::thread::spawn(move || {
            for _ in signals.forever() {
                cancel.interrupt();
            }
        })
    };
    let built = dockerfile::build(&options, source, store, display, &cancel);
    handle.close();
    // It only passes signals on; a panic in it has been reported.
    let _ = watcher.join();
    Ok(built?)
}

impl Progress for Display {
    fn line(&self, text: &str) {
        self.say(text);
    }
}

/// The options as the library takes them.
fn options(context: &Path, args: &BuildArgs) -> Result<Options, Failure> {
    let mut options = Options::new(context);
    options.file.clone_from(&args.file);
    options.text.clone_from(&args.inline);
    options.target.clone_from(&args.target);
    options.no_cache = args.no_cache;
    options.network = match args.build_network {
        BuildNetwork::Default | BuildNetwork::Host => Network::Host,
        BuildNetwork::None => Network::None,
    };
    for text in &args.build_arg {
        // As Docker: a name alone passes this process's variable on, if it is set.
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text.as_str(), std::env::var(text).ok()),
        };
        if name.is_empty() {
            return Err(wrong("--build-arg", text, "write `--build-arg NAME=VALUE`"));
        }
        if let Some(value) = value {
            options.args.insert(name.to_owned(), value);
        }
    }
    for text in &args.build_context {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() && !value.is_empty() => {
                options.contexts.push((name.to_owned(), value.to_owned()));
            }
            _ => return Err(wrong("--build-context", text, "write `--build-context NAME=DIR`")),
        }
    }
    for text in &args.secret {
        let (id, secret) = secret(text)?;
        options.secrets.insert(id, secret);
    }
    for text in &args.ssh {
        let (id, socket) = match text.split_once('=') {
            Some((id, socket)) => (id, Some(socket.to_owned())),
            None => (text.as_str(), std::env::var("SSH_AUTH_SOCK").ok()),
        };
        let Some(socket) = socket.filter(|socket| !socket.is_empty()) else {
            return Err(wrong("--ssh", text, "start an agent, or give its socket: `ID=SOCKET`"));
        };
        options.ssh.insert(id.to_owned(), socket.into());
    }
    if let Ok(text) = std::env::var("SOURCE_DATE_EPOCH") {
        options.epoch = text.parse().ok().filter(|&epoch: &i64| epoch >= 0).ok_or_else(|| {
            wrong("SOURCE_DATE_EPOCH", &text, "set it to seconds since 1970, or unset it")
        })?;
    }
    Ok(options)
}

/// `id=ID,src=FILE`, `id=ID,env=NAME`, or an ID that is a variable's or a file's name.
fn secret(text: &str) -> Result<(String, Secret), Failure> {
    let malformed = || wrong("--secret", text, "write `id=ID,src=FILE` or `id=ID,env=NAME`");
    let (mut id, mut secret) = (None, None);
    let mut kind = None;
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("id", value)) => id = Some(value.to_owned()),
            Some(("src" | "source", value)) => secret = Some(Secret::File(value.into())),
            Some(("env", value)) => secret = Some(Secret::Env(value.to_owned())),
            Some(("type", value @ ("file" | "env"))) => kind = Some(value),
            _ => return Err(malformed()),
        }
    }
    let id = id.filter(|id| !id.is_empty()).ok_or_else(malformed)?;
    let secret = secret.unwrap_or_else(|| match kind {
        Some("file") => Secret::File(id.clone().into()),
        // Docker looks for a variable of that name first.
        _ if kind == Some("env") || std::env::var_os(&id).is_some() => Secret::Env(id.clone()),
        _ => Secret::File(id.clone().into()),
    });
    Ok((id, secret))
}

fn wrong(option: &str, text: &str, hint: &str) -> Failure {
    Failure::new(exit::USAGE, format!("`{text}` is no value for {option}"), Some(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_docker_reads_them() {
        let args = BuildArgs {
            build_arg: vec!["A=1=2".into(), "D2U_SURELY_UNSET".into()],
            build_context: vec!["base=docker-image://x".into()],
            secret: vec!["id=a,src=/x".into(), "id=b,env=HOME".into(), "id=PATH".into()],
            ..BuildArgs::default()
        };
        let options = options(Path::new("."), &args).unwrap();
        assert_eq!(options.args.into_iter().collect::<Vec<_>>(), [("A".into(), "1=2".into())]);
        assert_eq!(options.secrets["a"], Secret::File("/x".into()));
        assert_eq!(options.secrets["b"], Secret::Env("HOME".into()));
        assert_eq!(options.secrets["PATH"], Secret::Env("PATH".into()));
        for text in ["src=/x", "id=", "x"] {
            assert!(secret(text).is_err(), "{text}");
        }
    }
}

//! The environment.

use super::{Error, Overrides};

/// The search path that Docker sets on Linux if the image does not.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Docker's defaults, the image's variables and the user's, the later ones winning.
///
/// A variable keeps the place of its first mention. A user's entry without `=` removes it.
pub fn merge(image: &[String], overrides: &Overrides, hostname: &str, home: &str) -> Vec<Vec<u8>> {
    let mut env = vec![format!("PATH={DEFAULT_PATH}"), format!("HOSTNAME={hostname}")];
    if overrides.tty {
        env.push("TERM=xterm".to_owned());
    }
    for entry in image.iter().chain(&overrides.env) {
        let name = name_of(entry);
        let place = env.iter().position(|old| name_of(old) == name);
        match (place, entry.contains('=')) {
            (Some(place), true) => env[place].clone_from(entry),
            (Some(place), false) => drop(env.remove(place)),
            (None, true) => env.push(entry.clone()),
            (None, false) => {}
        }
    }
    // runc fills HOME in from the passwd file when it is missing or empty.
    env.retain(|entry| entry != "HOME=");
    if !env.iter().any(|entry| name_of(entry) == "HOME") {
        env.push(format!("HOME={home}"));
    }
    env.into_iter().map(String::into_bytes).collect()
}

/// The value of a variable.
pub fn get<'a>(env: &'a [Vec<u8>], name: &[u8]) -> Option<&'a [u8]> {
    env.iter().find_map(|entry| entry.strip_prefix(name)?.strip_prefix(b"="))
}

/// Reads `--env VALUE`: without `=`, the variable is taken from this process, or removed.
///
/// # Errors
/// If there is no name.
pub fn from_option(text: &str) -> Result<String, Error> {
    if text.is_empty() || text.starts_with('=') {
        return Err(Error::Env(text.to_owned()));
    }
    if text.contains('=') {
        return Ok(text.to_owned());
    }
    Ok(match std::env::var(text) {
        Ok(value) => format!("{text}={value}"),
        Err(_) => text.to_owned(),
    })
}

/// Reads an `--env-file` as Docker does: `NAME=value` lines taken literally, without quotes or
/// expansion; empty lines and lines that start with `#` skipped; a bare name taken from this
/// process if it is set.
///
/// # Errors
/// Names the line that has no name or has white space in it.
pub fn parse_file(name: &str, text: &[u8]) -> Result<Vec<String>, Error> {
    let bad = |line: usize, what| Error::EnvFile { file: name.to_owned(), line, what };
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let text = std::str::from_utf8(text).map_err(|_| bad(1, "the file is not UTF-8"))?;
    let mut variables = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let variable = name_of(line);
        if variable.is_empty() {
            return Err(bad(index + 1, "there is no variable name before `=`"));
        }
        if variable.contains(char::is_whitespace) {
            return Err(bad(index + 1, "the variable name contains white space"));
        }
        if line.contains('=') {
            variables.push(line.to_owned());
        } else if let Ok(value) = std::env::var(variable) {
            variables.push(format!("{variable}={value}"));
        }
    }
    Ok(variables)
}

fn name_of(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

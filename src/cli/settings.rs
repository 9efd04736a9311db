//! The configuration file: defaults for options, by the names that they have on the command line.
//!
//! ```toml
//! [all]                     # every command that has the option
//! plain-http = ["registry.lan:5000"]
//!
//! [run]
//! memory = "512m"
//! cpus = 2
//! ```
//!
//! The file is `$DOCK2UNI_CONFIG`, or `dock2uni/config.toml` in `$XDG_CONFIG_HOME` (else
//! `~/.config`). What the command line says wins.

use std::path::PathBuf;

use clap::{ArgAction, Command};
use toml::{Table, Value};

use super::{Failure, exit};
use crate::environment;

/// Names the file.
const VARIABLE: &str = "DOCK2UNI_CONFIG";
/// Options of every command.
const ALL: &str = "all";

/// The command with the user's defaults.
pub fn apply(command: Command) -> Result<Command, Failure> {
    let named = environment::path(VARIABLE);
    let required = named.is_some();
    let Some(path) = named.or_else(default_path) else { return Ok(command) };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => {
            return Ok(command);
        }
        Err(error) => {
            return Err(Failure::io(format!("cannot read `{}`", path.display()), error));
        }
    };
    with(command, &text).map_err(|why| {
        let text = format!("`{}`: {why}", path.display());
        Failure::new(exit::USAGE, text, Some("`dock2uni COMMAND --help` lists the options"))
    })
}

fn default_path() -> Option<PathBuf> {
    Some(environment::base("XDG_CONFIG_HOME", ".config")?.join("dock2uni/config.toml"))
}

/// Applies the text of a file.
fn with(mut command: Command, text: &str) -> Result<Command, String> {
    let tables: Table =
        text.parse().map_err(|error: toml::de::Error| error.message().to_owned())?;
    for (name, options) in &tables {
        let Value::Table(options) = options else {
            return Err(format!("`{name}` belongs into a table, such as `[run]`"));
        };
        let commands: Vec<String> = match name.as_str() {
            ALL => command.get_subcommands().map(|c| c.get_name().to_owned()).collect(),
            name if command.find_subcommand(name).is_some() => vec![name.to_owned()],
            _ => return Err(format!("there is no command `{name}`")),
        };
        for (option, value) in options {
            let long = option.replace('_', "-");
            let mut known = false;
            for name in &commands {
                let Some(found) = command.find_subcommand(name) else { continue };
                let arg = found.get_arguments().find(|arg| arg.get_long() == Some(&long));
                let Some((id, flag)) = arg.map(|arg| {
                    (arg.get_id().clone(), matches!(arg.get_action(), ArgAction::SetTrue))
                }) else {
                    continue;
                };
                let values = values(&long, value, flag)?;
                command = command
                    .mut_subcommand(name, |c| c.mut_arg(id, |arg| arg.default_values(values)));
                known = true;
            }
            if !known {
                return Err(format!("`{name}` has no option `--{long}`"));
            }
        }
    }
    Ok(command)
}

/// The texts of a value, for the rest of the process.
fn values(option: &str, value: &Value, flag: bool) -> Result<Vec<&'static str>, String> {
    let text = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        Value::Boolean(on) if flag => Ok(on.to_string()),
        _ => Err(format!("`{option}` cannot have this value")),
    };
    let texts = match value {
        Value::Array(values) if !flag => values.iter().map(text).collect::<Result<Vec<_>, _>>()?,
        Value::Boolean(_) if !flag => return Err(format!("`{option}` is no switch")),
        Value::String(_) | Value::Integer(_) if flag => {
            return Err(format!("`{option}` is a switch: true or false"));
        }
        one => vec![text(one)?],
    };
    Ok(texts.into_iter().map(|text| &*text.leak()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Cli, Command as Parsed};
    use clap::{CommandFactory, FromArgMatches};

    fn parse(text: &str, words: &[&str]) -> Cli {
        let command = with(Cli::command(), text).unwrap();
        let words = ["dock2uni"].iter().chain(words);
        Cli::from_arg_matches(&command.try_get_matches_from(words).unwrap()).unwrap()
    }

    #[test]
    fn the_file_has_defaults_and_the_command_line_wins() {
        let text = "[all]\nplain-http = [\"a:1\", \"b:2\"]\nquiet = true\n\
                    [run]\nmemory = \"512m\"\ncpus = 2\n";
        let Parsed::Run(args) = parse(text, &["run", "x"]).command else { panic!() };
        assert_eq!((args.machine.memory, args.machine.cpus, args.quiet), (512, 2, true));
        assert_eq!(args.source.plain_http, ["a:1", "b:2"]);
        let words = ["run", "x", "-m", "64m", "--plain-http", "c:3"];
        let Parsed::Run(args) = parse(text, &words).command else { panic!() };
        assert_eq!((args.machine.memory, args.machine.cpus), (64, 2));
        assert_eq!(args.source.plain_http, ["c:3"]);
        let Parsed::Convert(args) = parse(text, &["convert", "x"]).command else { panic!() };
        assert!(args.quiet);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, why) in [
            ("memory = 1", "`memory` belongs into a table, such as `[run]`"),
            ("[fly]\nx = 1", "there is no command `fly`"),
            ("[run]\nmemroy = 1", "`run` has no option `--memroy`"),
            ("[run]\nquiet = 1", "`quiet` is a switch: true or false"),
            ("[run]\nmemory = true", "`memory` is no switch"),
        ] {
            assert_eq!(with(Cli::command(), text).unwrap_err(), why, "{text}");
        }
        assert!(with(Cli::command(), "[run").is_err());
    }
}

//! The shell's own commands.

use super::eval::{MAX_CALLS, Walk};
use super::outcome::{How, Value};
use super::parse::{Command, Item, List, Part, Pipeline, Script, Word, is_text, parse};
use super::state::{Flow, State};
use super::test;

/// A variable of ours, for text that is not known.
const UNKNOWN: &str = "__dock2uni_unknown";

/// Builtins that give variables values.
pub const DECLARATIONS: &[&str] = &["export", "local", "declare", "readonly", "typeset"];

/// Builtins that change nothing which is followed here.
const QUIET: &[&str] = &[
    ":", "echo", "printf", "true", "false", "trap", "umask", "ulimit", "wait", "type", "hash",
    "alias", "unalias", "shopt", "pwd", "break", "continue", "let", "times", "complete", "history",
    "bg", "fg", "jobs", "kill", "dirs", "pushd", "popd", "enable", "caller", "logout", "suspend",
];

impl Walk<'_> {
    /// `export NAME=value ...` and the like, of words whose names are known; `None` for others.
    pub fn declaration(&mut self, words: &[Word], state: &mut State) -> Option<bool> {
        let (first, rest) = words.split_first()?;
        if !DECLARATIONS.iter().any(|name| is_text(first, name)) {
            return None;
        }
        let mut assigned = Vec::new();
        for word in rest {
            let (Part::Text { text, .. }, value) = word.split_first()? else { return None };
            let (name, begin) = text.split_once('=')?;
            let value = match begin {
                "" => value.to_vec(),
                _ => {
                    let begin = Part::Text { text: begin.to_owned(), quoted: true };
                    std::iter::once(begin).chain(value.iter().cloned()).collect()
                }
            };
            assigned.push((name, value));
        }
        // Words are expanded before any of them is assigned.
        let values: Vec<Value> = assigned.iter().map(|(_, word)| self.text(word, state)).collect();
        for ((name, _), value) in assigned.into_iter().zip(values) {
            state.set(name, value);
        }
        Some(true)
    }

    /// Runs a function, a builtin or a program.
    pub fn invoke(
        &mut self,
        name: &str,
        argv: Vec<Value>,
        whole: bool,
        state: &mut State,
        beside: bool,
    ) -> Option<bool> {
        if let Some(body) = self.functions.get(name).cloned() {
            return self.call(name, &body, &argv[1..], whole, state, beside);
        }
        let argument = |index: usize| argv.get(index).cloned().flatten();
        match name {
            "exec" => {
                let mut rest: Vec<Value> = argv[1..].to_vec();
                while let Some(Some(option)) = rest.first().cloned() {
                    match option.as_str() {
                        "-a" => drop(rest.drain(..rest.len().min(2))),
                        "-l" | "-c" | "--" => drop(rest.remove(0)),
                        _ => break,
                    }
                }
                if rest.is_empty() && whole {
                    // Redirections alone.
                    return Some(true);
                }
                self.run(rest, whole, state, How::Exec);
                state.flow = Flow::End;
                None
            }
            "exit" => {
                let status = argument(1).and_then(|text| text.parse::<u8>().ok());
                let guard = self.guards.iter().rev().find(|guard| !guard.is_empty());
                if let (Some(status @ 1..), Some(guard)) = (status, guard) {
                    self.refuse(guard.clone(), status, state);
                }
                state.flow =
                    if status.is_some_and(|status| status > 0) { Flow::Fail } else { Flow::End };
                None
            }
            "return" => {
                state.flow = Flow::Return;
                match argument(1).as_deref() {
                    Some("0") => Some(true),
                    Some(number) if number.parse::<u8>().is_ok() => Some(false),
                    _ => None,
                }
            }
            "set" => {
                if let Some(at) = argv.iter().position(|word| word.as_deref() == Some("--")) {
                    state.args = whole.then(|| argv[at + 1..].to_vec());
                }
                Some(true)
            }
            "shift" => {
                let count = argument(1).map_or(Some(1), |text| text.parse::<usize>().ok());
                state.args = match (state.args.take(), count) {
                    (Some(args), Some(count)) => Some(args.into_iter().skip(count).collect()),
                    _ => None,
                };
                Some(true)
            }
            name if DECLARATIONS.contains(&name) => {
                for word in &argv[1..] {
                    let Some(word) = word else { continue };
                    match word.split_once('=') {
                        Some((name, value)) => state.set(name, Some(value.to_owned())),
                        None if name == "local" && !word.starts_with('-') => {
                            state.set(word, Some(String::new()));
                        }
                        None => {}
                    }
                }
                // Values that are not known were joined with their names into unknown words.
                if argv[1..].contains(&None) {
                    state.murky = true;
                }
                Some(true)
            }
            "unset" => {
                for word in argv[1..].iter().flatten() {
                    state.vars.remove(word);
                }
                Some(true)
            }
            "read" | "getopts" | "mapfile" | "readarray" => {
                for word in argv[1..].iter().flatten().filter(|word| !word.starts_with('-')) {
                    state.set(word, None);
                }
                None
            }
            "cd" => {
                let target = argument(1);
                state.cwd = match (target, &state.cwd) {
                    (Some(path), _) if path.starts_with('/') => Some(path),
                    (Some(path), Some(cwd)) => {
                        Some(format!("{}/{path}", cwd.trim_end_matches('/')))
                    }
                    _ => None,
                };
                Some(true)
            }
            "." | "source" => self.source(argument(1), &argv[1..], state, beside),
            "eval" => self.eval(&argv[1..], state, beside),
            "command" | "builtin" => match argument(1).as_deref() {
                Some("-v" | "-V") => {
                    let name = argument(2)?;
                    let known = self.functions.contains_key(&name)
                        || QUIET.contains(&name.as_str())
                        || self.world.which(&name).is_some();
                    Some(known)
                }
                Some(inner) => {
                    let inner = inner.to_owned();
                    self.invoke(&inner, argv[1..].to_vec(), whole, state, beside)
                }
                None => None,
            },
            "[" | "test" => test::single(self, &argv, &[], state),
            "true" | ":" => Some(true),
            "false" => Some(false),
            name if QUIET.contains(&name) => Some(true).filter(|_| name != "wait"),
            _ => {
                self.run(argv, whole, state, if beside { How::Background } else { How::Call });
                None
            }
        }
    }

    pub fn source(
        &mut self,
        path: Value,
        args: &[Value],
        state: &mut State,
        beside: bool,
    ) -> Option<bool> {
        let text = path.as_ref().and_then(|path| {
            let path = self.absolute(path, state)?;
            let text = self.world.read(&path)?;
            self.outcome.sourced.insert(path);
            Some(text)
        });
        let Some(text) = text.filter(|_| self.frames.len() < MAX_CALLS) else {
            state.murky = true;
            return None;
        };
        self.frames.push("source".to_owned());
        let script = self.read(&text);
        let given = args.len() > 1;
        let saved = state.args.clone();
        if given {
            state.args = Some(args[1..].to_vec());
        }
        let status = self.list(&script.list, state, beside);
        if given {
            state.args = saved;
        }
        if state.flow == Flow::Return {
            state.flow = Flow::On;
        }
        self.frames.pop();
        status
    }

    fn read(&mut self, text: &str) -> Script {
        let script = parse(text);
        self.outcome.complete &= script.complete;
        self.writes.extend_from_slice(&script.writes);
        script
    }

    pub fn eval(&mut self, args: &[Value], state: &mut State, beside: bool) -> Option<bool> {
        let known: Vec<&str> = args.iter().map_while(|arg| arg.as_deref()).collect();
        let all = known.len() == args.len();
        let mut text = known.join(" ");
        if !all {
            // What is not known continues the command that it comes after: its first words stand.
            text.push_str(&format!(" ${UNKNOWN}"));
            state.set(UNKNOWN, None);
        }
        let deep = self.frames.len() >= MAX_CALLS;
        if deep || !all && (known.is_empty() || !parse(&text).complete) {
            state.murky = true;
            return None;
        }
        // No frame that a script sees, but one all the same.
        self.frames.push("eval".to_owned());
        let script = self.read(&text);
        let status = self.list(&script.list, state, beside);
        self.frames.pop();
        state.murky |= !all;
        if all { status } else { None }
    }

    /// What a command substitution gives, for the few whose result is plain.
    pub fn output(&mut self, body: &List, state: &State) -> Value {
        self.asked += 1;
        let text = self.answer(body, state);
        self.asked -= 1;
        text
    }

    fn answer(&mut self, body: &List, state: &State) -> Value {
        let simple = match &body[..] {
            [Item { first: Pipeline { commands, .. }, rest, .. }] if rest.is_empty() => {
                match &commands[..] {
                    [Command::Simple { words, .. }] => Some(words.clone()),
                    _ => None,
                }
            }
            _ => None,
        };
        let Some(words) = simple else {
            let mut own = state.clone();
            self.within(|walk| walk.list(body, &mut own, false));
            return None;
        };
        let argv: Option<Vec<String>> = self.fields(&words, state)?.into_iter().collect();
        let argv = argv?;
        let name = argv.first()?.as_str();
        let argument = argv.get(1).map(String::as_str);
        if let Some(body) = self.functions.get(name).cloned() {
            let args: Vec<Value> = argv[1..].iter().cloned().map(Some).collect();
            let mut own = state.clone();
            self.within(|walk| walk.call(name, &body, &args, true, &mut own, false));
            return None;
        }
        match (name, argument) {
            ("id", Some("-u")) if argv.len() == 2 => self.uid.map(|uid| uid.to_string()),
            ("id", Some("-un")) | ("whoami", None) if self.uid == Some(0) => Some("root".into()),
            ("dirname", Some(path)) => {
                Some(String::from_utf8_lossy(super::super::root::parent(path.as_bytes())).into())
            }
            ("basename", Some(path)) => {
                let base = path.trim_end_matches('/').rsplit('/').next().unwrap_or(path);
                let suffix = argv.get(2).map_or("", String::as_str);
                Some(base.strip_suffix(suffix).unwrap_or(base).to_owned())
            }
            ("pwd", _) => state.cwd.clone(),
            ("echo", _) if argv.len() > 1 => Some(argv[1..].join(" ")),
            ("uname", Some("-m")) => Some("x86_64".into()),
            ("uname", Some("-s") | None) => Some("Linux".into()),
            ("which", Some(name)) => Some(self.world.which(name).unwrap_or_default()),
            ("command", Some("-v")) => Some(self.world.which(argv.get(2)?).unwrap_or_default()),
            ("readlink" | "realpath", _) => {
                let path = argv.last()?;
                self.world.kind(path).map(|_| path.clone())
            }
            _ => {
                self.run(argv.into_iter().map(Some).collect(), true, state, How::Call);
                None
            }
        }
    }
}

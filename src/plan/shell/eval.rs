//! What a script will do, as far as that can be known without running it.
//!
//! The script is walked with the values that are known (arguments, environment, user). A condition
//! that is known picks its branch; one that is not sends the walk down both, and what the branches
//! disagree on is unknown afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::expand;
use super::parse::{Command, Item, List, Part, Pipeline, Script, Word, is_text, parse, plain};
use super::refusal::{self, Refusal};
use super::test;

/// Commands that are walked over before a script counts as too long.
const FUEL: u32 = 20_000;
/// Functions and sourced files within one another.
const MAX_CALLS: usize = 24;
/// Commands that are remembered.
const MAX_RUNS: usize = 512;
const MAX_REFUSALS: usize = 16;

/// A text, if it is known.
pub type Value = Option<String>;

/// What a script can see of its surroundings.
pub trait World {
    /// Contents of a text file.
    fn read(&self, path: &str) -> Option<String>;
    /// Type of the file at a path, links followed: `f`, `d`, or another letter of `find -type`.
    fn kind(&self, path: &str) -> Option<char>;
    /// Whether a file may be executed.
    fn executable(&self, path: &str) -> bool;
    /// Length of a file in bytes.
    fn size(&self, path: &str) -> u64;
    /// Whether a name is a program in PATH.
    fn which(&self, name: &str) -> Option<String>;
    /// Names in a directory.
    fn list(&self, path: &str) -> Vec<String>;
    /// Where data are kept that outlive a container.
    fn volumes(&self) -> &[String];
}

/// A variable of ours, for text that is not known.
const UNKNOWN: &str = "__dock2uni_unknown";

/// How a program is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It takes the script's place.
    Exec,
    /// The script waits for it.
    Call,
    /// It runs beside the script.
    Background,
}

/// A program that the script starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its arguments; `None` for those that are not known.
    pub argv: Vec<Value>,
    /// Whether the list of arguments is known to end where `argv` ends.
    pub whole: bool,
    /// Whether it is certain to be reached, if nothing fails before.
    pub certain: bool,
    /// How.
    pub how: How,
    /// Whether it is asked for its output only.
    pub asked: bool,
}

/// What is known of a script.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Programs that it starts, in order.
    pub runs: Vec<Run>,
    /// Files that it reads as scripts.
    pub sourced: BTreeSet<String>,
    /// Absolute paths that it names.
    pub mentions: BTreeSet<String>,
    /// Where it ends, without success, for want of variables.
    pub refusals: Vec<Refusal>,
    /// Whether all of it was understood and walked.
    pub complete: bool,
}

/// Where a script starts from.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// `$0`.
    pub name: String,
    /// `$1` on.
    pub args: Vec<Value>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub cwd: String,
    /// Effective user ID, if known.
    pub uid: Option<u32>,
}

/// Walks a script.
pub fn walk(text: &str, start: &Start, world: &dyn World) -> Outcome {
    let script = parse(text);
    let mut outcome = pass(&script, start, world, false);
    if outcome.refusals.iter().any(|refusal| !refusal.certain) {
        let fresh = pass(&script, start, world, true).refusals;
        for refusal in &mut outcome.refusals {
            refusal.fresh |= fresh.iter().any(|other| {
                other.certain
                    && (other.status, &other.variables) == (refusal.status, &refusal.variables)
            });
        }
    }
    outcome
}

/// One walk. `absent`: what the image does not have is not there, unless the script may have made it.
fn pass(script: &Script, start: &Start, world: &dyn World, absent: bool) -> Outcome {
    let mut walk = Walk {
        world,
        name: start.name.clone(),
        uid: start.uid,
        outcome: Outcome { complete: script.complete, ..Outcome::default() },
        functions: BTreeMap::new(),
        frames: Vec::new(),
        guards: Vec::new(),
        inner: 0,
        asked: 0,
        absent,
        writes: script.writes.clone(),
        fuel: FUEL,
    };
    let mut state = State {
        vars: start.env.iter().map(|(name, value)| (name.clone(), Some(value.clone()))).collect(),
        args: Some(start.args.clone()),
        cwd: Some(start.cwd.clone()),
        murky: false,
        certain: true,
        flow: Flow::On,
    };
    walk.list(&script.list, &mut state, false);
    walk.outcome
}

/// Whether the walk goes on behind a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    On,
    /// Out of the function or sourced file.
    Return,
    /// The script is over.
    End,
    /// The script is over, and says that it failed.
    Fail,
}

impl Flow {
    /// Whether there is nothing else behind this way: it goes on, or the script has failed.
    fn is_on_or_failed(self) -> bool {
        matches!(self, Flow::On | Flow::Fail)
    }
}

/// What is known at one point of the walk.
#[derive(Clone, Debug)]
pub(super) struct State {
    vars: BTreeMap<String, Value>,
    /// Arguments; `None` if not even their number is known.
    pub args: Option<Vec<Value>>,
    cwd: Value,
    /// Whether variables that were never set may be set all the same.
    murky: bool,
    /// Whether this point is certain to be reached, if nothing fails before.
    certain: bool,
    flow: Flow,
}

impl State {
    /// A variable; unset ones are empty.
    pub fn var(&self, name: &str) -> Value {
        match self.vars.get(name) {
            Some(value) => value.clone(),
            None if self.murky => None,
            None => Some(String::new()),
        }
    }

    /// Whether a variable is set.
    pub fn is_set(&self, name: &str) -> Option<bool> {
        match self.vars.get(name) {
            Some(_) => Some(true),
            None if self.murky => None,
            None => Some(false),
        }
    }

    pub fn set(&mut self, name: &str, value: Value) {
        self.vars.insert(name.to_owned(), value);
    }

    /// What two ways that join here have in common.
    fn join(&mut self, other: State) {
        if other.flow != Flow::On {
            // Only this way goes on, if any does.
            self.certain &= other.flow == Flow::Fail || self.flow == other.flow;
            if self.flow == Flow::Fail {
                // It may be over without having failed.
                self.flow = other.flow;
            }
            return;
        }
        if self.flow != Flow::On {
            *self = State { certain: self.flow == Flow::Fail && other.certain, ..other };
            return;
        }
        for (name, value) in &mut self.vars {
            if other.vars.get(name) != Some(value) {
                *value = None;
            }
        }
        for name in other.vars.keys() {
            self.vars.entry(name.clone()).or_insert(None);
        }
        if self.args != other.args {
            self.args = match (self.args.take(), other.args) {
                (Some(mine), Some(theirs)) if mine.len() == theirs.len() => {
                    let both = mine.into_iter().zip(theirs);
                    Some(both.map(|(a, b)| if a == b { a } else { None }).collect())
                }
                _ => None,
            };
        }
        if self.cwd != other.cwd {
            self.cwd = None;
        }
        self.murky |= other.murky;
    }
}

pub(super) struct Walk<'a> {
    pub world: &'a dyn World,
    pub name: String,
    pub uid: Option<u32>,
    outcome: Outcome,
    functions: BTreeMap<String, Rc<List>>,
    /// Names of the functions that are being run, `source` for sourced files.
    pub frames: Vec<String>,
    /// Variables whose emptiness has led to where the walk is, innermost conditions last.
    guards: Vec<Vec<String>>,
    /// Shells within the script's own, whose end is not the script's.
    inner: u32,
    /// Substitutions whose output is asked for.
    asked: u32,
    /// Whether files that the image does not have are taken not to be there.
    absent: bool,
    /// What the scripts write to, as in [`Script`].
    writes: Vec<Option<String>>,
    fuel: u32,
}

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

/// Builtins that give variables values.
const DECLARATIONS: &[&str] = &["export", "local", "declare", "readonly", "typeset"];

/// Builtins that change nothing which is followed here.
const QUIET: &[&str] = &[
    ":", "echo", "printf", "true", "false", "trap", "umask", "ulimit", "wait", "type", "hash",
    "alias", "unalias", "shopt", "pwd", "break", "continue", "let", "times", "complete", "history",
    "bg", "fg", "jobs", "kill", "dirs", "pushd", "popd", "enable", "caller", "logout", "suspend",
];

impl Walk<'_> {
    /// Walks a list; its status if known. `beside`: in the background.
    fn list(&mut self, list: &List, state: &mut State, beside: bool) -> Option<bool> {
        let mut status = Some(true);
        for item in list {
            if state.flow != Flow::On {
                break;
            }
            status = self.item(item, state, beside);
        }
        status
    }

    fn item(&mut self, item: &Item, state: &mut State, beside: bool) -> Option<bool> {
        if item.background {
            // It runs in a shell of its own.
            let mut own = state.clone();
            self.within(|walk| walk.and_or(item, &mut own, true));
            return Some(true);
        }
        self.and_or(item, state, beside)
    }

    fn and_or(&mut self, item: &Item, state: &mut State, beside: bool) -> Option<bool> {
        let mut status = self.pipeline(&item.first, state, beside);
        let mut tests = vec![&item.first];
        for (and, pipeline) in &item.rest {
            if state.flow != Flow::On {
                break;
            }
            match status {
                Some(known) if known == *and => {
                    let guard = refusal::empty(tests.iter().copied(), state);
                    status = self.guarded(guard, |walk| walk.pipeline(pipeline, state, beside));
                }
                Some(_) => {}
                None => {
                    let mut other = state.clone();
                    other.certain = false;
                    let second = self.pipeline(pipeline, &mut other, beside);
                    let certain = state.certain;
                    state.join(other);
                    state.certain &= certain;
                    // `a || true` succeeds whatever `a` does.
                    status = second.filter(|known| known != and);
                }
            }
            tests.push(pipeline);
        }
        status
    }

    fn pipeline(&mut self, pipeline: &Pipeline, state: &mut State, beside: bool) -> Option<bool> {
        let status = match &pipeline.commands[..] {
            [command] => self.command(command, state, beside),
            commands => {
                for command in commands {
                    let mut own = state.clone();
                    self.within(|walk| walk.command(command, &mut own, beside));
                }
                None
            }
        };
        if pipeline.negated { status.map(|status| !status) } else { status }
    }

    fn command(&mut self, command: &Command, state: &mut State, beside: bool) -> Option<bool> {
        if self.fuel == 0 {
            self.outcome.complete = false;
            return None;
        }
        self.fuel -= 1;
        match command {
            Command::Simple { assignments, words } => {
                self.simple(assignments, words, state, beside)
            }
            Command::If { arms, otherwise } => self.if_command(arms, otherwise, state, beside),
            Command::Loop { condition, body } => {
                self.perhaps(state, |walk, state| {
                    walk.list(condition, state, beside);
                    walk.list(body, state, beside);
                });
                None
            }
            Command::For { name, words, body } => {
                self.for_loop(name, words.as_deref(), body, state, beside)
            }
            Command::Case { word, arms } => self.case(word, arms, state, beside),
            Command::Group(list) => self.list(list, state, beside),
            Command::Subshell(list) => {
                let mut own = state.clone();
                self.within(|walk| walk.list(list, &mut own, beside))
            }
            Command::Function { name, body } => {
                self.functions.insert(name.clone(), body.clone());
                Some(true)
            }
            Command::Test(words) => test::double(self, words, state),
            Command::Opaque => None,
        }
    }

    /// Something in a shell of its own.
    fn within<T>(&mut self, what: impl FnOnce(&mut Self) -> T) -> T {
        self.inner += 1;
        let result = what(self);
        self.inner -= 1;
        result
    }

    /// Something that happens because variables are empty.
    fn guarded<T>(&mut self, empty: Vec<String>, what: impl FnOnce(&mut Self) -> T) -> T {
        self.guards.push(empty);
        let result = what(self);
        self.guards.pop();
        result
    }

    /// The script ends here for want of `variables`.
    pub fn refuse(&mut self, variables: Vec<String>, status: u8, state: &State) {
        let certain = state.certain;
        let refusal = Refusal { variables, status, certain, fresh: certain };
        let refusals = &mut self.outcome.refusals;
        if self.inner == 0 && refusals.len() < MAX_REFUSALS && !refusals.contains(&refusal) {
            refusals.push(refusal);
        }
    }

    /// Something that may happen or not.
    fn perhaps(&mut self, state: &mut State, what: impl FnOnce(&mut Self, &mut State)) {
        let mut other = state.clone();
        other.certain = false;
        what(self, &mut other);
        let certain = state.certain;
        state.join(other);
        state.certain &= certain;
    }

    fn if_command(
        &mut self,
        arms: &[(List, List)],
        otherwise: &List,
        state: &mut State,
        beside: bool,
    ) -> Option<bool> {
        let Some(((condition, body), rest)) = arms.split_first() else {
            return self.list(otherwise, state, beside);
        };
        let status = self.list(condition, state, beside);
        if state.flow != Flow::On {
            return status;
        }
        match status {
            Some(known) => {
                let tests = condition.iter().flat_map(Item::pipelines);
                let guard = refusal::empty(tests, state);
                self.guarded(guard, |walk| match known {
                    true => walk.list(body, state, beside),
                    false => walk.if_command(rest, otherwise, state, beside),
                })
            }
            None => {
                let mut other = state.clone();
                let certain = state.certain;
                (state.certain, other.certain) = (false, false);
                self.list(body, state, beside);
                self.if_command(rest, otherwise, &mut other, beside);
                let only = state.flow.is_on_or_failed() && other.flow.is_on_or_failed();
                state.join(other);
                state.certain = certain && only;
                None
            }
        }
    }

    fn for_loop(
        &mut self,
        name: &str,
        words: Option<&[Word]>,
        body: &List,
        state: &mut State,
        beside: bool,
    ) -> Option<bool> {
        let values = match words {
            None => state.args.clone(),
            Some(words) => self.fields(words, state),
        };
        let few = values.filter(|values| values.len() <= 32 && values.iter().all(Option::is_some));
        let Some(values) = few else {
            self.perhaps(state, |walk, state| {
                state.set(name, None);
                walk.list(body, state, beside);
            });
            return None;
        };
        for value in values {
            if state.flow != Flow::On {
                break;
            }
            state.set(name, value);
            self.list(body, state, beside);
        }
        None
    }

    fn case(
        &mut self,
        word: &Word,
        arms: &[(Vec<Word>, List)],
        state: &mut State,
        beside: bool,
    ) -> Option<bool> {
        let value = self.text(word, state);
        let mut ways: Vec<State> = Vec::new();
        let mut decided = false;
        let certain = state.certain;
        for (patterns, body) in arms {
            let hits = patterns.iter().map(|pattern| {
                let pattern = self.pattern(pattern, state);
                match (&value, pattern) {
                    (_, Some(pattern)) if pattern == "*" => Some(true),
                    (Some(value), Some(pattern)) => Some(expand::matches(&pattern, value)),
                    _ => None,
                }
            });
            let hits: Vec<Option<bool>> = hits.collect();
            let hit = if hits.contains(&Some(true)) {
                Some(true)
            } else if hits.contains(&None) {
                None
            } else {
                Some(false)
            };
            if hit == Some(false) {
                continue;
            }
            let mut own = state.clone();
            own.certain = certain && hit == Some(true) && ways.is_empty();
            self.list(body, &mut own, beside);
            ways.push(own);
            if hit == Some(true) {
                decided = true;
                break;
            }
        }
        if !decided {
            ways.push(state.clone());
        }
        let alone = ways.len() == 1;
        let only = ways.iter().all(|way| way.flow.is_on_or_failed());
        let mut ways = ways.into_iter();
        if let Some(first) = ways.next() {
            *state = first;
        }
        for way in ways {
            state.join(way);
        }
        if !alone {
            state.certain = certain && only;
        }
        None
    }

    fn simple(
        &mut self,
        assignments: &[(String, Word)],
        words: &[Word],
        state: &mut State,
        beside: bool,
    ) -> Option<bool> {
        if words.is_empty() {
            for (name, word) in assignments {
                let value = self.text(word, state);
                state.set(name, value);
            }
            return Some(true);
        }
        if let Some(status) = self.declaration(words, state) {
            return Some(status);
        }
        let fields = self.fields(words, state);
        let whole = fields.is_some();
        let argv = fields.unwrap_or_else(|| self.some_fields(words, state));
        // Substitutions may come to nothing at all, which runs nothing.
        let Some(first) = argv.first().cloned() else { return Some(true) };
        let Some(name) = first else {
            self.run(argv, whole, state, if beside { How::Background } else { How::Call });
            return None;
        };
        let asks = ["[", "test"].contains(&name.as_str()) && !self.functions.contains_key(&name);
        if asks && argv.len() == words.len() {
            let tails: Vec<_> = words.iter().map(|word| expand::tail(word)).collect();
            return test::single(self, &argv, &tails, state);
        }
        self.invoke(&name, argv, whole, state, beside)
    }

    /// `export NAME=value ...` and the like, of words whose names are known; `None` for others.
    fn declaration(&mut self, words: &[Word], state: &mut State) -> Option<bool> {
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
    fn invoke(
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

    fn call(
        &mut self,
        name: &str,
        body: &Rc<List>,
        args: &[Value],
        whole: bool,
        state: &mut State,
        beside: bool,
    ) -> Option<bool> {
        if self.frames.len() >= MAX_CALLS {
            self.outcome.complete = false;
            return None;
        }
        self.frames.push(name.to_owned());
        let saved = std::mem::replace(&mut state.args, whole.then(|| args.to_vec()));
        let status = self.list(&body.clone(), state, beside);
        state.args = saved;
        if state.flow == Flow::Return {
            state.flow = Flow::On;
        }
        self.frames.pop();
        status
    }

    fn source(
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

    fn eval(&mut self, args: &[Value], state: &mut State, beside: bool) -> Option<bool> {
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

    fn run(&mut self, argv: Vec<Value>, whole: bool, state: &State, how: How) {
        for word in argv.iter().flatten() {
            self.mention(word);
        }
        if self.outcome.runs.len() < MAX_RUNS {
            let (certain, asked) = (state.certain, self.asked > 0);
            self.outcome.runs.push(Run { argv, whole, certain, how, asked });
        }
    }

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

    /// Remembers an absolute path.
    pub fn mention(&mut self, word: &str) {
        let path = word.rsplit('=').next().unwrap_or(word);
        if path.starts_with('/') && path.len() > 1 && self.outcome.mentions.len() < MAX_RUNS {
            self.outcome.mentions.insert(path.to_owned());
        }
    }

    /// A path as seen from where the script is.
    pub fn absolute(&self, path: &str, state: &State) -> Option<String> {
        if path.starts_with('/') {
            return Some(path.to_owned());
        }
        let cwd = state.cwd.as_ref()?;
        Some(format!("{}/{}", cwd.trim_end_matches('/'), path.trim_start_matches("./")))
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

    /// A word as one text.
    pub fn text(&mut self, word: &Word, state: &State) -> Value {
        let value = expand::text(self, word, state);
        if let Some(text) = &value {
            self.mention(text);
        }
        value
    }

    /// A word as a pattern: quoted parts are escaped.
    pub fn pattern(&mut self, word: &Word, state: &State) -> Value {
        match plain(word) {
            Some(text) if word.len() == 1 && !text.contains('\\') => {
                expand::pattern(self, word, state)
            }
            _ => expand::pattern(self, word, state),
        }
    }

    /// Words as fields; `None` if not even their number is known.
    fn fields(&mut self, words: &[Word], state: &State) -> Option<Vec<Value>> {
        let mut fields = Vec::new();
        for word in words {
            fields.extend(expand::fields(self, word, state)?);
        }
        Some(fields)
    }

    /// As many fields from the start as are known.
    fn some_fields(&mut self, words: &[Word], state: &State) -> Vec<Value> {
        let mut out = Vec::new();
        for word in words {
            let Some(fields) = expand::fields(self, word, state) else {
                if out.is_empty() {
                    out.push(None);
                }
                break;
            };
            out.extend(fields);
        }
        out
    }
}

//! What a script will do, as far as that can be known without running it.
//!
//! The script is walked with the values that are known (arguments, environment, user). A condition
//! that is known picks its branch; one that is not sends the walk down both, and what the branches
//! disagree on is unknown afterwards.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::expand;
use super::outcome::{How, Outcome, Run, Start, Value, World};
use super::parse::{Command, Item, List, Pipeline, Script, Word, parse, plain};
use super::refusal::{self, Refusal};
use super::state::{Flow, State};
use super::test;

/// Commands that are walked over before a script counts as too long.
const FUEL: u32 = 20_000;
/// Functions and sourced files within one another.
pub(super) const MAX_CALLS: usize = 24;
/// Commands that are remembered.
const MAX_RUNS: usize = 512;
const MAX_REFUSALS: usize = 16;

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

pub(super) struct Walk<'a> {
    pub world: &'a dyn World,
    pub name: String,
    pub uid: Option<u32>,
    pub outcome: Outcome,
    pub functions: BTreeMap<String, Rc<List>>,
    /// Names of the functions that are being run, `source` for sourced files.
    pub frames: Vec<String>,
    /// Variables whose emptiness has led to where the walk is, innermost conditions last.
    pub guards: Vec<Vec<String>>,
    /// Shells within the script's own, whose end is not the script's.
    pub inner: u32,
    /// Substitutions whose output is asked for.
    pub asked: u32,
    /// Whether files that the image does not have are taken not to be there.
    pub absent: bool,
    /// What the scripts write to, as in [`Script`].
    pub writes: Vec<Option<String>>,
    fuel: u32,
}

impl Walk<'_> {
    /// Walks a list; its status if known. `beside`: in the background.
    pub fn list(&mut self, list: &List, state: &mut State, beside: bool) -> Option<bool> {
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
    pub fn within<T>(&mut self, what: impl FnOnce(&mut Self) -> T) -> T {
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
            let tails: Vec<_> = words.iter().map(expand::tail).collect();
            return test::single(self, &argv, &tails, state);
        }
        self.invoke(&name, argv, whole, state, beside)
    }

    pub fn call(
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

    pub fn run(&mut self, argv: Vec<Value>, whole: bool, state: &State, how: How) {
        for word in argv.iter().flatten() {
            self.mention(word);
        }
        if self.outcome.runs.len() < MAX_RUNS {
            let (certain, asked) = (state.certain, self.asked > 0);
            self.outcome.runs.push(Run { argv, whole, certain, how, asked });
        }
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
    pub fn fields(&mut self, words: &[Word], state: &State) -> Option<Vec<Value>> {
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

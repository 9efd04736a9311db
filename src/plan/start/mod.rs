//! What the image starts: its command followed through scripts, wrappers and supervisors to the
//! programs that run.

pub mod runtime;
mod services;
mod wrappers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dock2uni_format::record::Record;

use self::runtime::{Language, Subject};
use crate::plan::root::{Found, Root, base, join, show};
use crate::plan::shell::{self, How, Outcome, Refusal, Value, World};

/// Commands that are followed in all, and steps on the way of one.
const MAX_TASKS: usize = 256;
const MAX_STEPS: usize = 24;
/// Longest script that is read, in bytes.
const MAX_SCRIPT: usize = 1 << 20;
/// Scripts that are taken from a directory that a script names.
const MAX_LISTED: usize = 64;

/// What part a program plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The program that the image is for.
    Main,
    /// A service beside it.
    Service,
    /// The image's health check.
    Health,
    /// Something that a script calls on the way.
    Helper,
}

/// One step from the image's command to a program.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Step {
    /// What leads here: `image`, `#!`, the name of a wrapper, `exec`, `last command`.
    pub by: String,
    /// The command; `null` for words that are not known before it runs.
    pub argv: Vec<Option<String>>,
    /// File that it names, links resolved.
    pub path: Option<String>,
}

/// A program that will run.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its part.
    pub role: Role,
    /// Its file.
    pub found: Found,
    /// Its arguments.
    pub argv: Vec<Value>,
    /// User that a wrapper changes to.
    pub user: Option<String>,
    /// Whether it is certain to be run.
    pub certain: bool,
    /// How it came to be.
    pub steps: Vec<Step>,
    /// Runtime and what it was told to run.
    pub runtime: Option<(Language, Option<Subject>)>,
}

/// A command whose program is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Its part.
    pub role: Role,
    /// The name that was looked for.
    pub name: String,
    /// What named it.
    pub by: String,
    /// Whether it is certain to be run.
    pub certain: bool,
}

/// All that was found out.
#[derive(Debug, Default)]
pub struct Started {
    /// Programs, the main one first.
    pub programs: Vec<Program>,
    /// Commands that lead nowhere.
    pub lost: Vec<Lost>,
    /// Scripts that were read, and links on the way to files.
    pub scripts: BTreeSet<Vec<u8>>,
    /// Symbolic links that were followed.
    pub links: BTreeSet<Vec<u8>>,
    /// Files and directories that scripts name.
    pub mentions: BTreeSet<String>,
    /// What could not be followed, in words.
    pub unclear: Vec<String>,
    /// Scripts on the way to the main program that end for want of variables.
    pub refusals: Vec<(String, Refusal)>,
}

#[derive(Clone)]
struct Task {
    role: Role,
    argv: Vec<Value>,
    user: Option<String>,
    uid: Option<u32>,
    env: BTreeMap<String, String>,
    cwd: String,
    certain: bool,
    by: String,
    steps: Vec<Step>,
}

/// Follows the record's command and health check.
pub fn follow(record: &Record, root: &Root<'_>) -> Started {
    let volumes: Vec<String> = record.volumes.iter().map(|path| show(path)).collect();
    let mut follower = Follower {
        root,
        volumes: &volumes,
        started: Started::default(),
        tasks: VecDeque::new(),
        seen: BTreeSet::new(),
        count: 0,
    };
    let values = |argv: &[Vec<u8>]| argv.iter().map(|word| Some(show(word))).collect::<Vec<_>>();
    let env = record.env.iter().filter_map(|entry| {
        let text = show(entry);
        text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
    });
    let task = Task {
        role: Role::Main,
        argv: values(&record.argv),
        user: None,
        uid: Some(record.user.uid),
        env: env.collect(),
        cwd: show(&record.cwd),
        certain: true,
        by: "image".into(),
        steps: Vec::new(),
    };
    if let Some(check) = &record.healthcheck {
        let argv = values(&check.argv);
        let by = "health check".into();
        let check = Task { role: Role::Health, argv, by, ..task.clone() };
        follower.tasks.push_back(check);
    }
    follower.tasks.push_front(task);
    while let Some(task) = follower.tasks.pop_front() {
        follower.count += 1;
        if follower.count > MAX_TASKS {
            follower.unclear(format!("more than {MAX_TASKS} commands: the rest was not followed"));
            break;
        }
        follower.one(task);
    }
    follower.started.programs.sort_by_key(|program| (program.role, !program.certain));
    follower.started
}

struct Follower<'a, 'r> {
    root: &'a Root<'r>,
    volumes: &'a [String],
    started: Started,
    tasks: VecDeque<Task>,
    seen: BTreeSet<(Role, Vec<Value>, Option<u32>)>,
    count: usize,
}

const SHELLS: [&str; 7] = ["sh", "bash", "dash", "ash", "ksh", "zsh", "rbash"];

impl Follower<'_, '_> {
    fn unclear(&mut self, what: String) {
        if self.started.unclear.len() < 32 && !self.started.unclear.contains(&what) {
            self.started.unclear.push(what);
        }
    }

    fn one(&mut self, mut task: Task) {
        // Busybox runs its applets itself, whatever else goes by their names.
        let mut applet_of = None;
        loop {
            if !self.seen.insert((task.role, task.argv.clone(), task.uid)) {
                return;
            }
            if task.steps.len() > MAX_STEPS {
                return self.unclear(format!("`{}` starts itself over and over", task.by));
            }
            let Some(Some(name)) = task.argv.first().cloned() else {
                if task.role != Role::Helper {
                    self.unclear(format!("what `{}` runs is known only when it does", task.by));
                }
                return;
            };
            let Some(found) = applet_of.take().or_else(|| self.find(&name, &task)) else {
                self.started.lost.push(Lost {
                    role: task.role,
                    name,
                    by: task.by.clone(),
                    certain: task.certain,
                });
                return;
            };
            self.started.links.extend(found.links.iter().cloned());
            task.steps.push(Step {
                by: task.by.clone(),
                argv: task.argv.clone(),
                path: Some(show(&found.path)),
            });
            let called = name.rsplit('/').next().unwrap_or(&name).to_owned();
            for argv in wrappers::also(&called, &task.argv) {
                let by = called.clone();
                self.tasks.push_back(Task { role: Role::Helper, argv, by, ..task.clone() });
            }
            let head = self.root.contents(&found.node, 256).unwrap_or_default();
            if let Some(line) = head.strip_prefix(b"#!") {
                self.started.scripts.insert(found.path.clone());
                let mut argv = interpreter(line);
                let path = if name.contains('/') { name } else { show(&found.path) };
                argv.push(Some(path));
                argv.extend(task.argv.drain(..).skip(1));
                task.argv = argv;
                task.by = "#!".into();
                continue;
            }
            if !head.starts_with(b"\x7fELF") {
                // A script without `#!`: shells and execvp run it by the shell.
                let mut argv = vec![Some("/bin/sh".to_owned()), Some(show(&found.path))];
                argv.extend(task.argv.drain(..).skip(1));
                self.started.scripts.insert(found.path.clone());
                (task.argv, task.by) = (argv, "shell".into());
                continue;
            }
            if SHELLS.contains(&called.as_str()) && self.shell(&called, &found, &task) {
                return;
            }
            if called == "execlineb"
                && let Some(argv) = self.execline(&task)
            {
                (task.argv, task.by) = (argv, called);
                continue;
            }
            if let Some(inner) = wrappers::unwrap(&called, &task.argv) {
                self.program(Role::Helper, &found, &task);
                if let Some(user) = inner.user {
                    task.uid = self.uid(&user);
                    task.user = Some(user);
                }
                task.env.extend(inner.env);
                if wrappers::has_applets(&called) {
                    applet_of = Some(found);
                }
                (task.argv, task.by) = (inner.argv, called);
                continue;
            }
            if let Some(services) = services::of(&called, &task.argv, self.root) {
                self.program(Role::Main.max(task.role), &found, &task);
                for service in services {
                    let uid = service.user.as_ref().map_or(task.uid, |user| self.uid(user));
                    self.tasks.push_back(Task {
                        role: Role::Service.max(task.role),
                        argv: service.argv,
                        user: service.user.or_else(|| task.user.clone()),
                        uid,
                        by: format!("{called}: {}", service.name),
                        ..task.clone()
                    });
                }
                return;
            }
            return self.program(task.role, &found, &task);
        }
    }

    fn program(&mut self, role: Role, found: &Found, task: &Task) {
        let name = show(base(&found.path));
        let called = task.argv.first().cloned().flatten().unwrap_or_default();
        let called = called.rsplit('/').next().unwrap_or_default();
        let language = runtime::language(&name).or_else(|| runtime::language(called));
        let runtime = language.map(|language| (language, runtime::subject(language, &task.argv)));
        let argv = task.argv.clone();
        let known = self.started.programs.iter_mut().find(|program| {
            program.found.path == found.path && (program.role == role && program.argv == argv)
        });
        if let Some(known) = known {
            known.certain |= task.certain;
            return;
        }
        self.started.programs.push(Program {
            role,
            found: found.clone(),
            argv,
            user: task.user.clone(),
            certain: task.certain,
            steps: task.steps.clone(),
            runtime,
        });
    }

    /// The file of a command, as execvp finds it.
    fn find(&self, name: &str, task: &Task) -> Option<Found> {
        which(self.root, name, &task.cwd, task.env.get("PATH").map_or("", String::as_str))
    }

    /// Walks what a shell was told to run; false if it was told nothing.
    fn shell(&mut self, called: &str, found: &Found, task: &Task) -> bool {
        let mut at = 1;
        let mut command = false;
        while let Some(Some(word)) = task.argv.get(at) {
            if word == "--" {
                at += 1;
                break;
            }
            match word.strip_prefix(['-', '+']) {
                Some(letters) if !letters.is_empty() => {
                    command |=
                        word.starts_with('-') && !word.starts_with("--") && letters.contains('c');
                    if matches!(word.as_str(), "-o" | "+o" | "-O" | "+O" | "--rcfile") {
                        at += 1;
                    }
                    at += 1;
                }
                _ => break,
            }
        }
        let Some(what) = task.argv.get(at).cloned() else { return false };
        let Some(what) = what else {
            self.program(Role::Helper, found, task);
            self.unclear(format!("what `{called}` runs is known only when it does"));
            return true;
        };
        let (text, name, args) = if command {
            let name = task.argv.get(at + 1).cloned().flatten();
            (Some(what), name.unwrap_or_else(|| called.to_owned()), at + 2)
        } else {
            let path = show(&join(task.cwd.as_bytes(), what.as_bytes()));
            let script = self.root.file(path.as_bytes());
            if let Some(script) = &script {
                self.started.scripts.insert(script.path.clone());
                self.started.links.extend(script.links.iter().cloned());
            }
            (self.root.text(path.as_bytes(), MAX_SCRIPT), what, at + 1)
        };
        let Some(text) = text else {
            let by = task.by.clone();
            let (role, certain) = (task.role, task.certain);
            self.started.lost.push(Lost { role, name, by, certain });
            return true;
        };
        let start = shell::Start {
            name: name.clone(),
            args: task.argv.get(args..).unwrap_or_default().to_vec(),
            env: task.env.clone(),
            cwd: task.cwd.clone(),
            uid: task.uid,
        };
        let path = task.env.get("PATH").cloned().unwrap_or_default();
        let world = Files { root: self.root, path, volumes: self.volumes };
        let outcome = shell::walk(&text, &start, &world);
        // The shell itself is needed to the end of the script only.
        self.program(Role::Helper, found, task);
        self.outcome(outcome, &name, task);
        true
    }

    /// What a script runs becomes tasks.
    fn outcome(&mut self, outcome: Outcome, name: &str, task: &Task) {
        if !outcome.complete {
            self.unclear(format!("the script `{name}` was not understood to its end"));
        }
        if task.role == Role::Main {
            for mut refusal in outcome.refusals {
                refusal.certain &= task.certain;
                refusal.fresh &= task.certain;
                self.started.refusals.push((name.to_owned(), refusal));
            }
        }
        let last = outcome.runs.iter().rposition(|run| run.how != How::Background);
        let execs = outcome.runs.iter().any(|run| run.how == How::Exec);
        let beside = outcome.runs.iter().any(|run| run.how == How::Background);
        for (index, run) in outcome.runs.into_iter().enumerate() {
            let (role, by) = match run.how {
                How::Exec => (task.role, "exec".to_owned()),
                How::Background => (Role::Service.max(task.role), format!("{name} &")),
                // Without exec the last command is what the script is for.
                How::Call if Some(index) == last && !execs && !beside => {
                    (task.role, "last command".to_owned())
                }
                How::Call => (Role::Helper, name.to_owned()),
            };
            // The program that a service is: the main one, if there is no other.
            let role = if run.how == How::Background && !execs { task.role } else { role };
            let mut argv = run.argv;
            if !run.whole {
                argv.push(None);
            }
            self.tasks.push_back(Task {
                role,
                argv,
                by,
                certain: task.certain && run.certain,
                ..task.clone()
            });
        }
        for path in outcome.sourced {
            if let Some(found) = self.root.file(path.as_bytes()) {
                self.started.links.extend(found.links);
                self.started.scripts.insert(found.path);
            }
        }
        for path in outcome.mentions {
            self.mentioned(&path, task);
            self.started.mentions.insert(path);
        }
    }

    /// A directory that a script names may hold scripts that it runs, whatever way it finds them.
    fn mentioned(&mut self, path: &str, task: &Task) {
        let name = path.trim_end_matches(['/', '*']).rsplit('/').next().unwrap_or_default();
        let holds_scripts =
            name.ends_with(".d") || name.contains("entrypoint") || name.contains("init");
        let dir = path.trim_end_matches('*').trim_end_matches('/');
        if !holds_scripts || self.root.file(dir.as_bytes()).is_some() {
            return;
        }
        for (name, _) in self.root.list(dir.as_bytes()).into_iter().take(MAX_LISTED) {
            let path = format!("{dir}/{}", show(&name));
            let Some(found) = self.root.file(path.as_bytes()) else { continue };
            self.started.scripts.insert(found.path.clone());
            let head = self.root.contents(&found.node, 4).unwrap_or_default();
            let is_script = path.ends_with("sh") || head.starts_with(b"#!");
            if is_script {
                self.tasks.push_back(Task {
                    role: Role::Helper,
                    argv: vec![Some("sh".into()), Some(path)],
                    by: dir.to_owned(),
                    certain: false,
                    ..task.clone()
                });
            }
        }
    }

    /// The command of an execline script: its words, with the blocks of `foreground` and the like
    /// left out.
    fn execline(&self, task: &Task) -> Option<Vec<Value>> {
        let path = task.argv.iter().skip(1).flatten().find(|word| !word.starts_with('-'))?;
        let text = self.root.text(path.as_bytes(), MAX_SCRIPT)?;
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        let mut words: Vec<String> = Vec::new();
        let mut open = 0u32;
        for word in lines.flat_map(wrappers::words) {
            match word.as_str() {
                "{" => open += 1,
                "}" => open = open.saturating_sub(1),
                _ if open == 0 => words.push(word),
                _ => {}
            }
        }
        let mut at = 0;
        while let Some(word) = words.get(at) {
            at += match word.as_str() {
                "foreground" | "background" | "if" | "ifelse" | "exec" | "with-contenv" => 1,
                "fdmove" => 1 + words[at + 1..].iter().take_while(|word| is_fd(word)).count(),
                "cd" | "umask" | "s6-softlimit" => 2,
                _ => break,
            };
        }
        let rest = words.get(at..)?;
        (!rest.is_empty()).then(|| rest.iter().cloned().map(Some).collect())
    }

    fn uid(&self, user: &str) -> Option<u32> {
        let name = user.split(':').next().unwrap_or(user);
        if let Ok(uid) = name.parse() {
            return Some(uid);
        }
        let passwd = self.root.text(b"/etc/passwd", 4 << 20)?;
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
        })
    }
}

fn is_fd(word: &str) -> bool {
    word == "-c" || word.parse::<u8>().is_ok()
}

/// Interpreter and argument of a `#!` line.
fn interpreter(line: &[u8]) -> Vec<Value> {
    let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default().trim_ascii();
    let text = show(line);
    let (program, argument) = text.split_once([' ', '\t']).unwrap_or((&text, ""));
    let mut argv = vec![Some(program.to_owned())];
    if !argument.trim().is_empty() {
        argv.push(Some(argument.trim().to_owned()));
    }
    argv
}

/// The executable file of a name, as execvp finds it.
pub fn which(root: &Root<'_>, name: &str, cwd: &str, path: &str) -> Option<Found> {
    let usable = |path: &[u8]| root.file(path).filter(|found| found.node.inode.mode & 0o111 != 0);
    if name.contains('/') {
        return usable(&join(cwd.as_bytes(), name.as_bytes()));
    }
    let path = if path.is_empty() { "/usr/local/bin:/usr/bin:/bin" } else { path };
    path.split(':')
        .find_map(|dir| usable(&join(&join(cwd.as_bytes(), dir.as_bytes()), name.as_bytes())))
}

/// The image as scripts see it.
struct Files<'a, 'r> {
    root: &'a Root<'r>,
    path: String,
    volumes: &'a [String],
}

impl World for Files<'_, '_> {
    fn read(&self, path: &str) -> Option<String> {
        self.root.text(path.as_bytes(), MAX_SCRIPT)
    }

    fn kind(&self, path: &str) -> Option<char> {
        let node = self.root.find(path.as_bytes())?.node;
        Some(if node.is_file() {
            'f'
        } else if node.is_dir() {
            'd'
        } else {
            'o'
        })
    }

    fn executable(&self, path: &str) -> bool {
        let found = self.root.file(path.as_bytes());
        found.is_some_and(|found| found.node.inode.mode & 0o111 != 0)
    }

    fn size(&self, path: &str) -> u64 {
        self.root.find(path.as_bytes()).map_or(0, |found| found.node.inode.size)
    }

    fn which(&self, name: &str) -> Option<String> {
        which(self.root, name, "/", &self.path).map(|found| show(&found.path))
    }

    fn list(&self, path: &str) -> Vec<String> {
        self.root.list(path.as_bytes()).into_iter().map(|(name, _)| show(&name)).collect()
    }

    fn volumes(&self) -> &[String] {
        self.volumes
    }
}

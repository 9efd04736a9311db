//! Programs that end by running another: what they run, by their own argument rules.

use crate::plan::shell::Value;

/// What is left of a command once a wrapper has done its part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unwrapped {
    /// The command that it runs.
    pub argv: Vec<Value>,
    /// User that it changes to.
    pub user: Option<String>,
    /// Variables that it sets.
    pub env: Vec<(String, String)>,
}

/// How a wrapper reads its arguments.
struct Rule {
    names: &'static [&'static str],
    /// Options with a value in the next argument.
    valued: &'static [&'static str],
    /// Arguments between the options and the command.
    before: usize,
    /// Which of them (from 0) names a user.
    user: Option<usize>,
}

const fn rule(
    names: &'static [&'static str],
    valued: &'static [&'static str],
    before: usize,
    user: Option<usize>,
) -> Rule {
    Rule { names, valued, before, user }
}

const RULES: &[Rule] = &[
    rule(&["env"], &["-u", "--unset", "-C", "--chdir"], 0, None),
    rule(&["tini", "tini-static", "docker-init", "catatonit", "pid1"], &["-p", "-e"], 0, None),
    rule(&["dumb-init"], &["-r", "--rewrite"], 0, None),
    rule(&["gosu", "su-exec", "s6-setuidgid", "setuidgid", "s6-envuidgid"], &[], 1, Some(0)),
    rule(
        &["setpriv"],
        &[
            "--reuid",
            "--regid",
            "--groups",
            "--inh-caps",
            "--ambient-caps",
            "--bounding-set",
            "--securebits",
            "--selinux-label",
            "--apparmor-profile",
            "--pdeathsig",
            "--ptracer",
        ],
        0,
        None,
    ),
    rule(
        &["chpst"],
        &["-u", "-U", "-b", "-e", "-/", "-n", "-l", "-L", "-m", "-d", "-o", "-p", "-f", "-c"],
        0,
        None,
    ),
    rule(&["nice"], &["-n", "--adjustment"], 0, None),
    rule(&["ionice"], &["-c", "--class", "-n", "--classdata"], 0, None),
    rule(&["stdbuf"], &["-i", "--input", "-o", "--output", "-e", "--error"], 0, None),
    rule(&["timeout"], &["-s", "--signal", "-k", "--kill-after"], 1, None),
    rule(&["taskset"], &[], 1, None),
    rule(&["numactl"], &["-N", "-m", "-C", "-i", "-p"], 0, None),
    rule(&["sudo"], &["-u", "-g", "-h", "-p", "-C", "-r", "-t"], 0, None),
    rule(&["runuser"], &["-u", "-g", "-G"], 0, None),
    rule(&["dbus-run-session"], &["--config-file", "--dbus-daemon"], 0, None),
    rule(&["xvfb-run"], &["-e", "-f", "-n", "-p", "-s", "-w"], 0, None),
    rule(&["bundle", "poetry", "pipenv", "uv"], &[], 1, None),
    rule(
        &[
            "nohup",
            "setsid",
            "time",
            "eatmydata",
            "catchsegv",
            "fakeroot",
            "with-contenv",
            "s6-notifyoncheck",
            "exec",
            "unbuffer",
            "doas",
            "aws-lambda-rie",
        ],
        &[],
        0,
        None,
    ),
];

/// Whether a program is many in one, chosen by its first argument.
pub fn has_applets(name: &str) -> bool {
    matches!(name, "busybox" | "toybox")
}

/// What `argv` runs in its turn; `None` if its program is not known to run another.
pub fn unwrap(name: &str, argv: &[Value]) -> Option<Unwrapped> {
    match name {
        _ if has_applets(name) => {
            let rest = argv.get(1..).filter(|rest| !rest.is_empty())?;
            let applet = rest[0].as_deref()?;
            return (!applet.starts_with('-'))
                .then(|| Unwrapped { argv: rest.to_vec(), ..Unwrapped::default() });
        }
        "su" => return su(argv),
        "chroot" => return None,
        _ if name.starts_with("ld-linux") || name.starts_with("ld-musl") => {
            let valued = ["--library-path", "--preload", "--argv0", "--audit", "--inhibit-rpath"];
            return command(argv, &valued, 0, None);
        }
        _ => {}
    }
    let rule = RULES.iter().find(|rule| rule.names.contains(&name))?;
    if matches!(name, "bundle" | "poetry" | "pipenv" | "uv") {
        // Only as `bundle exec`, `poetry run` and so on.
        let verb = argv.get(1)?.as_deref()?;
        if !matches!(verb, "exec" | "run") {
            return None;
        }
    }
    let mut out = command(argv, rule.valued, rule.before, rule.user)?;
    if name == "env" {
        // Its `-u` names a variable.
        out.user = None;
        take_assignments(argv, &mut out);
    }
    Some(out)
}

/// Skips options and leading arguments.
fn command(
    argv: &[Value],
    valued: &[&str],
    before: usize,
    user: Option<usize>,
) -> Option<Unwrapped> {
    let mut out = Unwrapped::default();
    let mut at = 1;
    while let Some(word) = argv.get(at) {
        let Some(word) = word.as_deref() else { break };
        if word == "--" {
            at += 1;
            break;
        }
        if word.len() < 2 || !word.starts_with('-') {
            break;
        }
        let (option, inline) = match word.split_once('=') {
            Some((option, value)) => (option, Some(value)),
            None => (word, None),
        };
        let value = match inline {
            Some(value) => Some(value.to_owned()),
            None if valued.contains(&option) => {
                at += 1;
                argv.get(at).cloned().flatten()
            }
            None => None,
        };
        if matches!(option, "-u" | "-U" | "--reuid" | "--user") {
            out.user = value;
        }
        at += 1;
    }
    if let Some(index) = user {
        out.user = argv.get(at + index).cloned().flatten();
    }
    at += before;
    out.argv = argv.get(at..)?.to_vec();
    // `gosu user -- command` does not exist, but `s6-setuidgid user -- command` does no harm.
    if out.argv.first().is_some_and(|word| word.as_deref() == Some("--")) {
        out.argv.remove(0);
    }
    (!out.argv.is_empty()).then_some(out)
}

/// `env NAME=value command`, and `env -S 'command arguments'`.
fn take_assignments(argv: &[Value], out: &mut Unwrapped) {
    while let Some(Some(word)) = out.argv.first() {
        let Some((name, value)) = word.split_once('=') else { break };
        out.env.push((name.to_owned(), value.to_owned()));
        out.argv.remove(0);
    }
    let split = argv.get(1).and_then(|word| word.as_deref()).filter(|word| word.starts_with("-S"));
    if let Some(option) = split {
        let mut words = words(option[2..].trim());
        let mut rest = argv[2..].to_vec();
        if words.is_empty() && !rest.is_empty() {
            let text = rest.remove(0).unwrap_or_default();
            words = self::words(&text);
        }
        out.argv = words.into_iter().map(Some).chain(rest).collect();
        while let Some(Some(word)) = out.argv.first() {
            let Some((name, value)) = word.split_once('=') else { break };
            out.env.push((name.to_owned(), value.to_owned()));
            out.argv.remove(0);
        }
    }
}

/// `su [-] [user] -c command`
fn su(argv: &[Value]) -> Option<Unwrapped> {
    let mut user = None;
    let mut command = None;
    let mut at = 1;
    while let Some(word) = argv.get(at) {
        match word.as_deref() {
            Some("-c" | "--command") => {
                at += 1;
                command = Some(argv.get(at)?.clone());
            }
            Some("-s" | "--shell" | "-g" | "-G") => at += 1,
            Some(word) if word.starts_with('-') => {}
            Some(word) if user.is_none() => user = Some(word.to_owned()),
            _ => {}
        }
        at += 1;
    }
    let argv = vec![Some("sh".to_owned()), Some("-c".to_owned()), command?];
    Some(Unwrapped { argv, user: user.or(Some("root".into())), env: Vec::new() })
}

/// Programs that a command runs beside its own work: `find -exec`, `xargs`.
pub fn also(name: &str, argv: &[Value]) -> Vec<Vec<Value>> {
    let word = |at: usize| argv.get(at).and_then(|word| word.as_deref());
    match name {
        "find" => (0..argv.len())
            .filter(|&at| matches!(word(at), Some("-exec" | "-execdir" | "-ok")))
            .filter_map(|at| {
                let rest = argv.get(at + 1..)?;
                let end = rest.iter().position(|word| matches!(word.as_deref(), Some(";" | "+")));
                Some(rest[..end.unwrap_or(rest.len())].to_vec())
            })
            .collect(),
        "xargs" => {
            let valued = ["-n", "-I", "-P", "-d", "-L", "-a", "-s", "-E"];
            command(argv, &valued, 0, None).map(|out| out.argv).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

/// Splits a command line as configuration files write them: blanks, quotes, backslashes.
pub fn words(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(end), c) if c == end => quote = None,
            (Some('"') | None, '\\') => word.get_or_insert_default().extend(chars.next()),
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => out.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    out.extend(word);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<Value> {
        words(text).into_iter().map(Some).collect()
    }

    fn inner(text: &str) -> Option<(String, Option<String>)> {
        let argv = values(text);
        let name = argv[0].clone().unwrap();
        let out = unwrap(name.rsplit('/').next().unwrap(), &argv)?;
        let words: Vec<String> = out.argv.into_iter().flatten().collect();
        Some((words.join(" "), out.user))
    }

    #[test]
    fn wrappers_are_taken_off() {
        let plain = |text: &str| Some((text.to_owned(), None));
        let user = |text: &str, user: &str| Some((text.to_owned(), Some(user.to_owned())));
        assert_eq!(inner("/usr/bin/tini -g -- nginx -g x"), plain("nginx -g x"));
        assert_eq!(inner("tini -s -p SIGTERM app"), plain("app"));
        assert_eq!(inner("dumb-init --rewrite 15:3 -v app -x"), plain("app -x"));
        assert_eq!(inner("gosu postgres postgres -c a=b"), user("postgres -c a=b", "postgres"));
        assert_eq!(inner("su-exec redis:redis redis-server"), user("redis-server", "redis:redis"));
        assert_eq!(
            inner("setpriv --reuid=redis --regid redis --clear-groups redis-server"),
            user("redis-server", "redis")
        );
        assert_eq!(inner("env -u X A=1 B=2 python3 -m http"), plain("python3 -m http"));
        assert_eq!(inner("env -i A=1 sh"), plain("sh"));
        assert_eq!(inner("env -S 'node --flag' x.js"), plain("node --flag x.js"));
        assert_eq!(inner("timeout -k 5 10 app"), plain("app"));
        assert_eq!(inner("nice -n 5 app"), plain("app"));
        assert_eq!(inner("busybox httpd -f"), plain("httpd -f"));
        assert_eq!(inner("su - web -c 'exec app 1'"), user("sh -c exec app 1", "web"));
        assert_eq!(inner("chpst -u web app"), user("app", "web"));
        assert_eq!(inner("bundle exec puma -C x"), plain("puma -C x"));
        assert_eq!(inner("/lib64/ld-linux-x86-64.so.2 --library-path /x /app a"), plain("/app a"));
        for no in ["nginx -g x", "tini", "bundle install", "env", "busybox"] {
            assert_eq!(inner(no), None, "{no}");
        }
        let argv = values("find . ! -user redis -exec chown redis '{}' +");
        assert_eq!(also("find", &argv), [values("chown redis {}")]);
    }
}

//! Entrypoints of the shapes that official images have, and scripts that mean harm.

use std::collections::BTreeMap;

use super::{How, Outcome, Start, World, walk};

/// A few files: path, executable, contents; and volumes.
struct Files(&'static [(&'static str, bool, &'static str)], Vec<String>);

impl World for Files {
    fn read(&self, path: &str) -> Option<String> {
        let found = self.0.iter().find(|(name, ..)| *name == path)?;
        Some(found.2.to_owned())
    }
    fn kind(&self, path: &str) -> Option<char> {
        self.read(path).map(|text| if text == "DIR" { 'd' } else { 'f' })
    }
    fn executable(&self, path: &str) -> bool {
        self.0.iter().any(|(name, executable, _)| *name == path && *executable)
    }
    fn size(&self, path: &str) -> u64 {
        self.read(path).map_or(0, |text| text.len() as u64)
    }
    fn which(&self, name: &str) -> Option<String> {
        let path = format!("/usr/bin/{name}");
        self.executable(&path).then_some(path)
    }
    fn list(&self, _: &str) -> Vec<String> {
        Vec::new()
    }
    fn volumes(&self) -> &[String] {
        &self.1
    }
}

fn start(args: &[&str], uid: u32) -> Start {
    Start {
        name: "/entrypoint.sh".into(),
        args: args.iter().map(|arg| Some((*arg).to_owned())).collect(),
        env: BTreeMap::from([("MODE".to_owned(), "web".to_owned())]),
        cwd: "/".into(),
        uid: Some(uid),
    }
}

fn run(script: &str, args: &[&str]) -> Outcome {
    walk(script, &start(args, 0), &Files(&[], Vec::new()))
}

/// What takes the script's place, as `certain? words`.
fn execs(outcome: &Outcome) -> Vec<String> {
    let execs = outcome.runs.iter().filter(|run| run.how == How::Exec);
    let show = |run: &super::Run| {
        let words: Vec<&str> = run.argv.iter().map(|word| word.as_deref().unwrap_or("?")).collect();
        format!("{}{}", if run.certain { "" } else { "maybe " }, words.join(" "))
    };
    execs.map(show).collect()
}

#[test]
fn exec_of_the_arguments_is_found() {
    let outcome = run("#!/bin/sh\nset -e\nexec \"$@\"\n", &["nginx", "-g", "daemon off;"]);
    assert!(outcome.complete);
    assert_eq!(outcome.runs[0].argv[2].as_deref(), Some("daemon off;"));
    assert_eq!(execs(&outcome), ["nginx -g daemon off;"]);
    assert!(outcome.runs[0].certain);
}

#[test]
fn a_redis_like_entrypoint_is_followed_for_both_users() {
    let script = r#"#!/bin/sh
set -e
# first arg is `-f` or `--some-option`
if [ "${1#-}" != "$1" ] || [ "${1%.conf}" != "$1" ]; then
	set -- redis-server "$@"
fi
if [ "$1" = 'redis-server' -a "$(id -u)" = '0' ]; then
	find . \! -user redis -exec chown redis '{}' +
	exec gosu redis "$0" "$@"
fi
um="$(umask)"
if [ "$um" = '0022' ]; then
	umask 0077
fi
exec "$@"
"#;
    let outcome = walk(script, &start(&["--port", "7"], 0), &Files(&[], Vec::new()));
    assert_eq!(execs(&outcome), ["gosu redis /entrypoint.sh redis-server --port 7"]);
    assert!(outcome.runs.iter().any(|run| run.argv[0].as_deref() == Some("find")));
    let outcome = walk(script, &start(&["x.conf"], 999), &Files(&[], Vec::new()));
    assert_eq!(execs(&outcome), ["redis-server x.conf"]);
    let outcome = walk(script, &start(&["sh"], 0), &Files(&[], Vec::new()));
    assert_eq!(execs(&outcome), ["sh"]);
}

#[test]
fn a_postgres_like_entrypoint_is_followed_through_its_functions() {
    let script = r#"#!/usr/bin/env bash
set -Eeo pipefail
file_env() {
	local var="$1"
	local fileVar="${var}_FILE"
	local def="${2:-}"
	if [ "${!var:-}" ] && [ "${!fileVar:-}" ]; then
		printf >&2 'error: both %s and %s are set\n' "$var" "$fileVar"
		exit 1
	fi
	export "$var"="$val"
	unset "$fileVar"
}
_is_sourced() {
	[ "${#FUNCNAME[@]}" -ge 2 ] \
		&& [ "${FUNCNAME[0]}" = '_is_sourced' ] \
		&& [ "${FUNCNAME[1]}" = 'source' ]
}
docker_process_init_files() {
	local f
	for f; do
		case "$f" in
			*.sh)
				if [ -x "$f" ]; then "$f"; else . "$f"; fi
				;;
			*.sql.gz) gunzip -c "$f" | docker_process_sql; printf '\n' ;;
			*)        printf '%s: ignoring %s\n' "$0" "$f" ;;
		esac
	done
}
_pg_want_help() {
	local arg
	for arg; do
		case "$arg" in
			-'?'|--help|-V|--version) return 0 ;;
		esac
	done
	return 1
}
_main() {
	if [ "${1:0:1}" = '-' ]; then
		set -- postgres "$@"
	fi
	if [ "$1" = 'postgres' ] && ! _pg_want_help "$@"; then
		file_env 'POSTGRES_PASSWORD'
		if [ "$(id -u)" = '0' ]; then
			exec gosu postgres "$BASH_SOURCE" "$@"
		fi
		if [ -z "$DATABASE_ALREADY_EXISTS" ]; then
			ls /docker-entrypoint-initdb.d/ > /dev/null
			cat <<-'EOM' >&2
				exec never here
			EOM
			docker_process_init_files /docker-entrypoint-initdb.d/*
		fi
	fi
	exec "$@"
}
if ! _is_sourced; then
	_main "$@"
fi
"#;
    let outcome = walk(script, &start(&["postgres"], 0), &Files(&[], Vec::new()));
    assert!(outcome.complete);
    assert_eq!(execs(&outcome), ["gosu postgres /entrypoint.sh postgres"]);
    let outcome = walk(script, &start(&["-c", "x=1"], 999), &Files(&[], Vec::new()));
    assert_eq!(execs(&outcome), ["postgres -c x=1"]);
    assert!(outcome.mentions.contains("/docker-entrypoint-initdb.d/"));
}

#[test]
fn scripts_that_want_variables_are_found_out() {
    let refusals = |script: &str, env: &[(&str, &str)]| {
        let mut start = start(&["db"], 0);
        start.env.extend(env.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        let outcome = walk(script, &start, &Files(&[], Vec::new()));
        let show = |refusal: &super::Refusal| {
            let how = match (refusal.certain, refusal.fresh) {
                (true, _) => "",
                (false, true) => "fresh ",
                (false, false) => "maybe ",
            };
            format!("{how}{} {}", refusal.status, refusal.variables.join(" "))
        };
        outcome.refusals.iter().map(show).collect::<Vec<_>>()
    };
    // The shape of the postgres image's.
    let script = r#"
verify() {
	if [ -z "$PASSWORD" ] && [ 'trust' != "$AUTH" ]; then
		cat >&2 <<-'EOE'
			Error: superuser password is not specified.
		EOE
		exit 1
	fi
}
if [ "$1" = db ] && [ ! -s "$DATA/VERSION" ]; then verify; fi
exec "$@"
"#;
    // What is not in the image may be there when it runs.
    assert_eq!(refusals(script, &[("DATA", "/data")]), ["fresh 1 PASSWORD"]);
    let made = |command: &str| refusals(&format!("{command}\n{script}"), &[("DATA", "/data")]);
    assert_eq!(made("mkdir -p $DATA; find $DATA -type d"), ["fresh 1 PASSWORD"]);
    assert_eq!(made("mkdir -p $DATA/VERSION"), ["maybe 1 PASSWORD"]);
    assert_eq!(made("initdb"), ["maybe 1 PASSWORD"]);
    // Redirections make files as well.
    for written in ["/data/VERSION", "\"$DATA/VERSION\"", "\"$FILE\"", "$(mktemp)"] {
        for operator in [">", ">>", ">|", "&>", ">&", "1<>"] {
            let command = format!("echo 1 {operator} {written}");
            assert_eq!(made(&command), ["maybe 1 PASSWORD"], "{command}");
        }
    }
    let outer = "write() { x=$(echo 1 > $DATA/VERSION); }; write";
    assert_eq!(made(outer), ["maybe 1 PASSWORD"]);
    for harmless in ["echo 1 > \"$DATA/other\" 2>&1", "echo 1 2>/dev/null 3>&-", "cat < $FILE"] {
        assert_eq!(made(harmless), ["fresh 1 PASSWORD"], "{harmless}");
    }
    assert_eq!(refusals(script, &[("DATA", "/data"), ("PASSWORD", "x")]), [""; 0]);
    assert_eq!(refusals(script, &[("DATA", "/data"), ("AUTH", "trust")]), [""; 0]);
    // Where the data are is known only when it runs: the mariadb image.
    let script = r#"
fail() { echo "$@" >&2; exit 3; }
DATA=$(db --print-datadir)
if [ ! -d "$DATA" ]; then
	if [ -z "${ROOT_PASSWORD+set}${ROOT_PASSWORD_FILE:-}" ]; then fail 'no password'; fi
fi
"#;
    assert_eq!(refusals(script, &[]), ["maybe 3 ROOT_PASSWORD ROOT_PASSWORD_FILE"]);
    assert_eq!(refusals(script, &[("ROOT_PASSWORD", "x")]), [""; 0]);
    let through = "var=KEY; [ -n \"${!var:-}\" ] || { echo no; exit 2; }; exec db";
    assert_eq!(refusals(through, &[]), ["2 KEY"]);
    assert_eq!(refusals(": \"${LICENCE:?must be accepted}\"; exec db", &[]), ["1 LICENCE"]);
    assert_eq!(refusals("if [[ -n $KEY ]]; then exec a; else exit 1; fi", &[]), ["1 KEY"]);
    // What ends well, what ends another shell, what asks for something else.
    for script in [
        "[ -n \"$KEY\" ] || exit 0",
        "( [ -n \"$KEY\" ] || exit 1 ) || :",
        "x=$([ -n \"$KEY\" ] || exit 1)",
        "[ -e /etc/db.conf ] || exit 1",
        "[ -n \"$local\" ] || exit 1",
    ] {
        assert_eq!(refusals(script, &[]), [""; 0], "{script}");
    }
}

#[test]
fn branches_join_and_unknown_ones_are_said_to_be() {
    let outcome = run("if ping -c1 x; then exec a; fi\nexec b \"$MODE\"", &[]);
    assert_eq!(execs(&outcome), ["maybe a", "maybe b web"]);
    let outcome = run("case $1 in start|run) exec a;; -*) exec b;; *) exec c;; esac", &["run"]);
    assert_eq!(execs(&outcome), ["a"]);
    let outcome = run("x=1; if read y; then x=2; fi; exec prog $x ${y:-z}", &[]);
    assert_eq!(execs(&outcome), ["prog"]);
    let outcome = run("x=1; [ -n \"$HOME\" ] && x=2; [[ $MODE == w* ]] && exec prog $x", &[]);
    assert_eq!(execs(&outcome), ["prog 1"]);
    let outcome = run("for a in one two; do set -- \"$@\" $a; done; exec \"$@\"", &["p"]);
    assert_eq!(execs(&outcome), ["p one two"]);
    let outcome = run("exec > /dev/null 2>&1\nexec prog --opt=\"$(hostname)\"", &[]);
    assert_eq!(execs(&outcome), ["prog ?"]);
}

#[test]
fn services_side_by_side_are_all_seen() {
    let outcome = run("nginx -g 'daemon off;' &\nphp-fpm -F &\nwait -n\nexit $?\n", &[]);
    let names: Vec<(&str, How)> =
        outcome.runs.iter().map(|run| (run.argv[0].as_deref().unwrap_or("?"), run.how)).collect();
    assert_eq!(names, [("nginx", How::Background), ("php-fpm", How::Background)]);
}

#[test]
fn sourced_files_take_part() {
    let files = Files(&[("/etc/env.sh", false, "PROGRAM=/opt/app/server\n")], Vec::new());
    let outcome = walk(". /etc/env.sh\nexec $PROGRAM --x\n", &start(&[], 0), &files);
    assert_eq!(execs(&outcome), ["/opt/app/server --x"]);
    assert!(outcome.sourced.contains("/etc/env.sh"));
}

#[test]
fn what_tomcats_script_evaluates_is_found_though_some_of_it_is_not_known() {
    let script = r#"#!/bin/sh
_RUNJAVA=/opt/java/bin/java
JAVA_OPTS="$JAVA_OPTS -Dmask=`umask`"
if [ "$1" = "run" ]; then
  shift
  eval exec "\"$_RUNJAVA\"" "\"-Dx=a b\"" $LOGGING_MANAGER "$JAVA_OPTS" -classpath x Bootstrap "$@" start
else
  eval "$JAVA_OPTS" exec other
  eval "\"open" "$JAVA_OPTS"
fi
"#;
    let outcome = run(script, &["run"]);
    assert!(outcome.complete);
    assert_eq!(execs(&outcome), ["/opt/java/bin/java -Dx=a b"]);
    assert!(outcome.runs.iter().any(|run| !run.whole && run.certain), "{:?}", outcome.runs);
    let outcome = run(script, &["other"]);
    assert!(execs(&outcome).is_empty() && outcome.complete, "{:?}", outcome.runs);
}

#[test]
fn hostile_scripts_end() {
    let deep = "(".repeat(100_000);
    let braces = "${a:-".repeat(50_000);
    let quotes = "\"$(".repeat(50_000);
    let ticks = "if ".repeat(50_000);
    for script in [
        deep.as_str(),
        &braces,
        &quotes,
        &ticks,
        "f() { f; f; }; f",
        "while :; do exec a; done; case",
        "eval eval eval eval \"$x\"",
        "a=b; a=$a$a; ${a",
        "cat <<EOF\nnever ends",
        "x() { . /entrypoint.sh; }; x",
        "'",
        "`",
        "$",
        "\\",
        "[[ a =~ (b",
        "((",
        "case x in (",
        "for",
        "\u{0}\u{1}é$é",
        "$(é`'\"",
    ] {
        let _ = run(script, &["x"]);
    }
    let many = "if [ $x ]; then a; else b; fi; ".repeat(20_000);
    assert!(!run(&many, &[]).complete);
}

/// A database's script that asks its server where data are, and fails for several reasons.
const ASKING: &str = r#"
    args=(--verbose --help)
    fail() { echo "$@" >&2; exit 1; }
    check() {
        if ! errors="$("$@" "${args[@]}" 2>&1 >/dev/null)"; then fail "$errors"; fi
        "$@" --version || fail 'no server'
    }
    config() { "$@" "${args[@]}" 2>/dev/null | awk '$1 == "datadir" { print $2 }'; }
    set_up_env() {
        declare -g DATA
        DATA="$(config "$@")"
        local more="$DATA/more"
        declare -g THERE
        if [ -d "$DATA/mysql" ]; then THERE=true; fi
    }
    verify() {
        if [ -z "$PASSWORD" ] && [ -z "$RANDOM_PASSWORD" ]; then fail 'no password'; fi
    }
    check "$@"
    set_up_env "$@"
    if [ "$(id -u)" = 0 ]; then exec gosu mysql "$0" "$@"; fi
    if [ -z "$THERE" ]; then verify; fi
    exec "$@"
"#;

#[test]
fn where_data_are_is_presumed_to_be_a_volume() {
    let said = |volumes: &[&str], uid| {
        let volumes = volumes.iter().map(|path| (*path).to_owned()).collect();
        walk(ASKING, &start(&["mysqld"], uid), &Files(&[("/full/mysql", false, "DIR")], volumes))
    };
    let refusals = |volumes: &[&str]| {
        let outcome = said(volumes, 999);
        assert!(outcome.complete);
        let refusals = outcome.refusals.into_iter().filter(|refusal| refusal.variables.len() == 2);
        refusals.map(|refusal| (refusal.certain, refusal.fresh)).collect::<Vec<_>>()
    };
    assert_eq!(refusals(&["/data"]), [(false, true)]);
    // Nothing is known of it without volumes, or if there are data in one of them.
    assert_eq!(refusals(&[]), [(false, false)]);
    assert_eq!(refusals(&["/data", "/full"]), [(false, false)]);
    // What fails before leaves what comes after certain, as far as anything goes on.
    assert_eq!(execs(&said(&["/data"], 0)), ["gosu mysql /entrypoint.sh mysqld"]);
}

#[test]
fn an_end_without_failure_leaves_nothing_certain() {
    for (end, certain) in [("exit 3", true), ("exit 0", false), ("exit $code", false)] {
        let script = format!("if probe; then {end}; fi\nexec server\n");
        let want = if certain { "server" } else { "maybe server" };
        assert_eq!(execs(&run(&script, &[])), [want], "{end}");
        let script = format!("case $(probe) in a) {end} ;; b) ;; esac\nexec server\n");
        assert_eq!(execs(&run(&script, &[])), [want], "{end}");
        let script = format!("probe || {end}\nexec server\n");
        assert_eq!(execs(&run(&script, &[])), [want], "{end}");
    }
}

#[test]
fn what_is_not_known_of_a_declaration_stays_with_its_name() {
    let script = r#"
        A=old
        local A=new B=$A C="$(probe)"
        export D=x$(probe)y
        exec server "$A" "$B" "$C" "$D" "$E"
    "#;
    assert_eq!(execs(&run(script, &[])), ["server new old ? ? "]);
}

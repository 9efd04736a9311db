//! From the text of a Dockerfile to its types.
//!
//! parse-dockerfile reads keywords, flags, words and JSON; here-documents are masked before (see
//! [`text`](super::text)), and shell forms are taken from the joined lines, since the crate leaves
//! continuation characters and comments in them.

use std::borrow::Cow;
use std::ops::Range;

use parse_dockerfile as crates;

use super::ast::{
    Command, Copy, Dockerfile, Healthcheck, Instruction, Kind, Pair, Run, Source, Stage,
};
use super::error::{Error, Place};
use super::text::{Heredoc, Logical, MARK, MAX_BYTES, Text, is_empty_list};
use super::words::pairs;

/// Most stages; each may need a thread.
const MAX_STAGES: usize = 256;
/// Bounds of HEALTHCHECK's durations, as Docker has them.
const SHORTEST_NS: i64 = 1_000_000;

/// Reads a Dockerfile called `name`.
///
/// # Errors
/// [`Error::Syntax`] with the place.
pub fn parse(name: &str, bytes: &[u8]) -> Result<Dockerfile, Error> {
    let whole = String::from_utf8_lossy(bytes);
    let fail = |text: &str, lines: Range<usize>, reason: String| Error::Syntax {
        place: Place::new(name, text, &lines),
        reason,
    };
    if bytes.len() > MAX_BYTES {
        return Err(fail("", 0..0, format!("a Dockerfile may have {MAX_BYTES} bytes")));
    }
    if let Cow::Owned(_) = whole {
        return Err(fail("", 0..0, "the Dockerfile is not UTF-8 text".into()));
    }
    let text = Text::new(&whole).map_err(|fault| {
        let whole = whole.trim_start_matches('\u{feff}');
        fail(whole, fault.at..fault.at, fault.reason)
    })?;
    let reader = Reader { text: &text };
    let mut file = Dockerfile {
        name: name.to_owned(),
        text: text.original.clone(),
        escape: text.escape,
        syntax: None,
        args: Vec::new(),
        stages: Vec::new(),
    };
    let at_line = |error: &crates::Error| {
        // The crate counts lines from 1, and has none for a file without FROM.
        let skipped = text.original.split_inclusive('\n').take(error.line().saturating_sub(1));
        let at = skipped.map(str::len).sum();
        fail(&text.original, at..at, format!("{error:#}").replace(MARK, "<<"))
    };
    let parsed = crates::parse_iter(&text.masked).map_err(|error| at_line(&error))?;
    for item in parsed {
        let item = item.map_err(|error| at_line(&error))?;
        let span = keyword(&item);
        let Some(line) = text.line_at(span.start) else { continue };
        let lines = line.start..line.end;
        let wrong = |reason| fail(&text.original, lines.clone(), reason);
        match &item {
            crates::Instruction::From(from) => {
                if file.stages.len() == MAX_STAGES {
                    return Err(wrong(format!("more than {MAX_STAGES} stages")));
                }
                file.stages.push(reader.stage(from, line).map_err(wrong)?);
            }
            crates::Instruction::Arg(arg) if file.stages.is_empty() => {
                let list = args(line.rest(arg.arg.span.end), text.escape).map_err(wrong)?;
                file.args.extend(list.into_iter().map(|pair| (pair, lines.clone())));
            }
            other => {
                let Some(stage) = file.stages.last_mut() else {
                    return Err(wrong("there is no FROM before this instruction".into()));
                };
                let kind = reader.kind(other, line).map_err(wrong)?;
                stage.instructions.push(Instruction { kind, text: shown(&line.joined), lines });
            }
        }
    }
    if file.stages.is_empty() {
        return Err(fail(&text.original, 0..0, "the Dockerfile has no FROM".into()));
    }
    file.syntax = syntax(&text.original);
    Ok(file)
}

/// Reads the instruction of an ONBUILD trigger.
///
/// # Errors
/// [`Error::Syntax`].
pub fn parse_trigger(image: &str, trigger: &str, escape: char) -> Result<Instruction, Error> {
    // BuildKit reads triggers with the escape character of the Dockerfile at hand.
    let text = format!("# escape={escape}\nFROM scratch\n{trigger}\n");
    let name = format!("ONBUILD of {image}");
    let mut file = parse(&name, text.as_bytes())?;
    let mut instructions = file.stages.swap_remove(0).instructions;
    match (instructions.pop(), instructions.is_empty() && file.stages.is_empty()) {
        (Some(instruction), true) if !matches!(instruction.kind, Kind::Onbuild(_)) => {
            Ok(instruction)
        }
        _ => Err(Error::Syntax {
            place: Place::new(&name, trigger, &(0..trigger.len())),
            reason: "the trigger is not one instruction".into(),
        }),
    }
}

/// The frontend that a `syntax` directive asks for.
fn syntax(text: &str) -> Option<String> {
    for line in text.lines() {
        let (name, value) = line.trim_start().strip_prefix('#')?.split_once('=')?;
        if name.trim().eq_ignore_ascii_case("syntax") {
            return Some(value.trim().to_owned());
        }
    }
    None
}

/// An instruction as it is shown: its white space made single.
fn shown(joined: &str) -> String {
    joined.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn args(line: &str, escape: char) -> Result<Vec<Pair>, String> {
    let read = |span: Range<usize>| {
        let word = &line[span];
        match word.split_once('=') {
            Some(("", _)) => Err(format!("`{word}` has no name before the `=`")),
            Some((name, value)) => Ok((name.to_owned(), Some(value.to_owned()))),
            None => Ok((word.to_owned(), None)),
        }
    };
    super::text::split(line, escape).into_iter().map(read).collect()
}

struct Reader<'t> {
    text: &'t Text,
}

type Flags<'f> = &'f [crates::Flag<'f>];

impl Reader<'_> {
    fn stage(&self, from: &crates::FromInstruction<'_>, line: &Logical) -> Result<Stage, String> {
        let mut platform = None;
        for flag in &from.options {
            match flag.name.value.as_ref() {
                "platform" => platform = Some(value(flag)?),
                other => return Err(unknown("FROM", other)),
            }
        }
        let name = from.as_.as_ref().map(|(_, name)| name.value.to_lowercase());
        if let Some(name) = &name {
            let mut chars = name.chars();
            let starts = chars.next().is_some_and(|c| c.is_ascii_lowercase());
            let rest = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if !starts || !chars.all(rest) {
                return Err(format!(
                    "`{name}` can't name a stage: a name starts with a letter and has letters, \
                     digits, `-`, `_` and `.`"
                ));
            }
        }
        Ok(Stage {
            name,
            image: from.image.value.clone().into_owned(),
            platform,
            lines: line.start..line.end,
            text: shown(&line.joined),
            instructions: Vec::new(),
        })
    }

    fn kind(&self, item: &crates::Instruction<'_>, line: &Logical) -> Result<Kind, String> {
        use crates::Instruction as I;
        let escape = self.text.escape;
        let span = keyword(item);
        let rest = || line.rest(span.end).to_owned();
        Ok(match item {
            I::Add(add) => {
                Kind::Add(self.copy("ADD", &add.options, &add.src, &add.dest.value, line)?)
            }
            I::Copy(copy) => {
                Kind::Copy(self.copy("COPY", &copy.options, &copy.src, &copy.dest.value, line)?)
            }
            I::Arg(_) => Kind::Arg(args(&rest(), escape)?),
            I::Env(_) => Kind::Env(pairs(&rest(), escape)?),
            I::Label(_) => Kind::Label(pairs(&rest(), escape)?),
            I::Cmd(cmd) => Kind::Cmd(command(&cmd.arguments, line)),
            I::Entrypoint(entry) => Kind::Entrypoint(command(&entry.arguments, line)),
            I::Expose(_) => Kind::Expose(rest()),
            I::Healthcheck(check) => Kind::Healthcheck(healthcheck(check, line)?),
            I::Maintainer(_) => Kind::Maintainer(rest()),
            I::Onbuild(onbuild) => self.onbuild(onbuild, line)?,
            I::Run(run) => Kind::Run(self.run(run, line)?),
            I::Shell(shell) => Kind::Shell(texts(&shell.arguments)),
            I::Stopsignal(_) => Kind::StopSignal(rest()),
            I::User(_) => Kind::User(rest()),
            I::Volume(volume) => Kind::Volume(match &volume.arguments {
                crates::JsonOrStringArray::Json(list) => texts(&list.value),
                crates::JsonOrStringArray::String(list) => texts(list),
            }),
            I::Workdir(_) => Kind::Workdir(rest()),
            other => return Err(format!("`{other:?}` is not supported")),
        })
    }

    fn copy(
        &self,
        keyword: &str,
        flags: Flags<'_>,
        sources: &[crates::Source<'_>],
        dest: &str,
        line: &Logical,
    ) -> Result<Copy, String> {
        let add = keyword == "ADD";
        let mut copy = Copy { dest: dest.to_owned(), ..Copy::default() };
        for flag in flags {
            match flag.name.value.as_ref() {
                "from" if !add => copy.from = Some(value(flag)?),
                "chown" => copy.chown = Some(value(flag)?),
                "chmod" => copy.chmod = Some(value(flag)?),
                "link" => copy.link = boolean(flag)?,
                "parents" if !add => copy.parents = boolean(flag)?,
                "exclude" => copy.exclude.push(value(flag)?),
                "checksum" if add => copy.checksum = Some(value(flag)?),
                "keep-git-dir" if add => copy.keep_git_dir = boolean(flag)?,
                "unpack" if add => copy.unpack = Some(boolean(flag)?),
                other => return Err(unknown(keyword, other)),
            }
        }
        let mut heredocs = line.heredocs.iter();
        if dest.contains(MARK) {
            return Err(format!("{keyword} needs a destination after its here-documents"));
        }
        for source in sources {
            let crates::Source::Path(path) = source else { continue };
            copy.sources.push(if path.value.contains(MARK) {
                let heredoc: &Heredoc = heredocs.next().ok_or("a here-document is missing")?;
                Source::Heredoc(heredoc.clone())
            } else {
                Source::Path(path.value.clone().into_owned())
            });
        }
        Ok(copy)
    }

    fn run(&self, run: &crates::RunInstruction<'_>, line: &Logical) -> Result<Run, String> {
        let mut mounts = Vec::new();
        let (mut network, mut security) = (None, None);
        for flag in &run.options {
            match flag.name.value.as_ref() {
                "mount" => mounts.push(value(flag)?),
                "network" => network = Some(value(flag)?),
                "security" => security = Some(value(flag)?),
                other => return Err(unknown("RUN", other)),
            }
        }
        let command = command(&run.arguments, line);
        let nothing = match &command {
            Command::Shell(text) => text.is_empty(),
            Command::Exec(argv) => argv.is_empty(),
        };
        if nothing {
            return Err("RUN needs a command".into());
        }
        Ok(Run { mounts, network, security, command, heredocs: line.heredocs.clone() })
    }

    fn onbuild(
        &self,
        onbuild: &crates::OnbuildInstruction<'_>,
        line: &Logical,
    ) -> Result<Kind, String> {
        match onbuild.instruction.as_ref() {
            crates::Instruction::From(_) => return Err("ONBUILD FROM is not allowed".into()),
            crates::Instruction::Maintainer(_) => {
                return Err("ONBUILD MAINTAINER is not allowed".into());
            }
            // What is wrong with the trigger is said now and not when it is used.
            other => drop(self.kind(other, line)?),
        }
        let mut trigger = line.rest(onbuild.onbuild.span.end).to_owned();
        for heredoc in &line.heredocs {
            trigger.push('\n');
            trigger.push_str(self.text.original[heredoc.span.clone()].trim_end());
        }
        Ok(Kind::Onbuild(trigger))
    }
}

/// Where the keyword is; the crate keeps its own function for it to itself.
fn keyword(item: &crates::Instruction<'_>) -> Range<usize> {
    use crates::Instruction as I;
    let keyword = match item {
        I::Add(item) => &item.add,
        I::Arg(item) => &item.arg,
        I::Cmd(item) => &item.cmd,
        I::Copy(item) => &item.copy,
        I::Entrypoint(item) => &item.entrypoint,
        I::Env(item) => &item.env,
        I::Expose(item) => &item.expose,
        I::From(item) => &item.from,
        I::Healthcheck(item) => &item.healthcheck,
        I::Label(item) => &item.label,
        I::Maintainer(item) => &item.maintainer,
        I::Onbuild(item) => &item.onbuild,
        I::Run(item) => &item.run,
        I::Shell(item) => &item.shell,
        I::Stopsignal(item) => &item.stopsignal,
        I::User(item) => &item.user,
        I::Volume(item) => &item.volume,
        I::Workdir(item) => &item.workdir,
        // The list is that of the language; a new one is refused by `kind`.
        _ => return 0..0,
    };
    keyword.span.clone()
}

fn texts(list: &[crates::UnescapedString<'_>]) -> Vec<String> {
    list.iter().map(|text| text.value.clone().into_owned()).collect()
}

fn command(command: &crates::Command<'_>, line: &Logical) -> Command {
    match command {
        crates::Command::Exec(list) => Command::Exec(texts(&list.value)),
        crates::Command::Shell(text) => match line.rest(text.span.start) {
            list if is_empty_list(list) => Command::Exec(Vec::new()),
            text => Command::Shell(text.to_owned()),
        },
        // There are these two forms.
        _ => Command::Shell(String::new()),
    }
}

fn unknown(keyword: &str, flag: &str) -> String {
    format!("{keyword} has no flag `--{flag}`")
}

fn value(flag: &crates::Flag<'_>) -> Result<String, String> {
    let text = flag.value.as_ref().map(|value| value.value.clone().into_owned());
    text.filter(|text| !text.is_empty())
        .ok_or_else(|| format!("`--{}` needs a value", flag.name.value))
}

fn boolean(flag: &crates::Flag<'_>) -> Result<bool, String> {
    match flag.value.as_ref().map(|value| value.value.as_ref()) {
        None | Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(other) => Err(format!("`--{}={other}` is neither true nor false", flag.name.value)),
    }
}

fn healthcheck(
    check: &crates::HealthcheckInstruction<'_>,
    line: &Logical,
) -> Result<Healthcheck, String> {
    let (mut interval, mut timeout, mut start_period) = (None, None, None);
    let (mut start_interval, mut retries) = (None, None);
    for flag in &check.options {
        let text = value(flag)?;
        let time = || duration(&text).map_err(|why| format!("`--{}`: {why}", flag.name.value));
        match flag.name.value.as_ref() {
            "interval" => interval = Some(time()?),
            "timeout" => timeout = Some(time()?),
            "start-period" => start_period = Some(time()?),
            "start-interval" => start_interval = Some(time()?),
            "retries" => {
                let count =
                    text.parse().ok().filter(|&count| (0..=i64::from(i32::MAX)).contains(&count));
                retries = Some(count.ok_or_else(|| format!("`--retries={text}` is no count"))?);
            }
            other => return Err(unknown("HEALTHCHECK", other)),
        }
    }
    Ok(match &check.arguments {
        crates::HealthcheckArguments::Cmd { arguments, .. } => Healthcheck::Check {
            command: match command(arguments, line) {
                Command::Exec(argv) if argv.is_empty() => {
                    return Err("HEALTHCHECK CMD needs a command".into());
                }
                command => command,
            },
            interval,
            timeout,
            start_period,
            start_interval,
            retries,
        },
        _ if !check.options.is_empty() => return Err("HEALTHCHECK NONE takes no flags".into()),
        _ => Healthcheck::None,
    })
}

/// Reads a duration as Go writes it (`1h15m30.5s`), in nanoseconds. Zero means the default.
fn duration(text: &str) -> Result<i64, String> {
    let malformed = || format!("`{text}` is no duration; write `30s`, `1m30s` or `500ms`");
    let mut rest = text;
    let mut total = 0f64;
    if rest == "0" {
        return Ok(0);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(malformed)?;
        let number: f64 = rest[..digits].parse().map_err(|_| malformed())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "ns" => 1.0,
                "us" | "µs" | "μs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return Err(malformed()),
            };
        rest = &rest[unit..];
    }
    if text.is_empty() || total > i64::MAX as f64 / 2.0 {
        return Err(malformed());
    }
    // Checked to fit.
    match total as i64 {
        ns if ns != 0 && ns < SHORTEST_NS => Err(format!("`{text}` is shorter than 1ms")),
        ns => Ok(ns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(body: &str) -> Stage {
        let text = format!("FROM scratch\n{body}");
        parse("Dockerfile", text.as_bytes()).unwrap().stages.remove(0)
    }

    fn kind(line: &str) -> Kind {
        stage(line).instructions.remove(0).kind
    }

    fn refused(text: &str) -> String {
        parse("Dockerfile", text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn stages_names_and_global_arguments() {
        let text = "# syntax=docker/dockerfile:1\nARG V=1 W\nfrom --platform=$P a:$V as Build\nRUN x\n\
                    FROM build\nFROM scratch AS z\n";
        let file = parse("Dockerfile", text.as_bytes()).unwrap();
        assert_eq!(file.syntax.as_deref(), Some("docker/dockerfile:1"));
        assert_eq!(file.args[0].0, ("V".into(), Some("1".into())));
        assert_eq!(file.args[1].0, ("W".into(), None));
        assert_eq!(file.stages[0].name.as_deref(), Some("build"));
        assert_eq!(file.stages[0].platform.as_deref(), Some("$P"));
        assert_eq!(file.stage_before("BUILD", 1), Some(0));
        assert_eq!(file.stage_before("build", 0), None);
        assert_eq!(file.stage_before("1", 2), Some(1));
        assert_eq!(file.stage_before("2", 2), None);
    }

    #[test]
    fn shell_forms_lose_continuations_and_comments_only() {
        let Kind::Run(run) = kind("RUN a \\\n  # gone\n  && b  \"c d\" \\\n\n  && e\n") else {
            panic!()
        };
        assert_eq!(run.command, Command::Shell("a   && b  \"c d\"   && e".into()));
        let Kind::Run(run) =
            kind("RUN --mount=type=cache,target=/x \\\n --network=none [\"a\", \"b c\"]")
        else {
            panic!()
        };
        assert_eq!(run.mounts, ["type=cache,target=/x"]);
        assert_eq!(run.network.as_deref(), Some("none"));
        assert_eq!(run.command, Command::Exec(vec!["a".into(), "b c".into()]));
        for text in ["CMD []", "cmd  [ ] ", "CMD [\\\n ]"] {
            let Kind::Cmd(cmd) = kind(text) else { panic!("{text}") };
            assert_eq!(cmd, Command::Exec(Vec::new()), "{text}");
        }
        let Kind::Cmd(cmd) = kind("CMD [\"a\", b]") else { panic!() };
        assert_eq!(cmd, Command::Shell("[\"a\", b]".into()));
    }

    #[test]
    fn heredocs_go_to_their_instruction() {
        let Kind::Copy(copy) = kind("COPY --chmod=755 <<a <<\"b\" plain /d/\n1\na\n2\nb\n") else {
            panic!()
        };
        let [Source::Heredoc(a), Source::Heredoc(b), Source::Path(c)] = copy.sources.as_slice()
        else {
            panic!("{copy:?}")
        };
        assert_eq!((a.content.as_str(), a.expand), ("1\n", true));
        assert_eq!((b.content.as_str(), b.expand), ("2\n", false));
        assert_eq!((c.as_str(), copy.dest.as_str()), ("plain", "/d/"));
        let Kind::Run(run) = kind("RUN <<EOF cat > /x\n$y\nEOF\n") else { panic!() };
        assert_eq!(run.heredocs[0].content, "$y\n");
        assert_eq!(run.command, Command::Shell("<<EOF cat > /x".into()));
        let Kind::Onbuild(trigger) = kind("ONBUILD RUN <<E\nx\nE\nCMD y") else { panic!() };
        assert_eq!(trigger, "RUN <<E\nx\nE");
        assert!(matches!(parse_trigger("i", &trigger, '\\').unwrap().kind, Kind::Run(_)));
    }

    #[test]
    fn health_checks() {
        let Kind::Healthcheck(Healthcheck::Check { interval, timeout, retries, command, .. }) =
            kind(
                "HEALTHCHECK --interval=1m30s --timeout=1.5s --retries=2 CMD curl -f \\\n x || exit 1",
            )
        else {
            panic!()
        };
        assert_eq!(
            (interval, timeout, retries),
            (Some(90_000_000_000), Some(1_500_000_000), Some(2))
        );
        assert_eq!(command, Command::Shell("curl -f  x || exit 1".into()));
        assert!(matches!(kind("HEALTHCHECK NONE"), Kind::Healthcheck(Healthcheck::None)));
        assert!(refused("FROM a\nHEALTHCHECK --interval=1 CMD x").contains("no duration"));
    }

    #[test]
    fn errors_name_the_line() {
        for (text, reason, line) in [
            ("FROM a\n\nRUNN x", "unknown instruction 'RUNN'", 3),
            ("RUN x", "expected FROM", 1),
            ("# only a comment\n", "at least one FROM", 1),
            ("FROM a\nCOPY x", "at least two arguments", 2),
            ("FROM a\nCOPY --form=b x /", "no flag `--form`", 2),
            ("FROM a AS 1x", "can't name a stage", 1),
            ("FROM a\nONBUILD FROM b", "ONBUILD FROM", 2),
            ("FROM a\nONBUILD ONBUILD RUN x", "ONBUILD ONBUILD", 2),
            ("FROM a\nRUN <<E\nx\n", "has no end", 2),
            ("FROM a\nENV a=1 b\n", "not of the form", 2),
            ("FROM a\nSHELL sh -c\n", "JSON", 2),
            ("FROM a\nCOPY <<E\nx\nE\n", "at least two", 2),
            ("FROM a\nRUN --mount x\n", "needs a value", 2),
        ] {
            let error = refused(text);
            assert!(error.contains(reason), "{text:?}: {error}");
            assert!(error.contains(&format!("Dockerfile:{line}")), "{text:?}: {error}");
        }
        assert!(parse("x", b"FROM \xff").is_err());
    }

    #[test]
    fn nothing_makes_the_parser_panic() {
        let seeds = [
            "FROM a\nCOPY [\"x\"]",
            "FROM a\nCOPY []",
            "FROM a\nRUN []",
            "FROM",
            "FROM a AS",
            "FROM a\nRUN \\",
            "FROM a\nSHELL []",
            "FROM a\nVOLUME",
            "FROM a\nHEALTHCHECK",
            "FROM a\nHEALTHCHECK CMD",
            "FROM a\nONBUILD",
            "FROM a\nRUN <<",
            "FROM a\nRUN <<-",
            "FROM a\nCOPY <<A <<A /\nA\nA",
            "FROM a\r\nRUN x\r",
            "\u{feff}FROM a",
            "FROM a\nENV",
            "# escape=x\nFROM a",
            "FROM a\nEXPOSE",
            "FROM a\nADD --link",
            "FROM a\nR\\\nUN x",
            "FROM a\nCOPY [\"a\", \"b\"] trailing",
            "FROM a\nRUN [\"\\u12\"]",
            "FROM a\nLABEL x",
        ];
        for seed in seeds {
            let _ = parse("Dockerfile", seed.as_bytes());
            for cut in 0..seed.len() {
                let _ = parse("Dockerfile", &seed.as_bytes()[..cut]);
                let _ = parse("Dockerfile", [&seed.as_bytes()[..cut], b"\\\n"].concat().as_slice());
            }
        }
    }
}

//! From what was found to the report: findings, their weight, and the verdict.

use std::collections::{BTreeMap, BTreeSet};

use dock2uni_format::erofs::FileType;
use dock2uni_format::record::{Proto, Record};

use super::elf::{Closure, How, Missing};
use super::packages::{self, Database, Manager};
use super::report::{
    Finding, Memory, MissingCall, Needs, Object, Packages, Program, Report, Runs, Runtime,
    Severity, Step, Syscalls, VARIABLE, Verdict,
};
use super::root::{Root, base, show};
use super::shell::Refusal;
use super::start::Role;
use super::syscalls::{self, Calls};
use super::{Plan, needs};
use crate::config;
use crate::source::image::Image;

/// Kernel, its tables, and file pages that are always wanted, in MiB.
const KERNEL_MIB: u64 = 24;
/// Memory that `run` gives a machine unless told otherwise, in MiB.
const DEFAULT_MIB: u64 = 256;

/// A report that says nothing yet.
pub(super) fn empty(image: &Image) -> Report {
    Report {
        image: image.name.clone(),
        manifest: image.manifest.to_string(),
        config: image.config_digest.to_string(),
        layers: image.layers.len(),
        compressed: image.layers.iter().map(|layer| layer.size).sum(),
        distribution: None,
        verdict: Verdict::Runs,
        findings: Vec::new(),
        runs: None,
        programs: Vec::new(),
        scripts: Vec::new(),
        objects: Vec::new(),
        gconv: None,
        runtimes: Vec::new(),
        packages: None,
        syscalls: Syscalls::default(),
        needs: Needs::default(),
        memory: Memory::default(),
    }
}

/// `running` is the part of the closure without helpers; `refused` is what the configuration was
/// refused for.
pub(super) fn compose(
    image: &Image,
    plan: &Plan,
    running: &Closure,
    calls: &Calls,
    refused: Option<config::Error>,
    root: &Root<'_>,
) -> Report {
    let mut report = empty(image);
    let mut findings = Findings::default();
    report.distribution = packages::distribution(root);
    if let Some(error) = refused {
        findings.blocker("configuration", error.to_string(), error.hint());
    }
    if let Some(record) = &plan.record {
        report.runs = Some(runs(record));
        configuration(record, &mut report.needs, &mut findings);
    }
    commands(plan, &mut findings);
    variables(plan, &mut findings);
    libraries(plan, running, &mut findings);
    report.syscalls = system_calls(calls, &mut findings);
    features(plan, running, root, &mut report.needs, &mut findings);
    modules(plan, &mut findings);
    report.programs = programs(plan);
    report.scripts = plan.started.scripts.iter().map(|path| show(path)).collect();
    report.objects = objects(plan);
    report.gconv = gconv(plan, root);
    report.runtimes = plan.runtimes.iter().map(runtime).collect();
    report.packages = plan.database.as_ref().map(|database| package_report(plan, database));
    report.memory = memory(plan, running, &mut findings);
    // An RPM database has a package at least: rpm's own.
    let unread =
        |database: &Database| database.manager == Manager::Rpm && database.packages.is_empty();
    if plan.database.as_ref().is_some_and(unread) {
        findings.note(
            "rpm",
            "the package database is RPM's, in a form that is not understood: files are not \
             attributed"
                .into(),
            None,
        );
    }
    report.findings = findings.0;
    report.findings.sort_by(|a, b| (a.severity, &a.id, &a.text).cmp(&(b.severity, &b.id, &b.text)));
    report.verdict = match report.findings.first().map(|finding| finding.severity) {
        Some(Severity::Blocker) => Verdict::WontRun,
        Some(Severity::Note) => Verdict::RunsWithNotes,
        None => Verdict::Runs,
    };
    report
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, severity: Severity, id: &str, text: String, advice: Option<&str>) {
        let finding =
            Finding { severity, id: id.to_owned(), text, advice: advice.map(str::to_owned) };
        self.push(finding);
    }

    fn push(&mut self, finding: Finding) {
        let known = |other: &Finding| other.id == finding.id && other.text == finding.text;
        if !self.0.iter().any(known) {
            self.0.push(finding);
        }
    }

    fn blocker(&mut self, id: &str, text: String, advice: Option<&str>) {
        self.add(Severity::Blocker, id, text, advice);
    }

    fn note(&mut self, id: &str, text: String, advice: Option<&str>) {
        self.add(Severity::Note, id, text, advice);
    }
}

fn runs(record: &Record) -> Runs {
    let texts = |list: &[Vec<u8>]| list.iter().map(|text| show(text)).collect::<Vec<_>>();
    let name = |entry: &Vec<u8>| show(entry.split(|&byte| byte == b'=').next().unwrap_or_default());
    Runs {
        argv: texts(&record.argv),
        cwd: show(&record.cwd),
        env: record.env.iter().map(name).collect(),
        stop_signal: config::signal_name(record.stop_signal),
        healthcheck: record.healthcheck.as_ref().map(|check| texts(&check.argv)),
    }
}

fn configuration(record: &Record, needs: &mut Needs, findings: &mut Findings) {
    for port in &record.ports {
        let proto = match port.proto {
            Proto::Tcp => "tcp",
            Proto::Udp => "udp",
            Proto::Sctp => "sctp",
        };
        needs.ports.push(format!("{}/{proto}", port.port));
        if port.proto == Proto::Sctp {
            findings.note(
                "sctp",
                format!("port {}/sctp: the kernel does not speak SCTP", port.port),
                None,
            );
        }
    }
    needs.user = Some((record.user.uid, record.user.gid));
    for volume in &record.volumes {
        let path = show(volume);
        findings.note(
            "volume",
            format!(
                "volume `{path}`: what is written there is in memory unless a volume is mounted"
            ),
            Some("`run -v NAME:PATH` mounts one that outlives the VM, `--volumes` one for each"),
        );
        needs.volumes.push(path);
    }
}

/// Commands that lead nowhere.
fn commands(plan: &Plan, findings: &mut Findings) {
    for lost in &plan.started.lost {
        let text = format!("`{}`, which `{}` runs, is not in the image", lost.name, lost.by);
        match lost.role {
            Role::Main if lost.certain => findings.blocker(
                "missing-program",
                text,
                Some("add the program to the image, or name another with `--entrypoint`"),
            ),
            Role::Main | Role::Service if lost.certain => {
                findings.note("missing-program", text, Some("add the program to the image"));
            }
            Role::Health => findings.note(
                "health-check",
                format!("the health check's `{}` is not in the image: it can only fail", lost.name),
                None,
            ),
            // A script that may run something that is not there usually asks first.
            _ => {}
        }
    }
    for what in &plan.started.unclear {
        findings.note("unclear", what.clone(), None);
    }
    let main = plan.started.programs.iter().find(|program| program.role == Role::Main);
    if let (None, Some(_)) = (main, &plan.record)
        && !plan.started.programs.is_empty()
        && !findings.0.iter().any(|finding| finding.severity == Severity::Blocker)
    {
        let shell = plan.started.programs.iter().any(|program| program.steps.len() == 1);
        if shell && plan.started.lost.is_empty() {
            findings.note(
                "unclear",
                "what runs in the end is not known before it does".into(),
                None,
            );
        }
    }
    let is_shell = |program: &super::start::Program| {
        let name = program.argv.first().cloned().flatten().unwrap_or_default();
        let name = name.rsplit('/').next().unwrap_or_default().to_owned();
        ["sh", "bash", "ash", "dash"].contains(&name.as_str()) && program.argv.len() == 1
    };
    if main.is_some_and(is_shell) {
        findings.note(
            "shell",
            "the image's command is a shell, which ends at once without a terminal".into(),
            Some("give it a command, or a terminal with `-it`"),
        );
    }
}

/// Scripts that refuse to go on without variables. One that is certain to come there, with the image's
/// files and no others, keeps it from running, unless what is mounted decides: data that are there already
/// ask for nothing.
fn variables(plan: &Plan, findings: &mut Findings) {
    let mounted = plan.record.as_ref().is_some_and(|record| !record.mounts.is_empty());
    let refusals = &plan.started.refusals;
    let certain = |refusal: &Refusal| (refusal.certain || refusal.fresh) && !mounted;
    for (script, refusal) in refusals {
        // The same script may be walked for several users.
        if !certain(refusal) && refusals.iter().any(|(_, other)| certain(other)) {
            continue;
        }
        let fresh = refusal.fresh && !refusal.certain;
        let certain = certain(refusal);
        let names: Vec<String> = refusal.variables.iter().map(|name| format!("`{name}`")).collect();
        let (what, may) = (names.join(" or "), if certain { "ends" } else { "may end" });
        let unless = if fresh { ", unless its data are there already" } else { "" };
        let status = refusal.status;
        let text = format!("`{script}` {may} with {status} because {what} is not set{unless}");
        let first = refusal.variables.first().map_or("NAME", String::as_str);
        findings.push(Finding {
            severity: if certain { Severity::Blocker } else { Severity::Note },
            id: VARIABLE.to_owned(),
            text,
            advice: Some(format!("set it with `-e {first}=...`")),
        });
    }
}

fn libraries(plan: &Plan, running: &Closure, findings: &mut Findings) {
    let leads: BTreeSet<String> = plan
        .started
        .programs
        .iter()
        .filter(|program| program.role <= Role::Service && program.certain)
        .map(|program| show(&program.found.path))
        .collect();
    let mains: BTreeSet<String> = plan
        .started
        .programs
        .iter()
        .filter(|program| program.role == Role::Main)
        .map(|program| show(&program.found.path))
        .collect();
    // One note for each library, however many miss it.
    let mut optional: BTreeMap<(&str, &String), BTreeSet<&String>> = BTreeMap::new();
    let both = running.missing.iter().map(|missing| (missing, "missing-library"));
    let both = both.chain(running.unversioned.iter().map(|missing| (missing, "library-version")));
    for (Missing { what, needed_by, program }, id) in both {
        let blocks = if id == "missing-library" {
            leads.contains(program) && mains.contains(program)
        } else {
            // A version is missed when the program is loaded, with all its libraries.
            running.members.get(needed_by.as_bytes()).is_some_and(|member| {
                !matches!(member.how, How::Dlopen | How::NameService | How::Extension)
            }) && !leads.is_empty()
        };
        if blocks {
            let text = format!("`{needed_by}` needs {what}, which is not in the image");
            findings.blocker(id, text, Some("add the library that the program was built with"));
        } else {
            optional.entry((id, what)).or_default().insert(needed_by);
        }
    }
    for ((id, what), by) in optional {
        let first = by.first().map_or("", |first| first.as_str());
        let others = match by.len() - 1 {
            0 => " needs".to_owned(),
            1 => " and one other file need".to_owned(),
            others => format!(" and {others} other files need"),
        };
        findings.note(id, format!("`{first}`{others} {what}, which is not in the image"), None);
    }
    for (path, member) in &running.members {
        if member.object.isa > 2 && member.how == How::Start {
            findings.note(
                "cpu",
                format!(
                    "`{}` needs a processor of level x86-64-v{}",
                    show(path),
                    member.object.isa
                ),
                Some("run it on a host, or with a `-cpu`, that has it"),
            );
        }
    }
}

fn system_calls(calls: &Calls, findings: &mut Findings) -> Syscalls {
    let mut out = Syscalls {
        reachable: calls.reachable.keys().cloned().collect(),
        indirect: calls.indirect.values().sum(),
        skipped: calls.skipped.clone(),
        ..Syscalls::default()
    };
    for (name, from) in &calls.reachable {
        if syscalls::is_implemented(name) {
            continue;
        }
        let own = |path: &String| !syscalls::is_libc(path) && !syscalls::is_multicall(path);
        let by_program = from.iter().any(own);
        let from: Vec<String> = from.iter().cloned().collect();
        out.missing.push(MissingCall { name: name.clone(), from, by_program });
    }
    // What Docker refuses to its containers, their programs do without: no word about these.
    let noted =
        |call: &&MissingCall| call.by_program && !syscalls::is_refused_in_containers(&call.name);
    let by_program: Vec<&str> =
        out.missing.iter().filter(noted).map(|call| call.name.as_str()).collect();
    if !by_program.is_empty() {
        findings.note(
            "syscalls",
            format!(
                "may call {}, which the kernel answers with \"function not implemented\"",
                by_program.join(", ")
            ),
            Some("most programs do without; if not, `--kernel-arg d2u.trace` shows the call"),
        );
    }
    out
}

fn features(
    plan: &Plan,
    running: &Closure,
    root: &Root<'_>,
    needs: &mut Needs,
    findings: &mut Findings,
) {
    const MAX_FILE: usize = 64 << 20;
    let mut features = BTreeSet::new();
    for program in &plan.started.programs {
        let name = show(base(&program.found.path));
        let called = program.argv.first().cloned().flatten().unwrap_or_default();
        let called = called.rsplit('/').next().unwrap_or_default().to_owned();
        let leads = program.role <= Role::Service && program.certain;
        let applet = matches!(name.as_str(), "busybox" | "toybox" | "coreutils");
        let known = needs::program(&called, leads)
            .or_else(|| if applet { None } else { needs::program(&name, leads) });
        if let Some((feature, finding)) = known {
            features.insert(feature);
            findings.push(finding);
        }
        if program.role <= Role::Service && !applet && program.runtime.is_none() {
            let bytes = root.contents(&program.found.node, MAX_FILE).unwrap_or_default();
            for (device, feature) in needs::devices(&bytes) {
                features.insert(feature);
                needs.devices.push((device.to_owned(), false));
            }
        }
        if program.found.node.inode.mode & 0o6000 != 0 {
            needs.privileged.push(show(&program.found.path));
        }
        let caps = root.reader().xattrs(&program.found.node).unwrap_or_default();
        if caps.iter().any(|(name, _)| name == b"security.capability") {
            needs.privileged.push(show(&program.found.path));
        }
    }
    for (path, member) in &running.members {
        let by = member.needed_by.iter().next().cloned().unwrap_or_else(|| show(path));
        if matches!(member.how, How::Dlopen | How::Start) {
            continue;
        }
        if let Some((feature, finding)) = needs::library(&show(base(path)), &by) {
            features.insert(feature);
            findings.push(finding);
        }
    }
    for path in &plan.started.mentions {
        if path.starts_with("/dev/") && path.len() < 64 {
            needs.devices.push((path.clone(), needs::has_device(path)));
        }
        if path == "/var/run/docker.sock" || path == "/run/docker.sock" {
            features.insert("containers");
            findings.note(
                "containers",
                format!("`{path}` is named: there is no Docker daemon in the VM"),
                Some("give it a daemon over the network by DOCKER_HOST"),
            );
        }
    }
    needs.devices.sort();
    needs.devices.dedup();
    needs.privileged.sort();
    needs.privileged.dedup();
    needs.features = features.into_iter().map(str::to_owned).collect();
}

fn modules(plan: &Plan, findings: &mut Findings) {
    let main = plan.started.programs.iter().find(|program| program.role == Role::Main);
    for runtime in &plan.runtimes {
        let Some((name, false)) = &runtime.subject else { continue };
        let is_main = main.is_some_and(|main| {
            main.certain && show(&main.found.path) == runtime.program && plan.runtimes.len() == 1
        });
        let text = format!("`{}` is to run `{name}`, which is not in the image", runtime.program);
        if is_main {
            findings.blocker("missing-script", text, Some("add it to the image, or give its path"));
        } else {
            findings.note("missing-script", text, None);
        }
    }
}

fn programs(plan: &Plan) -> Vec<Program> {
    let owner = |path: &[u8]| owner(plan, path);
    let program = |program: &super::start::Program| {
        let member = plan.closure.members.get(&program.found.path);
        Program {
            role: format!("{:?}", program.role).to_lowercase(),
            path: show(&program.found.path),
            argv: program.argv.clone(),
            user: program.user.clone(),
            certain: program.certain,
            interpreter: member.and_then(|member| member.object.interpreter.clone()),
            package: owner(&program.found.path),
            steps: program
                .steps
                .iter()
                .map(|step| Step {
                    by: step.by.clone(),
                    argv: step.argv.clone(),
                    path: step.path.clone(),
                })
                .collect(),
        }
    };
    plan.started.programs.iter().map(program).collect()
}

fn owner(plan: &Plan, path: &[u8]) -> Option<String> {
    let database = plan.database.as_ref()?;
    database.owner(path).map(|index| packages::label(&database.packages[index]))
}

fn objects(plan: &Plan) -> Vec<Object> {
    let kebab = |how: How| match serde_json::to_value(how) {
        Ok(serde_json::Value::String(text)) => text,
        _ => String::new(),
    };
    plan.closure
        .members
        .iter()
        .map(|(path, member)| Object {
            path: show(path),
            size: member.size,
            how: kebab(member.how),
            needed_by: member.needed_by.iter().cloned().collect(),
            package: owner(plan, path),
        })
        .collect()
}

/// The directory of character set conversions, if anything loaded may want one.
fn gconv(plan: &Plan, root: &Root<'_>) -> Option<String> {
    let wants = |name: &str| {
        plan.closure.members.values().any(|member| member.object.imports.contains(name))
    };
    if !wants("iconv_open") {
        return None;
    }
    ["/usr/lib/x86_64-linux-gnu/gconv", "/usr/lib64/gconv", "/usr/lib/gconv"]
        .into_iter()
        .find(|dir| {
            root.find(dir.as_bytes())
                .is_some_and(|found| found.node.file_type() == FileType::Directory)
        })
        .map(str::to_owned)
}

fn runtime(runtime: &super::modules::Runtime) -> Runtime {
    Runtime {
        language: format!("{:?}", runtime.language).to_lowercase(),
        program: runtime.program.clone(),
        version: runtime.version.clone(),
        directories: runtime.directories.clone(),
        modules: runtime.modules.iter().cloned().collect(),
        extensions: runtime.extensions.len(),
    }
}

fn package_report(plan: &Plan, database: &Database) -> Packages {
    let owners: BTreeSet<usize> =
        plan.closure.members.keys().filter_map(|path| database.owner(path)).collect();
    let names = |indexes: &BTreeSet<usize>| -> Vec<String> {
        indexes.iter().map(|&index| packages::label(&database.packages[index])).collect()
    };
    Packages {
        manager: format!("{:?}", database.manager).to_lowercase(),
        installed: database.packages.len(),
        running: names(&owners),
        needed: names(&database.closure(owners.iter().copied())),
    }
}

fn memory(plan: &Plan, running: &Closure, findings: &mut Findings) -> Memory {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let (mut code, mut data) = (0, 0);
    for member in running.members.values() {
        let (read_only, writable) = member.object.memory();
        code += read_only.min(member.size);
        data += writable.min(256 << 20);
    }
    let mut runtime = 0;
    let mut basis = Vec::new();
    for program in plan.started.programs.iter().filter(|program| program.role <= Role::Service) {
        use super::start::runtime::Language;
        let name = show(base(&program.found.path));
        let known = match program.runtime {
            Some((Language::Python | Language::Php, _)) => Some(80),
            Some((Language::Node | Language::JavaScript | Language::Ruby, _)) => Some(120),
            Some((Language::Java, _)) => Some(320),
            Some((Language::Erlang | Language::Dotnet, _)) => Some(200),
            Some((Language::Perl | Language::Lua, _)) => Some(24),
            None => needs::memory(&name),
        };
        if let Some(known) = known {
            runtime += known;
            basis.push(format!("{name} is known to take about {known} MiB"));
        }
    }
    let (code, data) = (mib(code), mib(data));
    // Half of the code is ever used at once; data is copied by a few processes.
    let sum = KERNEL_MIB + code / 2 + data * 2 + runtime.max(8);
    let suggested = sum.next_multiple_of(32).max(64);
    if suggested > DEFAULT_MIB {
        findings.note(
            "memory",
            format!(
                "it will want about {suggested} MiB of memory, more than `run` gives by default"
            ),
            Some("give it more with `-m`"),
        );
    }
    basis.insert(0, "half of the code that is loaded, twice its writable data, the kernel".into());
    Memory { code, data, runtime, suggested, basis: basis.join("; ") }
}

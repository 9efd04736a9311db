//! Slimming: which files an image needs, by what the plan proves and what a trace has seen.
//!
//! What belongs to no package is the application and stays. Of the packages, those that own what
//! runs stay whole (with those that were built from the same source); of the others, only what is
//! loaded, was used in a trace, or is on the list of what traces miss. Whatever machine code is kept
//! for any of these reasons, the libraries that it loads are kept with it. Documentation goes. The
//! choice is checked by booting the result, which is the caller's part.

use std::collections::{BTreeMap, BTreeSet};

use dock2uni_format::erofs::FileType;
use serde::Serialize;

use super::Plan;
use super::elf::{Builder, How};
use super::packages::label;
use super::root::{Root, parent, show};
use super::shell::matches;
use super::start::{Role, which};
use crate::rootfs::Limits;
use crate::rootfs::select::Selection;
use crate::trial::trace::Trace;

/// Files that are looked at.
const MAX_FILES: usize = 4_000_000;

/// What the user asked for: patterns of paths, `*` matches slashes as well.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// To be kept, whatever else is found.
    pub keep: Vec<String>,
    /// To be dropped, whatever else is found.
    pub drop: Vec<String>,
    /// Bounds within which the slim image is made.
    pub limits: Limits,
}

/// Files that go together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Package, or another reason.
    pub what: String,
    /// Files in it.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A choice, and what it comes to.
#[derive(Clone, Debug, Serialize)]
pub struct Slim {
    /// What is kept.
    #[serde(skip)]
    pub selection: Selection,
    /// Why files are kept.
    pub kept: Vec<Group>,
    /// Why files are dropped, largest first.
    pub dropped: Vec<Group>,
    /// Bytes of files before and after.
    pub bytes: (u64, u64),
    /// Files before and after.
    pub files: (u64, u64),
}

/// What traces miss: files that are read only now and then, or by name from within libraries.
const ALLOWED: &[&str] = &[
    "/etc/passwd",
    "/etc/group",
    "/etc/shadow",
    "/etc/gshadow",
    "/etc/nsswitch.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/gai.conf",
    "/etc/hostname",
    "/etc/os-release",
    "/usr/lib/os-release",
    "/etc/*-release",
    "/etc/*_version",
    "/etc/ld.so.*",
    "/etc/ld-musl-*",
    "/etc/machine-id",
    "/etc/mime.types",
    "/etc/environment",
    "/etc/locale*",
    "/etc/default/locale",
    "/etc/profile",
    "/etc/login.defs",
    // Certificates
    "/etc/ssl/*",
    "/etc/pki/*",
    "/etc/ca-certificates*",
    "/usr/share/ca-certificates/*",
    "/usr/local/share/ca-certificates/*",
    "/usr/lib/ssl/*",
    // Time zones
    "/etc/localtime",
    "/etc/timezone",
    "/usr/share/zoneinfo/*",
    // Locales
    "/usr/lib/locale/*",
    "/usr/share/locale/locale.alias",
    "/usr/share/i18n/charmaps/UTF-8*",
    // Plugins and what C libraries load by themselves
    "*/libnss_*.so*",
    "*/libgcc_s.so*",
    "*/ossl-modules/*",
    "*/engines-*/*",
    "*/sasl2/*",
    "*/gconv/gconv-modules*",
    "*/libresolv*.so*",
    "*/libcrypt.so*",
];

/// Of what is allowed, not this.
const NOT_ALLOWED: &[&str] = &["/usr/share/zoneinfo/right/*", "/usr/share/zoneinfo/posix/*"];

/// Documentation, caches, and the tools of package managers.
const DOCUMENTATION: &[&str] = &[
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/lintian/*",
    "/usr/share/groff/*",
    "/usr/share/locale/*",
    "/usr/share/gtk-doc/*",
    "/usr/share/help/*",
    "/usr/share/bug/*",
    "/usr/local/share/man/*",
    "/usr/local/share/doc/*",
    "/var/cache/apt/*",
    "/var/lib/apt/*",
    "/var/cache/debconf/*",
    "/var/cache/apk/*",
    "/var/lib/dpkg/info/*",
    "/usr/share/bash-completion/*",
    "/usr/share/zsh/*",
    "/usr/share/doc-base/*",
];

/// Chooses what to keep.
pub fn choose(plan: &Plan, root: &Root<'_>, traces: &[Trace], wishes: &Wishes) -> Slim {
    let needed = needed(plan, root, traces);
    let whole = whole_packages(plan);
    let mut slim = Slim {
        selection: Selection::default(),
        kept: Vec::new(),
        dropped: Vec::new(),
        bytes: (0, 0),
        files: (0, 0),
    };
    let (mut kept, mut dropped) = (Groups::default(), Groups::default());
    let mut links = Vec::new();
    let mut judged = Vec::new();
    let all = root.walk(b"/", MAX_FILES);
    let filled: BTreeSet<Vec<u8>> = all.iter().map(|(path, _)| parent(path).to_vec()).collect();
    for (path, node) in all {
        let text = show(&path);
        if node.file_type() == FileType::Directory {
            // An empty one is there to be filled: with a PID, a socket, a log.
            let empty = !filled.contains(&path) && !is_documentation(&text);
            let asked = wishes.drop.iter().any(|pattern| wished(pattern, &text));
            let kept = keeps_directory(&text) || empty || needed.contains_key(&path);
            if kept && !asked {
                slim.selection.keep(&path);
            }
            continue;
        }
        let verdict = judge(plan, &path, &text, &needed, &whole, wishes);
        judged.push((path, node, verdict));
    }
    let code = judged.iter().filter(|(_, _, verdict)| verdict.is_ok()).map(|(path, ..)| path);
    let loaded = loaded_with(plan, root, code);
    // A file with several names counts once.
    let (mut seen, mut seen_kept) = (BTreeSet::new(), BTreeSet::new());
    let mut left = Vec::new();
    for (path, node, verdict) in judged {
        let file_type = node.file_type();
        let size = if file_type == FileType::Regular { node.inode.size } else { 0 };
        slim.bytes.0 += if seen.insert(node.nid) { size } else { 0 };
        slim.files.0 += 1;
        let verdict = match verdict {
            Err(reason) if reason != ASKED && loaded.contains(&path) => {
                Ok("libraries of what is kept".to_owned())
            }
            verdict => verdict,
        };
        match verdict {
            Ok(reason) => {
                slim.selection.keep(&path);
                let size = if seen_kept.insert(node.nid) { size } else { 0 };
                slim.bytes.1 += size;
                slim.files.1 += 1;
                kept.add(reason, size);
            }
            // A link is worth keeping as long as it leads somewhere.
            Err(reason) if file_type == FileType::Symlink && reason != ASKED => {
                links.push((path, reason));
            }
            Err(reason) => left.push((node.nid, reason, size)),
        }
    }
    for (nid, reason, size) in left {
        dropped.add(reason, if seen_kept.insert(nid) { size } else { 0 });
    }
    for (path, reason) in links {
        let leads = root.find(&path).is_some_and(|found| {
            slim.selection.has(&found.path)
                && found.links.iter().all(|link| *link == path || slim.selection.has(link))
        });
        if leads {
            slim.selection.keep(&path);
            slim.files.1 += 1;
            kept.add("links to what is kept".into(), 0);
        } else {
            dropped.add(reason, 0);
        }
    }
    slim.kept = kept.sorted();
    slim.dropped = dropped.sorted();
    slim
}

const ASKED: &str = "--drop";

/// The libraries of kept machine code that the plan does not know of, such as plugins: all that its
/// loader finds, and what it may load by itself.
fn loaded_with<'p>(
    plan: &Plan,
    root: &Root<'_>,
    kept: impl Iterator<Item = &'p Vec<u8>>,
) -> BTreeSet<Vec<u8>> {
    let env = plan.record.iter().flat_map(|record| &record.env);
    let library_path = env.filter_map(|entry| entry.strip_prefix(b"LD_LIBRARY_PATH=")).next();
    let mut builder = Builder::new(root, &show(library_path.unwrap_or_default()));
    for path in kept.filter(|path| !plan.closure.members.contains_key(*path)) {
        let Some(found) = root.file(path) else { continue };
        // Links to it were followed; the file itself is another path of the list.
        let is_code = found.path == *path
            && root.contents(&found.node, 4).is_some_and(|head| head == *b"\x7fELF");
        if is_code {
            builder.add(&found, How::Extension, "");
        }
    }
    super::loaded_later(root, &mut builder);
    let closure = builder.finish();
    closure.members.into_keys().chain(closure.also).collect()
}

/// Why a file is kept (`Ok`) or dropped (`Err`).
fn judge(
    plan: &Plan,
    path: &[u8],
    text: &str,
    needed: &BTreeMap<Vec<u8>, &'static str>,
    whole: &BTreeSet<usize>,
    wishes: &Wishes,
) -> Result<String, String> {
    let any = |patterns: &[String]| patterns.iter().any(|pattern| wished(pattern, text));
    let listed = |patterns: &[&str]| patterns.iter().any(|pattern| matches(pattern, text));
    if any(&wishes.drop) {
        return Err(ASKED.into());
    }
    if any(&wishes.keep) {
        return Ok("--keep".into());
    }
    if let Some(reason) = needed.get(path) {
        return Ok((*reason).into());
    }
    if listed(ALLOWED) && !listed(NOT_ALLOWED) {
        return Ok("what traces miss: accounts, certificates, time zones, plugins".into());
    }
    if listed(DOCUMENTATION) && !text.ends_with("/copyright") {
        return Err("documentation, translations, caches".into());
    }
    let database = plan.database.as_ref();
    match database.and_then(|database| Some((database, database.owner(path)?))) {
        Some((database, owner)) if whole.contains(&owner) => {
            Ok(format!("package {}", label(&database.packages[owner])))
        }
        Some((database, owner)) => Err(format!("package {}", label(&database.packages[owner]))),
        None if text.ends_with("/copyright") => Ok("licences".into()),
        None => Ok("belongs to no package: the application".into()),
    }
}

/// A pattern matches a path, or a directory above it.
fn wished(pattern: &str, path: &str) -> bool {
    let pattern = pattern.trim_end_matches('/');
    matches(pattern, path) || matches(&format!("{pattern}/*"), path)
}

/// Directories that programs may want to find, though nothing is in them.
fn keeps_directory(path: &str) -> bool {
    let top = path.split('/').nth(1).unwrap_or_default();
    !matches!(top, "usr" | "etc" | "lib" | "bin" | "sbin" | "lib64") && !is_documentation(path)
}

/// Whether a directory is one for documentation.
fn is_documentation(path: &str) -> bool {
    DOCUMENTATION.iter().any(|pattern| matches(pattern, &format!("{path}/x")))
}

/// Files that something is known to need, and why.
fn needed(plan: &Plan, root: &Root<'_>, traces: &[Trace]) -> BTreeMap<Vec<u8>, &'static str> {
    let mut needed = BTreeMap::new();
    let mut add = |path: &[u8], reason: &'static str| {
        needed.entry(path.to_vec()).or_insert(reason);
    };
    for trace in traces {
        for path in trace.files.keys() {
            add(path, "used in the trace");
        }
    }
    let loaded = plan.closure.members.keys().chain(&plan.closure.also);
    for path in loaded {
        add(path, "programs and libraries");
    }
    for program in &plan.started.programs {
        add(&program.found.path, "programs and libraries");
        for link in &program.found.links {
            add(link, "programs and libraries");
        }
    }
    for path in plan.started.scripts.iter().chain(&plan.started.links) {
        add(path, "scripts");
    }
    for path in &plan.started.mentions {
        if let Some(found) = root.file(path.as_bytes()) {
            add(&found.path, "named in scripts");
            for link in &found.links {
                add(link, "named in scripts");
            }
        }
    }
    // system(3) and popen(3) run the shell.
    let imports = |name: &str| {
        plan.closure.members.values().any(|member| member.object.imports.contains(name))
    };
    let shell = which(root, "/bin/sh", "/", "");
    if let Some(found) = shell.filter(|_| imports("system") || imports("popen")) {
        add(&found.path, "programs and libraries");
        for link in &found.links {
            add(link, "programs and libraries");
        }
    }
    let directories = plan.runtimes.iter().flat_map(|runtime| &runtime.directories);
    for directory in directories.chain(&plan.report.gconv) {
        for (path, _) in root.walk(directory.as_bytes(), MAX_FILES) {
            add(&path, "runtimes and their modules");
        }
    }
    needed
}

/// Packages that stay whole, by index: those of the programs that the image is for, and those built
/// from the same sources.
fn whole_packages(plan: &Plan) -> BTreeSet<usize> {
    let Some(database) = &plan.database else { return BTreeSet::new() };
    let programs = plan.started.programs.iter().filter(|program| program.role <= Role::Service);
    let owners: BTreeSet<usize> =
        programs.filter_map(|program| database.owner(&program.found.path)).collect();
    let sources: BTreeSet<&str> =
        owners.iter().map(|&index| database.packages[index].source.as_str()).collect();
    (0..database.packages.len())
        .filter(|index| sources.contains(database.packages[*index].source.as_str()))
        .collect()
}

#[derive(Default)]
struct Groups(BTreeMap<String, (u64, u64)>);

impl Groups {
    fn add(&mut self, what: String, size: u64) {
        let (files, bytes) = self.0.entry(what).or_default();
        *files += 1;
        *bytes += size;
    }

    fn sorted(self) -> Vec<Group> {
        let groups = self.0.into_iter();
        let mut groups: Vec<Group> =
            groups.map(|(what, (files, bytes))| Group { what, files, bytes }).collect();
        groups.sort_by(|a, b| (b.bytes, &a.what).cmp(&(a.bytes, &b.what)));
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_files_and_what_is_below_directories() {
        assert!(wished("/opt/*.so", "/opt/a/b.so") && wished("/opt/", "/opt/a/b"));
        assert!(!wished("/opt", "/opts/a"));
        assert!(keeps_directory("/var/lib/x") && !keeps_directory("/usr/share/x"));
        assert!(!keeps_directory("/var/lib/apt/lists"));
    }
}

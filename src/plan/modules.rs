//! What script runtimes bring along: standard library, installed modules, and their extensions in
//! machine code.

use std::collections::BTreeSet;

use super::root::{Root, join, parent, show};
use super::start::runtime::{Language, Subject};
use super::start::{Program, which};

/// Files looked at below one directory of modules.
const MAX_FILES: usize = 60_000;
/// Modules named in a report.
const MAX_MODULES: usize = 2_000;
/// Extensions whose libraries are looked for.
const MAX_EXTENSIONS: usize = 1_000;

/// A runtime as it is in the image.
#[derive(Clone, Debug)]
pub struct Runtime {
    /// Which.
    pub language: Language,
    /// Its program.
    pub program: String,
    /// Its version, as far as its files tell.
    pub version: Option<String>,
    /// Directories of its library and of installed modules.
    pub directories: Vec<String>,
    /// Installed modules, with versions where they are told.
    pub modules: BTreeSet<String>,
    /// Modules in machine code.
    pub extensions: Vec<Vec<u8>>,
    /// Whether what it was told to run is there; `None` if that cannot be told.
    pub subject: Option<(String, bool)>,
}

/// Looks into the runtime of a program.
pub fn look(
    root: &Root<'_>,
    program: &Program,
    cwd: &str,
    env: &dyn Fn(&str) -> String,
) -> Option<Runtime> {
    let (language, subject) = program.runtime.as_ref()?;
    let path = show(&program.found.path);
    let mut runtime = Runtime {
        language: *language,
        program: path.clone(),
        version: None,
        directories: Vec::new(),
        modules: BTreeSet::new(),
        extensions: Vec::new(),
        subject: None,
    };
    let script = match subject {
        Some(Subject::File(name)) => {
            let full = show(&join(cwd.as_bytes(), name.as_bytes()));
            runtime.subject = Some((name.clone(), root.exists(full.as_bytes())));
            Some(full)
        }
        _ => None,
    };
    match language {
        Language::Python => python(root, program, subject.as_ref(), cwd, env, &mut runtime),
        Language::Node | Language::JavaScript => node(root, script.as_deref(), cwd, &mut runtime),
        Language::Ruby => ruby(root, env, &mut runtime),
        Language::Perl => {
            add(
                root,
                &mut runtime,
                [
                    "/usr/share/perl",
                    "/usr/lib/x86_64-linux-gnu/perl",
                    "/usr/lib/x86_64-linux-gnu/perl-base",
                    "/usr/share/perl5",
                    "/usr/lib/perl5",
                    "/usr/local/lib/perl5",
                    "/usr/local/share/perl",
                ],
            );
        }
        Language::Php => {
            add(
                root,
                &mut runtime,
                [
                    "/usr/lib/php",
                    "/usr/local/lib/php",
                    "/usr/share/php",
                    "/etc/php",
                    "/usr/local/etc/php",
                ],
            );
            composer(root, cwd, &mut runtime);
        }
        Language::Java => java(root, &path, &mut runtime),
        Language::Erlang => {
            add(
                root,
                &mut runtime,
                ["/usr/lib/erlang", "/usr/local/lib/erlang", "/usr/lib/elixir"],
            );
            let lib = runtime.directories.first().map(|dir| format!("{dir}/lib"));
            for (name, _) in lib.map(|lib| root.list(lib.as_bytes())).unwrap_or_default() {
                runtime.modules.insert(show(&name));
            }
        }
        Language::Lua => {
            add(root, &mut runtime, ["/usr/share/lua", "/usr/lib/lua", "/usr/local/share/lua"])
        }
        Language::Dotnet => add(root, &mut runtime, ["/usr/share/dotnet", "/usr/lib/dotnet"]),
    }
    for dir in runtime.directories.clone() {
        extensions(root, &dir, &mut runtime);
    }
    Some(runtime)
}

fn add<'a>(root: &Root<'_>, runtime: &mut Runtime, dirs: impl IntoIterator<Item = &'a str>) {
    // A variable that isn't set names nothing, and the root is no directory of modules.
    for dir in dirs.into_iter().filter(|dir| !dir.is_empty()) {
        let Some(found) = root.find(dir.as_bytes()).filter(|found| found.node.is_dir()) else {
            continue;
        };
        let path = show(&found.path);
        if path == "/" {
            continue;
        }
        if !runtime.directories.contains(&path) {
            runtime.directories.push(path);
        }
    }
}

/// Shared objects below a directory.
fn extensions(root: &Root<'_>, dir: &str, runtime: &mut Runtime) {
    for (path, node) in root.walk(dir.as_bytes(), MAX_FILES) {
        let library = path.ends_with(b".so") || path.ends_with(b".node");
        if library && node.is_file() && runtime.extensions.len() < MAX_EXTENSIONS {
            runtime.extensions.push(path);
        }
    }
}

fn python(
    root: &Root<'_>,
    program: &Program,
    subject: Option<&Subject>,
    cwd: &str,
    env: &dyn Fn(&str) -> String,
    runtime: &mut Runtime,
) {
    // A virtual environment is told by the name the interpreter was called by.
    let called = program.steps.last().and_then(|step| step.argv.first().cloned().flatten());
    let called = called.filter(|name| name.contains('/'));
    let prefixes =
        [called, which(root, "python3", cwd, &env("PATH")).map(|found| show(&found.path))];
    let mut dirs: Vec<String> = ["/usr", "/usr/local"].map(str::to_owned).into();
    for prefix in prefixes.into_iter().flatten().chain([runtime.program.clone()]) {
        dirs.extend(prefix.rsplit_once("/bin/").map(|(prefix, _)| prefix.to_owned()));
    }
    dirs.extend(Some(env("VIRTUAL_ENV")).filter(|dir| !dir.is_empty()));
    let mut places = Vec::new();
    for dir in dirs {
        for lib in ["lib", "lib64"] {
            for (name, _) in root.list(format!("{dir}/{lib}").as_bytes()) {
                let name = show(&name);
                if let Some(version) = name.strip_prefix("python")
                    && version.starts_with('3')
                {
                    places.push(format!("{dir}/{lib}/{name}"));
                    if version.len() > 1 {
                        runtime.version.get_or_insert(version.to_owned());
                    }
                }
            }
        }
    }
    add(root, runtime, places.iter().map(String::as_str));
    let path = env("PYTHONPATH");
    let mut search: Vec<String> =
        path.split(':').filter(|dir| !dir.is_empty()).map(str::to_owned).collect();
    search.push(cwd.to_owned());
    for dir in runtime.directories.clone() {
        search.push(dir.clone());
        for site in ["site-packages", "dist-packages", "lib-dynload"] {
            search.push(format!("{dir}/{site}"));
        }
    }
    for dir in &search {
        for (name, _) in root.list(dir.as_bytes()) {
            let name = show(&name);
            let stem = name.strip_suffix(".dist-info").or_else(|| name.strip_suffix(".egg-info"));
            if let Some(stem) = stem.filter(|_| runtime.modules.len() < MAX_MODULES) {
                runtime.modules.insert(stem.replacen('-', " ", 1));
            }
        }
    }
    if let Some(Subject::Module(module)) = subject {
        let first = module.split('.').next().unwrap_or(module);
        let there = search.iter().any(|dir| {
            ["", ".py", ".pyc"]
                .iter()
                .any(|end| root.exists(format!("{dir}/{first}{end}").as_bytes()))
        });
        // A standard library in a zip file, or frozen, cannot be looked into here.
        if there || !runtime.directories.is_empty() {
            runtime.subject = Some((module.clone(), there));
        }
    }
}

fn node(root: &Root<'_>, script: Option<&str>, cwd: &str, runtime: &mut Runtime) {
    let start = script.map_or(cwd, |script| script.rsplit_once('/').map_or("/", |(dir, _)| dir));
    let mut dirs: Vec<String> =
        ["/usr/local/lib/node_modules", "/usr/lib/node_modules", "/usr/share/nodejs"]
            .map(str::to_owned)
            .into();
    let mut dir = start.trim_end_matches('/').to_owned();
    loop {
        dirs.push(format!("{dir}/node_modules"));
        if dir.is_empty() {
            break;
        }
        dir.truncate(dir.rfind('/').unwrap_or(0));
    }
    add(root, runtime, dirs.iter().map(String::as_str));
    for dir in runtime.directories.clone() {
        for (name, _) in root.list(dir.as_bytes()) {
            let name = show(&name);
            if name.starts_with('.') || runtime.modules.len() >= MAX_MODULES {
                continue;
            }
            if name.starts_with('@') {
                for (inner, _) in root.list(format!("{dir}/{name}").as_bytes()) {
                    runtime.modules.insert(format!("{name}/{}", show(&inner)));
                }
                continue;
            }
            let manifest = root.read(format!("{dir}/{name}/package.json").as_bytes(), 256 << 10);
            let version = manifest
                .and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok())
                .and_then(|json| json.get("version")?.as_str().map(str::to_owned));
            runtime
                .modules
                .insert(version.map_or(name.clone(), |version| format!("{name} {version}")));
        }
    }
    // Node resolves scripts without their suffix, and directories.
    if let Some((_, there)) = runtime.subject.as_mut().filter(|(_, there)| !*there)
        && let Some(script) = script
    {
        *there = [".js", ".mjs", ".cjs", ".json"]
            .iter()
            .any(|end| root.exists(format!("{script}{end}").as_bytes()));
    }
}

fn ruby(root: &Root<'_>, env: &dyn Fn(&str) -> String, runtime: &mut Runtime) {
    let home = env("GEM_HOME");
    let bundle = env("BUNDLE_PATH");
    add(
        root,
        runtime,
        [
            "/usr/lib/ruby",
            "/usr/local/lib/ruby",
            "/usr/share/ruby",
            "/var/lib/gems",
            "/usr/share/rubygems-integration",
            "/usr/lib/x86_64-linux-gnu/ruby",
            "/usr/local/bundle",
            &home,
            &bundle,
        ],
    );
    for dir in runtime.directories.clone() {
        for (path, _) in root.walk(dir.as_bytes(), MAX_FILES) {
            let path = show(&path);
            let name = path.rsplit('/').next().unwrap_or_default();
            if parent(path.as_bytes()).ends_with(b"specifications")
                && let Some(stem) = name.strip_suffix(".gemspec")
                && runtime.modules.len() < MAX_MODULES
            {
                runtime.modules.insert(stem.to_owned());
            }
        }
    }
}

fn composer(root: &Root<'_>, cwd: &str, runtime: &mut Runtime) {
    for dir in [cwd, "/var/www/html", "/app"] {
        let path = format!("{dir}/vendor/composer/installed.json");
        let Some(bytes) = root.read(path.as_bytes(), 16 << 20) else { continue };
        let Ok(json) = serde_json::from_slice::<serde_json::Value>(&bytes) else { continue };
        let list = json.get("packages").unwrap_or(&json).as_array().cloned().unwrap_or_default();
        for package in list.iter().take(MAX_MODULES) {
            if let Some(name) = package.get("name").and_then(|name| name.as_str()) {
                runtime.modules.insert(name.to_owned());
            }
        }
    }
}

fn java(root: &Root<'_>, program: &str, runtime: &mut Runtime) {
    let Some((home, _)) = program.rsplit_once("/bin/") else { return };
    add(root, runtime, [home]);
    // Debian keeps parts of it elsewhere.
    let text = root.text(format!("{home}/release").as_bytes(), 64 << 10).unwrap_or_default();
    let version = text.lines().find_map(|line| line.strip_prefix("JAVA_VERSION="));
    runtime.version = version.map(|version| version.trim_matches('"').to_owned());
}

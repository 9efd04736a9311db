//! What a user may call a source, and what is in it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::compose;
use super::yaml::{self, Place};
use super::{Error, Workload, catalog, docker, kube, list};
use crate::source::{Options, Reference, Store};

/// Most files that are read from one directory.
const MAX_FILES: usize = 10_000;
/// Deepest directory that is looked into.
const MAX_DEPTH: usize = 16;

/// One source, as the user named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// YAML on standard input.
    Stdin,
    /// A Compose file, a manifest or a list of references.
    File(PathBuf),
    /// A directory of manifests, or one with a Compose file.
    Directory(PathBuf),
    /// A registry's catalogue, below a prefix.
    Catalog {
        /// Registry as `host[:port]`.
        host: String,
        /// Prefix of repositories; empty for all.
        prefix: String,
    },
    /// What a Docker or Podman daemon runs; `None`: the one that `docker` would ask.
    Daemon(Option<PathBuf>),
    /// One image.
    Reference(String),
}

impl Source {
    /// Tells what `text` means.
    ///
    /// # Errors
    /// [`Error::Unknown`].
    pub fn detect(text: &str) -> Result<Source, Error> {
        if text == "-" {
            return Ok(Source::Stdin);
        }
        if let Some(rest) = text.strip_prefix("catalog:") {
            let (host, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let (host, prefix) = (host.to_owned(), prefix.to_owned());
            return Ok(Source::Catalog { host, prefix });
        }
        if let Some(socket) = text.strip_prefix("containers:") {
            return Ok(Source::Daemon((!socket.is_empty()).then(|| socket.into())));
        }
        let path = Path::new(text);
        let layout = path.join("oci-layout").is_file() || path.join("index.json").is_file();
        if path.is_dir() && !layout {
            return Ok(Source::Directory(path.to_owned()));
        }
        let extension = path.extension().and_then(|extension| extension.to_str());
        if path.is_file() && matches!(extension, Some("yaml" | "yml" | "json" | "txt" | "list")) {
            return Ok(Source::File(path.to_owned()));
        }
        match Reference::detect(text) {
            Ok(_) => Ok(Source::Reference(text.to_owned())),
            Err(_) => Err(Error::Unknown { name: text.to_owned() }),
        }
    }
}

/// How sources are read.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// For Compose files.
    pub compose: compose::Options,
}

/// All workloads of all sources.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Inventory {
    /// In the order of the sources.
    pub workloads: Vec<Workload>,
}

/// Reads every source. Compose files that follow each other are one project, as several `-f` are.
///
/// # Errors
/// Names the file, the place in it and what is wrong.
pub fn read(
    sources: &[Source],
    inputs: &Inputs,
    options: &Options,
    store: &Store,
) -> Result<Inventory, Error> {
    let mut inventory = Inventory::default();
    let mut project: Vec<PathBuf> = Vec::new();
    for source in sources {
        if let Source::File(path) = source
            && let Content::Compose = content(path)?
        {
            project.push(path.clone());
            continue;
        }
        compose_project(&mut project, inputs, &mut inventory)?;
        let found = one(source, inputs, options, store)?;
        if found.is_empty() {
            return Err(Error::Empty { name: describe(source) });
        }
        extend(&mut inventory, found);
    }
    compose_project(&mut project, inputs, &mut inventory)?;
    Ok(inventory)
}

fn compose_project(
    files: &mut Vec<PathBuf>,
    inputs: &Inputs,
    inventory: &mut Inventory,
) -> Result<(), Error> {
    let files = std::mem::take(files);
    let Some(first) = files.first() else { return Ok(()) };
    let found = compose::read(&files, &inputs.compose)?;
    if found.is_empty() {
        return Err(Error::Empty { name: first.display().to_string() });
    }
    extend(inventory, found);
    Ok(())
}

fn describe(source: &Source) -> String {
    match source {
        Source::Stdin => "standard input".to_owned(),
        Source::File(path) | Source::Directory(path) => path.display().to_string(),
        Source::Catalog { host, prefix } => format!("catalog:{host}/{prefix}"),
        Source::Daemon(socket) => {
            format!("containers:{}", socket.as_deref().unwrap_or(Path::new("")).display())
        }
        Source::Reference(reference) => reference.clone(),
    }
}

enum Content {
    Compose,
    Manifests(Vec<kube::Document>),
    List(String),
}

/// Tells a file's kind by what is in it.
fn content(path: &Path) -> Result<Content, Error> {
    let text = yaml::read_text(path)?;
    let extension = path.extension().and_then(|extension| extension.to_str());
    if matches!(extension, Some("txt" | "list")) {
        return Ok(Content::List(text));
    }
    let name = path.display().to_string();
    let documents = yaml::documents(&text, &name)?;
    if documents.iter().any(kube::is_object) {
        return Ok(Content::Manifests(named(documents, &name)));
    }
    let compose = |value: &serde_json::Value| {
        value.get("services").is_some() || value.get("include").is_some()
    };
    match documents.iter().any(compose) {
        true => Ok(Content::Compose),
        false => Err(Place::top(&name).error(
            "it is neither a Compose file (no `services`) nor a Kubernetes manifest (no `kind`)",
        )),
    }
}

fn named(documents: Vec<serde_json::Value>, name: &str) -> Vec<kube::Document> {
    documents.into_iter().map(|value| (name.to_owned(), value)).collect()
}

fn one(
    source: &Source,
    inputs: &Inputs,
    options: &Options,
    store: &Store,
) -> Result<Vec<Workload>, Error> {
    match source {
        Source::Stdin => {
            let name = "standard input";
            let text = yaml::text(io::stdin().lock(), name)?;
            kube::workloads(&named(yaml::documents(&text, name)?, name))
        }
        Source::File(path) => match content(path)? {
            Content::Compose => compose::read(std::slice::from_ref(path), &inputs.compose),
            Content::Manifests(documents) => kube::workloads(&documents),
            Content::List(text) => list::workloads(&text, &path.display().to_string()),
        },
        Source::Directory(path) => directory(path, inputs),
        Source::Catalog { host, prefix } => catalog::workloads(host, prefix, options, store),
        Source::Daemon(socket) => docker::workloads(socket.as_deref()),
        Source::Reference(reference) => Ok(vec![list::of_reference(reference, "the command line")]),
    }
}

/// The Compose files that `docker compose` looks for, its override laid over the first found.
const COMPOSE_NAMES: [[&str; 2]; 4] = [
    ["compose.yaml", "compose.override.yaml"],
    ["compose.yml", "compose.override.yml"],
    ["docker-compose.yaml", "docker-compose.override.yaml"],
    ["docker-compose.yml", "docker-compose.override.yml"],
];

/// The Compose files in a directory; none if there are none.
pub fn compose_files(path: &Path) -> Vec<PathBuf> {
    for [main, over] in COMPOSE_NAMES {
        let files: Vec<PathBuf> =
            [main, over].map(|name| path.join(name)).into_iter().filter(|f| f.is_file()).collect();
        if files.first().is_some_and(|file| file.ends_with(main)) {
            return files;
        }
    }
    Vec::new()
}

fn directory(path: &Path, inputs: &Inputs) -> Result<Vec<Workload>, Error> {
    let files = compose_files(path);
    if !files.is_empty() {
        return compose::read(&files, &inputs.compose);
    }
    let mut files = Vec::new();
    walk(path, &mut files, 0)?;
    files.sort();
    let mut documents = Vec::new();
    for file in files {
        let text = yaml::read_text(&file)?;
        let name = file.display().to_string();
        documents.extend(named(yaml::documents(&text, &name)?, &name));
    }
    kube::workloads(&documents)
}

fn walk(path: &Path, files: &mut Vec<PathBuf>, depth: usize) -> Result<(), Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        // The entry's own type: links are not followed, so there are no circles.
        let kind = entry.file_type().map_err(failed)?;
        let extension = path.extension().and_then(|extension| extension.to_str());
        if kind.is_dir() && !hidden && depth < MAX_DEPTH {
            walk(&path, files, depth + 1)?;
        } else if kind.is_file() && matches!(extension, Some("yaml" | "yml" | "json")) {
            if files.len() >= MAX_FILES {
                let (name, what) = (path.display().to_string(), "directory".to_owned());
                return Err(Error::Nesting { name, what, limit: MAX_FILES });
            }
            files.push(path);
        }
    }
    Ok(())
}

/// Adds workloads; those whose names are taken get a number, also where others depend on them.
fn extend(inventory: &mut Inventory, mut found: Vec<Workload>) {
    let mut renamed = BTreeMap::new();
    for workload in &found {
        let taken = |name: &str| inventory.workloads.iter().any(|other| other.name == name);
        if taken(&workload.name) {
            let free = (2..).map(|n| format!("{}#{n}", workload.name)).find(|name| !taken(name));
            renamed.extend(free.map(|free| (workload.name.clone(), free)));
        }
    }
    for workload in &mut found {
        let names = workload.depends_on.iter_mut().map(|dependency| &mut dependency.name);
        for name in names.chain([&mut workload.name]) {
            if let Some(new) = renamed.get(name) {
                name.clone_from(new);
            }
        }
    }
    inventory.workloads.extend(found);
}

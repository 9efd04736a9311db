//! From files to one project of plain values.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::interpolate::{self, Variables};
use super::tags::{self, Meaning, Node};
use super::{Options, dotenv, fault, merge};
use crate::fleet::Error;
use crate::fleet::yaml::{self, Place};

/// Most files that may lead from one to the next, by `include` or `extends`.
const MAX_NESTING: usize = 16;
/// Most files that one project may be made of.
const MAX_FILES: usize = 256;

/// A project: every service with where it came from.
#[derive(Debug, Default)]
pub struct Project {
    /// Services by name.
    pub services: BTreeMap<String, Service>,
    /// Declarations of `volumes`, `configs`, `secrets`, `networks`, `models`, by kind and name.
    pub declared: BTreeMap<String, Map<String, Value>>,
    /// Its name, if the files say one.
    pub name: Option<String>,
    /// Variables that were used and have no value.
    pub missing: Vec<String>,
}

/// One service before it is understood.
#[derive(Debug)]
pub struct Service {
    /// Its keys, in normal form.
    pub value: Value,
    /// The file it is in.
    pub file: PathBuf,
    /// What relative paths are relative to.
    pub directory: PathBuf,
    /// Variables, for its `env_file`s.
    pub variables: Variables,
}

/// Reads and merges `files`.
pub fn project(files: &[PathBuf], options: &Options) -> Result<Project, Error> {
    let directory = parent(files.first().map_or(Path::new("."), PathBuf::as_path));
    let variables = variables(&directory, &options.env_files, &options.environment)?;
    let mut loader = Loader { project: Project::default(), files: 0, cache: BTreeMap::new() };
    loader.files(files, &directory, &variables, 0)?;
    Ok(loader.project)
}

/// The directory of a file.
pub fn parent(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Variables for expansion: `.env` or the named files, and the environment, which wins.
fn variables(
    directory: &Path,
    env_files: &[PathBuf],
    environment: &Variables,
) -> Result<Variables, Error> {
    let default = directory.join(".env");
    let files: Vec<&Path> = match env_files {
        [] if default.is_file() => vec![&default],
        files => files.iter().map(PathBuf::as_path).collect(),
    };
    let mut all = Variables::new();
    for file in files {
        let text = yaml::read_text(file)?;
        let mut outer = all.clone();
        outer.extend(environment.clone());
        all.extend(dotenv::parse(&text, &file.display().to_string(), &outer)?);
    }
    all.extend(environment.clone());
    Ok(all)
}

struct Loader {
    project: Project,
    files: usize,
    /// Parsed and expanded files that `extends` refers to.
    cache: BTreeMap<(PathBuf, PathBuf), Value>,
}

impl Loader {
    fn files(
        &mut self,
        files: &[PathBuf],
        directory: &Path,
        variables: &Variables,
        depth: usize,
    ) -> Result<(), Error> {
        // A later file is laid over what the earlier ones of this list said.
        let mut services: BTreeMap<String, (Value, PathBuf)> = BTreeMap::new();
        for file in files {
            let document = self.document(file, directory, variables)?;
            let name = file.display().to_string();
            let top = Place::top(&name);
            self.includes(&document, file, directory, variables, depth)?;
            for (key, value) in object(&document, "services", &top)? {
                let place = top.key("services").key(key);
                if !value.is_object() {
                    return Err(place.error("a mapping is expected here"));
                }
                let mut extended = |value: &Value| {
                    self.extended(value, key, file, directory, variables, &mut Vec::new())
                };
                let whole = match tags::meaning(value.clone()) {
                    Meaning::Reset => {
                        services.remove(key);
                        continue;
                    }
                    Meaning::Override(value) => Some(extended(&value)?),
                    Meaning::Merge(value) => {
                        let value = extended(&value)?;
                        match services.get_mut(key) {
                            Some((base, _)) => {
                                merge::merge(base, value);
                                None
                            }
                            None => Some(value),
                        }
                    }
                };
                if let Some(value) = whole.and_then(tags::alone) {
                    services.insert(key.clone(), (value, file.clone()));
                }
            }
            if depth == 0
                && let Some(given) = yaml::opt_text(&document, "name", &top)?
            {
                self.project.name = Some(given);
            }
            for kind in ["volumes", "configs", "secrets", "networks", "models"] {
                for (key, value) in object(&document, kind, &top)? {
                    let all = self.project.declared.entry(kind.to_owned()).or_default();
                    merge::member(all, key.clone(), value.clone());
                }
            }
        }
        for (key, (value, file)) in services {
            if let Some(other) = self.project.services.get(&key) {
                let name = file.display().to_string();
                let other = other.file.display();
                return Err(Place::top(&name)
                    .key("services")
                    .key(&key)
                    .error(format!("a service of this name is included from `{other}` as well")));
            }
            let service = Service {
                value,
                file,
                directory: directory.to_owned(),
                variables: variables.clone(),
            };
            self.project.services.insert(key, service);
        }
        Ok(())
    }

    /// One file with its variables expanded.
    fn document(
        &mut self,
        file: &Path,
        directory: &Path,
        variables: &Variables,
    ) -> Result<Value, Error> {
        let key = (file.to_owned(), directory.to_owned());
        if let Some(value) = self.cache.get(&key) {
            return Ok(value.clone());
        }
        let name = file.display().to_string();
        self.files += 1;
        if self.files > MAX_FILES {
            let what = "include".to_owned();
            return Err(Error::Nesting { name, what, limit: MAX_FILES });
        }
        let text = yaml::read_text(file)?;
        let mut documents: Vec<Node> = yaml::documents_of_compose(&text, &name)?;
        let mut value = match documents.len() {
            0 => Value::Object(Map::new()),
            1 => documents.remove(0).0,
            _ => {
                let text = "a Compose file is one document, and this one has several".to_owned();
                return Err(Error::Yaml { name, text });
            }
        };
        if !value.is_object() {
            return Err(Place::top(&name).error("a Compose file is a mapping"));
        }
        expand(&mut value, variables, &mut self.project.missing, &Place::top(&name))?;
        self.cache.insert(key, value.clone());
        Ok(value)
    }

    fn includes(
        &mut self,
        document: &Value,
        file: &Path,
        directory: &Path,
        variables: &Variables,
        depth: usize,
    ) -> Result<(), Error> {
        let name = file.display().to_string();
        let place = Place::top(&name);
        for item in yaml::list(document, "include", &place)? {
            let place = place.key("include");
            if depth >= MAX_NESTING {
                return Err(Error::Nesting { name, what: "include".into(), limit: MAX_NESTING });
            }
            let (paths, home, env_files) = match item {
                Value::String(path) => (vec![path.clone()], None, Vec::new()),
                item => (
                    yaml::texts(item, "path", &place)?,
                    yaml::opt_text(item, "project_directory", &place)?,
                    yaml::texts(item, "env_file", &place)?,
                ),
            };
            let paths: Vec<PathBuf> = paths.iter().map(|path| directory.join(path)).collect();
            let Some(first) = paths.first() else {
                return Err(place.error("a file to include is expected here"));
            };
            let home = home.map_or_else(|| parent(first), |home| directory.join(home));
            let env_files: Vec<PathBuf> =
                env_files.iter().map(|file| directory.join(file)).collect();
            let inner = self::variables(&home, &env_files, variables)?;
            self.files(&paths, &home, &inner, depth + 1)?;
        }
        Ok(())
    }

    /// A service with what it extends beneath it.
    fn extended(
        &mut self,
        value: &Value,
        name: &str,
        file: &Path,
        directory: &Path,
        variables: &Variables,
        chain: &mut Vec<(PathBuf, String)>,
    ) -> Result<Value, Error> {
        let mut value = value.clone();
        merge::normalise(&mut value);
        let Some(extends) = value.as_object_mut().and_then(|map| map.remove("extends")) else {
            return Ok(value);
        };
        let file_name = file.display().to_string();
        let place = Place::top(&file_name).key("services").key(name).key("extends");
        let here = (file.to_owned(), name.to_owned());
        if chain.contains(&here) || chain.len() >= MAX_NESTING {
            let what = format!("{name}.extends");
            return Err(Error::Nesting { name: file_name, what, limit: MAX_NESTING });
        }
        chain.push(here);
        let (base_name, base_file) = match &extends {
            Value::String(service) => (service.clone(), file.to_owned()),
            other => {
                let service = yaml::opt_text(other, "service", &place)?
                    .ok_or_else(|| place.error("the service to extend is not named"))?;
                let path = yaml::opt_text(other, "file", &place)?;
                (service, path.map_or_else(|| file.to_owned(), |path| directory.join(path)))
            }
        };
        let base_directory = match base_file == file {
            true => directory.to_owned(),
            false => parent(&base_file),
        };
        let document = self.document(&base_file, &base_directory, variables)?;
        let base = document.get("services").and_then(|all| all.get(&base_name)).cloned();
        let Some(base) = base else {
            let file = base_file.display();
            return Err(place.error(format!("`{file}` has no service `{base_name}`")));
        };
        let base =
            self.extended(&base, &base_name, &base_file, &base_directory, variables, chain)?;
        let mut base = tags::alone(base).unwrap_or_default();
        if base_directory != directory {
            relocate(&mut base, &base_directory);
        }
        merge::merge(&mut base, value);
        Ok(base)
    }
}

/// Makes the relative paths of a service from another directory independent of where it ends up.
fn relocate(service: &mut Value, directory: &Path) {
    let join = |text: &str| directory.join(text).display().to_string();
    let relative = |text: &str| text.starts_with("./") || text.starts_with("../") || text == ".";
    if let Some(Value::Array(items)) = service.get_mut("volumes") {
        for item in items {
            match item {
                Value::String(text) if relative(text) => *text = join(text),
                item => {
                    if let Some(Value::String(source)) = item.get_mut("source")
                        && relative(source)
                    {
                        *source = join(source);
                    }
                }
            }
        }
    }
    if let Some(Value::Array(items)) = service.get_mut("env_file") {
        for item in items {
            match item {
                Value::String(text) => *text = join(text),
                item => {
                    if let Some(Value::String(path)) = item.get_mut("path") {
                        *path = join(path);
                    }
                }
            }
        }
    }
    let Some(build) = service.get_mut("build") else { return };
    if let Some(Value::String(context)) = build.get_mut("context")
        && !super::build::is_address(context)
    {
        *context = join(context);
    }
    if let Some(Value::Object(contexts)) = build.get_mut("additional_contexts") {
        for value in contexts.values_mut() {
            if let Value::String(context) = value
                && !super::build::is_address(context)
                && !context.starts_with("service:")
            {
                *context = join(context);
            }
        }
    }
}

/// The mapping at `key`; absent is empty.
fn object<'v>(
    value: &'v Value,
    key: &str,
    place: &Place<'_>,
) -> Result<impl Iterator<Item = (&'v String, &'v Value)>, Error> {
    match value.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) if tags::is_tagged(value) => {
            Err(place.key(key).error("tags are for what is below it: give them to single entries"))
        }
        Some(Value::Object(map)) => Ok(Some(map.iter())),
        Some(_) => Err(place.key(key).error("a mapping is expected here")),
    }
    .map(|found| found.into_iter().flatten())
}

/// Expands every text value; keys stay.
fn expand(
    value: &mut Value,
    variables: &Variables,
    missing: &mut Vec<String>,
    place: &Place<'_>,
) -> Result<(), Error> {
    match value {
        Value::String(text) if text.contains('$') => {
            *text = interpolate::expand(text, variables, missing)
                .map_err(|error| fault(error, place))?;
        }
        Value::Array(items) => {
            for (at, item) in items.iter_mut().enumerate() {
                expand(item, variables, missing, &place.key(at))?;
            }
        }
        Value::Object(map) => {
            for (key, item) in map.iter_mut() {
                expand(item, variables, missing, &place.key(key))?;
            }
        }
        _ => {}
    }
    Ok(())
}

//! Carrying a Dockerfile out: stages side by side, each instruction in turn.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};

use super::Options;
use super::ast::{Dockerfile, Instruction, Kind, Lines, Stage};
use super::cancel::Cancel;
use super::copy::{Change, Placing};
use super::error::{Error, Place};
use super::image::{ImageConfig, absolute};
use super::index::Index;
use super::log::{Log, Progress};
use super::parse::parse_trigger;
use super::tree::Tree;
use super::words::{self, Lookup};
use super::work::Workshop;
use super::{cache, context, mounts, remote};
use crate::source::{self, Image, Layer, Platform, Reference, Store};

/// Layers of an image; overlays and runtimes have their bounds too.
const MAX_LAYERS: usize = 1000;

/// Why an instruction fails, before its place is added.
#[derive(Debug)]
pub enum Fail {
    /// In words.
    Words(String),
    /// In words, and what to do.
    Hinted(String, String),
    /// With a place, or needing none.
    Whole(Error),
}

impl From<String> for Fail {
    fn from(words: String) -> Fail {
        Fail::Words(words)
    }
}

impl From<Error> for Fail {
    fn from(error: Error) -> Fail {
        Fail::Whole(error)
    }
}

impl From<source::Error> for Fail {
    fn from(error: source::Error) -> Fail {
        Fail::Whole(error.into())
    }
}

/// A stage or image that is complete.
#[derive(Debug)]
pub struct Built {
    /// Its configuration.
    pub config: ImageConfig,
    /// Its layers, lowest first.
    pub layers: Vec<Arc<Layer>>,
    /// How many of them came with the image that it starts from.
    pub base_layers: usize,
    tree: OnceLock<Arc<Tree>>,
    making: Mutex<()>,
}

impl Built {
    /// A stage whose tree is not known yet.
    pub fn new(config: ImageConfig, layers: Vec<Arc<Layer>>, base_layers: usize) -> Built {
        Built { config, layers, base_layers, tree: OnceLock::new(), making: Mutex::new(()) }
    }

    /// Its files.
    ///
    /// # Errors
    /// If a layer is damaged.
    pub fn tree(&self, shop: &Workshop) -> Result<Arc<Tree>, Error> {
        // Two at once would read every layer twice.
        let _one = self.making.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(tree) = self.tree.get() {
            return Ok(tree.clone());
        }
        let mut tree = Tree::default();
        for layer in &self.layers {
            apply(&mut tree, layer, shop)?;
        }
        Ok(self.tree.get_or_init(|| Arc::new(tree)).clone())
    }
}

/// Applies a layer to a tree.
///
/// # Errors
/// If it is damaged.
pub fn apply(tree: &mut Tree, layer: &Arc<Layer>, shop: &Workshop) -> Result<(), Error> {
    apply_index(tree, &Index::of(layer, &shop.indexes())?, layer)
}

/// Applies a layer whose index is at hand.
///
/// # Errors
/// If it is damaged.
pub fn apply_index(tree: &mut Tree, index: &Index, layer: &Arc<Layer>) -> Result<(), Error> {
    tree.apply(index, layer).map_err(|(path, reason)| {
        let entry = crate::rootfs::error::show(&path);
        crate::rootfs::Error::Entry { layer: layer.digest, entry, reason }.into()
    })
}

enum Cell {
    Waiting,
    Running,
    Done(Option<Arc<Built>>),
}

/// Where a build context or `--from` leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The build context.
    Context,
    /// A stage by its number.
    Stage(usize),
    /// An image by its reference.
    Image(String),
    /// A directory.
    Directory(PathBuf),
    /// An address.
    Remote(String),
}

type Once<T> = Arc<Mutex<Option<Arc<T>>>>;

/// A build.
pub struct Builder<'a> {
    pub options: &'a Options,
    pub source: &'a source::Options,
    pub store: &'a Store,
    pub shop: Workshop,
    pub file: Dockerfile,
    pub log: Log<'a>,
    pub cancel: Cancel,
    /// Commands that run at once.
    pub slots: Slots,
    /// Whether the word about single users was said.
    pub warned: AtomicBool,
    /// Held while a step's layer is unpacked.
    pub unpacking: Mutex<()>,
    dockerfile_path: Option<PathBuf>,
    globals: BTreeMap<String, String>,
    cells: Vec<(Mutex<Cell>, Condvar)>,
    images: Mutex<HashMap<String, Once<Built>>>,
    trees: Mutex<HashMap<String, Once<Tree>>>,
    used_args: Mutex<BTreeSet<String>>,
    failure: Mutex<Option<Error>>,
}

impl<'a> Builder<'a> {
    /// A build of `file`.
    ///
    /// # Errors
    /// If the store can't be written, or global arguments can't be expanded.
    pub fn new(
        options: &'a Options,
        source: &'a source::Options,
        store: &'a Store,
        progress: &'a dyn Progress,
        cancel: Cancel,
        (file, dockerfile_path): (Dockerfile, Option<PathBuf>),
    ) -> Result<Builder<'a>, Error> {
        let cells = file.stages.iter().map(|_| (Mutex::new(Cell::Waiting), Condvar::new()));
        let mut builder = Builder {
            options,
            source,
            store,
            shop: Workshop::open(store)?,
            cells: cells.collect(),
            file,
            log: Log::new(progress),
            cancel,
            slots: Slots::new(std::thread::available_parallelism().map_or(2, |n| n.get().max(2))),
            warned: AtomicBool::new(false),
            unpacking: Mutex::new(()),
            dockerfile_path,
            globals: BTreeMap::new(),
            images: Mutex::default(),
            trees: Mutex::default(),
            used_args: Mutex::default(),
            failure: Mutex::default(),
        };
        builder.globals = builder.global_args()?;
        Ok(builder)
    }

    /// Builds the target stage with all it needs, and makes an image of it.
    ///
    /// # Errors
    /// Every variant of [`Error`].
    pub fn build(&self) -> Result<Image, Error> {
        let target = self.target()?;
        let needed = self.needed(target);
        let built = std::thread::scope(|scope| {
            for &index in needed.iter().filter(|&&index| index != target) {
                // What comes of it is in its cell.
                scope.spawn(move || drop(self.stage(index)));
            }
            self.stage(target)
        });
        let mut failure = self.failure.lock().unwrap_or_else(|e| e.into_inner());
        if self.cancel.is_interrupted() {
            return Err(Error::Interrupted);
        }
        if let Some(error) = failure.take() {
            return Err(error);
        }
        let built = built?;
        self.unused_args();
        let layers: Vec<Layer> = built.layers.iter().map(|layer| (**layer).clone()).collect();
        let document = built.config.document(&layers, &self.options.created());
        let name = self.options.name.clone();
        Ok(source::built(name, document, layers, self.store)?)
    }

    fn target(&self) -> Result<usize, Error> {
        let Some(target) = &self.options.target else { return Ok(self.file.stages.len() - 1) };
        self.file.stage_before(target, self.file.stages.len()).ok_or_else(|| Error::Target {
            target: target.clone(),
            stages: self.file.stages.iter().filter_map(|stage| stage.name.clone()).collect(),
        })
    }

    /// The stages that the target names, directly or not. Those that only ONBUILD triggers name
    /// are built when they are asked for.
    fn needed(&self, target: usize) -> Vec<usize> {
        let mut needed = BTreeSet::from([target]);
        let mut todo = vec![target];
        while let Some(index) = todo.pop() {
            let stage = &self.file.stages[index];
            let mut names = Vec::new();
            names.extend(self.expand_global(&stage.image).ok());
            for instruction in &stage.instructions {
                match &instruction.kind {
                    Kind::Copy(copy) => names.extend(copy.from.clone()),
                    Kind::Run(run) => names.extend(mounts::origins(run)),
                    _ => {}
                }
            }
            for name in names {
                if let Origin::Stage(found) = self.origin(&name, index)
                    && needed.insert(found)
                {
                    todo.push(found);
                }
            }
        }
        needed.into_iter().collect()
    }

    /// What a name means in the stage `before`.
    pub fn origin(&self, name: &str, before: usize) -> Origin {
        let named = self.options.contexts.iter().rev();
        let matching = |known: &&(String, String)| known.0.eq_ignore_ascii_case(name);
        if let Some((_, value)) = named.clone().find(matching) {
            if let Some(image) = value.strip_prefix("docker-image://") {
                return Origin::Image(image.to_owned());
            }
            if let Some(layout) = value.strip_prefix("oci-layout://") {
                return Origin::Image(format!("oci:{layout}"));
            }
            if remote::is_remote(value) {
                return Origin::Remote(value.clone());
            }
            return Origin::Directory(value.into());
        }
        match self.file.stage_before(name, before) {
            Some(stage) => Origin::Stage(stage),
            None => Origin::Image(name.to_owned()),
        }
    }

    /// The result of a stage: built now, or waited for.
    pub fn stage(&self, index: usize) -> Result<Arc<Built>, Error> {
        let failed = || Error::Stage(self.file.stages[index].label(index));
        let (cell, changed) = &self.cells[index];
        let mut state = lock(cell);
        loop {
            match &*state {
                Cell::Done(Some(built)) => return Ok(built.clone()),
                Cell::Done(None) => return Err(failed()),
                Cell::Waiting => break,
                Cell::Running => {
                    state = changed.wait(state).unwrap_or_else(|e| e.into_inner());
                }
            }
        }
        *state = Cell::Running;
        drop(state);
        let result = Worker::new(self, index).and_then(Worker::run);
        let mut state = lock(cell);
        *state = Cell::Done(result.as_ref().ok().cloned());
        changed.notify_all();
        drop(state);
        if let Err(error) = &result
            && !matches!(error, Error::Stage(_) | Error::Interrupted)
        {
            // The first failure is the one to tell; the others follow from stopping.
            let mut failure = lock(&self.failure);
            if failure.is_none() {
                let Err(error) = result else { return Err(failed()) };
                *failure = Some(error);
            }
            drop(failure);
            self.cancel.stop();
            return Err(failed());
        }
        result
    }

    /// An image, brought in once.
    pub fn image(
        &self,
        reference: &str,
        platform: &Platform,
        place: &dyn Fn() -> Place,
    ) -> Result<Arc<Built>, Error> {
        let key = format!("{reference} {platform}");
        let once = lock(&self.images).entry(key).or_default().clone();
        let mut once = lock(&once);
        if let Some(built) = &*once {
            return Ok(built.clone());
        }
        let fail = |source| Error::Image {
            place: place(),
            image: reference.to_owned(),
            source: Box::new(source),
        };
        let mut options = self.source.clone();
        options.platform = platform.clone();
        options.layers = true;
        let parsed: Reference = reference.parse().map_err(fail)?;
        let image = source::resolve(&parsed, &options, self.store, self.log.progress());
        let image = image.map_err(fail)?;
        let (config, triggers) = ImageConfig::of_base(&image.config_json)
            .map_err(|reason| source::Error::Malformed { what: reference.to_owned(), reason })
            .map_err(fail)?;
        let mut config = config;
        for trigger in triggers {
            config.add_trigger(&trigger);
        }
        let layers: Vec<_> = image.layers.into_iter().map(Arc::new).collect();
        let count = layers.len();
        let built = Arc::new(Built::new(config, layers, count));
        *once = Some(built.clone());
        Ok(built)
    }

    /// The files of a context, stage or image.
    pub fn tree(&self, origin: &Origin, place: &dyn Fn() -> Place) -> Result<Arc<Tree>, Fail> {
        match origin {
            Origin::Stage(index) => Ok(self.stage(*index)?.tree(&self.shop)?),
            Origin::Image(name) => {
                let image = self.image(name, &self.source.platform, place)?;
                Ok(image.tree(&self.shop)?)
            }
            Origin::Context | Origin::Directory(_) | Origin::Remote(_) => {
                let once = lock(&self.trees).entry(format!("{origin:?}")).or_default().clone();
                let mut once = lock(&once);
                if let Some(tree) = &*once {
                    return Ok(tree.clone());
                }
                let tree = Arc::new(self.read_context(origin)?);
                *once = Some(tree.clone());
                Ok(tree)
            }
        }
    }

    fn read_context(&self, origin: &Origin) -> Result<Tree, Fail> {
        Ok(match origin {
            Origin::Directory(path) => {
                if !path.is_dir() {
                    return Err(Fail::Words(format!(
                        "the build context `{}` is no directory",
                        path.display()
                    )));
                }
                let rules = context::ignore_rules(path, None)?;
                context::scan(path, &rules)?
            }
            Origin::Remote(address) => remote::tree(self, address)?,
            _ => {
                let path = &self.options.context;
                let dockerfile = self.dockerfile_path.as_deref();
                let rules = context::ignore_rules(path, dockerfile)?;
                context::scan(path, &rules)?
            }
        })
    }

    /// `ARG` before the first `FROM`, with what every build has.
    fn global_args(&self) -> Result<BTreeMap<String, String>, Error> {
        let mut values: BTreeMap<String, String> = platform_args(&self.source.platform);
        let stage = self.options.target.clone().unwrap_or_else(|| "default".into());
        values.insert("TARGETSTAGE".into(), stage);
        for ((name, default), lines) in &self.file.args {
            let value = match self.build_arg(name) {
                Some(value) => Some(value),
                None => match default {
                    Some(text) => {
                        let vars = |name: &str| values.get(name).cloned();
                        let value = words::expand(text, self.file.escape, &vars);
                        Some(value.map_err(|reason| self.syntax(lines, reason))?)
                    }
                    None => values.get(name).cloned(),
                },
            };
            if let Some(value) = value {
                values.insert(name.clone(), value);
            }
        }
        Ok(values)
    }

    fn build_arg(&self, name: &str) -> Option<String> {
        let value = self.options.args.get(name)?;
        lock(&self.used_args).insert(name.to_owned());
        Some(value.clone())
    }

    fn expand_global(&self, text: &str) -> Result<String, String> {
        words::expand(text, self.file.escape, &|name: &str| self.globals.get(name).cloned())
    }

    fn syntax(&self, lines: &Lines, reason: String) -> Error {
        let place = Place::new(&self.file.name, &self.file.text, lines);
        Error::Instruction { place, reason, hint: None }
    }

    fn unused_args(&self) {
        let used = lock(&self.used_args);
        let unused = |name: &&String| !used.contains(*name) && !is_proxy(name);
        for name in self.options.args.keys().filter(unused) {
            self.log.warn(&format!("no stage that was built takes the build argument `{name}`"));
        }
    }
}

/// Arguments that need no `ARG`, are for commands alone, and leave the cache as it is.
pub fn is_proxy(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let all = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];
    all.contains(&upper.as_str())
}

fn platform_args(target: &Platform) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    // Commands run on this machine, which has the target's platform.
    for kind in ["TARGET", "BUILD"] {
        let variant = target.variant.clone().unwrap_or_default();
        values.insert(format!("{kind}PLATFORM"), target.to_string());
        values.insert(format!("{kind}OS"), target.os.clone());
        values.insert(format!("{kind}ARCH"), target.architecture.clone());
        values.insert(format!("{kind}VARIANT"), variant);
    }
    values
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is guarded here is replaced whole, so a panic elsewhere leaves it sound.
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

/// A bound on what runs at once.
pub struct Slots(Mutex<usize>, Condvar);

/// A slot that is taken.
pub struct Slot<'a>(&'a Slots);

impl Slots {
    fn new(count: usize) -> Slots {
        Slots(Mutex::new(count), Condvar::new())
    }

    /// Waits for a free one.
    pub fn take(&self) -> Slot<'_> {
        let mut free = lock(&self.0);
        while *free == 0 {
            free = self.1.wait(free).unwrap_or_else(|e| e.into_inner());
        }
        *free -= 1;
        Slot(self)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *lock(&self.0.0) += 1;
        self.0.1.notify_one();
    }
}

/// A stage being built.
pub struct Worker<'b, 'a> {
    pub builder: &'b Builder<'a>,
    pub index: usize,
    pub config: ImageConfig,
    pub layers: Vec<Arc<Layer>>,
    pub base_layers: usize,
    /// ENV and ARG in the order in which they take effect.
    pub env: Vec<(String, String)>,
    /// Names and values of ARG, for the history.
    pub args: Vec<(String, String)>,
    tree: Option<Arc<Tree>>,
    triggers: Vec<String>,
    base_name: String,
    /// Steps that make layers, and how many of them were begun.
    steps: usize,
    step: usize,
}

impl<'b, 'a> Worker<'b, 'a> {
    fn new(builder: &'b Builder<'a>, index: usize) -> Result<Worker<'b, 'a>, Error> {
        builder.cancel.check()?;
        let stage = &builder.file.stages[index];
        let layered = |item: &&Instruction| {
            matches!(item.kind, Kind::Run(_) | Kind::Copy(_) | Kind::Add(_) | Kind::Workdir(_))
        };
        let mut worker = Worker {
            builder,
            index,
            config: ImageConfig::scratch(&builder.source.platform),
            layers: Vec::new(),
            base_layers: 0,
            env: Vec::new(),
            args: Vec::new(),
            tree: None,
            triggers: Vec::new(),
            base_name: String::new(),
            steps: 1 + stage.instructions.iter().filter(layered).count(),
            step: 0,
        };
        worker.start(stage).map_err(|fail| worker.whole(fail, &stage.lines))?;
        Ok(worker)
    }

    /// `FROM`
    fn start(&mut self, stage: &Stage) -> Result<(), Fail> {
        let builder = self.builder;
        let name = builder.expand_global(&stage.image)?;
        if name.is_empty() {
            return Err(Fail::Hinted(
                format!("`{}` is empty here", stage.image),
                "give the argument a default before the first FROM, or set it by `--build-arg`"
                    .into(),
            ));
        }
        let platform = match &stage.platform {
            None => builder.source.platform.clone(),
            Some(text) => platform(&builder.expand_global(text)?)?,
        };
        let title = self.title(&stage.text);
        let step = builder.log.step(&title);
        self.base_name.clone_from(&name);
        if name != "scratch" || builder.options.contexts.iter().any(|(n, _)| n == "scratch") {
            let place = || Place::new(&builder.file.name, &builder.file.text, &stage.lines);
            let base = match builder.origin(&name, self.index) {
                Origin::Stage(other) => builder.stage(other)?,
                Origin::Image(image) => builder.image(&image, &platform, &place)?,
                other => {
                    return Err(Fail::Hinted(
                        format!("`{name}` is a directory ({other:?}), not an image"),
                        "give an image as the named context: `docker-image://...`".into(),
                    ));
                }
            };
            (self.config, self.triggers) = base.config.as_base();
            self.layers.clone_from(&base.layers);
            self.base_layers = base.base_layers;
            self.tree = base.tree.get().cloned();
        }
        self.env = self.config.env();
        step.done();
        Ok(())
    }

    fn run(mut self) -> Result<Arc<Built>, Error> {
        let builder = self.builder;
        let escape = builder.file.escape;
        for trigger in std::mem::take(&mut self.triggers) {
            let instruction = parse_trigger(&self.base_name, &trigger, escape)?;
            let lines = builder.file.stages[self.index].lines.clone();
            self.instruction(&instruction, &lines)?;
        }
        for instruction in &builder.file.stages[self.index].instructions {
            self.instruction(instruction, &instruction.lines)?;
        }
        let built = Built::new(self.config, self.layers, self.base_layers);
        if let Some(tree) = self.tree {
            // Nobody else has the stage yet.
            let _ = built.tree.set(tree);
        }
        Ok(Arc::new(built))
    }

    /// Adds the place to a failure.
    fn whole(&self, fail: Fail, lines: &Lines) -> Error {
        let file = &self.builder.file;
        let place = || Place::new(&file.name, &file.text, lines);
        match fail {
            Fail::Words(reason) => Error::Instruction { place: place(), reason, hint: None },
            Fail::Hinted(reason, hint) => {
                Error::Instruction { place: place(), reason, hint: Some(hint) }
            }
            Fail::Whole(error) => error,
        }
    }

    /// The place of the instruction at hand.
    pub fn place(&self, lines: &Lines) -> Place {
        Place::new(&self.builder.file.name, &self.builder.file.text, lines)
    }

    /// `[build 2/5] RUN make`
    pub fn title(&mut self, text: &str) -> String {
        self.step += 1;
        let file = &self.builder.file;
        let single = file.stages.len() == 1 && file.stages[0].name.is_none();
        let label = file.stages[self.index].label(self.index);
        let label = if single { String::new() } else { label + " " };
        format!("[{label}{}/{}] {text}", self.step, self.steps.max(self.step))
    }

    fn instruction(&mut self, instruction: &Instruction, lines: &Lines) -> Result<(), Error> {
        self.builder.cancel.check()?;
        let done = self.carry_out(instruction, lines);
        done.map_err(|fail| self.whole(fail, lines))
    }

    fn carry_out(&mut self, instruction: &Instruction, lines: &Lines) -> Result<(), Fail> {
        let text = &instruction.text;
        match &instruction.kind {
            Kind::Copy(copy) => return self.copy(copy, false, text, lines),
            Kind::Add(copy) => return self.copy(copy, true, text, lines),
            Kind::Run(run) => return self.run_command(run, text, lines),
            Kind::Workdir(path) => {
                let path = self.expand_one(path)?;
                return self.workdir(&path);
            }
            Kind::Arg(args) => self.declare(args)?,
            Kind::Env(pairs) => {
                // Names on one line don't see each other.
                let mut values = Vec::new();
                for (name, value) in pairs {
                    values.push((self.expand(name)?, self.expand(value)?));
                }
                for (name, value) in values {
                    self.config.set_var(&name, &value);
                    self.set_env(&name, value);
                }
            }
            Kind::Label(pairs) => {
                for (name, value) in pairs {
                    let (name, value) = (self.expand(name)?, self.expand(value)?);
                    self.config.set_label(&name, &value);
                }
            }
            Kind::Cmd(command) => self.config.set_cmd(command),
            Kind::Entrypoint(command) => self.config.set_entrypoint(command),
            Kind::Expose(line) => {
                for word in words::expand_words(line, self.builder.file.escape, self)? {
                    self.config.expose(&word)?;
                }
            }
            Kind::Volume(paths) => {
                for path in paths {
                    let path = self.expand(path)?;
                    if path.trim().is_empty() {
                        return Err(Fail::Words("VOLUME has an empty path".into()));
                    }
                    self.config.add_volume(path.trim());
                }
            }
            Kind::User(user) => {
                let user = self.expand_one(user)?;
                self.config.set_user(&user);
            }
            Kind::StopSignal(signal) => {
                let signal = self.expand_one(signal)?;
                if crate::config::parse_signal(Some(&signal)).is_err() {
                    return Err(Fail::Words(format!("`{signal}` is no signal")));
                }
                self.config.set_stop_signal(&signal);
            }
            Kind::Shell(shell) => self.config.set_shell(shell),
            Kind::Healthcheck(check) => self.config.set_healthcheck(check),
            Kind::Maintainer(name) => self.config.set_author(name),
            Kind::Onbuild(trigger) => self.config.add_trigger(trigger),
        }
        self.remember(text, true);
        Ok(())
    }

    /// `ARG`
    fn declare(&mut self, args: &[(String, Option<String>)]) -> Result<(), Fail> {
        for (name, default) in args {
            let value = match (self.builder.build_arg(name), default) {
                (Some(value), _) => Some(value),
                (None, Some(text)) => Some(self.expand(text)?),
                (None, None) => self.builder.globals.get(name).cloned(),
            };
            if let Some(value) = value {
                self.args.push((name.clone(), value.clone()));
                self.set_env(name, value);
            }
        }
        Ok(())
    }

    fn set_env(&mut self, name: &str, value: String) {
        match self.env.iter_mut().find(|(known, _)| known == name) {
            Some(known) => known.1 = value,
            None => self.env.push((name.to_owned(), value)),
        }
    }

    /// `WORKDIR`
    fn workdir(&mut self, path: &str) -> Result<(), Fail> {
        let path = absolute(&self.config.workdir(), path);
        self.config.set_workdir(&path);
        let created_by = format!("WORKDIR {path}");
        if path == "/" {
            self.remember(&created_by, true);
            return Ok(());
        }
        let title = self.title(&created_by);
        let step = self.builder.log.step(&title);
        let user = self.config.user();
        let mut key = cache::Key::new("workdir");
        key.layers(self.layers.iter().map(Arc::as_ref));
        key.texts([path.as_str(), &user, &self.builder.options.epoch.to_string()]);
        let key = key.finish();
        if let Some(layer) = self.cached(&key) {
            step.cached();
            return self.push(layer, &created_by);
        }
        let chown = if user.is_empty() { None } else { Some(self.owner(&user)?) };
        let tree = self.tree()?;
        let change = Change { chown, chmod: None, time: (self.builder.options.epoch, 0) };
        let mut placing = Placing::new(Some(&tree), change);
        placing.make_directory(&path)?;
        let layer = super::layer::write(self.builder.store, &placing.into_items())?;
        cache::remember(&self.builder.shop, &key, &layer)?;
        step.done();
        self.push(layer, &created_by)
    }

    /// What an earlier build made with the same key.
    pub fn cached(&self, key: &source::Digest) -> Option<Layer> {
        if self.builder.options.no_cache {
            return None;
        }
        cache::find(&self.builder.shop, self.builder.store, key)
    }

    /// Adds a layer that a step made.
    pub fn push(&mut self, layer: Layer, created_by: &str) -> Result<(), Fail> {
        let index = Index::of(&layer, &self.builder.shop.indexes())?;
        if index.entries.iter().all(Option::is_none) {
            self.remember(created_by, true);
            return Ok(());
        }
        if self.layers.len() == MAX_LAYERS {
            return Err(Fail::Words(format!("the image has more than {MAX_LAYERS} layers")));
        }
        let layer = Arc::new(layer);
        if let Some(tree) = &mut self.tree {
            apply(Arc::make_mut(tree), &layer, &self.builder.shop)?;
        }
        self.layers.push(layer);
        self.remember(created_by, false);
        Ok(())
    }

    fn remember(&mut self, created_by: &str, empty: bool) {
        let created = self.builder.options.created();
        self.config.remember(created_by, &created, empty);
    }

    /// The stage's files as they are now.
    pub fn tree(&mut self) -> Result<Arc<Tree>, Error> {
        if let Some(tree) = &self.tree {
            return Ok(tree.clone());
        }
        let mut tree = Tree::default();
        for layer in &self.layers {
            apply(&mut tree, layer, &self.builder.shop)?;
        }
        Ok(self.tree.insert(Arc::new(tree)).clone())
    }

    /// User and group of `USER[:GROUP]`, by the stage's own files.
    pub fn owner(&mut self, text: &str) -> Result<(u32, u32), Fail> {
        let tree = self.tree()?;
        super::owner::find(&tree, text).map_err(Fail::Words)
    }

    /// Expands a word by ENV and ARG.
    pub fn expand(&self, word: &str) -> Result<String, Fail> {
        Ok(words::expand(word, self.builder.file.escape, self)?)
    }

    /// Expands a line that is one word, and may not be empty.
    fn expand_one(&self, line: &str) -> Result<String, Fail> {
        let value = self.expand(line)?;
        if value.trim().is_empty() {
            return Err(Fail::Words(format!("`{line}` is empty here")));
        }
        Ok(value)
    }
}

impl Lookup for Worker<'_, '_> {
    fn get(&self, name: &str) -> Option<String> {
        self.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }
}

impl Lookup for &mut Worker<'_, '_> {
    fn get(&self, name: &str) -> Option<String> {
        Worker::get(self, name)
    }
}

fn platform(text: &str) -> Result<Platform, Fail> {
    let mut parts = text.split('/');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(os), Some(architecture), variant, None) if !os.is_empty() => Ok(Platform {
            os: os.into(),
            architecture: architecture.into(),
            variant: variant.map(str::to_owned).filter(|variant| !variant.is_empty()),
        }),
        _ => Err(Fail::Words(format!("`{text}` is no platform; write `linux/amd64`"))),
    }
}

/// Whether a path is one of this machine that holds a Dockerfile.
pub fn is_context(path: &Path) -> bool {
    path.is_dir() && !path.join("oci-layout").exists() && path.join("Dockerfile").is_file()
}

//! RUN as an instruction: its key, its root, its mounts, its layer.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::ast::{Command, Lines, Run};
use super::cache::{self, Key};
use super::copy::{Change, Placing, choose, fingerprint};
use super::error::Error;
use super::exec::{Builder, Built, Fail, Origin, Worker, is_proxy, lock};
use super::image::{DEFAULT_PATH, absolute};
use super::index::Meta;
use super::layer::{self, Out};
use super::log::Step;
use super::mounts::{Kind, Mount, Sharing};
use super::pattern::Rules;
use super::sandbox::{self, Bind, FileMount, Job, Overlay, Stub, Unpack};
use super::tree::Tree;
use super::{Network, Secret};
use crate::lock::Lock;
use crate::source::Digest;
use crate::source::Layer;

/// Lines of a failed command's output that the error shows.
const TAIL: usize = 20;
/// Lower directories of one overlay; more are merged into one.
const MAX_LOWERS: usize = 100;
/// Largest secret.
const MAX_SECRET: u64 = 500 << 10;

/// A command ready to be run.
struct Prepared {
    argv: Vec<String>,
    env: Vec<(String, String)>,
    script: Option<FileMount>,
    network: Network,
    mounts: Vec<Mount>,
}

impl Worker<'_, '_> {
    /// `RUN`
    pub fn run_command(&mut self, run: &Run, text: &str, lines: &Lines) -> Result<(), Fail> {
        let title = self.title(text);
        let builder = self.builder;
        let step = builder.log.step(&title);
        let done = self.run_step(run, lines, &step);
        match &done {
            Ok(true) => step.cached(),
            Ok(false) => step.done(),
            Err(Fail::Whole(Error::Interrupted)) => step.failed("interrupted"),
            Err(fail) => step.failed(&super::copying::describe(fail)),
        }
        done.map(drop)
    }

    /// Whether it was in the cache.
    fn run_step(&mut self, run: &Run, lines: &Lines, step: &Step<'_>) -> Result<bool, Fail> {
        let prepared = self.prepare(run)?;
        let key = self.run_key(&prepared, lines)?;
        let created_by = format!("RUN {}", prepared.argv.join(" "));
        if let Some(layer) = self.cached(&key) {
            self.push(layer, &created_by)?;
            return Ok(true);
        }
        let layer = self.execute(prepared, lines, step)?;
        cache::remember(&self.builder.shop, &key, &layer)?;
        self.push(layer, &created_by)?;
        Ok(false)
    }

    fn prepare(&self, run: &Run) -> Result<Prepared, Fail> {
        match run.security.as_deref() {
            None | Some("sandbox") => {}
            Some("insecure") => {
                return Err(Fail::Hinted(
                    "`--security=insecure` is not supported: commands of a build have no rights \
                     over this machine"
                        .into(),
                    "do without it, or build the image elsewhere and convert that".into(),
                ));
            }
            Some(other) => return Err(Fail::Words(format!("there is no security mode `{other}`"))),
        }
        let network = match run.network.as_deref() {
            None | Some("default") => self.builder.options.network,
            Some("none") => Network::None,
            Some("host") => Network::Host,
            Some(other) => return Err(Fail::Words(format!("there is no network mode `{other}`"))),
        };
        let (argv, script) = self.argv(run);
        let mut env = self.env.clone();
        if !env.iter().any(|(name, _)| name == "PATH") {
            env.insert(0, ("PATH".into(), DEFAULT_PATH.into()));
        }
        let expand = |text: &str| self.expand(text).map_err(|fail| super::copying::describe(&fail));
        let mounts = run.mounts.iter().map(|text| Mount::parse(text, &expand));
        let mounts = mounts.collect::<Result<_, _>>()?;
        Ok(Prepared { argv, env, script, network, mounts })
    }

    /// Program and arguments, as BuildKit makes them of here-documents.
    fn argv(&self, run: &Run) -> (Vec<String>, Option<FileMount>) {
        let line = match &run.command {
            Command::Exec(argv) => return (argv.clone(), None),
            Command::Shell(line) => line,
        };
        let mut argv = self.config.shell();
        match run.heredocs.as_slice() {
            [] => argv.push(line.clone()),
            [only] if line.trim() == only.word && only.content.starts_with("#!") => {
                let target = format!("dev/pipes/{}", only.name.replace('/', "_"));
                let script = FileMount {
                    target: target.clone().into_bytes(),
                    content: only.content.clone().into_bytes(),
                    mode: 0o755,
                    owner: (0, 0),
                };
                return (vec![format!("/{target}")], Some(script));
            }
            [only] if line.trim() == only.word => argv.push(only.content.clone()),
            several => {
                let mut text = line.clone();
                for heredoc in several {
                    text.push('\n');
                    text.push_str(&heredoc.raw);
                }
                argv.push(text);
            }
        }
        (argv, None)
    }

    fn run_key(&mut self, prepared: &Prepared, lines: &Lines) -> Result<Digest, Fail> {
        let mut key = Key::new("run");
        key.layers(self.layers.iter().map(Arc::as_ref));
        key.texts(prepared.argv.iter().map(String::as_str));
        if let Some(script) = &prepared.script {
            key.text(&String::from_utf8_lossy(&script.content));
        }
        // Proxies lead to the same files whichever way.
        let env = prepared.env.iter().filter(|(name, _)| !is_proxy(name));
        let mut env: Vec<String> = env.map(|(name, value)| format!("{name}={value}")).collect();
        env.sort();
        key.texts(env.iter().map(String::as_str));
        key.texts([self.config.workdir().as_str(), &self.config.user()]);
        key.text(&format!("{:?}", prepared.network));
        // With a single ID all files are root's.
        key.text(if sandbox::many() { "users" } else { "one user" });
        for mount in &prepared.mounts {
            // All but what is in caches and secrets.
            key.text(&format!("{mount:?}"));
            if mount.kind == Kind::Bind {
                let (tree, source) = self.bind_source(mount, lines)?;
                for chosen in choose(&tree, &source, false)? {
                    fingerprint(&chosen, &Rules::default(), key.hasher())?;
                }
            }
        }
        Ok(key.finish())
    }

    fn bind_origin(&self, mount: &Mount) -> Result<Origin, Fail> {
        let Some(name) = &mount.from else { return Ok(Origin::Context) };
        let origin = self.builder.origin(name, self.index);
        self.check_origin(name, &origin)?;
        Ok(origin)
    }

    fn bind_source(&self, mount: &Mount, lines: &Lines) -> Result<(Arc<Tree>, String), Fail> {
        let origin = self.bind_origin(mount)?;
        let tree = self.builder.tree(&origin, &|| self.place(lines))?;
        let source = mount.source.clone().unwrap_or_else(|| "/".into());
        if super::pattern::is_pattern(&source) {
            return Err(Fail::Words(format!("`{source}`: a mount's source is no pattern")));
        }
        Ok((tree, source))
    }

    fn execute(
        &mut self,
        prepared: Prepared,
        lines: &Lines,
        step: &Step<'_>,
    ) -> Result<Layer, Fail> {
        let builder = self.builder;
        let _slot = builder.slots.take();
        if !sandbox::many() && !builder.warned.swap(true, Ordering::Relaxed) {
            builder.log.warn(
                "commands of RUN see a single user here, and files they change become root's; \
                 install `newuidmap` (Debian: uidmap) and give yourself subordinate IDs",
            );
        }
        let tree = self.tree()?;
        let lowers = builder.lowers(&self.layers, self.base_layers)?;
        let mut stubs = Stubs { tree: &tree, made: BTreeMap::new() };
        for dir in ["/proc", "/sys", "/dev"] {
            stubs.point(dir, true)?;
        }
        let mut mounts = Vec::new();
        let mut env = prepared.env;
        for (name, content) in network_files(prepared.network) {
            let target = stubs.point(name, false)?;
            let (mode, owner) = (0o644, (0, 0));
            mounts.push(sandbox::Mount::File(FileMount { target, content, mode, owner }));
        }
        mounts.extend(prepared.script.map(sandbox::Mount::File));
        let mut locks = Vec::new();
        // Caches are locked in the same order everywhere, so nobody waits in a circle.
        let mut order: Vec<usize> = (0..prepared.mounts.len()).collect();
        order.sort_by_key(|&at| cache_id(&prepared.mounts[at], &self.config.workdir()));
        let mut caches = BTreeMap::new();
        for at in order {
            let mount = &prepared.mounts[at];
            if mount.kind == Kind::Cache {
                caches.insert(at, self.cache(mount, &mut locks)?);
            }
        }
        for (at, mount) in prepared.mounts.iter().enumerate() {
            let cache = caches.remove(&at);
            mounts.extend(self.mount(mount, at, cache, &mut stubs, &mut env, lines)?);
        }
        for (name, value) in &builder.options.args {
            if is_proxy(name) && !env.iter().any(|(known, _)| known == name) {
                env.push((name.clone(), value.clone()));
            }
        }
        let dir = builder.shop.fresh("run");
        let root = Overlay {
            dir: dir.clone(),
            lowers,
            stubs: stubs.list(),
            root: tree.meta(Tree::ROOT).clone(),
        };
        let upper = root.upper();
        let job = Job {
            run: Some(sandbox::Run {
                root,
                mounts,
                argv: prepared.argv.clone(),
                env,
                cwd: self.config.workdir(),
                user: self.config.user(),
                host_network: prepared.network == Network::Host,
            }),
            ..Job::default()
        };
        let tail = Mutex::new(VecDeque::new());
        let line = |text: &str| {
            step.output(text);
            let mut tail = lock(&tail);
            if tail.len() == TAIL {
                tail.pop_front();
            }
            tail.push_back(text.to_owned());
        };
        let out = Out::new(builder.store)?;
        let (report, layer) = builder.perform(&job, Some(out), &line)?;
        drop(locks);
        let end = match (report.code, report.signal) {
            (Some(0), _) => None,
            (Some(code), _) => Some(format!("exited with status {code}")),
            (None, signal) => Some(format!(
                "was killed by {}",
                signal.and_then(|s| u8::try_from(s).ok()).map_or("a signal".into(), |signal| {
                    crate::config::signal_name(signal).to_string()
                })
            )),
        };
        if let Some(end) = end {
            let output = lock(&tail).iter().cloned().collect();
            let command = prepared.argv.last().cloned().unwrap_or_default();
            let shown = match command.char_indices().nth(100) {
                Some((at, _)) => format!("{}...", &command[..at]),
                None => command,
            };
            let command = shown.lines().next().unwrap_or_default().to_owned();
            return Err(Error::Run { place: self.place(lines), command, end, output }.into());
        }
        let layer = layer.ok_or_else(|| Fail::Words("the command left no layer".into()))?;
        // The next command stands on it; whoever comes later unpacks the layer.
        let mut layers: Vec<&Layer> = self.layers.iter().map(Arc::as_ref).collect();
        layers.push(&layer);
        let _ = fs::rename(&upper, builder.step_dir(&layers));
        Ok(layer)
    }

    /// The directory of a cache, locked as its sharing asks.
    fn cache(&self, mount: &Mount, locks: &mut Vec<Lock>) -> Result<PathBuf, Fail> {
        if mount.from.is_some() {
            return Err(Fail::Hinted(
                "a cache mount can't start with the files of `from` yet".into(),
                "leave `from` out and copy the files in the command".into(),
            ));
        }
        let id = cache_id(mount, &self.config.workdir());
        let caches = self.builder.shop.root.join("cache");
        for number in 0..1000 {
            let name = Digest::of(format!("{id}\0{number}").as_bytes()).hex();
            let path = caches.join(format!("{name}.lock"));
            let fail = |error| Error::io("lock", &path, error);
            let file = File::create(&path).map_err(fail)?;
            let lock = match mount.sharing {
                Sharing::Shared => Lock::shared(file).map(Some),
                Sharing::Locked => Lock::alone(file).map(Some),
                Sharing::Private => Lock::try_alone(file),
            };
            if let Some(lock) = lock.map_err(fail)? {
                locks.push(lock);
                return Ok(caches.join(name));
            }
        }
        Err(Fail::Words(format!("the cache `{id}` is used by a thousand others")))
    }

    /// One mount for the sandbox.
    fn mount(
        &mut self,
        mount: &Mount,
        number: usize,
        cache: Option<PathBuf>,
        stubs: &mut Stubs<'_>,
        env: &mut Vec<(String, String)>,
        lines: &Lines,
    ) -> Result<Option<sandbox::Mount>, Fail> {
        let workdir = self.config.workdir();
        let target = mount.target.as_deref().map(|target| absolute(&workdir, target));
        if target.as_deref() == Some("/") {
            return Err(Fail::Words("nothing can be mounted at `/`".into()));
        }
        Ok(Some(match mount.kind {
            Kind::Tmpfs => {
                let target = stubs.point(&target.unwrap_or_default(), true)?;
                sandbox::Mount::Tmpfs { target, size: mount.size }
            }
            Kind::Cache => {
                let sub = mount.source.as_deref().filter(|source| *source != "/");
                if sub.is_some() {
                    return Err(Fail::Words("a cache mount without `from` has no `source`".into()));
                }
                sandbox::Mount::Bind(Bind {
                    source: cache.unwrap_or_default(),
                    target: stubs.point(&target.unwrap_or_default(), true)?,
                    read_only: mount.read_only,
                    create: Some((mount.mode.unwrap_or(0o755), mount.uid, mount.gid)),
                })
            }
            Kind::Bind => {
                return self.bind(mount, &target.unwrap_or_default(), stubs, lines).map(Some);
            }
            Kind::Secret => {
                let id = mount.id.clone().or_else(|| {
                    let target = target.as_deref()?;
                    target.rsplit('/').next().map(str::to_owned)
                });
                let id = id.ok_or_else(|| Fail::Words("a secret mount needs an `id`".into()))?;
                let Some(secret) = self.builder.options.secrets.get(&id) else {
                    if mount.required {
                        return Err(Fail::Hinted(
                            format!("the secret `{id}` is required and was not given"),
                            format!("give it: `--secret id={id},src=FILE`"),
                        ));
                    }
                    return Ok(None);
                };
                let content = read_secret(&id, secret)?;
                if let Some(name) = &mount.env {
                    let value = String::from_utf8_lossy(&content).into_owned();
                    env.retain(|(known, _)| known != name);
                    env.push((name.clone(), value));
                    if target.is_none() {
                        return Ok(None);
                    }
                }
                let target = target.unwrap_or_else(|| format!("/run/secrets/{id}"));
                sandbox::Mount::File(FileMount {
                    target: stubs.point(&target, false)?,
                    content,
                    mode: mount.mode.unwrap_or(0o400),
                    owner: (mount.uid, mount.gid),
                })
            }
            Kind::Ssh => {
                let id = mount.id.as_deref().unwrap_or("default");
                let Some(socket) = self.builder.options.ssh.get(id) else {
                    if mount.required {
                        return Err(Fail::Hinted(
                            format!("the SSH agent `{id}` is required and was not given"),
                            format!("give it: `--ssh {id}`"),
                        ));
                    }
                    return Ok(None);
                };
                let source = socket
                    .canonicalize()
                    .map_err(|error| Error::io("find the agent's socket", socket, error))?;
                let target = target.unwrap_or_else(|| format!("/run/buildkit/ssh_agent.{number}"));
                if !env.iter().any(|(name, _)| name == "SSH_AUTH_SOCK") {
                    env.push(("SSH_AUTH_SOCK".into(), target.clone()));
                }
                let target = stubs.point(&target, false)?;
                sandbox::Mount::Bind(Bind { source, target, read_only: false, create: None })
            }
        }))
    }

    fn bind(
        &mut self,
        mount: &Mount,
        target: &str,
        stubs: &mut Stubs<'_>,
        lines: &Lines,
    ) -> Result<sandbox::Mount, Fail> {
        let builder = self.builder;
        let origin = self.bind_origin(mount)?;
        let (tree, source) = self.bind_source(mount, lines)?;
        let node = tree.lookup(source.as_bytes(), true).ok_or_else(|| {
            Fail::Words(format!("`{source}` is not there, or is excluded by `.dockerignore`"))
        })?;
        let lowers = match &origin {
            Origin::Stage(index) => {
                let built = builder.stage(*index)?;
                builder.lowers(&built.layers, built.base_layers)?
            }
            Origin::Image(name) => {
                let platform = &builder.source.platform;
                let built: Arc<Built> = builder.image(name, platform, &|| self.place(lines))?;
                builder.lowers(&built.layers, built.base_layers)?
            }
            // The part that is needed, as a directory with everything in it root's.
            _ => vec![builder.materialize(&tree, node)?],
        };
        Ok(sandbox::Mount::Overlay {
            overlay: Overlay {
                dir: builder.shop.fresh("mount"),
                lowers,
                stubs: Vec::new(),
                root: tree.meta(Tree::ROOT).clone(),
            },
            part: tree.path(node),
            target: stubs.point(target, tree.is_dir(node))?,
            read_only: mount.read_only,
        })
    }
}

/// Name of a cache: its ID, or where it is mounted.
fn cache_id(mount: &Mount, workdir: &str) -> String {
    let target = || absolute(workdir, mount.target.as_deref().unwrap_or_default());
    mount.id.clone().unwrap_or_else(target)
}

fn read_secret(id: &str, secret: &Secret) -> Result<Vec<u8>, Fail> {
    match secret {
        Secret::Env(name) => match std::env::var_os(name) {
            Some(value) => Ok(value.as_bytes().to_vec()),
            None => Err(Fail::Words(format!("the secret `{id}`: no variable `{name}` is set"))),
        },
        Secret::File(path) => {
            let read =
                File::open(path).and_then(|file| super::context::read_limited(file, MAX_SECRET));
            Ok(read.map_err(|error| Error::io("read the secret", path, error))?)
        }
    }
}

/// What a command finds its names by, like this machine.
fn network_files(network: Network) -> Vec<(&'static str, Vec<u8>)> {
    let hosts = b"127.0.0.1\tlocalhost dock2uni-build\n::1\tlocalhost ip6-localhost ip6-loopback\n";
    let resolv = match network {
        Network::Host => fs::read("/etc/resolv.conf").unwrap_or_default(),
        Network::None => Vec::new(),
    };
    vec![("/etc/hosts", hosts.to_vec()), ("/etc/resolv.conf", resolv)]
}

/// What mount points need that the stage doesn't have.
struct Stubs<'t> {
    tree: &'t Tree,
    made: BTreeMap<Vec<u8>, Meta>,
}

impl Stubs<'_> {
    /// The resolved path of a mount point.
    fn point(&mut self, path: &str, directory: bool) -> Result<Vec<u8>, Fail> {
        let wrong = |why: &str| Fail::Words(format!("nothing can be mounted at `{path}`: {why}"));
        let reach = self
            .tree
            .reach(path.as_bytes(), true)
            .ok_or_else(|| wrong("a file is in the way, or symbolic links go in circles"))?;
        if reach.missing.is_empty() {
            return match (self.tree.is_dir(reach.node), directory) {
                (true, false) => Err(wrong("it is a directory")),
                (false, true) => Err(wrong("it is no directory")),
                _ => Ok(self.tree.path(reach.node)),
            };
        }
        if !self.tree.is_dir(reach.node) {
            return Err(wrong("a file is in the way"));
        }
        let mut whole = self.tree.path(reach.node);
        // /dev is made anew, and what is missing in it there.
        if whole == b"dev" || reach.missing.first().is_some_and(|name| name == b"dev") {
            let first = reach.missing.first().filter(|name| *name == b"dev");
            if let Some(name) = first {
                self.made.insert(name.clone(), Meta::directory(0o755, (0, 0)));
            }
            for name in &reach.missing {
                extend(&mut whole, name);
            }
            return Ok(whole);
        }
        let mut node = reach.node;
        while node != Tree::ROOT {
            self.made.insert(self.tree.path(node), self.tree.meta(node).clone());
            node = self.tree.parent(node);
        }
        for (at, name) in reach.missing.iter().enumerate() {
            extend(&mut whole, name);
            let last = at + 1 == reach.missing.len();
            let meta = if directory || !last {
                Meta::directory(0o755, (0, 0))
            } else {
                Meta::file(0o644, 0, (0, 0))
            };
            self.made.entry(whole.clone()).or_insert(meta);
        }
        Ok(whole)
    }

    /// All of it, directories before what is in them.
    fn list(self) -> Vec<Stub> {
        self.made.into_iter().map(|(path, meta)| Stub { path, meta }).collect()
    }
}

fn extend(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

/// Names the layers that a directory holds the merged files of.
fn chain<'l>(layers: impl IntoIterator<Item = &'l Layer>) -> String {
    let mut key = Key::new(if sandbox::many() { "tree" } else { "tree of one user" });
    key.layers(layers);
    key.finish().hex()
}

impl Builder<'_> {
    /// Does a job in the sandbox.
    fn perform(
        &self,
        job: &Job,
        out: Option<Out>,
        line: &(dyn Fn(&str) + Sync),
    ) -> Result<(sandbox::Report, Option<Layer>), Error> {
        let file = self.shop.fresh("job").with_extension("json");
        sandbox::perform(&self.options.sandbox, job, &file, &self.cancel, out, line)
    }

    /// The directory of this build with what the last of these layers changes.
    fn step_dir(&self, layers: &[&Layer]) -> PathBuf {
        self.shop.own.join(format!("layer-{}", chain(layers.iter().copied())))
    }

    /// Directories with these layers, lowest first: what came with the image merged into one that
    /// later builds use as well, the others one by one.
    fn lowers(&self, layers: &[Arc<Layer>], base: usize) -> Result<Vec<PathBuf>, Error> {
        let all: Vec<&Layer> = layers.iter().map(Arc::as_ref).collect();
        let base = if all.len() - base > MAX_LOWERS { all.len() } else { base };
        let mut lowers = Vec::new();
        if base > 0 {
            lowers.push(self.merged(&all[..base])?);
        }
        for upto in base + 1..=all.len() {
            let dir = self.step_dir(&all[..upto]);
            // Two stages may stand on the same layers.
            let _one = lock(&self.unpacking);
            if !dir.exists() {
                self.unpack(&all[..upto], true, &dir)?;
            }
            lowers.push(dir);
        }
        Ok(lowers)
    }

    /// The merged files of an image's layers, as earlier builds have left them or made now.
    fn merged(&self, layers: &[&Layer]) -> Result<PathBuf, Error> {
        // What the disk doesn't have after a crash goes with the boot's name.
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let root = self.shop.root.join("trees").join(boot.trim());
        fs::create_dir_all(&root).map_err(|error| Error::io("create", &root, error))?;
        // Root and a user with IDs of its own have different files under the same numbers.
        let dir = root.join(chain(layers.iter().copied()));
        let path = dir.with_extension("lock");
        let fail = |error| Error::io("lock", &path, error);
        let _lock = File::create(&path).and_then(Lock::alone).map_err(fail)?;
        if !dir.exists() {
            self.unpack(layers, false, &dir)?;
        }
        Ok(dir)
    }

    fn unpack(&self, layers: &[&Layer], last_only: bool, dir: &Path) -> Result<(), Error> {
        // Beside its place, since a directory that may not be written to may not move elsewhere.
        let part = dir.with_extension(format!("part-{}", std::process::id()));
        if part.exists() {
            sweep(self, vec![part.clone()]);
        }
        let job = Job {
            unpack: vec![Unpack {
                layers: layers.iter().map(|layer| (*layer).into()).collect(),
                last_only,
                indexes: self.shop.indexes(),
                into: part.clone(),
            }],
            ..Job::default()
        };
        let done = self
            .perform(&job, None, &|_| {})
            .and_then(|_| fs::rename(&part, dir).map_err(|error| Error::io("create", dir, error)));
        if done.is_err() {
            sweep(self, vec![part]);
        }
        done
    }

    /// Part of a build context as a directory whose tree has only that.
    fn materialize(&self, tree: &Tree, node: super::tree::NodeId) -> Result<PathBuf, Fail> {
        let dir = self.shop.fresh("context");
        fs::create_dir(&dir).map_err(|error| Error::io("create", &dir, error))?;
        let path = tree.path(node);
        let text = format!("/{}", String::from_utf8_lossy(&path));
        let mut placing = Placing::new(None, Change::default());
        let dest = if tree.is_dir(node) { format!("{text}/") } else { text.clone() };
        placing.copy(&super::copy::Chosen::whole(tree, node), &dest, &Rules::default())?;
        layer::place(&placing.into_items(), &dir)?;
        Ok(dir)
    }
}

/// Removes directories of builds; those with other owners' files by way of the sandbox.
pub fn sweep(builder: &Builder<'_>, dirs: Vec<PathBuf>) {
    if let Err(error) = super::clean::remove(dirs.clone(), &builder.options.sandbox) {
        for dir in dirs.iter().filter(|dir| dir.exists()) {
            builder.log.warn(&format!("`{}` can't be removed: {error}", dir.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::index::Kind as FileKind;
    use super::super::tree::Data;
    use super::*;

    #[test]
    fn mount_points_get_what_is_missing_and_nothing_else() {
        let mut tree = Tree::default();
        let etc = Meta { mode: 0o700, ..Meta::directory(0o755, (5, 0)) };
        let etc = tree.put(Tree::ROOT, b"etc", etc, Data::None);
        tree.put(etc, b"hosts", Meta::file(0o644, 0, (0, 0)), Data::None);
        let link = Meta {
            kind: FileKind::Symlink,
            target: b"../run/r".to_vec(),
            ..Meta::file(0o777, 0, (0, 0))
        };
        tree.put(etc, b"resolv.conf", link, Data::None);
        let mut stubs = Stubs { tree: &tree, made: BTreeMap::new() };
        assert_eq!(stubs.point("/etc/hosts", false).unwrap(), b"etc/hosts");
        assert_eq!(stubs.point("/etc/resolv.conf", false).unwrap(), b"run/r");
        assert_eq!(stubs.point("/etc/a/b", true).unwrap(), b"etc/a/b");
        assert_eq!(stubs.point("/dev/shm/x", true).unwrap(), b"dev/shm/x");
        assert!(stubs.point("/etc/hosts", true).is_err());
        assert!(stubs.point("/etc/hosts/x", true).is_err());
        assert!(stubs.point("/etc", false).is_err());
        let list: Vec<_> = stubs
            .list()
            .into_iter()
            .map(|stub| (String::from_utf8(stub.path).unwrap(), stub.meta.mode, stub.meta.kind))
            .collect();
        let dir = FileKind::Directory;
        assert_eq!(
            list,
            [
                ("dev".into(), 0o755, dir),
                ("etc".into(), 0o700, dir),
                ("etc/a".into(), 0o755, dir),
                ("etc/a/b".into(), 0o755, dir),
                ("run".into(), 0o755, dir),
                ("run/r".into(), 0o644, FileKind::File)
            ]
        );
    }
}

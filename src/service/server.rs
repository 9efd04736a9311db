//! The processes: a server with workers, or workers alone.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::config::watch::Current;
use super::config::{self, Config};
use super::http::audit::Audit;
use super::http::limit::Limiter;
use super::http::pages::Sessions;
use super::http::{self, App};
use super::metrics::Metrics;
use super::queue::{self, Queue};
use super::webhook::oidc;
use super::{poll, tls, trace, worker};

/// How often files are looked at for changes.
const LOOK: Duration = Duration::from_secs(2);
/// How long a request that has begun may take when the server ends.
const GRACE: Duration = Duration::from_secs(10);
/// How long the queue may be away when a process starts.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why the service ended, or did not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its configuration.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// Its queue.
    #[error("the queue cannot be opened")]
    Queue(#[from] queue::Error),
    /// Its address.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A directory or file of its own.
    #[error("cannot use `{}`", path.display())]
    Path {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Its certificate.
    #[error("TLS: {0}")]
    Tls(String),
    /// Traces.
    #[error("traces: {0}")]
    Trace(String),
    /// The machine.
    #[error("the process cannot start")]
    System(#[from] std::io::Error),
    /// Workers on their own, over a file that a server has.
    #[error("workers on their own need a queue in PostgreSQL")]
    NoQueue,
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Error::Config(_) => Some("`dock2uni serve --example` prints a configuration"),
            Error::Listen { .. } => Some("set `listen` in `[server]` to another address"),
            Error::NoQueue => Some(
                "set `url` in `[queue]` to postgres://...; with SQLite, the server's own workers do \
                 the work",
            ),
            _ => None,
        }
    }
}

/// What a process is started with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The configuration file.
    pub config: PathBuf,
    /// The program that converts, with its first arguments.
    pub program: Vec<PathBuf>,
    /// Jobs at once, whatever the configuration says.
    pub workers: Option<usize>,
    /// Prints the address once it is served, and nothing else, to standard output.
    pub announce: bool,
}

/// Runs a server until it is asked to end.
///
/// # Errors
/// If it cannot begin.
pub fn run(setup: &Setup) -> Result<(), Error> {
    let process = Process::begin(setup)?;
    let config = process.config.get();
    let app = process.app(&config)?;
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let identity = match &config.server.tls {
        Some((chain, key)) => Some(tls::Identity::load(chain, key).map_err(Error::Tls)?),
        None => None,
    };
    let acceptor = match &identity {
        Some(identity) => Some(TlsAcceptor::from(Arc::new(identity.server().map_err(Error::Tls)?))),
        None => None,
    };
    let address = config.server.listen;
    let listener = runtime
        .block_on(TcpListener::bind(address))
        .map_err(|source| Error::Listen { address, source })?;
    let local = listener.local_addr()?;
    let mut threads = worker::start(&process.workers);
    let polling = process.workers.clone();
    threads.push(thread::spawn(move || poll::keep_looking(&polling)));
    tracing::info!(address = %local, database = process.queue.database(),
        workers = process.workers.slots, "serves");
    if setup.announce {
        let scheme = if identity.is_some() { "https" } else { "http" };
        println!("{scheme}://{local}");
    }
    runtime.block_on(async {
        let (end, ended) = watch::channel(false);
        let limits =
            http::Limits { connections: config.server.connections, timeout: config.server.timeout };
        let router = http::router(&app);
        let serving = tokio::spawn(http::serve(listener, acceptor, router, limits, ended, GRACE));
        process.attend(identity.as_deref(), &app).await?;
        app.ending.store(true, Ordering::SeqCst);
        let _ = end.send(true);
        let _ = serving.await;
        Ok::<_, Error>(())
    })?;
    process.finish(threads);
    Ok(())
}

/// Runs workers until they are asked to end.
///
/// # Errors
/// If they cannot begin.
pub fn work(setup: &Setup) -> Result<(), Error> {
    let process = Process::begin(setup)?;
    let config = process.config.get();
    if config.queue.url.is_none() {
        return Err(Error::NoQueue);
    }
    let app = process.app(&config)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let threads = worker::start(&process.workers);
    tracing::info!(worker = %process.workers.name, slots = process.workers.slots, "works");
    if setup.announce {
        println!("{}", process.workers.name);
    }
    runtime.block_on(process.attend(None, &app))?;
    process.finish(threads);
    Ok(())
}

struct Process {
    config: Arc<Current>,
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
    workers: Arc<worker::Shared>,
}

impl Process {
    fn begin(setup: &Setup) -> Result<Process, Error> {
        // Object stores' client asks for the process's own.
        let _ = rustls::crypto::ring::default_provider().install_default();
        trace::start().map_err(Error::Trace)?;
        let config = Arc::new(Current::load(&setup.config)?);
        let now = config.get();
        for path in [&now.server.state, &now.workers.scratch, &now.workers.store] {
            let made = fs::create_dir_all(path);
            made.map_err(|source| Error::Path { path: path.clone(), source })?;
        }
        let queue = Arc::new(open_queue(&now)?);
        queue.set_limits(now.limits.clone());
        let metrics = Arc::new(Metrics::new());
        let workers = worker::Shared::new(
            config.clone(),
            queue.clone(),
            metrics.clone(),
            setup.program.clone(),
            setup.workers.unwrap_or(now.workers.count),
        );
        Ok(Process { config, queue, metrics, workers })
    }

    fn app(&self, config: &Config) -> Result<Arc<App>, Error> {
        let path = &config.server.audit;
        let audit =
            Audit::open(path).map_err(|source| Error::Path { path: path.clone(), source })?;
        let sessions = match &config.server.session_key {
            Some(key) => Sessions::new(key.clone()),
            None => {
                let path = config.server.state.join("session.key");
                Sessions::open(&path).map_err(|source| Error::Path { path, source })?
            }
        };
        let (current, queue, metrics) =
            (self.config.clone(), self.queue.clone(), self.metrics.clone());
        Ok(Arc::new(App {
            config: self.config.clone(),
            queue: self.queue.clone(),
            metrics: self.metrics.clone(),
            workers: self.workers.clone(),
            audit,
            limiter: Limiter::default(),
            sessions,
            keys: oidc::Cache::default(),
            reload: Box::new(move || reload(&current, &queue, &metrics)),
            store: config.workers.store.clone(),
            ending: AtomicBool::new(false),
        }))
    }

    /// Looks after files and signals until the process shall end.
    async fn attend(&self, identity: Option<&tls::Identity>, app: &App) -> Result<(), Error> {
        let mut term = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                () = received(&mut term) => return Ok(()),
                () = received(&mut interrupt) => return Ok(()),
                () = received(&mut hangup) => {
                    // What goes wrong is in the log; the old stays in force.
                    let _ = reload(&self.config, &self.queue, &self.metrics);
                    if let Err(error) = app.audit.reopen() {
                        tracing::error!(%error, "the audit log is not opened anew");
                    }
                }
                _ = look.tick() => {
                    if self.config.has_changed() {
                        let _ = reload(&self.config, &self.queue, &self.metrics);
                    }
                    match identity.map(tls::Identity::refresh) {
                        Some(Ok(true)) => tracing::info!("the certificate was read again"),
                        Some(Err(error)) => tracing::error!(%error, "the old certificate stays"),
                        _ => {}
                    }
                }
            }
        }
    }

    /// Waits for the jobs at hand, and gives back what takes too long.
    fn finish(&self, threads: Vec<thread::JoinHandle<()>>) {
        let drain = self.config.get().workers.drain;
        self.workers.drain();
        tracing::info!(running = self.workers.running(), "ends when its jobs are done");
        let begun = Instant::now();
        while self.workers.running() > 0 && begun.elapsed() < drain {
            thread::sleep(Duration::from_millis(50));
        }
        self.workers.leave();
        for thread in threads {
            // One that panicked has said so.
            let _ = thread.join();
        }
        trace::finish();
        tracing::info!("ended");
    }
}

async fn received(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// Opens the queue; a database that starts at the same time is waited for.
fn open_queue(config: &Config) -> Result<Queue, Error> {
    let begun = Instant::now();
    loop {
        let opened = match &config.queue.url {
            Some(url) => {
                let refused = |text: String| {
                    Error::Config(config::Error::Value {
                        path: PathBuf::from("configuration"),
                        place: "[queue]".to_owned(),
                        text,
                    })
                };
                Queue::postgres(url.expose_text().map_err(refused)?)
            }
            None => Queue::sqlite(&config.server.state.join("queue.db")),
        };
        match opened {
            Err(error) if error.passes() && begun.elapsed() < PATIENCE => {
                tracing::warn!(%error, "waits for the queue");
                thread::sleep(Duration::from_millis(500));
            }
            opened => return Ok(opened?),
        }
    }
}

fn reload(
    current: &Current,
    queue: &Queue,
    metrics: &Metrics,
) -> Result<Vec<&'static str>, String> {
    match current.reload() {
        Ok(later) => {
            queue.set_limits(current.get().limits.clone());
            metrics.reloads.with_label_values(&["done"]).inc();
            tracing::info!(after_restart = ?later, "the configuration was read again");
            Ok(later)
        }
        Err(error) => {
            metrics.reloads.with_label_values(&["refused"]).inc();
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            let text = format!("{error}{}", cause.unwrap_or_default());
            tracing::error!(error = text, "the old configuration stays in force");
            Err(text)
        }
    }
}

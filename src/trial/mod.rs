//! A trial: boots an image for a moment, waits for it to serve, and says what answered.
//!
//! `convert --verify`, `trace` and `convert --slim` rest on it. The VM's exposed TCP ports are
//! forwarded from loopback addresses and probed ([`probe`]); a health check is waited for where the
//! image has one. What has neither is tried by running: it ends well, or is still there after a
//! while. The kernel tells which ports are listened on, so a probe never takes QEMU's own accepting
//! of a connection for an answer.
//!
//! EXPOSE is a remark, not a promise: images expose ports that they listen on only if they are told to
//! (rabbitmq those of TLS). So all exposed ports are waited for, but one that says something is enough: after
//! that the others have as long again as it took until the last news, and the silent ones are named. (One that takes connections and drops them is not: rabbitmq's port mapper
//! is there long before its broker.) Ports that the user names ([`Settings::wanted`]) must answer, and the health check must
//! pass; with either, the other ports are not waited for.

pub mod probe;
pub mod trace;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use dock2uni_format::record::{Proto, Record, trailer};
use dock2uni_format::status::Health;
use rustix::fs::{MemfdFlags, memfd_create};

use self::probe::Answer;
use self::trace::Trace;
use crate::config::Publish;
use crate::erofs::verity;
use crate::guest;
use crate::vmm::run::{Hooks, Notice, Outcome, run_with};
use crate::vmm::{self, Accel, Attachment, Boot, Config, Drive, Machine, ports};

/// Bytes of the console that are kept for messages.
const TAIL: usize = 16 << 10;
/// Once something has spoken, others have as long again as that took, and this long at least.
const OTHERS: Duration = Duration::from_secs(30);
/// How often those who watch are told what is waited for.
const TICK: Duration = Duration::from_secs(1);

/// How long an image may take to answer if nobody says: what starts in seconds on a processor takes
/// minutes under QEMU's translator.
pub fn patience(accel: Accel) -> Duration {
    Duration::from_secs(match accel {
        Accel::Kvm => 120,
        Accel::Tcg => 600,
    })
}

/// Why a trial could not be made at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// QEMU, or the machine.
    #[error(transparent)]
    Vm(#[from] vmm::Error),
    /// The guest code.
    #[error(transparent)]
    NoKernel(#[from] guest::NoKernel),
    /// Files for QEMU.
    #[error("cannot write the files that the VM boots from")]
    Files(#[source] io::Error),
    /// The user's probe.
    #[error("the probe `{command}` cannot be started")]
    Command {
        /// Its program.
        command: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Error::Vm(error) => error.hint(),
            Error::NoKernel(_) => Some("build it without D2U_KERNEL"),
            Error::Files(_) => None,
            Error::Command { .. } => Some("it runs on this machine, not in the guest"),
        }
    }
}

/// What is to be booted.
#[derive(Debug)]
pub struct Subject {
    boot: Boot,
    record: Record,
    /// Files that `boot` names by their descriptors.
    _files: Vec<File>,
}

impl Subject {
    /// A disk image, booted by its own boot code.
    pub fn disk(path: &Path, format: &'static str, cd: bool, record: Record) -> Subject {
        let disk = Drive { file: path.to_owned(), format, cd };
        Subject { boot: Boot::Disk { disk, firmware: None }, record, _files: Vec::new() }
    }

    /// A bare root, booted directly. The record says where the kernel finds it.
    ///
    /// # Errors
    /// If there is no kernel, or no memory for its copy.
    pub fn root(path: &Path, record: Record) -> Result<Subject, Error> {
        let file = |name: &str, bytes: &[u8]| -> Result<File, Error> {
            let made = memfd_create(name, MemfdFlags::empty());
            let mut file = made.map(File::from).map_err(|error| Error::Files(error.into()))?;
            file.write_all(bytes).map_err(Error::Files)?;
            Ok(file)
        };
        let kernel = file("kernel.elf", guest::kernel()?)?;
        let root = File::open(path).map_err(Error::Files)?;
        let len = root.metadata().map_err(Error::Files)?.len();
        let verity = verity::find(&root, 0, len).map_err(Error::Files)?;
        let module = file("module", &trailer(&record, 0, verity))?;
        let named = |file: &File| PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let boot = Boot::Direct {
            kernel: named(&kernel),
            module: named(&module),
            disk: Drive { file: path.to_owned(), format: "raw", cd: false },
        };
        Ok(Subject { boot, record, _files: vec![kernel, module] })
    }
}

/// How a trial is made.
#[derive(Clone, Debug)]
pub struct Settings {
    /// QEMU.
    pub qemu: PathBuf,
    /// Accelerator.
    pub accel: Accel,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Processors.
    pub cpus: u32,
    /// How long it may take until everything has answered, such as [`patience`] says.
    pub patience: Duration,
    /// TCP ports that must answer, among the exposed ones.
    pub wanted: BTreeSet<u16>,
    /// How long what can't be asked must keep running to count as working.
    pub settle: Duration,
    /// Record what is used ([`Trial::trace`]).
    pub witness: bool,
    /// A command of the user's, run on this machine once the ports have answered: its environment
    /// says where they are (`DOCK2UNI_HOST`, `DOCK2UNI_PORT_80`).
    pub command: Vec<String>,
    /// As [`Config::confined`].
    pub confined: bool,
    /// Directory for files that are tried and thrown away.
    pub scratch: PathBuf,
    /// As [`Config::launcher`].
    pub launcher: Vec<PathBuf>,
}

/// A TCP port that is exposed or listened on, and what came of asking it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Probed {
    /// Port in the guest.
    pub port: u16,
    /// Where this machine reaches it; `None` if it is not exposed, and so not asked.
    #[serde(skip)]
    pub address: Option<SocketAddr>,
    /// What answered; `None` if nothing did.
    pub answer: Option<Answer>,
    /// Whether somebody listens on it.
    pub listening: bool,
    /// Whether somebody listens on it on an address of loopback, which nobody outside reaches.
    pub local: bool,
    /// Milliseconds from starting QEMU to the answer.
    pub after_ms: u64,
}

impl Probed {
    fn new(port: u16, address: Option<SocketAddr>) -> Probed {
        Probed { port, address, answer: None, listening: false, local: false, after_ms: 0 }
    }
}

/// What a trial has shown.
#[derive(Debug)]
pub struct Trial {
    /// Milliseconds from starting QEMU to the main process.
    pub started_ms: Option<u64>,
    /// TCP ports, those that are exposed first; see [`Trial::exposed`].
    pub ports: Vec<Probed>,
    /// The last word of the health check.
    pub health: Option<Health>,
    /// How the program ended, if it did of itself.
    pub ended: Option<Outcome>,
    /// Whether it had to be stopped, and how long it had run.
    pub ran: Duration,
    /// The user's command: whether it succeeded.
    pub command: Option<bool>,
    /// What was used, if that was asked for.
    pub trace: Trace,
    /// The end of what the console showed.
    pub console: String,
    /// What went wrong; `None` if all is well.
    pub failure: Option<String>,
    /// Whether that is that patience ended: more of it may help.
    pub overdue: bool,
}

/// What is waited for at a moment of a trial, for people who watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Time since QEMU was started.
    pub after: Duration,
    /// When the trial will be given up.
    pub patience: Duration,
    /// What has not come yet.
    pub what: String,
    /// The last line of the console, without control characters.
    pub line: String,
}

impl Trial {
    /// The ports that the image or the user exposes, which are the ones that are asked.
    pub fn exposed(&self) -> impl Iterator<Item = &Probed> {
        self.ports.iter().filter(|probed| probed.address.is_some())
    }

    /// What answered, a line for each.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for probed in self.exposed() {
            let seconds = probed.after_ms as f64 / 1000.0;
            lines.push(match &probed.answer {
                Some(answer) => {
                    format!("port {}/tcp answered after {seconds:.1} s: {answer}", probed.port)
                }
                None if probed.listening => format!("port {}/tcp did not answer", probed.port),
                None if probed.local => format!(
                    "port {}/tcp is listened on inside the VM alone (127.0.0.1 or ::1)",
                    probed.port
                ),
                None => format!("port {}/tcp: nobody listens on it", probed.port),
            });
        }
        if let Some(health) = self.health {
            lines.push(format!("health check: {health}"));
        }
        match (self.ended, &self.failure) {
            (Some(Outcome::Exited(code)), None) => {
                lines.push(format!("the program ran to its end and exited with {code}"));
            }
            (None, None) if self.exposed().next().is_none() && self.health.is_none() => {
                let seconds = self.ran.as_secs_f32();
                lines.push(format!("the program was still running after {seconds:.0} s"));
            }
            _ => {}
        }
        if let Some(good) = self.command {
            lines.push(format!("the probe {}", if good { "succeeded" } else { "failed" }));
        }
        lines
    }
}

/// What the threads tell.
enum Event {
    Notice(Notice),
    Answered(u16, Answer),
    Ended(Result<Outcome, vmm::Error>),
}

/// Boots, asks, and stops. `watch` is told every second what is waited for.
///
/// # Errors
/// If no machine could be started. What the image does wrong is in [`Trial::failure`].
pub fn run(
    subject: &Subject,
    settings: &Settings,
    watch: &dyn Fn(&Waiting),
) -> Result<Trial, Error> {
    let record = &subject.record;
    let publish: Vec<Publish> = record
        .ports
        .iter()
        .filter(|port| port.proto == Proto::Tcp)
        .map(|guest| Publish { ip: Ipv4Addr::LOCALHOST.into(), host: None, guest: guest.clone() })
        .collect();
    let forwards = ports::assign(&publish)?;
    let grace = Duration::from_secs(record.stop_grace_secs.min(10).into());
    let mut kernel_args = Vec::new();
    if settings.witness && !matches!(subject.boot, Boot::Disk { .. }) {
        kernel_args.push("d2u.witness".to_owned());
    }
    let config = Config {
        qemu: settings.qemu.clone(),
        machine: Machine::Q35,
        accel: settings.accel,
        memory_mib: settings.memory_mib,
        cpus: settings.cpus,
        boot: subject.boot.clone(),
        volumes: Vec::new(),
        shares: Vec::new(),
        net: record.net.clone(),
        forwards: forwards.clone(),
        attachment: Attachment::User,
        confined: settings.confined,
        kernel_args,
        interactive: false,
        tty: false,
        grace,
        launcher: settings.launcher.clone(),
    };
    let tail = Tail::default();
    let (stop, stops) = mpsc::channel();
    let (sender, events) = mpsc::channel();
    let hooks =
        Hooks { console: Some(Box::new(tail.clone())), stop: Some(stops), ..Hooks::default() };
    let begun = Instant::now();
    let vm = {
        let sender = sender.clone();
        thread::spawn(move || {
            let mut notice = |notice| drop(sender.send(Event::Notice(notice)));
            let outcome = run_with(&config, hooks, &mut notice);
            let _ = sender.send(Event::Ended(outcome));
        })
    };
    let ports = publish.iter().zip(&forwards).map(|(publish, forward)| {
        Probed::new(publish.guest.port, Some((forward.ip, forward.host).into()))
    });
    let mut course = Course {
        settings,
        watch,
        begun,
        latest: begun,
        events,
        sender,
        tail: tail.clone(),
        expects_health: record.healthcheck.is_some(),
        silent: false,
        trial: Trial {
            started_ms: None,
            ports: ports.collect(),
            health: None,
            ended: None,
            ran: Duration::ZERO,
            command: None,
            trace: Trace::default(),
            console: String::new(),
            failure: None,
            overdue: false,
        },
        failed: None,
    };
    course.wait();
    if course.failed.is_none() && course.trial.failure.is_none() && !settings.command.is_empty() {
        course.probe_by_command()?;
    }
    course.finish(&stop);
    drop(stop);
    let _ = vm.join();
    if let Some(error) = course.failed {
        return Err(error.into());
    }
    let mut trial = course.trial;
    trial.console = tail.text();
    Ok(trial)
}

struct Course<'a> {
    settings: &'a Settings,
    watch: &'a dyn Fn(&Waiting),
    begun: Instant,
    /// When a port or the health check was last heard of.
    latest: Instant,
    events: mpsc::Receiver<Event>,
    sender: mpsc::Sender<Event>,
    tail: Tail,
    expects_health: bool,
    /// Whether the VM has ended.
    silent: bool,
    trial: Trial,
    failed: Option<vmm::Error>,
}

impl Course<'_> {
    /// Until all has answered, something has failed, or patience ends.
    fn wait(&mut self) {
        let deadline = self.begun + self.settings.patience;
        let mut settled: Option<Instant> = None;
        let asked = self.asked();
        let told = !self.settings.wanted.is_empty() || self.expects_health;
        let mut tick = self.begun + TICK;
        loop {
            if self.silent || self.trial.failure.is_some() {
                return;
            }
            if asked && self.all_answered() {
                return;
            }
            // What must answer has answered: others have a moment for it.
            let enough = self.works().then(|| {
                let others = self.latest.saturating_duration_since(self.begun).max(OTHERS);
                self.latest + if told { self.settings.settle } else { others }
            });
            let until = match if asked { enough } else { settled } {
                Some(at) => at.min(deadline),
                None => deadline,
            };
            let now = Instant::now();
            if now >= tick {
                (self.watch)(&self.waiting(deadline));
                tick = now + TICK;
            }
            match self.events.recv_timeout(until.min(tick).saturating_duration_since(now)) {
                Ok(event) => {
                    self.event(event);
                    if self.trial.started_ms.is_some() {
                        settled.get_or_insert(Instant::now() + self.settings.settle);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) if tick < until => {}
                Err(RecvTimeoutError::Timeout) if !asked && settled.is_some() => return,
                Err(RecvTimeoutError::Timeout) if asked && self.works() => return,
                Err(RecvTimeoutError::Timeout) => {
                    let seconds = self.settings.patience.as_secs();
                    let missing = self.what_is_missing();
                    let listeners = self.who_listens();
                    self.trial.failure = Some(format!("{missing} within {seconds} s{listeners}"));
                    self.trial.overdue = true;
                    return;
                }
            }
        }
    }

    /// Whether there is anything to ask.
    fn asked(&self) -> bool {
        self.expects_health || self.trial.exposed().next().is_some()
    }

    fn all_answered(&self) -> bool {
        self.healthy() && self.trial.exposed().all(|port| port.answer.is_some())
    }

    /// Whether all that must answer has, and, if nothing must, something has spoken.
    fn works(&self) -> bool {
        let wanted = &self.settings.wanted;
        let mut wanted = self.trial.exposed().filter(|port| wanted.contains(&port.port)).peekable();
        let told = self.expects_health || wanted.peek().is_some();
        let spoke = |port: &Probed| !matches!(port.answer, None | Some(Answer::Closes));
        self.healthy()
            && wanted.all(|port| port.answer.is_some())
            && (told || self.trial.exposed().any(spoke))
    }

    fn healthy(&self) -> bool {
        !self.expects_health || self.trial.health == Some(Health::Healthy)
    }

    /// What has not happened yet.
    fn what_is_missing(&self) -> String {
        if self.trial.started_ms.is_none() {
            return "the program did not start".to_owned();
        }
        if !self.healthy() {
            return "the health check did not pass".to_owned();
        }
        let wanted = &self.settings.wanted;
        let silent: Vec<String> = self
            .trial
            .exposed()
            .filter(|port| port.answer.is_none())
            .filter(|port| wanted.is_empty() || wanted.contains(&port.port))
            .map(|port| format!("{}/tcp", port.port))
            .collect();
        format!("port {} did not answer", silent.join(", "))
    }

    /// Which ports are listened on, if that may say why the others don't answer.
    fn who_listens(&self) -> String {
        if self.trial.started_ms.is_none() || !self.healthy() {
            return String::new();
        }
        let list = |listens: fn(&Probed) -> bool| {
            let ports = self.trial.ports.iter().filter(|probed| listens(probed));
            let mut ports: Vec<u16> = ports.map(|probed| probed.port).collect();
            ports.sort_unstable();
            ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
        };
        let (outside, inside) = (list(|probed| probed.listening), list(|probed| probed.local));
        let mut text = String::new();
        if !outside.is_empty() {
            text.push_str(&format!("; what is listened on: {outside}"));
        }
        if !inside.is_empty() {
            text.push_str(&format!("; listened on inside alone (127.0.0.1, ::1): {inside}"));
        }
        if text.is_empty() {
            text.push_str("; nothing listens on any port");
        }
        text
    }

    fn waiting(&self, deadline: Instant) -> Waiting {
        let console = self.tail.text();
        let line = console.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let what = match &self.trial {
            trial if trial.started_ms.is_none() => "the program's start".to_owned(),
            _ if !self.asked() => "the program to end, or to keep running".to_owned(),
            _ if !self.healthy() => "the health check".to_owned(),
            trial => {
                let silent = trial.exposed().filter(|port| port.answer.is_none());
                let silent: Vec<_> = silent.map(|port| format!("{}/tcp", port.port)).collect();
                format!("port {}", silent.join(", "))
            }
        };
        Waiting {
            after: self.begun.elapsed(),
            patience: deadline - self.begun,
            what,
            line: line.trim().chars().filter(|c| !c.is_control()).collect(),
        }
    }

    /// What is known of a port, exposed or not.
    fn port(&mut self, port: u16) -> &mut Probed {
        let ports = &mut self.trial.ports;
        let at = ports.iter().position(|probed| probed.port == port).unwrap_or_else(|| {
            ports.push(Probed::new(port, None));
            ports.len() - 1
        });
        &mut ports[at]
    }

    fn event(&mut self, event: Event) {
        let after = self.begun.elapsed();
        // What listens beside the exposed ports, for a moment or again and again, is no news.
        let news = match &event {
            Event::Answered(..) | Event::Notice(Notice::Health(_)) => true,
            Event::Notice(Notice::Listens(port)) => {
                self.trial.exposed().any(|probed| probed.port == *port && !probed.listening)
            }
            _ => false,
        };
        if news {
            self.latest = Instant::now();
        }
        match event {
            Event::Notice(Notice::Started { after }) => {
                self.trial.started_ms = Some(after.as_millis() as u64);
            }
            Event::Notice(Notice::Health(health)) => {
                self.trial.health = Some(health);
                if health == Health::Unhealthy {
                    self.trial.failure = Some("the health check fails".into());
                }
            }
            Event::Notice(Notice::Listens(port)) => {
                self.port(port).listening = true;
                self.ask(port);
            }
            Event::Notice(Notice::ListensLocally(port)) => self.port(port).local = true,
            Event::Notice(Notice::Used(how, path)) => self.trial.trace.used(how, path),
            Event::Notice(Notice::Called(number)) => self.trial.trace.called(number),
            Event::Notice(_) => {}
            Event::Answered(port, answer) => {
                let probed = self.port(port);
                probed.answer = Some(answer);
                probed.after_ms = after.as_millis() as u64;
                self.trial.trace.answered.insert(port);
            }
            Event::Ended(outcome) => {
                self.silent = true;
                self.ended(outcome);
            }
        }
    }

    fn ended(&mut self, outcome: Result<Outcome, vmm::Error>) {
        match outcome {
            Ok(outcome) => {
                self.trial.ended = Some(outcome);
                let asked = self.asked();
                let what = match outcome {
                    Outcome::Exited(code) => format!("exited with {code}"),
                    Outcome::Killed(signal) => format!("was killed by signal {signal}"),
                };
                if asked && !self.all_answered() {
                    self.trial.failure = Some(format!("the program {what} before it answered"));
                } else if !asked && outcome != Outcome::Exited(0) {
                    self.trial.failure = Some(format!("the program {what}"));
                }
            }
            Err(error @ (vmm::Error::Failed(_) | vmm::Error::Panic(_) | vmm::Error::Silent)) => {
                self.trial.failure = Some(error.to_string());
            }
            Err(error) => self.failed = Some(error),
        }
    }

    /// Asks a port that is listened on, on a thread of its own.
    fn ask(&mut self, guest: u16) {
        let &mut Probed { address: Some(address), answer: None, .. } = self.port(guest) else {
            return;
        };
        let sender = self.sender.clone();
        let deadline = self.begun + self.settings.patience;
        thread::spawn(move || {
            if let Some(answer) = probe::ask(address, guest, deadline) {
                let _ = sender.send(Event::Answered(guest, answer));
            }
        });
    }

    fn probe_by_command(&mut self) -> Result<(), Error> {
        let Some((program, args)) = self.settings.command.split_first() else { return Ok(()) };
        let mut command = Command::new(program);
        command.args(args).env("DOCK2UNI_HOST", "127.0.0.1").stdin(Stdio::null());
        let ports = self.trial.exposed().filter_map(|port| Some((port.port, port.address?.port())));
        for (at, (guest, host)) in ports.enumerate() {
            command.env(format!("DOCK2UNI_PORT_{guest}"), host.to_string());
            if at == 0 {
                command.env("DOCK2UNI_PORT", host.to_string());
            }
        }
        let failed = |source| Error::Command { command: program.clone(), source };
        let status = command.status().map_err(failed)?;
        self.trial.command = Some(status.success());
        if !status.success() {
            self.trial.failure = Some(format!("the probe `{program}` failed ({status})"));
        }
        Ok(())
    }

    /// Lets the program come to rest, stops it, and takes in what is still told.
    fn finish(&mut self, stop: &mpsc::Sender<()>) {
        if self.settings.witness && self.trial.failure.is_none() {
            self.take_in(Instant::now() + self.settings.settle.min(Duration::from_secs(2)));
        }
        self.trial.ran = self.begun.elapsed();
        if self.silent {
            return;
        }
        let (ended, failure) = (self.trial.ended, self.trial.failure.clone());
        let _ = stop.send(());
        self.take_in(Instant::now() + Duration::from_secs(30));
        if !self.silent {
            let _ = stop.send(());
            self.take_in(Instant::now() + Duration::from_secs(10));
        }
        // How it ends when it is told to is not what the trial is about.
        (self.trial.ended, self.trial.failure) = (ended, failure);
        self.failed = None;
    }

    fn take_in(&mut self, until: Instant) {
        while !self.silent {
            match self.events.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(event) => self.event(event),
                Err(_) => return,
            }
        }
    }
}

/// The end of a stream.
#[derive(Clone, Default)]
struct Tail(Arc<Mutex<Vec<u8>>>);

impl Tail {
    fn text(&self) -> String {
        let bytes = self.0.lock().map(|bytes| bytes.clone()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for Tail {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Ok(mut kept) = self.0.lock() {
            kept.extend_from_slice(bytes);
            let more = kept.len().saturating_sub(TAIL);
            kept.drain(..more);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

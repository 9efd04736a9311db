//! The process that a fleet runs in.
//!
//! A thread for each instance takes it through its life: it waits for what the instance needs, boots
//! its VM, stays with it, and starts it again as its policy says. All of them meet at a [`Board`],
//! which says how everyone stands; one more thread stops instances, those that others need last.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use dock2uni_format::record::{Record, trailer};
use dock2uni_format::status::Health as Checked;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::net::gateway::{self, Published};
use super::net::switch::{End, Switch};
use super::net::translate::Translator;
use super::net::{dns::Zone, mac};
use super::state::{Dir, Health, Phase, Snapshot, Status};
use super::{Error, Instance, Need, Spec, logs};
use crate::erofs::verity;
use crate::fleet::{Condition, Restart};
use crate::vmm::run::{self, Hooks, Notice, Outcome};
use crate::vmm::{Attachment, Boot, Config, Drive};
use crate::volume::{self, Volumes};
use crate::{causes, guest};

/// Wait before the first start after an end; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// Longest such wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Who has run for so long starts again with the shortest wait.
const GOOD_RUN: Duration = Duration::from_secs(10);
/// Longest request.
const MAX_REQUEST: u64 = 64;
/// What a supervisor says on its standard output when it can be spoken to.
const READY: &str = "ready";

/// Starts the supervisor of a fleet as a process of its own, and returns when it can be spoken to.
/// `program` is a command that calls [`main`] when it is given the directory.
///
/// # Errors
/// If there is one already, or it ends at once.
pub fn start(dir: &Dir, spec: &Spec, program: &[PathBuf]) -> Result<(), Error> {
    dir.create()?;
    if dir.is_running()? {
        return Err(Error::Running(spec.project.clone()));
    }
    dir.write_spec(spec)?;
    let path = dir.path().join("supervisor.log");
    let log = File::create(&path).map_err(Error::io("write", &path))?;
    let mut words = program.iter();
    let program = words.next().cloned().unwrap_or_default();
    let mut child = Command::new(&program)
        .args(words)
        .arg(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        // Ctrl-C is for whoever watches.
        .process_group(0)
        .spawn()
        .map_err(Error::io("start", &program))?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out).read_line(&mut line).map_err(Error::io("read from", &program))?;
    }
    if line.trim_end() == READY {
        return Ok(());
    }
    // Its last words are in its log.
    let _ = child.wait();
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    Err(Error::Supervisor(text.trim().trim_start_matches("error: ").to_owned()))
}

/// Runs the fleet whose directory this is, until all of it has ended.
///
/// # Errors
/// If it cannot be begun.
pub fn main(path: &Path) -> Result<(), Error> {
    let dir = Dir::at(path);
    let spec = dir.spec()?;
    let mut lock = None;
    // Somebody who looks whether the fleet is running has it for a moment.
    for _ in 0..50 {
        lock = dir.lock()?;
        if lock.is_some() {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let Some(_lock) = lock else { return Err(Error::Running(spec.project)) };
    let kernel = dir.path().join("boot/kernel.elf");
    let elf = guest::kernel().map_err(|error| Error::Supervisor(error.to_string()))?;
    std::fs::write(&kernel, elf).map_err(Error::io("write", &kernel))?;
    let fleet = Arc::new(Fleet {
        switch: Switch::new(Zone::new(spec.names.clone()), Translator::new(spec.virtuals.clone())),
        board: Board::new(&spec),
        gateway: Mutex::new(None),
        kernel,
        dir,
        spec,
    });
    fleet.dir.write_state(&fleet.board.lock().snapshot)?;
    let listener = fleet.dir.listen()?;
    listen(&fleet, listener);
    signals(&fleet)?;
    route(&fleet);
    println!("{READY}");

    thread::scope(|scope| {
        for index in 0..fleet.spec.instances.len() {
            let fleet = &fleet;
            scope.spawn(move || fleet.life(index));
        }
        scope.spawn(|| fleet.stop_in_order());
    });
    let snapshot = fleet.board.lock().snapshot.clone();
    fleet.dir.write_state(&snapshot)?;
    fleet.end_gateway();
    for name in ["boot", "secrets"] {
        // The next start makes them anew.
        let _ = std::fs::remove_dir_all(fleet.dir.path().join(name));
    }
    Ok(())
}

/// What was ordered from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    Run,
    Stop,
    Kill,
}

/// How everyone stands.
struct Board {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    snapshot: Snapshot,
    version: u64,
    ordered: Order,
    /// Presses the power button of a running VM.
    buttons: Vec<Option<Sender<()>>>,
    /// Instances with work left for their threads.
    alive: usize,
}

impl Board {
    fn new(spec: &Spec) -> Board {
        let status = |instance: &Instance| Status {
            name: instance.name.clone(),
            service: instance.service.clone(),
            phase: Phase::Waiting,
            health: None,
            exit: None,
            reason: None,
            restarts: 0,
            since: logs::millis(),
            address: instance.address,
            ports: ports(instance.address, &spec.published),
        };
        let instances: Vec<Status> = spec.instances.iter().map(status).collect();
        let project = spec.project.clone();
        let state = State {
            version: 0,
            ordered: Order::Run,
            buttons: vec![None; instances.len()],
            alive: instances.len(),
            snapshot: Snapshot { project, instances, stopping: false },
        };
        Board { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    fn change(&self, body: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        body(&mut state);
        state.version += 1;
        self.changed.notify_all();
    }

    /// Changes one instance.
    fn set(&self, index: usize, body: impl FnOnce(&mut Status)) {
        self.change(|state| {
            let status = &mut state.snapshot.instances[index];
            let before = status.phase;
            body(status);
            if status.phase != before {
                status.since = logs::millis();
            }
        });
    }

    /// Waits until `done` finds something in the state, or until a deadline.
    fn wait<T>(
        &self,
        deadline: Option<Instant>,
        mut done: impl FnMut(&mut State) -> Option<T>,
    ) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some(found) = done(&mut state) {
                return Some(found);
            }
            state = match deadline {
                None => self.changed.wait(state).unwrap_or_else(|p| p.into_inner()),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    let waited = self.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(|poison| poison.into_inner()).0
                }
            };
        }
    }

    fn order(&self, command: Order) {
        self.change(|state| {
            state.ordered = state.ordered.max(command);
            state.snapshot.stopping = true;
        });
    }
}

fn ports(address: Option<Ipv4Addr>, published: &[Published]) -> Vec<String> {
    let ours = published.iter().filter(|port| Some(port.to) == address);
    ours.map(|Published { forward, .. }| {
        let proto = if forward.udp { "udp" } else { "tcp" };
        format!("{}:{}->{}/{proto}", forward.ip, forward.host, forward.guest)
    })
    .collect()
}

struct Fleet {
    dir: Dir,
    spec: Spec,
    switch: Switch,
    board: Board,
    kernel: PathBuf,
    /// The gateway's process, while it is certain to be that.
    gateway: Mutex<Option<Pid>>,
}

/// What a need has come to.
enum Met {
    Yes,
    NotYet,
    /// It can't be met any more.
    Never(String),
}

fn met(need: &Need, instances: &[Status]) -> Met {
    let name = &need.service;
    for status in instances.iter().filter(|status| status.service == *name) {
        let phase = status.phase;
        let met = match need.condition {
            Condition::Started => {
                matches!(phase, Phase::Running | Phase::Restarting | Phase::Exited)
            }
            Condition::Healthy => phase == Phase::Running && status.health == Some(Health::Healthy),
            Condition::Completed => phase == Phase::Exited && status.exit == Some(0),
        };
        if met {
            continue;
        }
        if need.condition == Condition::Healthy && status.health == Some(Health::Unhealthy) {
            return Met::Never(format!("`{}` is unhealthy", status.name));
        }
        if phase.is_final() {
            let how = match (phase, status.exit) {
                (Phase::Exited, Some(code)) => format!("has ended with status {code}"),
                (Phase::Stopped, _) => "was stopped".to_owned(),
                _ => "has failed".to_owned(),
            };
            return Met::Never(format!("`{}` {how}", status.name));
        }
        return Met::NotYet;
    }
    Met::Yes
}

impl Fleet {
    /// The life of one instance, from its first wait to its last end.
    fn life(&self, index: usize) {
        let instance = &self.spec.instances[index];
        let mut wait = FIRST_WAIT;
        if self.wait_for_needs(index, instance) {
            loop {
                let started = Instant::now();
                let ended = self.boot(index, instance);
                if started.elapsed() >= GOOD_RUN {
                    wait = FIRST_WAIT;
                }
                if !self.ended(index, instance, &ended) {
                    break;
                }
                let stopped = self.board.wait(Some(Instant::now() + wait), |state| {
                    (state.ordered != Order::Run).then_some(())
                });
                wait = (wait * 2).min(LONGEST_WAIT);
                if stopped.is_some() {
                    self.board.set(index, |status| status.phase = Phase::Stopped);
                    break;
                }
                self.board.set(index, |status| status.restarts += 1);
            }
        }
        self.board.change(|state| state.alive -= 1);
    }

    /// Returns whether the instance is to be started.
    fn wait_for_needs(&self, index: usize, instance: &Instance) -> bool {
        let verdict = self.board.wait(None, |state| {
            if state.ordered != Order::Run {
                return Some(Err((Phase::Stopped, None)));
            }
            for need in &instance.needs {
                match met(need, &state.snapshot.instances) {
                    Met::Yes => {}
                    Met::NotYet => return None,
                    Met::Never(_) if !need.required => {}
                    Met::Never(why) => return Some(Err((Phase::Failed, Some(why)))),
                }
            }
            Some(Ok(()))
        });
        match verdict {
            Some(Err((phase, reason))) => {
                self.board.set(index, |status| {
                    (status.phase, status.reason) = (phase, reason);
                });
                false
            }
            _ => true,
        }
    }

    /// Boots its VM and stays with it to its end.
    fn boot(&self, index: usize, instance: &Instance) -> Result<Outcome, String> {
        self.board.set(index, |status| {
            status.phase = Phase::Starting;
            (status.health, status.reason) = (None, None);
        });
        let mut record = instance.record.clone();
        let mounted =
            volume::mount(&Volumes::open_default, &instance.mounts, &instance.tmpfs, &mut record)
                .map_err(|error| causes::line(&error))?;
        let config = self.config(instance, &record, &mounted)?;
        let io = |error: std::io::Error| error.to_string();
        let link = match instance.address {
            Some(address) => {
                let end = End::Machine(mac(address));
                Some(self.switch.attach(end, instance.networks).map_err(io)?.into())
            }
            None => None,
        };
        let console = logs::Writer::open(&self.dir.logs(), &instance.name).map_err(io)?;
        let (button, stop) = mpsc::channel();
        self.board.change(|state| state.buttons[index] = Some(button));
        let hooks =
            Hooks { console: Some(Box::new(console)), stop: Some(stop), link, unattended: true };
        let checked = record.healthcheck.is_some();
        let outcome = run::run_with(&config, hooks, &mut |notice| match notice {
            Notice::Started { .. } => self.board.set(index, |status| {
                status.phase = Phase::Running;
                status.health = checked.then_some(Health::Starting);
            }),
            Notice::Health(health) => self.board.set(index, |status| {
                status.health = Some(match health {
                    Checked::Starting => Health::Starting,
                    Checked::Healthy => Health::Healthy,
                    Checked::Unhealthy => Health::Unhealthy,
                });
            }),
            Notice::CheckFailed(why) => self.board.set(index, |status| {
                status.reason = Some(format!("health check: {why}"));
            }),
            _ => {}
        });
        self.board.change(|state| state.buttons[index] = None);
        // Volumes are the next one's from here on.
        drop(mounted);
        outcome.map_err(|error| causes::line(&error))
    }

    fn config(
        &self,
        instance: &Instance,
        record: &Record,
        mounted: &volume::Mounted,
    ) -> Result<Config, String> {
        let module = self.dir.path().join(format!("boot/{}.module", instance.name));
        let root = File::open(&instance.root).and_then(|root| {
            let len = root.metadata()?.len();
            verity::find(&root, 0, len)
        });
        let verity = root.map_err(|error| format!("{}: {error}", instance.root.display()))?;
        std::fs::write(&module, trailer(record, 0, verity)).map_err(|error| error.to_string())?;
        let disk = Drive { file: instance.root.clone(), format: "raw", cd: false };
        Ok(Config {
            qemu: self.spec.qemu.clone(),
            machine: self.spec.machine,
            accel: self.spec.accel,
            memory_mib: instance.memory_mib,
            cpus: instance.cpus,
            boot: Boot::Direct { kernel: self.kernel.clone(), module, disk },
            volumes: mounted.volumes.clone(),
            shares: mounted.shares.clone(),
            net: record.net.clone(),
            forwards: Vec::new(),
            attachment: instance
                .address
                .map_or(Attachment::User, |address| Attachment::Link(mac(address))),
            confined: false,
            kernel_args: Vec::new(),
            interactive: false,
            tty: false,
            grace: Duration::from_secs(record.stop_grace_secs.into()),
            launcher: self.spec.launcher.clone(),
        })
    }

    /// Notes an end; returns whether it is to be started again.
    fn ended(&self, index: usize, instance: &Instance, ended: &Result<Outcome, String>) -> bool {
        let mut again = false;
        self.board.change(|state| {
            let stopping = state.ordered != Order::Run;
            let status = &mut state.snapshot.instances[index];
            status.exit = ended.as_ref().ok().map(|outcome| outcome.code());
            let good = status.exit == Some(0);
            let left = instance.restart_limit.is_none_or(|limit| status.restarts < limit);
            again = !stopping
                && match instance.restart {
                    Restart::No => false,
                    Restart::OnFailure => !good && left,
                    Restart::Always => true,
                };
            status.phase = match (stopping, again, ended) {
                (true, _, _) => Phase::Stopped,
                (_, true, _) => Phase::Restarting,
                (_, _, Ok(_)) => Phase::Exited,
                (_, _, Err(_)) => Phase::Failed,
            };
            status.health = None;
            status.reason = ended.as_ref().err().cloned();
            status.since = logs::millis();
        });
        again
    }

    /// Stops instances when that is ordered: each after those that need it.
    fn stop_in_order(&self) {
        let all = &self.spec.instances;
        let mut pressed = vec![0u8; all.len()];
        self.board.wait(None, |state| {
            if state.alive == 0 {
                return Some(());
            }
            if state.ordered == Order::Run {
                return None;
            }
            let kill = state.ordered == Order::Kill;
            for (index, instance) in all.iter().enumerate() {
                let needed = all.iter().zip(&state.snapshot.instances).any(|(other, status)| {
                    !status.phase.is_final()
                        && other.needs.iter().any(|need| need.service == instance.service)
                });
                let wanted = if kill { 2 } else { u8::from(!needed) };
                // The second press of a button ends the VM at once.
                while let Some(button) = &state.buttons[index]
                    && pressed[index] < wanted
                {
                    // It has ended if nobody listens.
                    let _ = button.send(());
                    pressed[index] += 1;
                }
            }
            None
        });
    }

    fn end_gateway(&self) {
        let pid = self.gateway.lock().unwrap_or_else(|poison| poison.into_inner());
        if let Some(pid) = *pid {
            // It is our child, and not yet waited for.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// Keeps the gateway running for as long as this process lives. It belongs to the thread that starts
/// it: with that it ends.
fn route(fleet: &Arc<Fleet>) {
    let fleet = fleet.clone();
    let (started, wait) = mpsc::channel();
    thread::spawn(move || {
        let Spec { qemu, published, launcher, outside, .. } = &fleet.spec;
        loop {
            let socket = fleet.switch.attach(End::Gateway, *outside);
            let child =
                socket.and_then(|socket| gateway::start(launcher, qemu, published, socket.into()));
            match child {
                Ok(mut child) => {
                    let pid = Pid::from_child(&child);
                    let set = |pid| {
                        *fleet.gateway.lock().unwrap_or_else(|poison| poison.into_inner()) = pid;
                    };
                    set(Some(pid));
                    let _ = started.send(());
                    let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
                    // Waited for twice: its number is its own until the second time.
                    let _ = rustix::process::waitid(WaitId::Pid(pid), ended);
                    set(None);
                    if let Ok(status) = child.wait() {
                        eprintln!("the network's gateway has ended: {status}");
                    }
                }
                Err(error) => eprintln!("the network's gateway cannot be started: {error}"),
            }
            let _ = started.send(());
            thread::sleep(Duration::from_secs(1));
        }
    });
    // Ports are listened on from about now.
    let _ = wait.recv();
}

/// A first SIGTERM or SIGINT stops the fleet, a second one ends it.
fn signals(fleet: &Arc<Fleet>) -> Result<(), Error> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(Error::io("handle signals for", fleet.dir.path()))?;
    let fleet = fleet.clone();
    thread::spawn(move || {
        let mut count = 0;
        for signal in signals.forever() {
            // The terminal that it was started from may go.
            if signal != SIGHUP {
                count += 1;
                fleet.board.order(if count > 1 { Order::Kill } else { Order::Stop });
            }
        }
    });
    Ok(())
}

/// Serves the control socket.
fn listen(fleet: &Arc<Fleet>, listener: UnixListener) {
    let fleet = fleet.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let fleet = fleet.clone();
            thread::spawn(move || {
                // Whoever asked may go at any time.
                let _ = serve(&fleet, stream);
            });
        }
    });
}

fn serve(fleet: &Fleet, mut stream: UnixStream) -> std::io::Result<()> {
    let mut request = String::new();
    BufReader::new((&stream).take(MAX_REQUEST)).read_line(&mut request)?;
    match request.trim_end() {
        "watch" => {}
        "stop" => fleet.board.order(Order::Stop),
        "kill" => fleet.board.order(Order::Kill),
        _ => return Ok(()),
    }
    let mut seen = None;
    loop {
        let found = fleet.board.wait(None, |state| {
            (seen != Some(state.version)).then(|| (state.version, state.snapshot.clone()))
        });
        let Some((version, snapshot)) = found else { return Ok(()) };
        seen = Some(version);
        let mut line = serde_json::to_vec(&snapshot)?;
        line.push(b'\n');
        stream.write_all(&line)?;
    }
}

/// What the states of all instances come to, for those who wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Something is still on its way.
    Underway,
    /// Everything runs, or has ended as it should.
    Up,
    /// These have failed, and why.
    Failed(Vec<(String, String)>),
}

/// How a fleet stands. With `healthy`, those with a health check must have passed it.
pub fn standing(snapshot: &Snapshot, healthy: bool) -> Standing {
    let mut failed = Vec::new();
    let mut underway = false;
    for status in &snapshot.instances {
        let reason = || status.reason.clone().unwrap_or_default();
        match status.phase {
            Phase::Failed => failed.push((status.name.clone(), reason())),
            Phase::Exited if status.exit != Some(0) => {
                let code = status.exit.unwrap_or_default();
                failed.push((status.name.clone(), format!("it has ended with status {code}")));
            }
            Phase::Running => match status.health {
                Some(Health::Unhealthy) if healthy => failed.push((status.name.clone(), reason())),
                Some(Health::Starting) if healthy => underway = true,
                _ => {}
            },
            Phase::Exited | Phase::Stopped => {}
            Phase::Waiting | Phase::Starting | Phase::Restarting => underway = true,
        }
    }
    match (failed.is_empty(), underway) {
        (false, _) => Standing::Failed(failed),
        (true, true) => Standing::Underway,
        (true, false) => Standing::Up,
    }
}

//! Runs one VM from start to end.
//!
//! One thread for each direction that can block (console out, console in, status, QEMU's errors,
//! signals) sends what it sees to the caller's thread, which alone decides.
//!
//! QEMU gets a process group of its own, so that Ctrl-C reaches this process only and becomes the
//! power button.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use dock2uni_format::control::Control;
use dock2uni_format::status::{Health, Status, Use, unescape};
use dock2uni_format::syscalls::Set;
use rustix::io::FdFlags;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use signal_hook::iterator::Signals;

use super::arguments::{self, Channels};
use super::{Config, Error, terminal};

/// Beyond the application's own grace period: the kernel's time to power off, and QEMU's to end.
const SLACK: Duration = Duration::from_secs(5);
/// A panicked kernel may not be able to power off; its console gets this long.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Longest status line that is looked at, in bytes.
const MAX_LINE: u64 = 16 << 10;

/// How the application ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It exited with this status.
    Exited(u8),
    /// It was killed by this signal.
    Killed(u8),
}

impl Outcome {
    /// The status that a shell would report.
    pub fn code(self) -> u8 {
        match self {
            Outcome::Exited(code) => code,
            Outcome::Killed(signal) => 128u8.saturating_add(signal),
        }
    }
}

/// What an observer learns while the VM runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The main process runs.
    Started {
        /// Time from starting QEMU.
        after: Duration,
    },
    /// The health check changed its mind.
    Health(Health),
    /// A health check failed: why, and the start of what it printed.
    CheckFailed(String),
    /// The system calls that were made, where they are recorded.
    Syscalls(Set),
    /// The stop signal is on its way.
    Stopping,
    /// Somebody in the guest listens on a TCP port.
    Listens(u16),
    /// Somebody in the guest listens on a TCP port of loopback alone.
    ListensLocally(u16),
    /// A file was used; told on `d2u.witness`.
    Used(Use, Vec<u8>),
    /// The system call of this number was made; told on `d2u.witness`.
    Called(u32),
}

/// How a caller takes part while the VM runs.
#[derive(Default)]
pub struct Hooks {
    /// Takes what the console shows, in place of standard output.
    pub console: Option<Box<dyn Write + Send>>,
    /// A message presses the power button; a second one ends the VM at once.
    pub stop: Option<Receiver<()>>,
    /// A stream socket for Ethernet frames, where [`Attachment::Link`](super::Attachment::Link) asks for one.
    pub link: Option<OwnedFd>,
    /// Signals of this process are the caller's.
    pub unattended: bool,
}

enum Event {
    Status(String),
    Resized,
    InputEnd(u64),
    StatusClosed,
    Stop,
    Console,
    Errors(String),
    Exited(io::Result<ExitStatus>),
}

/// Starts the VM and stays until it has ended.
///
/// # Errors
/// If QEMU cannot be started, or the machine ends without the application having ended.
pub fn run(config: &Config, notice: &mut dyn FnMut(Notice)) -> Result<Outcome, Error> {
    run_with(config, Hooks::default(), notice)
}

/// As [`run`], for callers that watch the console themselves and decide when it ends.
///
/// # Errors
/// As [`run`].
pub fn run_with(
    config: &Config,
    mut hooks: Hooks,
    notice: &mut dyn FnMut(Notice),
) -> Result<Outcome, Error> {
    config.check()?;
    let (monitor, far_monitor) = UnixStream::pair().map_err(Error::io("making a socket"))?;
    let (status, far_status) = UnixStream::pair().map_err(Error::io("making a socket"))?;
    let passed: Vec<OwnedFd> =
        [far_monitor.into(), far_status.into()].into_iter().chain(hooks.link.take()).collect();
    let channels = Channels {
        monitor: passed[0].as_raw_fd(),
        status: passed[1].as_raw_fd(),
        link: passed.get(2).map(AsRawFd::as_raw_fd),
    };
    // From here on a signal must not end this process and leave the VM to its fate.
    let wanted: &[i32] = if hooks.unattended { &[] } else { &[SIGINT, SIGTERM, SIGHUP, SIGWINCH] };
    let stops = Signals::new(wanted).map_err(Error::io("handling signals"))?;
    let started = Instant::now();
    let mut child = spawn(config, channels, passed)?;

    let raw = if config.tty {
        terminal::Raw::enter().map_err(Error::io("switching the terminal to raw mode"))?
    } else {
        None
    };
    let (sender, events) = mpsc::channel();
    let signals = stops.handle();
    let control = status.try_clone().map_err(Error::io("talking to the kernel"))?;
    if let Some(stop) = hooks.stop.take() {
        let sender = sender.clone();
        thread::spawn(move || {
            for () in stop {
                let _ = sender.send(Event::Stop);
            }
        });
    }
    watch(&mut child, status, stops, hooks.console, &sender);
    let mut vm = Vm {
        events,
        input: child.stdin.take().map(|input| (input, sender.clone())),
        control,
        tty: config.tty,
        monitor: Monitor::new(monitor)?,
        grace: config.grace,
        started,
        ended: None,
        stopping: None,
        errors: String::new(),
        open: 3,
    };
    vm.tell_size();
    let pid = rustix::process::Pid::from_child(&child);
    thread::spawn(move || {
        let result = child.wait();
        let _ = sender.send(Event::Exited(result));
    });
    let result = vm.watch(notice, &|| {
        // Fails only if it is gone already.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    });
    signals.close();
    drop(raw);
    result
}

/// Held while descriptors are open for a child, so that no other one gets them.
static SPAWNING: Mutex<()> = Mutex::new(());

/// Starts a child with a command that other VMs of this process don't share descriptors with.
pub(crate) fn spawn_with(command: &mut Command, passed: Vec<OwnedFd>) -> io::Result<Child> {
    let _spawning = SPAWNING.lock().unwrap_or_else(|poison| poison.into_inner());
    for descriptor in &passed {
        rustix::io::fcntl_setfd(descriptor, FdFlags::empty())?;
    }
    // They are closed here before the lock is given back.
    let child = command.spawn();
    drop(passed);
    child
}

/// `passed` are the other ends of the channels.
fn spawn(config: &Config, channels: Channels, passed: Vec<OwnedFd>) -> Result<Child, Error> {
    let mut words = config.launcher.iter().cloned().map(Into::into).collect::<Vec<_>>();
    words.push(config.qemu.clone().into_os_string());
    words.extend(arguments::build(config, Some(channels)));
    let Some((program, args)) = words.split_first() else {
        return Err(Error::NoQemu(super::qemu::PROGRAM));
    };
    let mut command = Command::new(program);
    command
        .args(args)
        .process_group(0)
        .stdin(if config.interactive { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    spawn_with(&mut command, passed)
        .map_err(|source| Error::Qemu { path: config.qemu.clone(), source })
}

/// Starts the threads.
fn watch(
    child: &mut Child,
    status: UnixStream,
    mut stops: Signals,
    output: Option<Box<dyn Write + Send>>,
    sender: &Sender<Event>,
) {
    if let Some(mut console) = child.stdout.take() {
        let sender = sender.clone();
        thread::spawn(move || {
            match output {
                Some(mut out) => copy(&mut console, &mut *out),
                None => copy(&mut console, &mut io::stdout().lock()),
            };
            let _ = sender.send(Event::Console);
        });
    }
    if let Some(mut errors) = child.stderr.take() {
        let sender = sender.clone();
        thread::spawn(move || {
            let mut text = Vec::new();
            let _ = (&mut errors).take(64 << 10).read_to_end(&mut text);
            let _ = io::copy(&mut errors, &mut io::sink());
            let _ = sender.send(Event::Errors(String::from_utf8_lossy(&text).into_owned()));
        });
    }
    let lines = sender.clone();
    thread::spawn(move || {
        let mut reader = BufReader::new(status);
        while let Ok(Some(line)) = read_line(&mut reader) {
            let _ = lines.send(Event::Status(line));
        }
        let _ = lines.send(Event::StatusClosed);
    });
    let sender = sender.clone();
    thread::spawn(move || {
        for signal in stops.forever() {
            let event = if signal == SIGWINCH { Event::Resized } else { Event::Stop };
            let _ = sender.send(event);
        }
    });
}

/// Passes standard input on to the console, from when the kernel listens.
fn feed(mut input: ChildStdin, sender: Sender<Event>) {
    thread::spawn(move || {
        let bytes = copy(&mut io::stdin().lock(), &mut input);
        // A serial line has no end of file: the kernel is told on the other channel.
        let _ = sender.send(Event::InputEnd(bytes));
        // QEMU keeps its end: closing this one would only make it poll.
        thread::park();
    });
}

/// Copies until either end closes, passing every piece on at once; returns how much.
fn copy(from: &mut dyn Read, to: &mut dyn Write) -> u64 {
    let mut buffer = [0; 4096];
    let mut total = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return total,
            Ok(len) => {
                if to.write_all(&buffer[..len]).and_then(|()| to.flush()).is_err() {
                    // Whoever reads our output is gone; the guest must not block for it.
                    let _ = io::copy(&mut &mut *from, &mut io::sink());
                    return total;
                }
                total += len as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return total,
        }
    }
}

fn read_line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if reader.take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()))
}

struct Vm {
    events: Receiver<Event>,
    /// QEMU's standard input, until somebody reads it at the other end.
    input: Option<(ChildStdin, Sender<Event>)>,
    /// The status channel, towards the kernel.
    control: UnixStream,
    tty: bool,
    monitor: Monitor,
    grace: Duration,
    started: Instant,
    /// What the kernel said about the end.
    ended: Option<Result<Outcome, Error>>,
    /// When to switch the machine off, once it was asked to stop.
    stopping: Option<Instant>,
    errors: String,
    /// Streams of QEMU that have not closed yet: console, errors, status.
    open: u32,
}

impl Vm {
    fn watch(&mut self, notice: &mut dyn FnMut(Notice), kill: &dyn Fn()) -> Result<Outcome, Error> {
        let mut exited = None;
        let mut gave_up = None;
        loop {
            if exited.is_some() && self.open == 0 {
                break;
            }
            let event = match self.stopping {
                None => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => self.events.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match event {
                Ok(Event::Status(line)) => self.status(&line, notice),
                Ok(Event::Resized) => self.tell_size(),
                Ok(Event::InputEnd(bytes)) => self.tell(Control::InputEnd { bytes }),
                Ok(Event::StatusClosed | Event::Console) => self.open -= 1,
                Ok(Event::Errors(text)) => {
                    self.errors = text;
                    self.open -= 1;
                }
                Ok(Event::Exited(status)) => {
                    exited = Some(status);
                    // What is in the pipes by now is all there will be.
                    self.stopping = Some(Instant::now() + LAST_WORDS);
                }
                Ok(Event::Stop) if exited.is_some() => {}
                Ok(Event::Stop) if self.stopping.is_some() => {
                    gave_up = Some(Error::Interrupted);
                    kill();
                }
                Ok(Event::Stop) => {
                    notice(Notice::Stopping);
                    self.monitor.execute("system_powerdown");
                    self.stopping = Some(Instant::now() + self.grace + SLACK);
                }
                Err(_) if exited.is_some() => break,
                Err(_) => {
                    if self.ended.is_none() {
                        gave_up.get_or_insert(Error::Grace(self.grace.as_secs()));
                    }
                    kill();
                    self.stopping = Some(Instant::now() + SLACK);
                }
            }
        }
        self.verdict(exited, gave_up)
    }

    /// Tells the kernel; one that is gone will be noticed.
    fn tell(&mut self, control: Control) {
        let _ = writeln!(self.control, "{control}");
    }

    fn tell_size(&mut self) {
        if let Some((rows, columns)) = terminal::size().filter(|_| self.tty) {
            self.tell(Control::Size { rows, columns });
        }
    }

    fn status(&mut self, line: &str, notice: &mut dyn FnMut(Notice)) {
        let soon = |wait| Some(Instant::now() + wait);
        match Status::parse(line) {
            Some(Status::Start { .. }) => {
                if let Some((input, sender)) = self.input.take() {
                    feed(input, sender);
                }
                notice(Notice::Started { after: self.started.elapsed() });
            }
            Some(Status::Health(health)) => notice(Notice::Health(health)),
            Some(Status::Syscalls(set)) => notice(Notice::Syscalls(set)),
            Some(Status::Check(text)) => notice(Notice::CheckFailed(text.to_owned())),
            Some(Status::Listens(port)) => notice(Notice::Listens(port)),
            Some(Status::ListensLocally(port)) => notice(Notice::ListensLocally(port)),
            Some(Status::Used(how, path)) => notice(Notice::Used(how, unescape(path))),
            Some(Status::Call(number)) => notice(Notice::Called(number)),
            // The first word about the end is the one that counts.
            Some(_) if self.ended.is_some() => {}
            Some(Status::Exit(code)) => {
                self.ended = Some(Ok(Outcome::Exited(code)));
                self.stopping = soon(SLACK);
            }
            Some(Status::Signal(signal)) => {
                self.ended = Some(Ok(Outcome::Killed(signal)));
                self.stopping = soon(SLACK);
            }
            Some(Status::Failed(text)) => {
                self.ended = Some(Err(Error::Failed(text.to_owned())));
                self.stopping = soon(SLACK);
            }
            Some(Status::Panic(text)) => {
                self.ended = Some(Err(Error::Panic(text.to_owned())));
                self.stopping = soon(LAST_WORDS);
            }
            None => {}
        }
    }

    fn verdict(
        &mut self,
        exited: Option<io::Result<ExitStatus>>,
        gave_up: Option<Error>,
    ) -> Result<Outcome, Error> {
        if let Some(ended) = self.ended.take() {
            return ended;
        }
        if let Some(error) = gave_up {
            return Err(error);
        }
        match exited {
            Some(Ok(status)) if !status.success() => {
                let text = self.errors.trim();
                Err(Error::Exited(if text.is_empty() { status.to_string() } else { text.into() }))
            }
            Some(Err(source)) => Err(Error::Io { what: "waiting for QEMU", source }),
            _ => Err(Error::Silent),
        }
    }
}

/// QEMU's monitor, as far as two commands need it (QMP specification, "Server Greeting" on).
struct Monitor(UnixStream);

impl Monitor {
    fn new(stream: UnixStream) -> Result<Monitor, Error> {
        let mut replies = stream.try_clone().map_err(Error::io("talking to QEMU's monitor"))?;
        // Replies and events are not needed, but must not fill the socket.
        thread::spawn(move || io::copy(&mut replies, &mut io::sink()));
        let mut monitor = Monitor(stream);
        monitor.execute("qmp_capabilities");
        Ok(monitor)
    }

    /// Sends a command. A monitor that is gone belongs to a QEMU that is gone, which is noticed.
    fn execute(&mut self, command: &str) {
        let _ = writeln!(self.0, r#"{{"execute":"{command}"}}"#);
    }
}

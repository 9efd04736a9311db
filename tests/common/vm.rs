//! Runs images by `dock2uni run`, the way a user does.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// In which a line is on its way.
const MOMENT: Duration = Duration::from_millis(20);

/// A running `dock2uni run`; it and its QEMU are killed when dropped.
pub struct Vm {
    child: Child,
    lines: Receiver<String>,
    /// Everything that was printed so far: the console and dock2uni's own words, line by line.
    pub seen: Vec<String>,
}

/// The program under test.
pub fn dock2uni() -> Command {
    Command::new(env!("CARGO_BIN_EXE_dock2uni"))
}

/// Whether the tool under test can boot anything; says so if not.
pub fn can_boot() -> bool {
    let able = dock2uni::guest::kernel().is_ok();
    if !able {
        eprintln!("SKIPPED: dock2uni was built without a kernel (D2U_KERNEL=none)");
    }
    able
}

/// A TCP port of 127.0.0.1 that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Vm {
    /// Starts `dock2uni run ARGS` under the translator.
    pub fn run(args: &[&str]) -> Vm {
        Vm::start(dock2uni().args(["run", "--accel", "tcg"]).args(args))
    }

    /// Starts a command and collects what it prints.
    pub fn start(command: &mut Command) -> Vm {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let (sender, lines) = mpsc::channel();
        let streams: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for stream in streams {
            let sender = sender.clone();
            thread::spawn(move || {
                let mut reader = BufReader::new(stream);
                let mut line = Vec::new();
                while reader.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
                    let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                    if sender.send(text).is_err() {
                        return;
                    }
                    line.clear();
                }
            });
        }
        Vm { child, lines, seen: Vec::new() }
    }

    /// Waits for a line that contains `needle`, and returns it. Panics with all that was printed
    /// if it does not come.
    pub fn wait_for(&mut self, needle: &str, patience: Duration) -> String {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.receive(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(needle) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    panic!("no `{needle}` within {patience:?}; printed:\n{}", self.text())
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("ended without `{needle}`; printed:\n{}", self.text())
                }
            }
        }
    }

    /// The next line; `None` if none comes in time or the program has ended.
    pub fn next_line(&mut self, patience: Duration) -> Option<String> {
        let line = self.receive(patience).ok()?;
        self.seen.push(line.clone());
        Some(line)
    }

    /// A line that is there or comes in this time. Without any time, nothing is taken: a program may
    /// print for ever, and whoever has a deadline ends at it.
    fn receive(&self, patience: Duration) -> Result<String, RecvTimeoutError> {
        if patience.is_zero() {
            return Err(RecvTimeoutError::Timeout);
        }
        self.lines.recv_timeout(patience)
    }

    /// Whether the program has not ended yet.
    pub fn is_running(&mut self) -> bool {
        // Its output ends a moment before it does.
        thread::sleep(Duration::from_millis(100));
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends a signal to `dock2uni run`.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for the end and returns the exit status. Panics with all that was printed if it does
    /// not come.
    pub fn wait(&mut self, patience: Duration) -> i32 {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.drain(MOMENT);
                return code(status);
            }
            if Instant::now() > deadline {
                self.drain(MOMENT);
                panic!("still running after {patience:?}; printed:\n{}", self.text());
            }
            self.drain(MOMENT);
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Process ID of `dock2uni run`.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that was printed so far.
    pub fn text(&self) -> String {
        self.seen.join("\n")
    }

    /// Takes what was printed, until nothing comes for this long; for a few seconds at most.
    pub fn drain(&mut self, pause: Duration) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline
            && let Ok(line) = self.lines.recv_timeout(pause)
        {
            self.seen.push(line);
        }
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // QEMU goes with its parent.
        let _ = self.child.kill();
        let ended = self.child.wait();
        if std::thread::panicking() {
            self.drain(MOMENT);
            eprintln!("the VM ({ended:?}) said:\n{}", self.text());
        }
    }
}

fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

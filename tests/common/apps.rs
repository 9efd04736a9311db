//! Server images under test: started from a registry, loaded by their own clients, and stopped.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::lab::{Lab, PATIENCE};
use super::vm::{Vm, free_port};

/// Longer than any client's load takes.
const CLIENT_LIMIT: Duration = Duration::from_secs(300);

/// A server in a VM, with one of its ports forwarded.
pub struct App {
    pub vm: Vm,
    /// The port of 127.0.0.1 that leads to it.
    pub port: u16,
}

impl App {
    /// Boots it; `guest_port` is what it listens on.
    pub fn start(lab: &Lab, guest_port: u16, cpus: u32, options: &[&str], command: &[&str]) -> App {
        let port = free_port();
        let publish = format!("127.0.0.1:{port}:{guest_port}");
        let cpus = cpus.to_string();
        let own = ["-p", &publish, "--cpus", &cpus];
        App { vm: lab.run(&[&own, options].concat(), command), port }
    }

    /// Runs a client until it succeeds; returns what it printed.
    pub fn until_ready(&mut self, client: impl Fn() -> Command) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = super::output_within(&mut client(), None, PATIENCE);
            if output.status.success() {
                return String::from_utf8_lossy(&output.stdout).into_owned();
            }
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            if Instant::now() > deadline || !self.vm.is_running() {
                let code = self.vm.wait(Duration::ZERO);
                panic!("not ready: {said}\nexit status {code}:\n{}", self.vm.text());
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// All that was printed so far, for a message.
    pub fn printed(&mut self) -> String {
        self.vm.drain(Duration::from_millis(200));
        self.vm.text()
    }

    /// Presses the power button; the server must end in good order, with this exit status, well
    /// before it would be killed.
    pub fn stop(mut self, status: i32) -> String {
        let asked = Instant::now();
        self.vm.signal(Signal::TERM);
        let code = self.vm.wait(PATIENCE);
        let text = self.vm.text();
        assert_eq!(code, status, "after {:?}: {text}", asked.elapsed());
        assert_well(&text);
        text
    }
}

/// The kernel had nothing to complain about.
pub fn assert_well(text: &str) {
    // What applications find missing elsewhere as well, and do without.
    const OPTIONAL: [&str; 2] = ["io_uring_setup", "io_setup"];
    let lacking = |line: &&str| {
        line.contains("unimplemented syscall") && !OPTIONAL.iter().any(|name| line.contains(name))
    };
    let bad = text.lines().find(|line| line.contains("[PANIC]") || lacking(line));
    assert_eq!(bad, None, "{text}");
}

/// Runs a client to its end, with `input` if there is any; returns what it printed. Panics with
/// all of that if it fails.
pub fn client(command: &mut Command, input: &str) -> String {
    let output = super::output_within(command, Some(input), CLIENT_LIMIT);
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} failed ({}):\n{out}{err}", output.status);
    out.into_owned()
}

/// A connection on which lines are exchanged.
pub struct Lines {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Lines {
    pub fn connect(port: u16) -> std::io::Result<Lines> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let reader = BufReader::new(stream.try_clone()?);
        Ok(Lines { stream, reader })
    }

    pub fn send(&mut self, text: &str) -> std::io::Result<()> {
        self.stream.write_all(text.as_bytes())
    }

    /// The next line, without its end; empty at the end of the connection.
    pub fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// Everything up to the end of the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.reader.read_to_end(&mut bytes).unwrap();
        bytes
    }
}

/// The number behind a word in `ab`'s or another client's report.
pub fn number_after(report: &str, word: &str) -> u64 {
    let rest = report.split_once(word).unwrap_or_else(|| panic!("no `{word}` in:\n{report}")).1;
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("no number after `{word}` in:\n{report}"))
}

/// `ab` with two connections at a time (what QEMU's forwarder can take); all requests must have been
/// answered by a success. Answers may differ in length.
pub fn ab(port: u16, path: &str, requests: u32, options: &[&str]) {
    let url = format!("http://127.0.0.1:{port}{path}");
    let mut command = Command::new("ab");
    command.args(["-q", "-l", "-c", "2", "-s", "60", "-n", &requests.to_string()]);
    let report = client(command.args(options).arg(&url), "");
    assert_eq!(number_after(&report, "Complete requests:"), u64::from(requests), "{report}");
    assert_eq!(number_after(&report, "Failed requests:"), 0, "{report}");
    assert!(!report.contains("Non-2xx"), "{report}");
}

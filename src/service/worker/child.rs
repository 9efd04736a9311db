//! The worker's end of a conversion's process, see [`crate::service::convert`].

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use crate::service::convert::{Event, Task};

/// Longest line that is read.
const MAX_LINE: u64 = 1 << 20;
/// As much of what it says on its standard error as is kept.
const MAX_WORDS: u64 = 4096;
/// What of the environment it sees: where programs and the user's credentials for registries are, and
/// where temporary files go.
const ENVIRONMENT: [&str; 9] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "SSL_CERT_FILE",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
];

/// A conversion's process. It is killed when this is dropped.
pub struct Conversion {
    child: Arc<Mutex<Child>>,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    words: std::thread::JoinHandle<String>,
}

/// Ends a conversion from another thread.
#[derive(Clone)]
pub struct Killer(Arc<Mutex<Child>>);

impl Killer {
    /// Kills the process, if it is still there.
    pub fn kill(&self) {
        // One that has ended is fine as well.
        let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).kill();
    }
}

impl Conversion {
    /// Starts one. It lives no longer than the thread that this is called from.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start(program: &[PathBuf], task: &Task) -> io::Result<Conversion> {
        let (program, arguments) = program.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let missing = || io::Error::other("a pipe is missing");
        let mut input = child.stdin.take().ok_or_else(missing)?;
        let output = child.stdout.take().ok_or_else(missing)?;
        let mut errors = child.stderr.take().ok_or_else(missing)?;
        let words = std::thread::spawn(move || {
            let mut words = Vec::new();
            // What can't be read isn't missed; the rest is read so that nobody waits for it.
            let _ = (&mut errors).take(MAX_WORDS).read_to_end(&mut words);
            let _ = io::copy(&mut errors, &mut io::sink());
            String::from_utf8_lossy(&words).trim().to_owned()
        });
        let child = Arc::new(Mutex::new(child));
        let mut line = serde_json::to_vec(task)?;
        line.push(b'\n');
        let sent = input.write_all(&line);
        let conversion =
            Conversion { child, input: Some(input), output: BufReader::new(output), words };
        sent?;
        Ok(conversion)
    }

    /// What ends it.
    pub fn killer(&self) -> Killer {
        Killer(self.child.clone())
    }

    /// Has it go on after [`Event::Resolved`].
    ///
    /// # Errors
    /// If it is gone.
    pub fn go_on(&mut self) -> io::Result<()> {
        match self.input.take() {
            Some(mut input) => input.write_all(b"go\n"),
            None => Ok(()),
        }
    }

    /// The next event; `None` at the end.
    ///
    /// # Errors
    /// If what comes is no event.
    pub fn next(&mut self) -> io::Result<Option<Event>> {
        let mut line = Vec::new();
        let length = (&mut self.output).take(MAX_LINE).read_until(b'\n', &mut line)?;
        if length == 0 {
            return Ok(None);
        }
        serde_json::from_slice(&line).map(Some).map_err(io::Error::other)
    }

    /// Waits for its end, and says in words how it ended, for those that ended without an event.
    pub fn end(mut self) -> String {
        drop(self.input.take());
        let status = loop {
            // Its output has ended, so this is a matter of moments; the lock is not held meanwhile.
            match self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => break status.to_string(),
                Err(error) => break error.to_string(),
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        };
        let words = std::mem::replace(&mut self.words, std::thread::spawn(String::new));
        let words = words.join().unwrap_or_default();
        let last = words.lines().last().unwrap_or_default();
        if last.is_empty() { status } else { format!("{status}: {last}") }
    }
}

impl Drop for Conversion {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }
}

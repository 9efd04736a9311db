//! `dock2uni run -it`: a shell on a terminal of the host, driven as a person would; and `-i` alone.

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use common::layout::{ImageSpec, Layout, borrowed, programs, tar};
use common::vm::{can_boot, dock2uni};
use dock2uni::source::image::Compression;
use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::json;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(120);

/// This machine's bash, script and busybox, and what they need.
fn shell_image() -> Layout {
    let files = programs(&["busybox", "/bin/bash", "/usr/bin/script"]);
    let mut layout = Layout::new();
    let image = layout.image(&ImageSpec {
        layers: vec![(tar(&borrowed(&files)), Compression::None)],
        config: json!({
            "Cmd": ["/bin/bash", "--norc"],
            "Env": ["PS1=ready> ", "TERM=dumb", "SHELL=/bin/bash"],
        }),
        ..ImageSpec::default()
    });
    layout.name(image, "latest");
    layout
}

fn run(image: &Layout, store: &TempDir, options: &[&str], command: &[&str]) -> Command {
    let mut run = dock2uni();
    run.args(["run", "--accel", "tcg", "-q"])
        .args(options)
        .arg(image.path())
        .args(command)
        .env("DOCK2UNI_STORE", store.path());
    run
}

/// A program on a terminal.
struct Session {
    child: Child,
    keyboard: File,
    slave: File,
    screen: Receiver<Vec<u8>>,
    seen: String,
}

impl Session {
    fn start(mut command: Command) -> Session {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let noctty = OFlags::NOCTTY.bits() as i32;
        let open =
            || File::options().read(true).write(true).custom_flags(noctty).open(&name).unwrap();
        let slave = open();
        tcsetwinsize(&slave, Winsize { ws_row: 31, ws_col: 93, ws_xpixel: 0, ws_ypixel: 0 })
            .unwrap();
        let child = command.stdin(open()).stdout(open()).stderr(open()).spawn().unwrap();
        let keyboard = File::from(master);
        let mut reader = keyboard.try_clone().unwrap();
        let (sender, screen) = mpsc::channel();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(len @ 1..) = reader.read(&mut piece) {
                if sender.send(piece[..len].to_vec()).is_err() {
                    return;
                }
            }
        });
        Session { child, keyboard, slave, screen, seen: String::new() }
    }

    fn type_in(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    /// Runs a command in the foreground and waits until it is there. What is typed before that
    /// is read by the shell's line editor, as on every Unix.
    #[track_caller]
    fn in_front(&mut self, command: &str) {
        self.type_in(&format!("busybox sh -c 'echo u\"\"p; exec {command}'\r"));
        self.expect("\r\nup\r\n");
    }

    /// Waits until `text` is on the screen, and forgets what was before it.
    #[track_caller]
    fn expect(&mut self, text: &str) {
        if !self.sees(text, Instant::now() + PATIENCE) {
            panic!("no `{text}` on the screen, but: {}", self.seen);
        }
    }

    /// Types `keys` again and again until `text` is on the screen.
    #[track_caller]
    fn until(&mut self, text: &str, keys: &str) {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            self.type_in(keys);
            if self.sees(text, Instant::now() + Duration::from_secs(1)) {
                return;
            }
        }
        panic!("no `{text}` on the screen, but: {}", self.seen);
    }

    fn sees(&mut self, text: &str, deadline: Instant) -> bool {
        loop {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => return false,
            }
        }
    }

    fn status(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("still running; on the screen: {}", self.seen);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // QEMU goes with its parent.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_shell_on_a_terminal_is_usable() {
    if !can_boot() {
        return;
    }
    let (image, store) = (shell_image(), tempfile::tempdir().unwrap());
    let mut shell = Session::start(run(&image, &store, &["-it"], &[]));
    shell.expect("ready> ");
    // The host's side is raw: the guest edits and echoes.
    let modes = tcgetattr(&shell.slave).unwrap().local_modes;
    assert!(!modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG));

    shell.type_in("busybox tty; busybox stty size; echo $((6*7)) > /dev/tty\r");
    shell.expect("\r\n/dev/console\r\n31 93\r\n42\r\n");
    let size = Winsize { ws_row: 20, ws_col: 70, ws_xpixel: 0, ws_ypixel: 0 };
    let script = "trap 'busybox stty size; exit' WINCH; echo arm''ed; while :; do :; done";
    shell.type_in(&format!("bash -c \"{script}\"\r"));
    shell.expect("armed\r\n");
    tcsetwinsize(&shell.slave, size).unwrap();
    kill_process(Pid::from_child(&shell.child), Signal::WINCH).unwrap();
    shell.expect("20 70\r\n");
    shell.expect("ready> ");

    // Lines are edited, Ctrl-D ends input, Ctrl-C reaches the foreground alone.
    shell.in_front("busybox cat");
    shell.type_in("abx\x7fc\r");
    shell.expect("\r\nabc\r\n");
    shell.type_in("\x04");
    shell.expect("ready> ");
    shell.in_front("busybox sleep 1000");
    shell.type_in("\x03");
    shell.expect("^C");
    shell.expect("ready> ");

    // Job control: stop, list, resume, kill.
    shell.in_front("busybox sleep 1000");
    shell.type_in("\x1a");
    shell.expect("Stopped");
    shell.type_in("bg; kill %1; wait; jobs; echo status $?\r");
    shell.expect("\nstatus 0\r\n");
    shell.type_in("busybox cat &\r");
    shell.expect("ready> ");
    shell.until("Stopped", "\r");
    shell.type_in("kill -9 %1; wait; busybox ls /dev/pts\r");
    shell.expect("ready> ");

    // A pseudoterminal inside: what is typed goes through both.
    shell.type_in("script -q -c 'busybox tty; busybox cat' /dev/null\r");
    shell.expect("\r\n/dev/pts/0\r\n");
    shell.type_in("inner\r");
    shell.expect("inner\r\ninner\r\n");
    shell.type_in("\x04");
    shell.expect("ready> ");
    shell.type_in("exit 7\r");
    assert_eq!(shell.status(), Some(7));
    let modes = tcgetattr(&shell.slave).unwrap().local_modes;
    assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO));
}

#[test]
fn standard_input_is_passed_on_to_the_byte_and_ends() {
    if !can_boot() {
        return;
    }
    let (image, store) = (shell_image(), tempfile::tempdir().unwrap());
    // Every byte value, and more than any buffer on the way holds.
    let data: Vec<u8> = (0..20_000u32).map(|n| (n * 7 + n / 256) as u8).collect();
    let script = "busybox md5sum; test -t 0 || echo no terminal";
    let mut child = run(&image, &store, &["-i"], &["bash", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&data).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let mut host =
        Command::new("md5sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    host.stdin.take().unwrap().write_all(&data).unwrap();
    let mut expected = host.wait_with_output().unwrap().stdout;
    expected.extend_from_slice(b"no terminal\n");
    assert_eq!(String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&expected));
}

#[test]
fn a_terminal_needs_one_on_the_host() {
    if !can_boot() {
        return;
    }
    let (image, store) = (shell_image(), tempfile::tempdir().unwrap());
    let output = common::output(&mut run(&image, &store, &["-it"], &[]));
    assert_eq!(output.status.code(), Some(125));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.starts_with("error: standard input is not a terminal\nhint: leave `-t` away"),
        "{said}"
    );
}

//! What the commands print, where, and how they exit.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use common::layout::{ImageSpec, Layout, tar};
use common::vm::{can_boot, dock2uni};
use dock2uni::source::image::Compression;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A directory to work in, with a store of its own.
struct Desk(TempDir);

impl Desk {
    fn new() -> Desk {
        Desk(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = dock2uni();
        command.args(args).current_dir(self.path()).env("DOCK2UNI_STORE", self.path().join("s"));
        command
    }

    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let Output { status, stdout, stderr } = common::output(&mut self.command(args));
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }

    /// Files other than the store.
    fn files(&self) -> Vec<String> {
        let names = fs::read_dir(self.path()).unwrap();
        let mut names: Vec<String> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != "s");
        names.sort();
        names
    }
}

/// The headers of an ELF program.
fn elf(machine: u8, interpreter: Option<&str>) -> Vec<u8> {
    let mut out = vec![0; 64];
    out[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    (out[16], out[18], out[20], out[32], out[54]) = (2, machine, 1, 64, 56);
    if let Some(path) = interpreter {
        out[56] = 1;
        let mut header = [0; 56];
        (header[0], header[8], header[32]) = (3, 120, path.len() as u8 + 1);
        out.extend_from_slice(&header);
        out.extend_from_slice(path.as_bytes());
        out.push(0);
    }
    out
}

fn layout(config: Value, files: &[(&str, &[u8])]) -> Layout {
    let mut layout = Layout::new();
    let layers = vec![(tar(files), Compression::Gzip)];
    let image = layout.image(&ImageSpec { layers, config, ..ImageSpec::default() });
    layout.name(image, "latest");
    layout
}

fn hello() -> Layout {
    let config = json!({
        "Entrypoint": ["/hello"],
        "Cmd": ["a b"],
        "Env": ["MODE=x"],
        "ExposedPorts": {"8080/tcp": {}},
        "StopSignal": "SIGINT",
        "User": "7:8",
    });
    layout(config, &[("hello", &elf(62, None))])
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_help_names_the_commands_and_the_exit_statuses() {
    let desk = Desk::new();
    let (code, out, err) = desk.run(&["--help"]);
    assert_eq!((code, err.as_str()), (0, ""));
    for needle in ["convert", "run", "image", "doctor", "Exit status:", "125  dock2uni or the VM"] {
        assert!(out.contains(needle), "{needle} in {out}");
    }
    assert!(!out.contains("__with-parent") && !out.contains("kernel "), "{out}");
    for command in ["convert", "run"] {
        let (_, out, _) = desk.run(&[command, "--help"]);
        assert!(out.contains("Examples:\n  dock2uni "), "{out}");
    }
}

#[test]
fn wrong_arguments_exit_with_2() {
    let desk = Desk::new();
    for args in [
        &["convert"][..],
        &["convert", "x", "-p", "http:80"],
        &["run", "x", "-m", "1k"],
        &["run", "x", "--cpus", "0"],
        &["run", "x", "--machine", "pc"],
        &["frobnicate"],
    ] {
        let (code, out, err) = desk.run(args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
        assert!(err.starts_with("error: "), "{err}");
    }
    let (code, _, err) = desk.run(&["convert", "library/UPPER"]);
    assert_eq!(code, 2, "{err}");
    assert!(err.starts_with("error: `library/UPPER` is not an image reference"), "{err}");
}

#[test]
fn convert_says_what_it_made() {
    if !can_boot() {
        return;
    }
    let (desk, image) = (Desk::new(), hello());
    let (code, out, err) =
        desk.run(&["convert", text(image.path()), "-o", "h.img", "-e", "A=1", "-w", "/srv"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(desk.files(), ["h.img"]);
    for needle in [
        "runs     /hello 'a b'",
        "in       /srv",
        "as       user 7, group 8",
        "exposes  8080/tcp",
        "stops    by SIGINT, within 10 s",
        "output   h.img (",
    ] {
        assert!(out.contains(needle), "{needle} in {out}");
    }

    let (code, out, err) = desk.run(&["image", "info", "h.img", "--json"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let info: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(info["runs"]["argv"], json!(["/hello", "a b"]));
    assert_eq!(info["runs"]["cwd"], "/srv");
    assert_eq!(info["runs"]["user"], json!({"uid": 7, "gid": 8, "groups": [8]}));
    let env = info["runs"]["env"].as_array().unwrap();
    assert!(env.contains(&json!("MODE=x")) && env.contains(&json!("A=1")), "{env:?}");
    assert_eq!(info["size"], fs::metadata(desk.path().join("h.img")).unwrap().len());
}

#[test]
fn convert_prints_json_and_nothing_else() {
    if !can_boot() {
        return;
    }
    let (desk, image) = (Desk::new(), hello());
    let (code, out, err) =
        desk.run(&["convert", text(image.path()), "-o", "h.img", "--json", "--", "-x"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let made: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(made["runs"]["argv"], json!(["/hello", "-x"]));
    assert_eq!(made["layers"].as_array().unwrap().len(), 1);
    assert!(made["digest"].as_str().unwrap().starts_with("sha256:"));
    let (code, out, err) = desk.run(&["convert", text(image.path()), "-o", "q.img", "--quiet"]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "", ""));
}

#[test]
fn the_same_image_converts_to_the_same_bytes() {
    if !can_boot() {
        return;
    }
    let (desk, image) = (Desk::new(), hello());
    for out in ["a.img", "b.img"] {
        assert_eq!(desk.run(&["convert", text(image.path()), "-o", out, "-q"]).0, 0);
    }
    let read = |name| fs::read(desk.path().join(name)).unwrap();
    assert!(read("a.img") == read("b.img"));
}

#[test]
fn every_failure_is_one_error_with_its_status_and_leaves_nothing() {
    if !can_boot() {
        return;
    }
    let cases: [(Layout, i32, &str); 5] = [
        (
            layout(json!({"Cmd": ["/none"]}), &[("hello", &elf(62, None))]),
            7,
            "error: the program `/none` is not in the image\nhint: ",
        ),
        (
            layout(json!({"Cmd": ["/hello"]}), &[("hello", &elf(62, Some("/lib/ld.so")))]),
            7,
            "error: `/hello` needs the interpreter `/lib/ld.so`, which is not in the image\nhint: ",
        ),
        (
            layout(json!({"Cmd": ["/hello"]}), &[("hello", &elf(183, None))]),
            7,
            "error: `/hello` is a program for another machine",
        ),
        (
            layout(json!({}), &[("hello", &elf(62, None))]),
            7,
            "error: the image says no command to run, and none was given\nhint: ",
        ),
        (
            layout(json!({"Cmd": ["/hello"], "User": "web"}), &[("hello", &elf(62, None))]),
            7,
            "error: the user `web` is not in the image's /etc/passwd\nhint: ",
        ),
    ];
    let desk = Desk::new();
    for (image, expected, start) in cases {
        let (code, out, err) = desk.run(&["convert", text(image.path()), "-o", "x.img"]);
        assert_eq!((code, out.as_str()), (expected, ""), "{err}");
        assert!(err.starts_with(start), "{err}");
        assert_eq!(err.matches("error:").count(), 1, "{err}");
        assert_eq!(desk.files(), [""; 0]);
        // The same is not the application's failure in `run`.
        assert_eq!(desk.run(&["run", "--accel", "tcg", text(image.path())]).0, 125);
    }
}

#[test]
fn damage_and_absence_have_their_own_statuses() {
    if !can_boot() {
        return;
    }
    let desk = Desk::new();
    let (code, _, err) = desk.run(&["convert", "./nowhere", "-o", "x.img"]);
    assert_eq!(code, 3, "{err}");
    let (code, _, err) = desk.run(&["image", "info", "nowhere.img"]);
    assert_eq!(code, 3, "{err}");

    let image = hello();
    let (code, _, err) = desk.run(&["convert", text(image.path()), "-o", "no/such/dir/x.img"]);
    assert_eq!(code, 8, "{err}");
    assert!(err.contains("hint: create the directory first"), "{err}");

    fs::write(desk.path().join("zeros.img"), vec![0; 1 << 20]).unwrap();
    let (code, _, err) = desk.run(&["image", "info", "zeros.img"]);
    assert_eq!(code, 6, "{err}");

    // A layer that is not what its digest says.
    let blobs = image.path().join("blobs/sha256");
    for entry in fs::read_dir(blobs).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            *bytes.last_mut().unwrap() ^= 1;
            fs::write(path, bytes).unwrap();
        }
    }
    let (code, _, err) = desk.run(&["convert", text(image.path()), "-o", "x.img"]);
    assert_eq!(code, 6, "{err}");
    assert_eq!(desk.files(), ["zeros.img"]);
}

#[test]
fn a_killed_conversion_leaves_nothing() {
    if !can_boot() {
        return;
    }
    let noise: Vec<u8> =
        (0..20_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let image = layout(json!({"Cmd": ["/hello"]}), &[("hello", &elf(62, None)), ("noise", &noise)]);
    let desk = Desk::new();
    let mut early = 0;
    for wait in [5, 20, 40, 80, 120] {
        let mut child =
            desk.command(&["convert", text(image.path()), "-o", "x.img", "-q"]).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(wait));
        child.kill().unwrap();
        if !child.wait().unwrap().success() {
            early += 1;
        }
        let files = desk.files();
        assert!(files.is_empty() || files == ["x.img"], "{files:?}");
    }
    assert!(early > 0, "no conversion was cut short");
    assert_eq!(desk.run(&["convert", text(image.path()), "-o", "x.img", "-q"]).0, 0);
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing() {
    if !can_boot() {
        return;
    }
    let desk = Desk::new();
    let small = desk.path().join("small");
    fs::create_dir(&small).unwrap();
    let mount =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "none"]).arg(&small).output();
    if !mount.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: a small filesystem cannot be mounted here");
        return;
    }
    let (code, _, err) = desk.run(&["convert", text(hello().path()), "-o", "small/x.img"]);
    let left = fs::read_dir(&small).unwrap().count();
    common::run(Command::new("umount").arg(&small));
    assert_eq!(code, 8, "{err}");
    assert!(
        err.contains("No space left on device") && err.contains("hint: free some space"),
        "{err}"
    );
    assert_eq!(left, 0);
}

#[test]
fn a_dry_run_prints_a_command_that_could_be_started() {
    if !can_boot() {
        return;
    }
    let (desk, image) = (Desk::new(), hello());
    let path = text(image.path());
    let args = ["run", path, "--dry-run", "--accel", "tcg", "--machine", "microvm", "-m", "64m"];
    let (code, out, err) = desk.run(&args);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains(" -machine microvm ") && out.contains(" -m 64M "), "{out}");
    let words: Vec<&str> = out.split_whitespace().collect();
    let after = |name: &str| words[words.iter().position(|word| *word == name).unwrap() + 1];
    assert!(Path::new(after("-kernel")).is_file() && Path::new(after("-initrd")).is_file());
    fs::remove_dir_all(Path::new(after("-kernel")).parent().unwrap()).unwrap();

    let (code, _, err) = desk.run(&["run", path, "--boot", "disk", "--machine", "microvm"]);
    assert_eq!(code, 125);
    assert!(err.contains("microvm machine cannot boot from disk\nhint: "), "{err}");
}

#[test]
fn completions_and_manual_pages_come_from_the_same_definitions() {
    let desk = Desk::new();
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = desk.run(&["completions", shell]);
        assert!(code == 0 && out.contains("dock2uni"), "{shell}");
    }
    assert_eq!(desk.run(&["man", "pages"]).0, 0);
    let pages: Vec<_> = fs::read_dir(desk.path().join("pages")).unwrap().collect();
    assert!(pages.len() >= 6, "{pages:?}");
}

#[test]
fn images_are_listed_read_compared_and_verified() {
    if !can_boot() {
        return;
    }
    let config = json!({"Cmd": ["/bin/hello"], "Env": ["A=1"]});
    let files: &[(&str, &[u8])] =
        &[("bin/hello", &elf(62, None)), ("etc/motd", b"good day\n"), ("etc/empty", b"")];
    let image = layout(config, files);
    let desk = Desk::new();
    let formats = "raw,qcow2,vmdk";
    let convert = ["convert", text(image.path()), "-o", "a.img", "--format", formats, "-q"];
    assert_eq!(desk.run(&convert).0, 0);

    let (code, out, err) = desk.run(&["image", "ls", "a.qcow2", "/etc"]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "empty\nmotd\n", ""));
    let (_, out, _) = desk.run(&["image", "ls", "-l", "a.vmdk", "/bin"]);
    assert!(out.starts_with("-rw") && out.ends_with(" hello\n"), "{out}");
    let (_, out, _) = desk.run(&["image", "ls", "a.img", "etc/motd", "--json"]);
    let list: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&list[0]["size"], &list[0]["type"]), (&json!(9), &json!("file")));
    let (_, out, _) = desk.run(&["image", "tree", "a.vmdk"]);
    assert_eq!(out, "bin/\n  hello\netc/\n  empty\n  motd\n");
    let (_, out, _) = desk.run(&["image", "cat", "a.vmdk", "/etc/motd", "etc/../etc/motd"]);
    assert_eq!(out, "good day\ngood day\n");
    assert_eq!(desk.run(&["image", "cat", "a.img", "/etc"]).0, 2);
    let (code, _, err) = desk.run(&["image", "cat", "a.img", "/etc/none"]);
    assert_eq!(code, 3);
    assert!(err.starts_with("error: `/etc/none` is not in the image\nhint: "), "{err}");

    assert_eq!(desk.run(&["image", "cp", "a.qcow2", "/etc", "out"]).0, 0);
    assert_eq!(fs::read(desk.path().join("out/motd")).unwrap(), b"good day\n");
    let (code, _, err) = desk.run(&["image", "cp", "a.qcow2", "/etc/motd", "out"]);
    assert_eq!(code, 8);
    assert!(err.starts_with("error: `out/motd` exists already\nhint: "), "{err}");
    let (_, out, _) = desk.run(&["image", "cp", "a.qcow2", "etc/motd", "-"]);
    assert_eq!(out, "good day\n");

    for name in ["a.img", "a.vmdk", "a.qcow2"] {
        let (code, out, err) = desk.run(&["image", "verify", name]);
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        assert!(out.contains("loader   ok     same record, not signed"), "{out}");
    }
    assert_eq!(desk.run(&["image", "diff", "a.img", "a.vmdk"]), (0, String::new(), String::new()));

    let files: &[(&str, &[u8])] =
        &[("bin/hello", &elf(62, None)), ("etc/motd", b"good bye\n"), ("etc/new", b"")];
    let image = layout(json!({"Cmd": ["/bin/hello"], "Env": ["A=2"]}), files);
    assert_eq!(desk.run(&["convert", text(image.path()), "-o", "b.img", "-q"]).0, 0);
    let (code, out, _) = desk.run(&["image", "diff", "a.vmdk", "b.img"]);
    let record = out.lines().next().unwrap();
    assert!(record.starts_with("~ record  (env"), "{out}");
    let rest: Vec<_> = out.lines().skip(1).collect();
    assert_eq!(rest, ["- /etc/empty", "~ /etc/motd  (contents)", "+ /etc/new"]);
    assert_eq!(code, 1);

    // Another format of the same disk, and back again.
    assert_eq!(desk.run(&["image", "convert", "a.img", "c.vhdx", "-q"]).0, 0);
    assert_eq!(desk.run(&["image", "convert", "c.vhdx", "d.img", "-q"]).0, 0);
    let read = |name| fs::read(desk.path().join(name)).unwrap();
    assert!(read("a.img") == read("d.img"));
    let (code, _, err) = desk.run(&["image", "convert", "a.img", "e.iso"]);
    assert!(code == 2 && err.contains("hint: use `dock2uni convert --format`"), "{err}");

    // A byte of the loader's record, and one of the root.
    let good = read("a.img");
    let record = good.windows(8).rposition(|bytes| bytes == b"d2uboot\0").unwrap();
    let motd = good.windows(9).position(|bytes| bytes == b"good day\n").unwrap();
    for (at, check) in [(record + 40, "loader   WRONG"), (motd, "root     ok")] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(desk.path().join("bad.img"), bad).unwrap();
        let (_, out, _) = desk.run(&["image", "verify", "bad.img"]);
        assert!(out.contains(check), "{out}");
    }
}

#[test]
fn the_configuration_file_sets_defaults_and_mistakes_in_it_are_named() {
    let desk = Desk::new();
    let file = desk.path().join("config.toml");
    let run = |args: &[&str]| {
        let output = desk.command(args).env("DOCK2UNI_CONFIG", &file).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    fs::write(&file, "[run]\nmemory = \"321m\"\n").unwrap();
    let (code, out, _) = run(&["run", "--help"]);
    assert!(code == 0 && out.contains("[default: 321m]"), "{out}");
    fs::write(&file, "[run]\nmemroy = 1\n").unwrap();
    let (code, _, err) = run(&["doctor"]);
    assert_eq!(code, 2);
    assert!(err.contains("config.toml`: `run` has no option `--memroy`\nhint: "), "{err}");
    fs::remove_file(&file).unwrap();
    assert_eq!(run(&["doctor"]).0, 3);
}

#[test]
fn the_store_is_measured_and_emptied() {
    let (desk, image) = (Desk::new(), hello());
    let reference = text(image.path());
    if can_boot() {
        let args = ["run", reference, "--dry-run", "--accel", "tcg"];
        assert_eq!(desk.run(&args).0, 0);
    }
    let (code, out, err) = desk.run(&["system", "df", "--json"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let before: Value = serde_json::from_str(&out).unwrap();
    let (_, out, _) = desk.run(&["system", "prune", "--older-than", "0", "--json"]);
    let freed: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(freed["bytes"], before["bytes"]);
    let (_, out, _) = desk.run(&["system", "df", "--json"]);
    let after: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(after["bytes"], 0);
    let (code, out, _) = desk.run(&["doctor", "--json"]);
    let doctor: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(doctor["able"], code == 0);
}

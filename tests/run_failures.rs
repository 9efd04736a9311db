//! What keeps an application from running, said once: a missing interpreter, a missing library, too
//! little memory. Each names the thing and what to do, has its exit status, and leaves nothing.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::layout::{ImageSpec, Layout, tar};
use common::vm::{Vm, can_boot, dock2uni};
use dock2uni::source::image::Compression;
use serde_json::json;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(120);
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
const LIBC: &str = "/lib/x86_64-linux-gnu/libc.so.6";

/// Compiles C source to `dir/name`.
fn compile(compiler: &str, dir: &Path, name: &str, source: &str, more: &[&str]) -> Vec<u8> {
    let file = format!("{name}.c");
    fs::write(dir.join(&file), source).unwrap();
    common::run(Command::new(compiler).current_dir(dir).args(["-o", name, &file]).args(more));
    fs::read(dir.join(name)).unwrap()
}

/// A program that needs a library of its own, `libanswer.so.1`.
fn dynamic(dir: &Path) -> Vec<u8> {
    let shared = ["-shared", "-fPIC", "-Wl,-soname,libanswer.so.1"];
    compile("gcc", dir, "libanswer.so", "int answer(void) { return 42; }\n", &shared);
    let source = "int answer(void); int main(void) { return answer(); }\n";
    compile("gcc", dir, "app", source, &["-L.", "-lanswer"])
}

fn image(files: &[(&str, &[u8])]) -> Layout {
    let mut layout = Layout::new();
    let image = layout.image(&ImageSpec {
        layers: vec![(tar(files), Compression::Gzip)],
        config: json!({"Cmd": ["/app"]}),
        ..ImageSpec::default()
    });
    layout.name(image, "latest");
    layout
}

fn run(image: &Layout, store: &TempDir, options: &[&str]) -> (i32, String) {
    let mut vm = Vm::start(
        dock2uni()
            .args(["run", "--accel", "tcg"])
            .args(options)
            .arg(image.path())
            .env("DOCK2UNI_STORE", store.path()),
    );
    let code = vm.wait(PATIENCE);
    (code, vm.text())
}

#[test]
fn a_missing_interpreter_is_named_before_anything_boots() {
    if !can_boot() {
        return;
    }
    let desk = tempfile::tempdir().unwrap();
    let image = image(&[("app", &dynamic(desk.path()))]);
    let said = format!(
        "error: `/app` needs the interpreter `{LOADER}`, which is not in the image\n\
         hint: the image must hold the interpreter: add it, or link the program statically"
    );
    assert_eq!(run(&image, &desk, &[]), (125, said.clone()));
    // Nor does a conversion leave an image behind.
    let out = desk.path().join("out");
    fs::create_dir(&out).unwrap();
    let output = dock2uni()
        .arg("convert")
        .arg(image.path())
        .args(["-q", "-o", "x.img"])
        .current_dir(&out)
        .env("DOCK2UNI_STORE", desk.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(String::from_utf8_lossy(&output.stderr).trim_end(), said);
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
}

#[test]
fn a_missing_library_is_named_by_the_loader_and_explained() {
    if !can_boot() {
        return;
    }
    let desk = tempfile::tempdir().unwrap();
    let loader = fs::read(LOADER).unwrap();
    let libc = fs::read(LIBC).unwrap();
    let image = image(&[
        ("app", &dynamic(desk.path())),
        (LOADER.trim_start_matches('/'), &loader),
        (LIBC.trim_start_matches('/'), &libc),
    ]);
    let (code, text) = run(&image, &desk, &[]);
    assert_eq!(code, 127, "{text}");
    assert_eq!(text.matches("libanswer.so.1: cannot open shared object file").count(), 1, "{text}");
    assert_eq!(text.matches("hint: ").count(), 1, "{text}");
    assert!(text.contains("hint: status 127 is how"), "{text}");
}

#[test]
fn too_little_memory_is_one_line_with_the_victim_and_what_to_do() {
    if !can_boot() {
        return;
    }
    let desk = tempfile::tempdir().unwrap();
    let hog = "#include <stdlib.h>\n#include <string.h>\n\
               int main(void) { for (;;) { char *p = malloc(1 << 20); if (!p) return 9; \
               memset(p, 1, 1 << 20); } }\n";
    let hog = compile("musl-gcc", desk.path(), "hog", hog, &["-static"]);
    // The application outgrows the machine: the main process is not spared.
    let (code, text) = run(&image(&[("app", &hog)]), &desk, &["-m", "32m"]);
    assert_eq!(code, 137, "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("out of memory: killing process 1 (app), which uses "), "{text}");
    assert!(text.contains("Give the VM more memory (`-m`)"), "{text}");

    // The machine can't even hold what the application starts with.
    let big = "static char big[64 << 20] = {1}; int main(void) { return big[1]; }\n";
    let big = compile("musl-gcc", desk.path(), "big", big, &["-static", "-O0"]);
    let (code, text) = run(&image(&[("app", &big)]), &desk, &["-m", "16m", "--boot", "ram"]);
    assert_eq!(code, 125, "{text}");
    assert_eq!(text.matches("error: ").count(), 1, "{text}");
    assert!(text.contains("-m"), "{text}");
}

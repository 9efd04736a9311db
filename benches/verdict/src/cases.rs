//! The cases: every test image as it is meant to be used, and mistakes.

use std::path::Path;
use std::process::Command;

use crate::table::Case;

/// The test images of these names, or all if there are none, as their users start them.
pub fn usual(names: &[String]) -> Result<Vec<Case>, String> {
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    let images = test_images::images().map(|(name, _)| name).filter(|name| wanted(name));
    images.map(|name| Ok(as_meant(name, reference(name)?))).collect()
}

/// Mistakes; what has to be made for them goes below `desk`.
pub fn mistakes(desk: &Path) -> Result<Vec<Case>, String> {
    let mut cases = Vec::new();
    let of = |name: &str, image: &str| -> Result<Case, String> {
        Ok(Case::new(name, reference(image)?))
    };
    cases.push(of("no such program", "nginx")?.command(&["no-such-program"]));
    cases.push(of("not executable", "busybox")?.command(&["/etc/passwd"]));
    cases.push(of("a directory", "busybox")?.command(&["/bin"]));
    cases.push(of("no such user", "debian")?.options(&["--user", "somebody"]).command(&["true"]));
    cases.push(of("no such working directory's program", "debian")?.command(&["./true"]));
    cases.push(of("a shell's missing program", "busybox")?.command(&["sh", "-c", "exec nothing"]));
    cases.push(of("namespaces", "debian")?.command(&["unshare", "--mount", "true"]));
    cases.push(of("postgres without a password", "postgres")?);
    cases.push(of("mariadb without a password", "mariadb")?.machine(&["-m", "512m"]));
    for (name, dockerfile, files) in made()? {
        let dir = desk.join(name.replace(' ', "-"));
        let write = |file: &str, bytes: &[u8]| {
            std::fs::write(dir.join(file), bytes).map_err(|error| error.to_string())
        };
        std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        write("Dockerfile", dockerfile.as_bytes())?;
        for (file, bytes) in files {
            write(file, &bytes)?;
        }
        cases.push(Case::new(name, dir.display().to_string()));
    }
    Ok(cases)
}

/// A test image as its users start it.
fn as_meant(name: &str, reference: String) -> Case {
    let case = Case::new(name, reference);
    match name {
        "postgres" => {
            case.options(&["-e", "POSTGRES_PASSWORD=secret"]).machine(&["--patience", "900"])
        }
        "mariadb" => case
            .options(&["-e", "MARIADB_ROOT_PASSWORD=root", "-e", "MARIADB_INITDB_SKIP_TZINFO=1"])
            .machine(&["-m", "512m", "--patience", "900"]),
        "java" => case.machine(&["-m", "768m", "--patience", "900"]),
        "rabbitmq" => case.machine(&["-m", "768m", "--cpus", "2", "--patience", "900"]),
        "busybox" | "alpine-like" => case.command(&["sh", "-c", "ls -l /etc"]),
        "debian" => case.command(&["bash", "-c", "ls -l /etc | sort | head -3"]),
        _ => case.machine(&["--patience", "600"]),
    }
}

fn reference(name: &str) -> Result<String, String> {
    let layout = test_images::build(name).map_err(|error| error.to_string())?;
    Ok(format!("oci:{}:latest", layout.display()))
}

type Made = (&'static str, &'static str, Vec<(&'static str, Vec<u8>)>);

/// Images that are made for a mistake: name, Dockerfile, files.
fn made() -> Result<Vec<Made>, String> {
    const ONE: &str = "FROM scratch\nCOPY --chmod=755 x /x\nCMD [\"/x\"]\n";
    let mut header = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0".to_vec();
    header.resize(64, 0);
    let (mut arm, mut small) = (header.clone(), header);
    arm[18] = 183;
    (small[4], small[18]) = (1, 3);
    let without_libc = compile("int main(void) { return 0; }")?;
    Ok(vec![
        ("another architecture", ONE, vec![("x", arm)]),
        ("a program of 32 bits", ONE, vec![("x", small)]),
        ("a script without interpreter", ONE, vec![("x", b"#!/bin/none\n".to_vec())]),
        ("a program without its libraries", ONE, vec![("x", without_libc)]),
        ("no program at all", "FROM scratch\nCOPY x /x\n", vec![("x", b"data".to_vec())]),
    ])
}

fn compile(text: &str) -> Result<Vec<u8>, String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (source, program) = (dir.path().join("x.c"), dir.path().join("x"));
    std::fs::write(&source, text).map_err(|error| error.to_string())?;
    let status = Command::new("cc").arg("-o").arg(&program).arg(&source).status();
    match status {
        Ok(status) if status.success() => {
            std::fs::read(&program).map_err(|error| error.to_string())
        }
        other => Err(format!("cc: {other:?}")),
    }
}

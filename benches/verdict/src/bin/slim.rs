//! `bench-slim [NAME...]`: sizes of the test images before and after `convert --slim`, each of which
//! was booted and asked. See README.md.

use std::process::{Command, ExitCode};

use bench_verdict::cases;
use serde_json::Value;

fn main() -> ExitCode {
    bench_verdict::status(run())
}

fn run() -> Result<bool, String> {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let dock2uni = bench_verdict::dock2uni()?;
    let desk = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut all = true;
    println!(
        "| image | files | MiB | files, slim | MiB, slim | of it |\n|---|---|---|---|---|---|"
    );
    for case in cases::usual(&names)? {
        let name = &case.name;
        let mut command = Command::new(&dock2uni);
        command.args(["convert", "--slim", "--json", &case.reference]).args(&case.options);
        command.args(&case.machine).arg("--output").arg(desk.path().join("slim.img"));
        if !case.command.is_empty() {
            command.arg("--").args(&case.command);
        }
        let output = command.env("DOCK2UNI_STORE", desk.path().join("store")).output();
        let output = output.map_err(|error| error.to_string())?;
        if !output.status.success() {
            let err = String::from_utf8_lossy(&output.stderr);
            let first = err.lines().find(|line| line.starts_with("error")).unwrap_or_default();
            println!("| {name} | | | | | {first} |");
            eprintln!("{name}: {err}");
            all = false;
            continue;
        }
        let made: Value =
            serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
        let pair = |key: &str| {
            let at = |index: usize| made["slim"][key][index].as_u64().unwrap_or_default();
            (at(0), at(1))
        };
        let ((bytes, kept), (files, left)) = (pair("bytes"), pair("files"));
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        println!(
            "| {name} | {files} | {:.1} | {left} | {:.1} | {:.0} % |",
            mib(bytes),
            mib(kept),
            100.0 * kept as f64 / bytes.max(1) as f64
        );
    }
    Ok(all)
}

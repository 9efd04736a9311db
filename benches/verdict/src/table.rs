//! What `inspect` says of an image against what the image does when it is booted.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// An image with options, and what it is for in the table.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub reference: String,
    /// Options of `inspect` and `convert`: the container's.
    pub options: Vec<String>,
    /// Options of the boot alone.
    pub machine: Vec<String>,
    pub command: Vec<String>,
}

impl Case {
    pub fn new(name: &str, reference: String) -> Case {
        let name = name.to_owned();
        Case { name, reference, options: Vec::new(), machine: Vec::new(), command: Vec::new() }
    }

    pub fn options(mut self, options: &[&str]) -> Case {
        self.options = options.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    pub fn machine(mut self, options: &[&str]) -> Case {
        self.machine = options.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    pub fn command(mut self, words: &[&str]) -> Case {
        self.command = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }
}

/// A case that was looked at.
#[derive(Clone, Debug)]
pub struct Row {
    pub name: String,
    /// `runs`, `runs-with-notes` or `wont-run`.
    pub predicted: String,
    /// What stands against it, or is noted.
    pub findings: Vec<String>,
    /// Whether it did what it should when it was booted.
    pub worked: bool,
    /// Why not, or what answered.
    pub why: String,
}

impl Row {
    pub fn right(&self) -> bool {
        (self.predicted != "wont-run") == self.worked
    }
}

/// Asks `inspect`, and then boots the image, whatever that has said. The files go to `desk`.
pub fn look(dock2uni: &Path, case: &Case, desk: &Path) -> Result<Row, String> {
    let start = |words: &[&str]| {
        let mut command = Command::new(dock2uni);
        command.args(words).arg(&case.reference).args(&case.options);
        command.env("DOCK2UNI_STORE", desk.join("store"));
        command
    };
    let finish = |mut command: Command| -> Result<(i32, String, String), String> {
        if !case.command.is_empty() {
            command.arg("--").args(&case.command);
        }
        let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let code = output.status.code().unwrap_or(-1);
        Ok((code, text(output.stdout), text(output.stderr)))
    };
    let (_, out, err) = finish(start(&["inspect", "--json"]))?;
    let report: Value =
        serde_json::from_str(&out).map_err(|error| format!("{}: {error}: {err}", case.name))?;
    let texts = report["findings"].as_array().into_iter().flatten();
    let findings = texts.filter_map(|finding| finding["text"].as_str()).map(str::to_owned);
    let image = desk.join("trial.img");
    let mut convert = start(&["convert", "--verify", "--json"]);
    convert.args(&case.machine).arg("--output").arg(&image);
    let (code, out, err) = finish(convert)?;
    // It is not there if nothing was made.
    let _ = std::fs::remove_file(&image);
    let made: Value = serde_json::from_str(&out).unwrap_or_default();
    let why = match (&made["verified"]["failure"], code) {
        (_, 0) => String::new(),
        (Value::String(failure), _) => failure.clone(),
        _ => err.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    };
    Ok(Row {
        name: case.name.clone(),
        predicted: report["verdict"].as_str().unwrap_or("none").to_owned(),
        findings: findings.collect(),
        worked: code == 0,
        why,
    })
}

/// The rows, and how often what was said met what happened.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from("| image | said | booted |\n|---|---|---|\n");
    for row in rows {
        let booted = if row.worked { "works" } else { "does not" };
        let mark = if row.right() { "" } else { " **wrong**" };
        let why = if row.why.is_empty() { String::new() } else { format!(": {}", row.why) };
        text.push_str(&format!("| {} | {} | {booted}{why}{mark} |\n", row.name, row.predicted));
    }
    text.push_str("\n| said | works | does not |\n|---|---|---|\n");
    for said in ["runs", "runs-with-notes", "wont-run"] {
        let count = |worked: bool| {
            rows.iter().filter(|row| row.predicted == said && row.worked == worked).count()
        };
        text.push_str(&format!("| {said} | {} | {} |\n", count(true), count(false)));
    }
    text
}

//! `bench-verdict [NAME... | mistakes]`: what is said of the test images, and of some that can't work,
//! against what they do. Prints the confusion table; fails if a verdict was wrong. See README.md.

use std::process::ExitCode;

use bench_verdict::{cases, table};

fn main() -> ExitCode {
    bench_verdict::status(run())
}

fn run() -> Result<bool, String> {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let dock2uni = bench_verdict::dock2uni()?;
    let desk = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut rows = Vec::new();
    let mut all = cases::usual(&names)?;
    if names.is_empty() || names.iter().any(|name| name == "mistakes") {
        all.extend(cases::mistakes(desk.path())?);
    }
    for case in all {
        let row = table::look(&dock2uni, &case, desk.path())?;
        eprintln!(
            "{}: {}, {}",
            row.name,
            row.predicted,
            if row.worked { "works" } else { &row.why }
        );
        rows.push(row);
    }
    println!("{}", table::table(&rows));
    for row in rows.iter().filter(|row| !row.right()) {
        println!("{}: {}", row.name, row.findings.join("; "));
    }
    Ok(rows.iter().all(table::Row::right))
}

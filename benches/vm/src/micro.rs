//! Single operations, timed by the guests themselves.

use crate::net::Network;
use crate::vm::{self, Clock, Guest, Vm, console_log, work_dir};
use crate::{Options, linux};
use dock2uni::dockerfile::{self, Cancel};
use dock2uni::source::{self, Image, Quiet, Store};
use std::collections::BTreeMap;
use std::time::Duration;

/// An image with the program and nothing else.
fn image(words: &[&str]) -> Result<Image, String> {
    let context = work_dir()?.join("micro");
    std::fs::create_dir_all(&context).map_err(|error| error.to_string())?;
    let program = linux::build_static("micro-bench")?;
    std::fs::copy(program, context.join("micro")).map_err(|error| error.to_string())?;
    let text = format!("FROM scratch\nCOPY micro /micro\nENTRYPOINT {words:?}\n");
    std::fs::write(context.join("Dockerfile"), text).map_err(|error| error.to_string())?;
    let store = Store::open_default().map_err(|error| error.to_string())?;
    let (what, from) = (dockerfile::Options::new(context), source::Options::from_env());
    let built = dockerfile::build(&what, &from, &store, &Quiet, &Cancel::default());
    built.map_err(|error| error.to_string())
}

/// Boots both guests in turn, and prints the median of each operation and their ratio: how many
/// times as fast ours is.
pub fn run(options: &Options) -> Result<(), String> {
    // Instructions are the same every time.
    let batches = match options.clock {
        Clock::Time => 100,
        Clock::Instructions => 5,
    };
    let batches = options.batches.unwrap_or(batches).to_string();
    let mut words = vec!["/micro", &batches];
    words.extend(options.only.as_deref());
    let image = image(&words)?;
    let ours = vm::prepare(&image, &[], options.kernel.as_deref(), Network::User)?;
    let linux = linux::prepare(&ours)?;
    let (unit, rounds) = match options.clock {
        Clock::Time => ("ns", options.rounds),
        Clock::Instructions => ("instructions", 1),
    };
    let mut names = Vec::new();
    let mut all: BTreeMap<String, [Vec<f64>; 2]> = BTreeMap::new();
    for _ in 0..rounds {
        for (index, guest) in [&ours, &linux].into_iter().enumerate() {
            for (name, value) in measure(options, guest)? {
                if !names.contains(&name) {
                    names.push(name.clone());
                }
                all.entry(name).or_default()[index].push(value);
            }
        }
    }
    println!(
        "machine {}, {} CPUs, accel {}, {rounds} rounds in turn; {unit} for one operation",
        options.machine.name(),
        options.cpus,
        vm::ACCEL,
    );
    println!("{:40} {:>12} {:>12} {:>8}", "", "dock2uni", "linux", "ratio");
    for name in &names {
        let medians = all[name].each_ref().map(|values| {
            let mut values = values.clone();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
        });
        let [ours, linux] = medians;
        println!("{name:40} {ours:>12.0} {linux:>12.0} {:>8.2}", linux / ours);
    }
    Ok(())
}

/// What the program prints on a guest.
fn measure(options: &Options, guest: &Guest) -> Result<Vec<(String, f64)>, String> {
    let mut vm = Vm::start_by(options.clock, guest, options.machine, 512, options.cpus)?;
    let ended = vm.wait(Duration::from_secs(1800));
    let text = std::fs::read(console_log()?).map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&text);
    ended.map_err(|why| format!("{}: {why}; its console:\n{text}", guest.name))?;
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("micro "));
    let results: Vec<_> = lines
        .filter_map(|line| line.rsplit_once(": "))
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect();
    match results.is_empty() {
        true => Err(format!("{}: no results; its console:\n{text}", guest.name)),
        false => Ok(results),
    }
}

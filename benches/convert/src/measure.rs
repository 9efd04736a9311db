//! What a child process costs, read from /proc.

use std::{
    fmt, fs,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use bench_convert::{Result, children_cpu};

/// How often the peak is looked at. The kernel keeps the mark; only growth in the last moment of
/// a process can be missed.
const INTERVAL: Duration = Duration::from_millis(4);

/// Costs of one process.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub name: &'static str,
    /// User and system time, its waited-for children included.
    pub cpu: Duration,
    pub wall: Duration,
    /// Largest resident set in bytes.
    pub peak: u64,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cpu, wall) = (self.cpu.as_secs_f64(), self.wall.as_secs_f64());
        write!(f, "CPU {cpu:.2} s, wall {wall:.2} s, peak {} MiB", self.peak >> 20)
    }
}

/// Running a command for its costs.
pub trait Measure {
    fn measure(&mut self, name: &'static str) -> Result<Cost>;
}

impl Measure for Command {
    fn measure(&mut self, name: &'static str) -> Result<Cost> {
        let before = children_cpu()?;
        let started = Instant::now();
        let mut child = self
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot run {name}: {error}"))?;
        let status = format!("/proc/{}/status", child.id());
        let mut peak = 0;
        let exit = loop {
            if let Some(exit) = child.try_wait()? {
                break exit;
            }
            peak = peak.max(fs::read_to_string(&status).map_or(0, |text| high_water(&text)));
            thread::sleep(INTERVAL);
        };
        let wall = started.elapsed();
        if !exit.success() {
            return Err(format!("{name} failed: {exit}").into());
        }
        Ok(Cost { name, cpu: children_cpu()? - before, wall, peak })
    }
}

/// `VmHWM` in bytes.
fn high_water(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

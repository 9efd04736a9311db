//! What a child process costs, read from /proc.

use std::{
    fmt, fs,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use bench_convert::{Result, children_cpu, machine_cpu};

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
    /// What the machine did meanwhile, user and system time of everybody.
    pub busy: Duration,
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
        let (before, busy) = (children_cpu()?, machine_cpu()?);
        let started = Instant::now();
        let mut child = self
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot run {name}: {error}"))?;
        let status = format!("/proc/{}/status", child.id());
        let ended = AtomicBool::new(false);
        let (exit, wall, peak) = thread::scope(|scope| {
            let peak = scope.spawn(|| {
                let mut peak = 0;
                while !ended.load(Ordering::Relaxed) {
                    let now = fs::read_to_string(&status).map_or(0, |text| high_water(&text));
                    peak = peak.max(now);
                    thread::sleep(INTERVAL);
                }
                peak
            });
            let (exit, wall) = (child.wait(), started.elapsed());
            ended.store(true, Ordering::Relaxed);
            (exit, wall, peak.join().unwrap_or(0))
        });
        let exit = exit?;
        if !exit.success() {
            return Err(format!("{name} failed: {exit}").into());
        }
        let busy = machine_cpu()? - busy;
        Ok(Cost { name, cpu: children_cpu()? - before, wall, peak, busy })
    }
}

/// `VmHWM` in bytes.
fn high_water(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

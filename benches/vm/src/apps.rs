//! Databases under their own clients, and servers of pages that compute them.

use crate::http;
use crate::vm::{Vm, sh};
use std::process::Command;
use std::time::{Duration, Instant};

/// What the image serves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum App {
    /// Pages.
    Http,
    /// The protocol of redis.
    Redis,
    /// That of PostgreSQL.
    Postgres,
    /// Pages by Node.js.
    Node,
    /// Pages by Python behind gunicorn.
    Gunicorn,
}

impl App {
    /// By its name on the command line.
    pub fn parse(name: &str) -> Result<App, String> {
        match name {
            "http" => Ok(App::Http),
            "redis" => Ok(App::Redis),
            "postgres" => Ok(App::Postgres),
            "node" => Ok(App::Node),
            "gunicorn" => Ok(App::Gunicorn),
            _ => {
                Err(format!("application `{name}` is not http, redis, postgres, node or gunicorn"))
            }
        }
    }

    /// The port that it listens on.
    pub fn port(self) -> u16 {
        match self {
            App::Http => 80,
            App::Redis => 6379,
            App::Postgres => 5432,
            App::Node => 3000,
            App::Gunicorn => 8000,
        }
    }

    /// Variables that its image asks for.
    pub fn env(self) -> Vec<String> {
        match self {
            App::Postgres => vec!["POSTGRES_HOST_AUTH_METHOD=trust".to_owned()],
            _ => Vec::new(),
        }
    }

    /// What is measured, each in a fresh VM; all are rates.
    pub fn measures(self) -> &'static [&'static str] {
        match self {
            App::Http => &[],
            App::Redis => {
                &["set 1", "get 1", "set 16", "get 16", "set 16 pipelined", "get 16 pipelined"]
            }
            App::Postgres => &["pgbench 1", "pgbench 4", "pgbench select 1", "pgbench select 4"],
            App::Node => &["wrk keep-alive 1", "wrk keep-alive 16", "wrk keep-alive 64"],
            // Its workers close each connection behind the answer.
            App::Gunicorn => &["wrk close 1", "wrk close 16", "wrk close 64"],
        }
    }
}

/// Waits until a fresh VM answers, and measures one thing: rates as [`Vm::rate`] has them.
pub fn measure(vm: &Vm, who: &str, name: &str, seconds: u64) -> Result<[f64; 2], String> {
    let words: Vec<&str> = name.split(' ').collect();
    match words[..] {
        ["wrk", kind, connections] => {
            http::wait_for_200(vm.address, Duration::from_secs(300))?;
            let connections = connections.parse().map_err(|_| "connections are a number")?;
            let load = |seconds| {
                http::wrk(who, vm.address, kind == "keep-alive", connections, seconds, 60)
            };
            // The first requests meet programs that aren't compiled, imported or cached yet.
            for _ in 0..10 {
                if load(4)? > 0.0 {
                    break;
                }
            }
            vm.rate(|| load(seconds))
        }
        ["pgbench", "select", clients] => pgbench(vm, clients, seconds, &["-S"]),
        ["pgbench", clients] => pgbench(vm, clients, seconds, &[]),
        [test, clients] => redis(vm, test, clients, "1", seconds),
        [test, clients, _] => redis(vm, test, clients, "16", seconds),
        _ => Err(format!("no measure is called `{name}`")),
    }
}

fn until_ready(client: impl Fn() -> Command) -> Result<(), String> {
    let start = Instant::now();
    loop {
        match sh(&mut client()) {
            Ok(_) => return Ok(()),
            Err(why) if start.elapsed() > Duration::from_secs(300) => return Err(why),
            Err(_) => std::thread::sleep(Duration::from_millis(500)),
        }
    }
}

/// Operations a second.
fn redis(
    vm: &Vm,
    test: &str,
    clients: &str,
    pipelined: &str,
    seconds: u64,
) -> Result<[f64; 2], String> {
    let (host, port) = (vm.address.ip().to_string(), vm.address.port().to_string());
    until_ready(|| {
        let mut command = Command::new("redis-cli");
        command.args(["-e", "-h", &host, "-p", &port, "ping"]);
        command
    })?;
    let run = |requests: f64| -> Result<f64, String> {
        let requests = requests.ceil().to_string();
        let mut command = Command::new("redis-benchmark");
        command.args(["-h", &host, "-p", &port, "-t", test, "-c", clients, "-P", pipelined]);
        command.args(["-n", &requests]);
        let csv = sh(command.args(["-r", "10000", "-d", "64", "--csv"]))?;
        // "SET","1234.5",...
        let rate = csv.lines().last().and_then(|line| line.split('"').nth(3));
        rate.and_then(|rate| rate.parse().ok()).ok_or(format!("no rate in:\n{csv}"))
    };
    // It takes a number of requests, not a time. Connecting through QEMU's forwarder, which lets one
    // connection wait, may take the last ones three seconds: so the run that counts is as long as was
    // asked for, whatever a short one says.
    let (mut requests, mut resets) = (5000.0, 0);
    loop {
        let start = Instant::now();
        // The forwarder resets connections now and then, whoever the guest is.
        let rates = match vm.rate(|| run(requests)) {
            Err(_) if resets < 3 => {
                resets += 1;
                continue;
            }
            rates => rates?,
        };
        let took = start.elapsed().as_secs_f64() / seconds as f64;
        if took >= 0.8 {
            return Ok(rates);
        }
        requests *= (1.1 / took).min(10.0);
    }
}

/// Transactions a second, on 100,000 accounts.
fn pgbench(vm: &Vm, clients: &str, seconds: u64, options: &[&str]) -> Result<[f64; 2], String> {
    let (host, port) = (vm.address.ip().to_string(), vm.address.port().to_string());
    let client = |program: &str| {
        // Debian has them in a directory for each major version.
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let found = versions.map(|dir| dir.path().join("bin").join(program)).find(|p| p.exists());
        let mut command = Command::new(found.unwrap_or_else(|| program.into()));
        command.args(["-h", &host, "-p", &port, "-U", "postgres"]);
        command.env("PGCONNECT_TIMEOUT", "10");
        command
    };
    until_ready(|| {
        let mut command = client("psql");
        command.args(["-c", "SELECT 1", "postgres"]);
        command
    })?;
    sh(client("pgbench").args(["-i", "-q", "postgres"]))?;
    vm.rate(|| {
        let mut command = client("pgbench");
        command.args(["-n", "-c", clients, "-j", "1", "-T", &seconds.to_string()]);
        let report = sh(command.args(options).arg("postgres"))?;
        let line = report.lines().find_map(|line| line.strip_prefix("tps = "));
        let rate = line.and_then(|rest| rest.split(' ').next()?.parse().ok());
        rate.ok_or(format!("no rate in:\n{report}"))
    })
}

//! The dock2uni VM beside a Linux microVM made from the same files, measured in turn on the same
//! machine type.
//!
//! ```text
//! cargo run --release -p bench-vm -- IMAGE [--machine q35|microvm] [--rounds N] [--seconds S]
//!     [--app http|redis|postgres|node|gunicorn] [--cpus N] [--network user|tap] [--kernel FILE]
//! cargo run --release -p bench-vm -- micro [--clock time|instructions] [--only WORD] ...
//! ```
//!
//! IMAGE is what `dock2uni convert` takes, and has to serve HTTP on port 80, or what `--app` says:
//! `redis` and `postgres` are loaded by `redis-benchmark` and `pgbench`, the others by `wrk`. The
//! Linux side is Debian's stock cloud kernel with the same EROFS root and the smallest init that can
//! start the image (`linux-init`). `micro` times single operations of both kernels by the program in
//! `micro/`.

mod apps;
mod http;
mod linux;
mod micro;
mod net;
mod vm;

use apps::App;
use net::Network;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use vm::{Clock, Guest, Machine, Vm};

struct Options {
    image: String,
    machine: Machine,
    rounds: usize,
    seconds: u64,
    only: Option<String>,
    app: App,
    cpus: u32,
    clock: Clock,
    kernel: Option<String>,
    batches: Option<u32>,
    network: Network,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        image: String::new(),
        machine: Machine::Q35,
        rounds: 5,
        seconds: 5,
        only: None,
        app: App::Http,
        cpus: 1,
        clock: Clock::Time,
        kernel: None,
        batches: None,
        network: Network::default(),
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("`{arg}` needs a value"));
        match arg.as_str() {
            "--machine" => options.machine = Machine::parse(&value()?)?,
            "--rounds" => {
                options.rounds = value()?.parse().map_err(|_| "`--rounds` takes a number")?
            }
            "--seconds" => {
                options.seconds = value()?.parse().map_err(|_| "`--seconds` takes a number")?
            }
            "--app" => options.app = App::parse(&value()?)?,
            "--cpus" => options.cpus = value()?.parse().map_err(|_| "`--cpus` takes a number")?,
            "--clock" => options.clock = Clock::parse(&value()?)?,
            "--batches" => {
                options.batches = Some(value()?.parse().map_err(|_| "`--batches` takes a number")?)
            }
            "--network" => options.network = Network::parse(&value()?)?,
            "--kernel" => options.kernel = Some(value()?),
            "--only" => options.only = Some(value()?),
            _ if options.image.is_empty() && !arg.starts_with('-') => options.image = arg,
            _ => return Err(format!("`{arg}` is not an option")),
        }
    }
    if options.image.is_empty() {
        return Err("usage: bench-vm IMAGE [--machine q35|microvm] [--rounds N] [--seconds S] [--only MEASURE] [--app http|redis|postgres|node|gunicorn] [--cpus N] [--network user|tap] [--kernel FILE]\n       bench-vm micro [--clock time|instructions] [--batches N] [--only WORD] [--cpus N] [--rounds N] [--kernel FILE]".into());
    }
    if options.clock == Clock::Instructions && (options.cpus != 1 || options.image != "micro") {
        return Err("`--clock instructions` is for `micro` with one CPU".into());
    }
    Ok(options)
}

fn main() -> ExitCode {
    match options().and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    if options.image == "micro" {
        return micro::run(options);
    }
    let image = vm::image(&options.image)?;
    let (env, kernel) = (options.app.env(), options.kernel.as_deref());
    let mut ours = vm::prepare(&image, &env, kernel, options.network)?;
    ours.port = options.app.port();
    let linux = linux::prepare(&ours)?;
    if options.network == Network::Tap {
        // Only now: what was missing may have come over this machine's network.
        if !net::is_inside() {
            return Err(net::enter());
        }
        net::set_up()?;
    }
    let guests = [&ours, &linux];
    println!(
        "machine {}, {} CPUs, accel {}, network {}, {} rounds in turn",
        options.machine.name(),
        options.cpus,
        vm::ACCEL,
        options.network.name(),
        options.rounds
    );
    let wanted = |name: &str| options.only.as_deref().is_none_or(|only| only == name);
    println!(
        "{:34} {:>12} {:>12} {:>8}   {:>12} {:>12} {:>8}",
        "", "dock2uni", "linux", "ratio", "by CPU time", "linux", "ratio"
    );
    if options.app != App::Http {
        for name in options.app.measures().iter().copied().filter(|name| wanted(name)) {
            let measure = |options: &Options, guest: &Guest| {
                let vm = Vm::start(guest, options.machine, 512, options.cpus)?;
                apps::measure(&vm, guest.name, name, options.seconds)
            };
            rates(name, in_turn(options, guests, measure)?);
        }
        return Ok(());
    }
    if wanted("size") {
        row("kernel and initramfs, bytes", guests.map(|guest| guest.kernel_bytes() as f64));
    }
    if wanted("boot") {
        row("VMM start to first 200, ms", in_turn(options, guests, boot)?[0]);
    }
    if wanted("host-memory") {
        row("host memory serving (256 MiB), MiB", in_turn(options, guests, host_memory)?[0]);
    }
    if wanted("memory") {
        row(
            "smallest memory that serves, MiB",
            [smallest(options, guests[0])?, smallest(options, guests[1])?],
        );
    }
    for (keep_alive, connections) in
        [true, false].iter().flat_map(|&keep| [1, 16, 64, 512].map(|count| (keep, count)))
    {
        let name = if keep_alive { "keep-alive" } else { "close" };
        if wanted(name) {
            let measure = |options: &Options, guest: &Guest| {
                requests(options, guest, keep_alive, connections)
            };
            rates(
                &format!("requests/s, {name}, {connections}"),
                in_turn(options, guests, measure)?,
            );
        }
    }
    Ok(())
}

fn row(name: &str, [ours, linux]: [f64; 2]) {
    println!("{name:34} {ours:>12.0} {linux:>12.0} {:>8.3}", ours / linux);
}

/// Two rates: by the second, and by the VM's CPU time.
fn rates(name: &str, [time, cpu]: [[f64; 2]; 2]) {
    let columns =
        |[ours, linux]: [f64; 2]| format!("{ours:>12.0} {linux:>12.0} {:>8.3}", ours / linux);
    println!("{name:34} {}   {}", columns(time), columns(cpu));
}

/// Measures both guests in turn, round after round, so that a noisy minute hits both; gives the
/// medians of each of the values that are measured at once.
fn in_turn<const N: usize>(
    options: &Options,
    guests: [&Guest; 2],
    measure: impl Fn(&Options, &Guest) -> Result<[f64; N], String>,
) -> Result<[[f64; 2]; N], String> {
    let mut results: [[Vec<f64>; 2]; N] = std::array::from_fn(|_| Default::default());
    for _ in 0..options.rounds {
        for (at, guest) in guests.into_iter().enumerate() {
            for (lists, value) in results.iter_mut().zip(measure(options, guest)?) {
                lists[at].push(value);
            }
        }
    }
    Ok(results.map(|lists| {
        lists.map(|mut list| {
            list.sort_by(f64::total_cmp);
            list[list.len() / 2]
        })
    }))
}

fn boot(options: &Options, guest: &Guest) -> Result<[f64; 1], String> {
    let start = Instant::now();
    let vm = Vm::start(guest, options.machine, 256, options.cpus)?;
    http::wait_for_200(vm.address, Duration::from_secs(120))?;
    Ok([start.elapsed().as_secs_f64() * 1000.0])
}

fn host_memory(options: &Options, guest: &Guest) -> Result<[f64; 1], String> {
    let vm = Vm::start(guest, options.machine, 256, options.cpus)?;
    http::wait_for_200(vm.address, Duration::from_secs(120))?;
    Ok([vm.resident_mib()?])
}

fn smallest(options: &Options, guest: &Guest) -> Result<f64, String> {
    let serves = |mib: u32| -> Result<bool, String> {
        let vm = Vm::start(guest, options.machine, mib, options.cpus)?;
        let served = http::wait_for_200(vm.address, Duration::from_secs(40)).is_ok();
        Ok(served && (0..50).all(|_| http::get(vm.address, Duration::from_secs(5)).is_ok()))
    };
    for mib in [12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 72, 80, 88, 96, 112, 128, 160, 192, 256] {
        if serves(mib)? {
            return Ok(f64::from(mib));
        }
    }
    Err("does not serve in 256 MiB".into())
}

fn requests(
    options: &Options,
    guest: &Guest,
    keep_alive: bool,
    connections: u32,
) -> Result<[f64; 2], String> {
    let vm = Vm::start(guest, options.machine, 256, options.cpus)?;
    http::wait_for_200(vm.address, Duration::from_secs(120))?;
    vm.rate(|| http::wrk(guest.name, vm.address, keep_alive, connections, options.seconds, 2))
}

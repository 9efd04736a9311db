//! `bench-service [--workers 2,4,8] [--jobs N] [--conversions N] [--image NAME] [--dock2uni FILE]`: one
//! PostgreSQL, and so many workers: jobs a second through the queue alone, and whole conversions by
//! `dock2uni worker` processes. See README.md.

mod postgres;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use bench_convert::Result;
use bench_convert::registry::Registry;
use dock2uni::service::job::{Options, Outcome, Request, State};
use dock2uni::service::queue::{Progress, Queue};
use dock2uni::source::Digest;

use self::postgres::Postgres;

/// How long a job may be held.
const LEASE: Duration = Duration::from_secs(60);
/// Longest time without a job that ends.
const PATIENCE: Duration = Duration::from_secs(600);

struct Args {
    workers: Vec<usize>,
    jobs: usize,
    conversions: usize,
    image: String,
    dock2uni: PathBuf,
}

fn main() -> ExitCode {
    match args().and_then(|args| run(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn args() -> Result<Args> {
    let beside = std::env::current_exe()?.with_file_name("dock2uni");
    let mut args = Args {
        workers: vec![1, 2, 4, 8],
        jobs: 5000,
        conversions: 64,
        image: "busybox".to_owned(),
        dock2uni: beside,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--workers" => {
                let counts = value()?;
                let counts = counts.split(',').map(|count| Ok(count.parse()?));
                args.workers = counts.collect::<Result<_>>()?;
            }
            "--jobs" => args.jobs = value()?.parse()?,
            "--conversions" => args.conversions = value()?.parse()?,
            "--image" => args.image = value()?,
            "--dock2uni" => args.dock2uni = value()?.into(),
            _ => {
                return Err("usage: bench-service [--workers 1,2,4,8] [--jobs N] \
                            [--conversions N] [--image NAME] [--dock2uni FILE]"
                    .into());
            }
        }
    }
    if !args.dock2uni.exists() {
        return Err("build dock2uni first: cargo build --release".into());
    }
    Ok(args)
}

fn run(args: &Args) -> Result<()> {
    let work = tempfile::tempdir()?;
    let postgres = Postgres::start(&work.path().join("postgres"))?;
    let registry = Registry::start(work.path())?;
    let layout = test_images::build(&args.image)?;
    let image = push(&registry, &layout, &args.image)?;
    let processors = thread::available_parallelism()?;
    println!(
        "{processors} processors; {} jobs through the queue, {} conversions of {}\n",
        args.jobs, args.conversions, args.image
    );
    println!("| workers | queue alone: jobs/s | lease, median | lease, 99 % | conversions/s |");
    println!("|---|---|---|---|---|");
    for &workers in &args.workers {
        let (rate, median, worst) = queue_alone(&postgres.database()?, workers, args.jobs)?;
        let desk = work.path().join(workers.to_string());
        let whole = conversions(args, &postgres.database()?, &image, workers, &desk)?;
        fs::remove_dir_all(&desk)?;
        let millis = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1000.0);
        let (median, worst) = (millis(median), millis(worst));
        println!("| {workers} | {rate:.0} | {median} | {worst} | {whole:.2} |");
    }
    Ok(())
}

fn request(image: String, number: usize) -> Request {
    let hostname = Some(format!("h{number}"));
    Request {
        image,
        options: Options { hostname, formats: vec!["qcow2".into()], ..Options::default() },
        destinations: vec!["images".into()],
        priority: 0,
        tenant: format!("tenant-{}", number % 5),
        callback: None,
        origin: "bench".into(),
        rule: None,
    }
}

/// Jobs a second that are leased, renewed once and completed, each worker over a connection of its
/// own; and how long a lease took, the median and the 99th percentile.
fn queue_alone(url: &str, workers: usize, jobs: usize) -> Result<(f64, Duration, Duration)> {
    let queue = Queue::postgres(url)?;
    let requests: Vec<_> = (0..jobs)
        .map(|number| {
            let digest = Digest::of(&number.to_le_bytes());
            request(format!("r.example/app@{digest}"), number)
        })
        .collect();
    for chunk in requests.chunks(100) {
        queue.submit(chunk, None)?;
    }
    let queues: Vec<_> = (0..workers).map(|_| Ok(Queue::postgres(url)?)).collect::<Result<_>>()?;
    let times = Mutex::new(Vec::with_capacity(jobs));
    let begun = Instant::now();
    let ended: Result<Vec<()>> = thread::scope(|scope| {
        let threads: Vec<_> = queues
            .iter()
            .enumerate()
            .map(|(number, queue)| {
                let times = &times;
                scope.spawn(move || work(queue, number, times))
            })
            .collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Result<()>>| {
            thread.join().unwrap_or_else(|_| Err("a worker's thread panicked".into()))
        };
        threads.into_iter().map(join).collect()
    });
    ended?;
    let rate = jobs as f64 / begun.elapsed().as_secs_f64();
    let mut times = times.into_inner()?;
    times.sort();
    let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
    match queue.counts()?.get(&State::Done) {
        Some(&done) if done == jobs as i64 => Ok((rate, at(50), at(99))),
        other => Err(format!("{other:?} of {jobs} jobs are done").into()),
    }
}

/// Takes jobs until there are none.
fn work(queue: &Queue, number: usize, times: &Mutex<Vec<Duration>>) -> Result<()> {
    let name = format!("w{number}");
    let mut own = Vec::new();
    loop {
        let begun = Instant::now();
        let Some(lease) = queue.lease(&name, LEASE)? else { break };
        own.push(begun.elapsed());
        queue.beat(&lease, LEASE, &Progress::default())?;
        let outcome = Outcome { key: lease.job.id.clone(), ..Outcome::default() };
        queue.complete(&lease, &outcome)?;
    }
    times.lock().map_err(|_| "another worker panicked")?.extend(own);
    Ok(())
}

/// Conversions a second by so many worker processes of one job at a time, from when the first job is
/// taken to when the last is done.
fn conversions(args: &Args, url: &str, image: &str, workers: usize, desk: &Path) -> Result<f64> {
    let queue = Queue::postgres(url)?;
    let requests: Vec<_> =
        (0..args.conversions).map(|number| request(image.to_owned(), number)).collect();
    queue.submit(&requests, None)?;
    let started: Vec<Process> =
        (0..workers).map(|number| worker(args, url, desk, number)).collect::<Result<_>>()?;
    let count = |state: State| -> Result<usize> {
        Ok(usize::try_from(queue.counts()?.get(&state).copied().unwrap_or(0))?)
    };
    while count(State::Queued)? == args.conversions {
        thread::sleep(Duration::from_millis(5));
    }
    let begun = Instant::now();
    let (mut last, mut heard) = (0, Instant::now());
    loop {
        let done = count(State::Done)?;
        if done == args.conversions {
            drop(started);
            return Ok(done as f64 / begun.elapsed().as_secs_f64());
        }
        if done != last {
            (last, heard) = (done, Instant::now());
        }
        let failed = count(State::Failed)?;
        if failed > 0 || heard.elapsed() > PATIENCE {
            let log = fs::read_to_string(desk.join("0/log")).unwrap_or_default();
            return Err(format!("{done} are done and {failed} failed:\n{log}").into());
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// A process that is killed when this is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a worker with a store and a scratch directory of its own, as on a machine of its own.
fn worker(args: &Args, url: &str, desk: &Path, number: usize) -> Result<Process> {
    let dir = desk.join(number.to_string());
    fs::create_dir_all(&dir)?;
    let file = dir.join("service.toml");
    let images = desk.join("images");
    fs::write(
        &file,
        format!(
            "[server]\nstate = \"state\"\n[queue]\nurl = \"{url}\"\n[workers]\ncount = 1\n\
             [outgoing]\nallow = [\"127.0.0.0/8\"]\n\
             [[destination]]\nname = \"images\"\ndirectory = \"{}\"\n",
            images.display()
        ),
    )?;
    let mut command = Command::new(&args.dock2uni);
    command.arg("worker").arg(&file).stdin(Stdio::null()).stdout(Stdio::null());
    Ok(Process(command.stderr(fs::File::create(dir.join("log"))?).spawn()?))
}

fn push(registry: &Registry, layout: &Path, name: &str) -> Result<String> {
    let reference = format!("{}/{name}:latest", registry.address);
    let copy = Command::new("skopeo")
        .args(["copy", "-q", "--dest-tls-verify=false"])
        .arg(format!("oci:{}:latest", layout.display()))
        .arg(format!("docker://{reference}"))
        .status()?;
    if copy.success() { Ok(reference) } else { Err("skopeo cannot push the image".into()) }
}

//! `dock2uni serve` and `dock2uni worker`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use tracing_subscriber::filter::LevelFilter;

use super::{Failure, exit};
use crate::service::config::Config;
use crate::service::log::{self, Form};
use crate::service::secret::random_hex;
use crate::service::server::{self, Setup};
use crate::source::Digest;

pub const SERVE_EXAMPLES: &str = "\
Examples:
  dock2uni serve --example > service.toml
  dock2uni serve --new-token                # a token for the API, and its hash for the file
  dock2uni serve service.toml --check
  dock2uni serve service.toml

SIGTERM ends it when its jobs are done; SIGHUP reads the file again, as does a change to it.";

pub const WORKER_EXAMPLES: &str = "\
Examples:
  dock2uni worker service.toml              # the server's file, with a queue in PostgreSQL

SIGTERM ends it when its jobs are done; what takes longer than `drain` goes back to the queue.";

/// A configuration to begin with.
const EXAMPLE: &str = include_str!("../../examples/service/service.toml");

#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Configuration file
    #[arg(required_unless_present_any = ["example", "new_token"])]
    config: Option<PathBuf>,
    #[command(flatten)]
    log: LogArgs,
    /// Jobs at once, in place of the configuration's; 0 for a server without workers of its own
    #[arg(long, value_name = "COUNT")]
    workers: Option<usize>,
    /// Print the address that is listened on to standard output
    #[arg(long)]
    announce: bool,
    /// Say whether the configuration is in order, and do no more
    #[arg(long, conflicts_with_all = ["example", "new_token"])]
    check: bool,
    /// Print a configuration to begin with
    #[arg(long, conflicts_with = "new_token")]
    example: bool,
    /// Make a token for the API
    #[arg(long)]
    new_token: bool,
}

#[derive(Debug, Args)]
pub struct WorkerArgs {
    /// Configuration file
    config: PathBuf,
    #[command(flatten)]
    log: LogArgs,
    /// Jobs at once, in place of the configuration's
    #[arg(long, value_name = "COUNT")]
    workers: Option<usize>,
}

#[derive(Debug, Args)]
struct LogArgs {
    /// Form of the log on standard error
    #[arg(long, value_enum, default_value_t = LogForm::Text)]
    log: LogForm,
    /// Log what weighs this much or more
    #[arg(long, value_enum, default_value_t = Level::Info)]
    log_level: Level,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogForm {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Level {
    /// What went wrong
    Error,
    /// What may go wrong
    Warn,
    /// What happens
    Info,
    /// What happens inside
    Debug,
}

impl LogArgs {
    fn start(&self) {
        let form = match self.log {
            LogForm::Text => Form::Text,
            LogForm::Json => Form::Json,
        };
        let level = match self.log_level {
            Level::Error => LevelFilter::ERROR,
            Level::Warn => LevelFilter::WARN,
            Level::Info => LevelFilter::INFO,
            Level::Debug => LevelFilter::DEBUG,
        };
        log::start(form, level);
    }
}

pub fn serve(args: &ServeArgs) -> Result<u8, Failure> {
    if args.example {
        print!("{EXAMPLE}");
        return Ok(exit::OK);
    }
    if args.new_token {
        let token = format!("d2u_{}", random_hex(24));
        println!("token    {token}");
        println!("sha256   {}", Digest::of(token.as_bytes()).hex());
        return Ok(exit::OK);
    }
    // The parser wants it unless one of the above is there.
    let config = args.config.clone().unwrap_or_default();
    if args.check {
        let config = Config::load(&config).map_err(server::Error::from)?;
        println!(
            "in order: {} webhooks, {} polls, {} rules, {} destinations, {} tokens",
            config.webhooks.len(),
            config.polls.len(),
            config.rules.len(),
            config.destinations.len(),
            config.tokens.len()
        );
        return Ok(exit::OK);
    }
    args.log.start();
    server::run(&setup(config, args.workers, args.announce)?)?;
    Ok(exit::OK)
}

pub fn worker(args: &WorkerArgs) -> Result<u8, Failure> {
    args.log.start();
    server::work(&setup(args.config.clone(), args.workers, false)?)?;
    Ok(exit::OK)
}

/// Conversions are this very program.
fn setup(config: PathBuf, workers: Option<usize>, announce: bool) -> Result<Setup, Failure> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::io("cannot tell where this program is".to_owned(), error))?;
    Ok(Setup { config, program: vec![program, "__convert".into()], workers, announce })
}

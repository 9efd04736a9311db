//! What containers are started with, in the words of `docker run`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use dock2uni_format::record::{Limit, Syscalls};

use super::AUTO;
use crate::cli::Failure;
use crate::config::{self, HealthOverrides, Overrides, Publish};
use crate::source::{Image, Store};
use crate::syscalls;
use crate::volume::{Spec, Tmpfs};

/// What `docker run` calls so.
#[derive(Debug, Args)]
#[command(next_help_heading = "Container options, as of `docker run`")]
pub struct ContainerArgs {
    /// Command and arguments in place of the image's; write `--` before a first one with a dash
    #[arg(trailing_var_arg = true)]
    pub command: Vec<String>,
    /// Program in place of the image's entrypoint
    #[arg(long)]
    pub entrypoint: Option<String>,
    /// Set a variable, or pass this process's on, or remove it
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Read variables from a file
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// User to run as
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Forward a port of the host to the guest
    #[arg(short, long, value_name = "[[IP:]HOST:]GUEST[/PROTO]", value_parser = publish)]
    pub publish: Vec<Published>,
    /// Host name in the guest
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Signal that asks the application to stop
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// Seconds that it may take to stop
    #[arg(long, value_name = "SECONDS")]
    pub stop_timeout: Option<u32>,
    /// Limit a resource of the application's processes, such as nofile=1024:2048 or core=-1
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = config::limit)]
    pub ulimit: Vec<Limit>,
    /// Change a setting of the guest's kernel, such as net.core.somaxconn=1024
    #[arg(long, value_name = "NAME=VALUE", value_parser = config::setting)]
    pub sysctl: Vec<(String, String)>,
    /// Pass standard input on
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the application a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Kill programs that make a system call which is not on a list: a file with a name on each
    /// line, or `auto` for what `run --record-syscalls` has seen of this image
    #[arg(long, value_name = "FILE")]
    pub lock_syscalls: Option<PathBuf>,
    /// Check every block of the root filesystem against its hash tree before it is used; images whose
    /// loader is signed always do
    #[arg(long, help_heading = "Integrity options")]
    pub check_root: bool,
    #[command(flatten)]
    pub network: NetworkArgs,
    #[command(flatten)]
    pub health: HealthArgs,
}

/// Addresses and names.
#[derive(Debug, Args)]
#[command(next_help_heading = "Network options")]
pub struct NetworkArgs {
    /// How the VM finds its addresses where none are given
    #[arg(long, value_enum, default_value = "auto")]
    pub network: NetworkType,
    /// Fixed address with its prefix length; one of each family at most
    #[arg(long, value_name = "ADDRESS/PREFIX")]
    pub ip: Vec<config::Interface>,
    /// Router for everything outside the address's own network
    #[arg(long, value_name = "ADDRESS", requires = "ip")]
    pub gateway: Vec<IpAddr>,
    /// Resolver, in place of those that DHCP names
    #[arg(long, value_name = "ADDRESS")]
    pub dns: Vec<IpAddr>,
    /// Domain in which unqualified names are looked up
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search: Vec<String>,
    /// Entry of /etc/hosts
    #[arg(long, value_name = "NAME:ADDRESS", value_parser = config::add_host)]
    pub add_host: Vec<(String, IpAddr)>,
}

/// `--network`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NetworkType {
    /// IPv4 by DHCP, IPv6 by what routers announce
    Auto,
    /// Loopback alone
    None,
}

impl NetworkArgs {
    fn overrides(&self) -> config::Network {
        config::Network {
            none: self.network == NetworkType::None,
            addresses: self.ip.clone(),
            gateways: self.gateway.clone(),
            dns: self.dns.clone(),
            search: self.dns_search.clone(),
            hosts: self.add_host.clone(),
        }
    }
}

/// HEALTHCHECK.
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// Command that checks the application's health, for the image's shell
    #[arg(long, value_name = "COMMAND")]
    pub health_cmd: Option<String>,
    /// Time between checks, such as 30s or 1m30s
    #[arg(long, value_name = "DURATION", value_parser = config::duration)]
    pub health_interval: Option<i64>,
    /// Time that a check may take
    #[arg(long, value_name = "DURATION", value_parser = config::duration)]
    pub health_timeout: Option<i64>,
    /// Time after the start in which failed checks don't count
    #[arg(long, value_name = "DURATION", value_parser = config::duration)]
    pub health_start_period: Option<i64>,
    /// Time between checks in that period
    #[arg(long, value_name = "DURATION", value_parser = config::duration)]
    pub health_start_interval: Option<i64>,
    /// Failures in a row that make the application unhealthy
    #[arg(long, value_name = "N")]
    pub health_retries: Option<u32>,
    /// Leave the image's health check out
    #[arg(long, conflicts_with_all = ["health_cmd", "health_interval", "health_timeout",
        "health_start_period", "health_start_interval", "health_retries"])]
    pub no_healthcheck: bool,
}

impl HealthArgs {
    fn overrides(&self) -> HealthOverrides {
        HealthOverrides {
            command: self.health_cmd.clone(),
            argv: None,
            interval_ns: self.health_interval,
            timeout_ns: self.health_timeout,
            start_period_ns: self.health_start_period,
            start_interval_ns: self.health_start_interval,
            retries: self.health_retries.map(i64::from),
            none: self.no_healthcheck,
        }
    }
}

/// What is mounted in the guest.
#[derive(Debug, Args)]
#[command(next_help_heading = "Volume options")]
pub struct MountArgs {
    /// Mount a volume, made if there is none, or a directory of the host
    #[arg(short, long, value_name = "NAME|DIR:PATH[:ro]", value_parser = Spec::parse)]
    pub volume: Vec<Spec>,
    /// Keep each VOLUME of the image in a volume called PREFIX and its path
    #[arg(long, value_name = "PREFIX")]
    pub volumes: Option<String>,
    /// Mount memory that is empty at the start, such as /run or /tmp:size=64m
    #[arg(long, value_name = "PATH[:OPTIONS]", value_parser = Tmpfs::parse)]
    pub tmpfs: Vec<Tmpfs>,
}

/// One `--publish`, which may be a range.
#[derive(Clone, Debug)]
pub struct Published(pub Vec<Publish>);

pub fn publish(text: &str) -> Result<Published, config::PublishError> {
    Publish::parse(text).map(Published)
}

impl ContainerArgs {
    /// The options as the planner takes them.
    pub fn overrides(&self) -> Result<Overrides, Failure> {
        let mut env = Vec::new();
        for path in &self.env_file {
            let name = path.display().to_string();
            let text = std::fs::read(path)
                .map_err(|error| Failure::io(format!("cannot read `{name}`"), error))?;
            env.extend(config::parse_env_file(&name, &text)?);
        }
        for text in &self.env {
            env.push(config::env_from_option(text)?);
        }
        Ok(Overrides {
            entrypoint: self.entrypoint.clone(),
            command: self.command.clone(),
            env,
            workdir: self.workdir.clone(),
            user: self.user.clone(),
            hostname: self.hostname.clone(),
            ports: self.published().iter().map(|publish| publish.guest.clone()).collect(),
            stop_signal: self.stop_signal.clone(),
            stop_timeout: self.stop_timeout,
            tty: self.tty,
            stdin: self.interactive,
            health: self.health.overrides(),
            network: self.network.overrides(),
            check_root: self.check_root,
            limits: self.ulimit.clone(),
            settings: self.sysctl.clone(),
            syscalls: match &self.lock_syscalls {
                Some(path) if path != Path::new(AUTO) => Syscalls::Only(syscalls::read(path)?),
                _ => Syscalls::All,
            },
        })
    }

    /// Completes the options by what is known of the image once it is resolved.
    pub fn complete(
        &self,
        overrides: &mut Overrides,
        store: &Store,
        image: &Image,
    ) -> Result<(), Failure> {
        if self.locks_by_recording() {
            let calls = syscalls::recorded(store.root(), &image.config_digest.hex())?;
            overrides.syscalls = Syscalls::Only(calls);
        }
        Ok(())
    }

    /// `--lock-syscalls auto`
    pub fn locks_by_recording(&self) -> bool {
        self.lock_syscalls.as_deref() == Some(Path::new(AUTO))
    }

    /// All published ports.
    pub fn published(&self) -> Vec<Publish> {
        self.publish.iter().flat_map(|published| published.0.clone()).collect()
    }
}

//! `dock2uni fleet`.

mod plan;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::args::SourceArgs;
use super::{Failure, exit};
use crate::fleet;

#[derive(Debug, Args)]
pub struct FleetArgs {
    #[command(subcommand)]
    command: FleetCommand,
}

#[derive(Debug, Subcommand)]
enum FleetCommand {
    /// Say what of a fleet of containers will run as VMs, before anything is converted
    #[command(after_help = PLAN_EXAMPLES)]
    Plan(PlanArgs),
}

const PLAN_EXAMPLES: &str = "\
Examples:
  dock2uni fleet plan compose.yaml
  dock2uni fleet plan compose.yaml compose.prod.yaml --profile web --html plan.html
  dock2uni fleet plan k8s/ -o plan.json
  helm template my-chart | dock2uni fleet plan -
  dock2uni fleet plan images.txt catalog:registry.example/team

Exit status: 0 if every workload will run, 7 if one won't or its image is not to be had.";

#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Compose files, Kubernetes manifests or directories of them, `.txt` lists of references,
    /// `catalog:REGISTRY[/PREFIX]`, references, or `-` for manifests on standard input
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<String>,
    /// Compose profile to include; `*` for all [default: $COMPOSE_PROFILES]
    #[arg(long, value_name = "NAME")]
    profile: Vec<String>,
    /// Variables for Compose files, in place of the `.env` beside them
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Images to look at side by side
    #[arg(short, long, value_name = "N", default_value_t = 2)]
    jobs: usize,
    /// Build the images that Compose files have Dockerfiles for
    #[arg(long)]
    build: bool,
    #[command(flatten)]
    source: SourceArgs,
    /// Write the plan as JSON to this file, for `fleet convert`
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write the plan as a page to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print the plan as JSON
    #[arg(long)]
    json: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

pub fn fleet(args: &FleetArgs) -> Result<u8, Failure> {
    match &args.command {
        FleetCommand::Plan(args) => plan::plan(args),
    }
}

impl From<fleet::Error> for Failure {
    fn from(error: fleet::Error) -> Failure {
        let hint = error.hint();
        match error {
            fleet::Error::Registry(error) => error.into(),
            fleet::Error::Read { path, source } => {
                Failure::io(format!("cannot read `{}`", path.display()), source)
            }
            error => Failure::new(exit::USAGE, error.to_string(), hint.as_deref()),
        }
    }
}

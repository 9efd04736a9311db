//! Volumes.

use clap::{Args, Subcommand};

use crate::cli::size;

#[derive(Debug, Args)]
pub struct VolumeArgs {
    #[command(subcommand)]
    pub command: VolumeCommand,
}

#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Make an empty volume
    Create {
        /// Its name
        name: String,
        /// Its size, such as 512m or 20g; only what is written takes space on the host
        #[arg(short, long, value_name = "SIZE", default_value = "10g", value_parser = size::size)]
        size: u64,
    },
    /// List volumes
    Ls {
        /// Print them as JSON
        #[arg(long)]
        json: bool,
        /// Print names alone
        #[arg(short, long)]
        quiet: bool,
    },
    /// Print all that is known about volumes, as JSON
    Inspect {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Remove volumes with all that is in them
    Rm {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
    },
}

//! Looking into disk images.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::format;
use crate::disk::Format;

#[derive(Debug, Args)]
pub struct ImageArgs {
    #[command(subcommand)]
    pub command: ImageCommand,
}

#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Show what a disk image holds and runs
    Info {
        /// The disk image
        file: PathBuf,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// List a directory of an image
    Ls {
        /// Disk image of any format, or a bare root
        file: PathBuf,
        /// Directory or file
        #[arg(default_value = "/")]
        path: OsString,
        /// With permissions, links, owner, group, size and time
        #[arg(short, long)]
        long: bool,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show all that is below a directory of an image
    Tree {
        /// Disk image of any format, or a bare root
        file: PathBuf,
        /// Directory
        #[arg(default_value = "/")]
        path: OsString,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print files of an image
    Cat {
        /// Disk image of any format, or a bare root
        file: PathBuf,
        /// Files
        #[arg(required = true)]
        paths: Vec<OsString>,
    },
    /// Copy a file or directory out of an image
    #[command(after_help = CP_EXAMPLES)]
    Cp {
        /// Disk image of any format, or a bare root
        file: PathBuf,
        /// File or directory in the image
        from: OsString,
        /// Where it goes; `-` for standard output
        to: PathBuf,
        /// Print what was copied as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show in what two images differ; exits with 1 if they do
    Diff {
        /// Disk image of any format, or a bare root
        first: PathBuf,
        /// Another one
        second: PathBuf,
        /// Times count, too
        #[arg(long)]
        times: bool,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Check all that an image says about itself; exits with 6 if something is wrong
    Verify {
        /// Disk image of any format, or a bare root
        file: PathBuf,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print where a disk image comes from: an in-toto statement (SLSA provenance)
    Provenance {
        /// Disk image of any format
        file: PathBuf,
    },
    /// Take kernel, boot record and root out of a disk image, for monitors that load them
    #[command(name = "boot-files")]
    BootFiles {
        /// Disk image of any format
        file: PathBuf,
        /// Directory to make
        to: PathBuf,
    },
    /// Bring a disk image into another format
    #[command(after_help = REFORMAT_EXAMPLES)]
    Convert(ReformatArgs),
}

const CP_EXAMPLES: &str = "\
Examples:
  dock2uni image cp nginx.img /etc/nginx ./conf      # a directory, as `conf`
  dock2uni image cp nginx.qcow2 /etc/passwd -        # to standard output

Nothing outside of the destination is written, and no file is overwritten. Owners are not kept,
and devices are left out.";

const REFORMAT_EXAMPLES: &str = "\
Examples:
  dock2uni image convert nginx.img nginx.vmdk
  dock2uni image convert nginx.tar.gz nginx.img

The disk stays what it is: `dock2uni convert` also chooses where the root filesystem is when
it boots, and makes CDs.";

#[derive(Debug, Args)]
pub struct ReformatArgs {
    /// Disk image of any format
    pub file: PathBuf,
    /// File to write
    pub output: PathBuf,
    /// Its format [default: by its extension]
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    pub format: Option<Format>,
    /// Print what was made as JSON
    #[arg(long)]
    pub json: bool,
    /// Say nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
}

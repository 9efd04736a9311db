//! Where images come from, and how they are built.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::size;

/// What `docker build` calls so.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Build options, for a directory with a Dockerfile")]
pub struct BuildArgs {
    /// Dockerfile [default: `Dockerfile` in the directory; `-` for standard input]
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The text of the Dockerfile, as a fleet's file may have it.
    #[arg(skip)]
    pub inline: Option<String>,
    /// Stage to build [default: the last one]
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// Set an ARG of the Dockerfile, from this process's variable if there is no value
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub build_arg: Vec<String>,
    /// Give a directory, `docker-image://REF`, `oci-layout://DIR` or git address a name for
    /// `--from` and FROM
    #[arg(long, value_name = "NAME=VALUE")]
    pub build_context: Vec<String>,
    /// Secret for RUN --mount=type=secret
    #[arg(long, value_name = "id=ID[,src=FILE|,env=NAME]")]
    pub secret: Vec<String>,
    /// Agent for RUN --mount=type=ssh [default socket: $SSH_AUTH_SOCK]
    #[arg(long, value_name = "ID[=SOCKET]")]
    pub ssh: Vec<String>,
    /// Build every step anew
    #[arg(long)]
    pub no_cache: bool,
    /// Network of RUN commands
    #[arg(long, value_enum, default_value_t)]
    pub build_network: BuildNetwork,
}

/// What commands of a build see of the network.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum BuildNetwork {
    /// The host's
    #[default]
    Default,
    /// The host's
    Host,
    /// A loopback device alone
    None,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Source options")]
pub struct SourceArgs {
    /// Use HTTP without TLS for this registry (loopback addresses need no telling)
    #[arg(long, value_name = "HOST[:PORT]")]
    pub plain_http: Vec<String>,
    /// Trust the certificate authorities in this PEM file as well
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Use what is in the layer store, without any network
    #[arg(long)]
    pub offline: bool,
    /// Raise or lower a bound on what an image may ask for: entries (4m), layer-bytes (256g),
    /// image-bytes (1t), xattr-bytes (32m), sparse-parts (1m), archive-bytes (1t)
    #[arg(long, value_name = "NAME=SIZE", value_parser = limit)]
    pub limit: Vec<Limit>,
    /// Use no image that isn't signed by this key (PEM), as `cosign sign --key` does; of a
    /// Dockerfile, no base image
    #[arg(long, value_name = "FILE", conflicts_with = "certificate_identity")]
    pub verify_key: Option<PathBuf>,
    /// Use no image that wasn't signed by this identity, an e-mail address or URI ("keyless")
    #[arg(
        long,
        value_name = "NAME",
        requires = "certificate_oidc_issuer",
        requires = "trust_root"
    )]
    pub certificate_identity: Option<String>,
    /// Who vouches for the identity, such as https://accounts.google.com
    #[arg(long, value_name = "URL", requires = "certificate_identity")]
    pub certificate_oidc_issuer: Option<String>,
    /// Authorities and logs of signatures, in sigstore's form (`trusted_root.json`). With
    /// `--verify-key`, signatures must be in one of the logs
    #[arg(long, value_name = "FILE")]
    pub trust_root: Option<PathBuf>,
}

/// A bound on images.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    pub kind: LimitKind,
    pub value: u64,
}

/// What can be bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LimitKind {
    /// Entries of all layers together
    Entries,
    /// Bytes of all layers together when inflated
    LayerBytes,
    /// Bytes of the root filesystem
    ImageBytes,
    /// Bytes of extended attributes
    XattrBytes,
    /// Parts with data in all sparse files together
    SparseParts,
    /// Bytes that an archive may inflate to
    ArchiveBytes,
}

fn limit(text: &str) -> Result<Limit, String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=SIZE, such as entries=10m")?;
    let kind = LimitKind::from_str(name, false).map_err(|_| {
        let names: Vec<String> = LimitKind::value_variants()
            .iter()
            .filter_map(|kind| Some(kind.to_possible_value()?.get_name().to_owned()))
            .collect();
        format!("there is no limit `{name}`, only {}", names.join(", "))
    })?;
    Ok(Limit { kind, value: size::size(value)? })
}

//! What a fleet consists of, in one vocabulary for every source.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::{self, HealthOverrides, Overrides};
use dock2uni_format::record::{Port, Proto};

/// One container that a source asks to be run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// Unique in its inventory: a Compose service, `namespace/kind/name/container`, or a reference.
    pub name: String,
    /// What described it.
    pub kind: Kind,
    /// Its part among the containers it belongs to.
    pub role: Role,
    /// The file or place of the description.
    pub source: String,
    /// What it runs.
    pub image: Image,
    /// How many of it at once; 0 for what runs on demand or on every node.
    pub replicas: u32,
    /// Program in place of the image's entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Arguments in place of the image's command.
    pub command: Option<Vec<String>>,
    /// Variables, in the order in which they take effect.
    pub env: Vec<Variable>,
    /// Working directory.
    pub workdir: Option<String>,
    /// User and group.
    pub user: Option<String>,
    /// Host name.
    pub hostname: Option<String>,
    /// Names that only it knows, with their addresses; [`HOST_GATEWAY`] is the machine that it runs on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<(String, String)>,
    /// Limits of resources, as [`crate::config::limit`] reads them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<String>,
    /// Settings of its kernel, as [`crate::config::setting`] reads them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sysctls: Vec<String>,
    /// Signal that asks it to stop.
    pub stop_signal: Option<String>,
    /// Seconds that it may take to stop.
    pub stop_grace: Option<u32>,
    /// Ports that it serves.
    pub ports: Vec<PortMap>,
    /// Services of Kubernetes that lead to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
    /// What is mounted where.
    pub mounts: Vec<Mount>,
    /// What it may use.
    pub resources: Resources,
    /// How its health is asked for; `None`: as the image says.
    pub health: Option<Health>,
    /// What must be there first.
    pub depends_on: Vec<Dependency>,
    /// What happens when it ends.
    pub restart: Restart,
    /// How often it is started again after failures, if that is bounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_limit: Option<u32>,
    /// When it is started, if a schedule starts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Networks that it is part of; `None`: the one that all are part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<Attachment>>,
    /// What a VM does differently, or not at all.
    pub notes: Vec<Note>,
}

/// What Docker calls the machine that a container runs on.
pub const HOST_GATEWAY: &str = "host-gateway";

/// Where a workload comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names are those of their sources")]
pub enum Kind {
    ComposeService,
    Deployment,
    StatefulSet,
    DaemonSet,
    ReplicaSet,
    Job,
    CronJob,
    Pod,
    Container,
    Reference,
}

/// The part of a container in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The container, or one of several that run side by side.
    Main,
    /// Runs to its end before the others start.
    Init,
    /// Starts before the others and runs beside them.
    Sidecar,
}

/// What a workload runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Image {
    /// An image reference.
    Reference(String),
    /// Built from a Dockerfile.
    Build(Box<Build>),
}

/// How an image is built. What is text is as the options of `convert` have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Build {
    /// The build context.
    pub context: PathBuf,
    /// The Dockerfile in it.
    pub dockerfile: Option<PathBuf>,
    /// The text of the Dockerfile, in place of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inline: Option<String>,
    /// The stage to build.
    pub target: Option<String>,
    /// Build arguments, `NAME=VALUE`.
    pub args: Vec<String>,
    /// Further contexts: `--build-context`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contexts: Vec<String>,
    /// `--secret`, where they come from and not what they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// `--ssh`
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ssh: Vec<String>,
    /// RUN has no network.
    #[serde(default, skip_serializing_if = "is_false")]
    pub offline: bool,
    /// Every step is built anew.
    #[serde(default, skip_serializing_if = "is_false")]
    pub no_cache: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl std::fmt::Display for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Image::Reference(reference) => f.write_str(reference),
            Image::Build(build) => write!(f, "build of {}", build.context.display()),
        }
    }
}

/// One variable of the environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Value,
}

/// What a variable is set to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Value {
    /// Text.
    Text(String),
    /// A key of a secret, which is never shown.
    Secret {
        /// The secret.
        name: String,
        /// Its key; empty for all of them.
        key: String,
        /// Where it is described, if it is among the sources.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        manifest: Option<Manifest>,
    },
    /// Known only to the machine it runs on: a node's name, a pod's address, a missing file.
    Runtime(String),
}

/// The place of a Kubernetes Secret, whose values are read where it runs and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The file.
    pub file: PathBuf,
    /// Its namespace.
    pub namespace: String,
}

/// A Service of Kubernetes: a name that others reach a workload by, with ports of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name leads to the pods themselves (`clusterIP: None`).
    pub headless: bool,
    /// It has an address of its own, since its ports are not those of one workload.
    pub own_address: bool,
    /// How it is reached from outside.
    pub reach: Reach,
    /// Its ports.
    pub ports: Vec<ServicePort>,
}

/// How a Service is reached from outside of its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// Not at all.
    Inside,
    /// By a port of every node.
    Node,
    /// By a load balancer.
    Balancer,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// As others know it.
    pub port: u16,
    /// In the workload.
    pub guest: u16,
    /// Protocol.
    pub proto: Proto,
    /// Of the nodes, if the source says which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<u16>,
}

impl Service {
    /// All that it is called within its cluster.
    pub fn names(&self) -> [String; 4] {
        let (name, namespace) = (&self.name, &self.namespace);
        let short = format!("{name}.{namespace}");
        [name.clone(), format!("{short}.svc"), format!("{short}.svc.cluster.local"), short]
    }
}

/// One served port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMap {
    /// Address on the host, if published on one.
    pub host_ip: Option<String>,
    /// Port on the host, if published on a certain one.
    pub host: Option<u16>,
    /// Whether it is reachable from outside of the fleet.
    pub published: bool,
    /// Port in the workload.
    pub guest: u16,
    /// Protocol.
    pub proto: Proto,
    /// Its name, if the source gives one.
    pub name: Option<String>,
}

/// A network that a workload is part of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The network.
    pub network: String,
    /// Names of the workload there, beside its own.
    pub aliases: Vec<String>,
    /// No way leads out of it.
    pub internal: bool,
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// What is mounted.
    pub kind: MountKind,
    /// Its name, or the path on the host.
    pub source: String,
    /// Where, in the workload.
    pub target: String,
    /// Not writable.
    pub read_only: bool,
    /// What stands behind the name, where the source says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Permissions of a file, where the source says them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

/// What stands behind the name of something that is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A file of the host.
    File(PathBuf),
    /// A text in the source itself.
    Text(String),
    /// Bytes in the source itself, in base64.
    Bytes(String),
    /// A key of a Kubernetes Secret.
    Secret {
        /// Its key.
        key: String,
        /// Where it is described, if it is among the sources.
        manifest: Option<Manifest>,
        /// The directory that the Secret is mounted at as a whole, if it is.
        directory: Option<String>,
    },
    /// A variable of the environment.
    Variable(String),
    /// A volume of this very name, which several fleets may use.
    Volume(String),
}

/// Kinds of things that are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MountKind {
    /// A volume that outlives the workload.
    Volume,
    /// A volume without a name, as old as the workload.
    Anonymous,
    /// A directory or file of the host.
    Host,
    /// Memory, or disk space that ends with the workload.
    Scratch,
    /// Configuration files.
    Config,
    /// Secret files.
    Secret,
}

/// What a workload may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// Processors, in thousandths.
    pub milli_cpus: Option<u64>,
    /// Memory in bytes.
    pub memory: Option<u64>,
}

/// A health check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// There is none, whatever the image says.
    Off,
    /// A command in the guest.
    Command {
        /// Which.
        test: Test,
        /// Milliseconds between two checks.
        interval_ms: Option<u64>,
        /// Milliseconds that one may take.
        timeout_ms: Option<u64>,
        /// Failures in a row that count.
        retries: Option<u32>,
        /// Milliseconds after the start in which failures don't count.
        start_period_ms: Option<u64>,
        /// Milliseconds between two checks in them, until one passes.
        start_interval_ms: Option<u64>,
    },
    /// An HTTP request from outside.
    Http {
        /// `http` or `https`.
        scheme: String,
        /// Port or its name.
        port: String,
        /// Path.
        path: String,
    },
    /// A connection from outside.
    Tcp {
        /// Port or its name.
        port: String,
    },
    /// gRPC health protocol.
    Grpc {
        /// Port.
        port: String,
    },
}

/// The command of a health check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Test {
    /// The image's own, with other times.
    Image,
    /// For the image's shell.
    Shell(String),
    /// Program and arguments.
    Program(Vec<String>),
}

/// What must be there before a workload starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// The other workload.
    pub name: String,
    /// In which state.
    pub condition: Condition,
    /// Whether the workload can do without it if it isn't part of the fleet.
    pub required: bool,
}

/// States that a dependency waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// It has been started.
    Started,
    /// Its health check passes.
    Healthy,
    /// It has ended with status 0.
    Completed,
}

/// What happens when a workload ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Nothing.
    #[default]
    No,
    /// It is started again unless it ended with status 0.
    OnFailure,
    /// It is started again.
    Always,
}

/// When a workload is started (Kubernetes, "CronJob").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// In cron's words.
    pub cron: String,
    /// Name of the time zone; UTC if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// It is not started for the time being.
    #[serde(default)]
    pub suspended: bool,
    /// A run that is still going on when the next is due is ended.
    #[serde(default)]
    pub replaces: bool,
}

/// Something to know about a workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// How bad.
    pub severity: Severity,
    /// What, and what to do about it.
    pub text: String,
}

/// How bad a note is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// It runs, but something will be different.
    Warning,
    /// It won't run.
    Blocker,
}

impl Workload {
    /// A workload that runs an image as it is.
    pub fn new(name: String, kind: Kind, source: String, image: Image) -> Workload {
        Workload {
            name,
            kind,
            role: Role::Main,
            source,
            image,
            replicas: 1,
            entrypoint: None,
            command: None,
            env: Vec::new(),
            workdir: None,
            user: None,
            hostname: None,
            hosts: Vec::new(),
            ulimits: Vec::new(),
            sysctls: Vec::new(),
            stop_signal: None,
            stop_grace: None,
            ports: Vec::new(),
            services: Vec::new(),
            mounts: Vec::new(),
            resources: Resources::default(),
            health: None,
            depends_on: Vec::new(),
            restart: Restart::No,
            restart_limit: None,
            schedule: None,
            networks: None,
            notes: Vec::new(),
        }
    }

    /// Its own names for /etc/hosts, where its host is at `gateway`; `None` if it names a host that
    /// cannot be reached.
    pub fn own_hosts(&self, gateway: Option<Ipv4Addr>) -> Option<Vec<(String, IpAddr)>> {
        let all = self.hosts.iter().map(|(name, address)| {
            let address = match address.as_str() {
                HOST_GATEWAY => gateway?.into(),
                // It was checked when it was read.
                address => address.parse().ok()?,
            };
            Some((name.clone(), address))
        });
        all.collect()
    }

    /// Adds a limit; what it says is wrong with one that can't be.
    ///
    /// # Errors
    /// If there is no such limit.
    pub fn limit(&mut self, name: &str, soft: &str, hard: &str) -> Result<(), config::Error> {
        let text = config::limit_text(&config::limit(&format!("{name}={soft}:{hard}"))?);
        self.ulimits.push(text);
        Ok(())
    }

    /// Adds a setting of the kernel, or a note if the guest's has none of that name.
    ///
    /// # Errors
    /// If it can't be a setting.
    pub fn setting(&mut self, name: &str, value: &str) -> Result<(), config::Error> {
        match config::setting(&format!("{name}={value}")) {
            Ok((name, value)) => self.sysctls.push(format!("{name}={value}")),
            Err(error @ config::Error::UnknownSetting(_)) => {
                self.note(Severity::Warning, format!("not carried over: {error}"));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Adds a note.
    pub fn note(&mut self, severity: Severity, text: impl Into<String>) {
        self.notes.push(Note { severity, text: text.into() });
    }

    /// The options of `docker run` that say the same.
    ///
    /// An entrypoint of several words gives its first one; the others lead the command, which is
    /// what Docker makes of it. Secrets and what is known at run time only are left out.
    pub fn overrides(&self) -> Overrides {
        let mut command = self.command.clone().unwrap_or_default();
        let entrypoint = self.entrypoint.as_ref().map(|words| {
            let mut words = words.iter().cloned();
            let first = words.next().unwrap_or_default();
            command.splice(0..0, words);
            first
        });
        let env = self.env.iter().filter_map(|variable| match &variable.value {
            Value::Text(text) => Some(format!("{}={text}", variable.name)),
            Value::Secret { .. } | Value::Runtime(_) => None,
        });
        Overrides {
            entrypoint,
            command,
            env: env.collect(),
            workdir: self.workdir.clone(),
            user: self.user.clone(),
            hostname: self.hostname.clone(),
            stop_signal: self.stop_signal.clone(),
            stop_timeout: self.stop_grace,
            ports: self.exposed(),
            health: self.health_overrides(),
            // They were checked when they were read.
            limits: self.ulimits.iter().filter_map(|text| config::limit(text).ok()).collect(),
            settings: self.sysctls.iter().filter_map(|text| config::setting(text).ok()).collect(),
            ..Overrides::default()
        }
    }

    /// Ports in the workload, each once.
    fn exposed(&self) -> Vec<Port> {
        let mut ports: Vec<Port> = Vec::new();
        for PortMap { guest, proto, .. } in &self.ports {
            let port = Port { port: *guest, proto: *proto };
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
        ports
    }

    /// A check from outside is a matter of whoever runs the VM, not of the VM.
    fn health_overrides(&self) -> HealthOverrides {
        match &self.health {
            Some(Health::Off) => HealthOverrides { none: true, ..HealthOverrides::default() },
            Some(Health::Command {
                test,
                interval_ms,
                timeout_ms,
                retries,
                start_period_ms,
                start_interval_ms,
            }) => {
                // No time reaches the end of this.
                let ns = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000_000);
                let (command, argv) = match test.clone() {
                    Test::Image => (None, None),
                    Test::Shell(command) => (Some(command), None),
                    Test::Program(argv) => (None, Some(argv)),
                };
                HealthOverrides {
                    command,
                    argv,
                    interval_ns: interval_ms.map(ns),
                    timeout_ns: timeout_ms.map(ns),
                    start_period_ns: start_period_ms.map(ns),
                    start_interval_ns: start_interval_ms.map(ns),
                    retries: retries.map(i64::from),
                    none: false,
                }
            }
            Some(Health::Http { .. } | Health::Tcp { .. } | Health::Grpc { .. }) | None => {
                HealthOverrides::default()
            }
        }
    }
}

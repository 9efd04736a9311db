//! A fleet that is ready to run: all that its supervisor has to know.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use dock2uni_format::record::Record;
use serde::{Deserialize, Serialize};

use super::net::dns::Name;
use super::net::gateway::Published;
use super::net::translate::Virtual;
use crate::fleet::{Condition, Restart};
use crate::vmm::{Accel, Machine};
use crate::volume;

/// A fleet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// Its name.
    pub project: String,
    /// Path of QEMU.
    pub qemu: PathBuf,
    /// Accelerator.
    pub accel: Accel,
    /// Machine type of all VMs.
    pub machine: Machine,
    /// A command that QEMU is started by.
    pub launcher: Vec<PathBuf>,
    /// VMs, in the order of their names.
    pub instances: Vec<Instance>,
    /// Ports of the host.
    pub published: Vec<Published>,
    /// Bits of the networks that have a way out.
    pub outside: u64,
    /// Names, for the resolver.
    pub names: Vec<Name>,
    /// Addresses of services that have other ports than their machines.
    #[serde(default)]
    pub virtuals: Vec<Virtual>,
    /// Volumes that belong to this fleet alone.
    pub volumes: Vec<String>,
}

/// One VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Instance {
    /// `SERVICE-NUMBER`.
    pub name: String,
    /// Its service.
    pub service: String,
    /// What runs in it. Mounts are entered when it starts.
    pub record: Record,
    /// Its root filesystem.
    pub root: PathBuf,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Processors.
    pub cpus: u32,
    /// Its address; `None` without a network.
    pub address: Option<Ipv4Addr>,
    /// Bits of the networks that it is on.
    pub networks: u64,
    /// Volumes and directories.
    pub mounts: Vec<volume::Spec>,
    /// Memory.
    pub tmpfs: Vec<volume::Tmpfs>,
    /// What must be there first.
    pub needs: Vec<Need>,
    /// What happens when it ends.
    pub restart: Restart,
    /// How often it is started again after failures, if that is bounded.
    pub restart_limit: Option<u32>,
}

/// What an instance waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// The other service: all of its instances.
    pub service: String,
    /// In which state.
    pub condition: Condition,
    /// Whether it does without if that state can't be reached.
    pub required: bool,
}

impl Spec {
    /// Looks for services that wait for each other; returns one circle.
    pub fn circle(&self) -> Option<Vec<String>> {
        let mut needs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for instance in &self.instances {
            let all = instance.needs.iter().map(|need| need.service.as_str());
            needs.entry(&instance.service).or_default().extend(all);
        }
        let mut done: Vec<&str> = Vec::new();
        for start in needs.keys() {
            let mut path: Vec<(&str, usize)> = vec![(start, 0)];
            while let Some((service, nth)) = path.last_mut() {
                let next = needs.get(service).and_then(|all| all.get(*nth)).copied();
                *nth += 1;
                match next {
                    None => {
                        done.push(service);
                        path.pop();
                    }
                    Some(next) if done.contains(&next) => {}
                    Some(next) => {
                        if let Some(at) = path.iter().position(|(service, _)| *service == next) {
                            let circle = path[at..].iter().map(|(service, _)| *service);
                            return Some(circle.chain([next]).map(str::to_owned).collect());
                        }
                        path.push((next, 0));
                    }
                }
            }
        }
        None
    }
}

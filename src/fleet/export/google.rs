//! What Google Compute Engine offers, and what it doesn't.

use dock2uni_format::record::Proto;

use super::super::{Mount, Workload};
use super::{Error, Machine, Target, wrong};

/// The smallest machine type of the E2 series that `machine` fits in ("E2 machine types"). Its root
/// filesystem, of `root` bytes, is in memory as well: the kernel drives no disks of Google's.
pub fn machine_type(machine: &Machine, root: u64) -> String {
    let memory = machine.memory + root.div_ceil(1 << 20);
    match (machine.cpus, memory) {
        (1, ..=1024) => "e2-micro".to_owned(),
        (1, ..=2048) => "e2-small".to_owned(),
        (1 | 2, ..=4096) => "e2-medium".to_owned(),
        (cpus, memory) => {
            // An even number of processors, each with half a gigabyte to eight.
            let cpus = cpus.max(memory.div_ceil(8192)).next_multiple_of(2).clamp(2, 32);
            let memory = memory.clamp(cpus * 512, cpus * 8192).next_multiple_of(256);
            format!("e2-custom-{cpus}-{memory}")
        }
    }
}

/// Disks there are SCSI or NVMe.
pub fn check_volume(workload: &Workload, mount: &Mount, target: Target) -> Result<(), Error> {
    match target {
        Target::TerraformGoogle => Err(wrong(
            workload,
            format!("a volume is mounted at `{}`", mount.target),
            "Google's disks are SCSI or NVMe, and the guest's kernel drives those of virtio-blk: keep the \
             data in a service of Google's, or export to libvirt or nomad for a host there with nested \
             virtualization",
        )),
        _ => Ok(()),
    }
}

/// The proxies that translate ports speak TCP, and stand before the fleet, not within it.
pub fn check_ports(workload: &Workload, target: Target) -> Result<(), Error> {
    let translates = workload.services.iter().find(|service| service.own_address);
    if let (Target::TerraformGoogle, Some(service)) = (target, translates) {
        return Err(wrong(
            workload,
            format!("the Service `{}` has other ports than the container", service.name),
            "within a network of Google's names lead to machines: give both the same ports",
        ));
    }
    let udp = workload.ports.iter().find(|port| port.published && port.proto == Proto::Udp);
    match (target, udp) {
        (Target::TerraformGoogle, Some(port)) => Err(wrong(
            workload,
            format!("port {} of UDP is published", port.guest),
            "the load balancer that ports are published by takes TCP: leave the port unpublished",
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_fit_in_their_types() {
        for (cpus, memory, root, expected) in [
            (1, 256, 100 << 20, "e2-micro"),
            (1, 1000, 100 << 20, "e2-small"),
            (2, 512, 0, "e2-medium"),
            (3, 512, 0, "e2-custom-4-2048"),
            (1, 30_000, 1, "e2-custom-4-30208"),
        ] {
            let machine = Machine { cpus, memory, ..Machine::default() };
            assert_eq!(machine_type(&machine, root), expected);
        }
    }
}

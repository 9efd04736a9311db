//! Clouds whose network cards the kernel doesn't drive: there the VM runs on a host of one's own, an
//! instance with nested virtualization.

use super::Target;

/// What the host needs beside the VM, in MiB.
const HOST_MEMORY: u64 = 1024;

/// Sizes of a family by what they are called, each with twice the processors and memory of the one
/// before.
struct Family {
    first: (u64, u64),
    names: &'static [&'static str],
}

/// C8i of EC2, which has nested virtualization.
const C8I: Family = Family {
    first: (2, 4096),
    names: &[
        "c8i.large",
        "c8i.xlarge",
        "c8i.2xlarge",
        "c8i.4xlarge",
        "c8i.8xlarge",
        "c8i.16xlarge",
    ],
};

/// Dsv5 of Azure, which has it as well.
const DSV5: Family = Family {
    first: (2, 8192),
    names: &[
        "Standard_D2s_v5",
        "Standard_D4s_v5",
        "Standard_D8s_v5",
        "Standard_D16s_v5",
        "Standard_D32s_v5",
        "Standard_D64s_v5",
    ],
};

/// The smallest size of a host for a VM with so many processors and so much memory in MiB; the largest
/// if none will do. Empty for targets without a host.
pub fn instance(target: Target, cpus: u32, memory: u32) -> &'static str {
    let family = match target {
        Target::TerraformAws => &C8I,
        Target::TerraformAzure => &DSV5,
        _ => return "",
    };
    let (cpus, memory) = (u64::from(cpus), u64::from(memory) + HOST_MEMORY);
    let fits = |&step: &usize| cpus <= family.first.0 << step && memory <= family.first.1 << step;
    let last = family.names.len() - 1;
    family.names[(0..last).find(fits).unwrap_or(last)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_room_for_their_vm() {
        for (target, cpus, memory, expected) in [
            (Target::TerraformAws, 1, 256, "c8i.large"),
            (Target::TerraformAws, 2, 4000, "c8i.xlarge"),
            (Target::TerraformAws, 500, 256, "c8i.16xlarge"),
            (Target::TerraformAzure, 3, 256, "Standard_D4s_v5"),
            (Target::Qemu, 1, 256, ""),
        ] {
            assert_eq!(instance(target, cpus, memory), expected);
        }
    }
}

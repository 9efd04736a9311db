//! What programs are known to ask of a machine, and which of it a unikernel does not have.

use super::report::{Finding, Severity};

/// A program that is known by name, and what it means.
struct Known {
    names: &'static [&'static str],
    feature: &'static str,
    /// Whether it cannot do its work without.
    blocks: bool,
    text: &'static str,
    advice: &'static str,
}

const KNOWN: &[Known] = &[
    Known {
        names: &[
            "dockerd",
            "containerd",
            "podman",
            "runc",
            "crun",
            "buildkitd",
            "buildah",
            "kubelet",
            "k3s",
            "k0s",
            "rke2",
            "crio",
            "dockerd-entrypoint.sh",
            "nerdctl",
            "lxc-start",
        ],
        feature: "containers",
        blocks: true,
        text: "runs containers of its own, which takes namespaces and control groups",
        advice: "run it on a Linux VM, and convert the containers' images instead",
    },
    Known {
        names: &["systemd", "systemd-nspawn", "openrc-init", "upstart"],
        feature: "init",
        blocks: true,
        text: "is an init system that manages a whole Linux machine",
        advice: "name the service itself with `--entrypoint`, or convert one image for each service",
    },
    Known {
        names: &["firecracker", "cloud-hypervisor", "libvirtd", "virtqemud", "crosvm"],
        feature: "kvm",
        blocks: true,
        text: "starts virtual machines, which takes /dev/kvm",
        advice: "run it on a Linux host",
    },
    Known {
        names: &[
            "openvpn",
            "tailscaled",
            "wireguard-go",
            "boringtun",
            "openconnect",
            "zerotier-one",
        ],
        feature: "tun",
        blocks: true,
        text: "makes network interfaces, which takes /dev/net/tun",
        advice: "route the VM's network on its host, or use the program's user-space mode if it has \
                 one",
    },
    Known {
        names: &[
            "cilium-agent",
            "bpftrace",
            "falco",
            "tetragon",
            "calico-node",
            "pixie",
            "parca-agent",
            "bpfman",
            "kube-proxy",
            "tracee",
        ],
        feature: "ebpf",
        blocks: true,
        text: "loads programs into a Linux kernel (eBPF) or rules into its packet filter",
        advice: "run it on the nodes that it is to watch",
    },
    Known {
        names: &["sshfs", "gcsfuse", "s3fs", "mergerfs", "glusterfs", "cvmfs2", "ceph-fuse"],
        feature: "fuse",
        blocks: true,
        text: "mounts a filesystem through /dev/fuse",
        advice: "use the storage by its network protocol, or attach a disk",
    },
    Known {
        names: &["nfsd", "rpc.nfsd", "ganesha.nfsd", "mount.nfs", "mount.cifs", "exportfs"],
        feature: "network-filesystem",
        blocks: false,
        text: "uses a network filesystem of the Linux kernel",
        advice: "attach a disk, or use the storage by another protocol",
    },
    Known {
        names: &["modprobe", "insmod", "depmod", "kmod", "rmmod"],
        feature: "modules",
        blocks: false,
        text: "loads kernel modules; there are none to load",
        advice: "what the module would do must be there without it",
    },
    Known {
        names: &["iptables", "ip6tables", "nft", "ipset", "ebtables", "ufw", "firewall-cmd"],
        feature: "packet-filter",
        blocks: false,
        text: "sets up a packet filter, which this kernel does not have",
        advice: "filter on the host or by the cloud's rules",
    },
    Known {
        names: &["wg", "wg-quick", "brctl", "ipvsadm", "keepalived", "tc"],
        feature: "network-devices",
        blocks: false,
        text: "configures network devices that this kernel does not have",
        advice: "configure them on the host",
    },
    Known {
        names: &["unshare", "nsenter", "bwrap", "firejail"],
        feature: "namespaces",
        blocks: true,
        text: "makes namespaces, which this kernel does not have",
        advice: "switch the program's own sandbox off: the VM is one",
    },
    Known {
        names: &["mkfs", "mkfs.ext4", "fdisk", "parted", "losetup", "cryptsetup", "lvm", "mdadm"],
        feature: "block-devices",
        blocks: false,
        text: "works on block devices",
        advice: "attach them prepared",
    },
    Known {
        names: &["gdb", "strace", "ltrace", "perf", "gdbserver", "dlv"],
        feature: "tracing",
        blocks: false,
        text: "traces other processes",
        advice: "`dock2uni trace` and `--kernel-arg d2u.trace` show what programs do",
    },
    Known {
        names: &["chronyd", "ntpd", "openntpd"],
        feature: "clock",
        blocks: false,
        text: "sets the clock, which belongs to the host",
        advice: "leave time keeping to the host; the VM follows it",
    },
    Known {
        names: &["nvidia-smi", "nvidia-persistenced", "rocm-smi"],
        feature: "gpu",
        blocks: true,
        text: "uses a graphics processor",
        advice: "run it on a Linux VM with the device passed through",
    },
];

/// Libraries that tell what a program is about.
const LIBRARIES: &[(&str, &str, &str, &str)] = &[
    (
        "liburing",
        "io_uring",
        "is linked with liburing",
        "most programs fall back to epoll and threads; look for an option that says so if it does \
         not start",
    ),
    ("libbpf", "ebpf", "is linked with libbpf", "parts that load eBPF programs will not work"),
    ("libfuse", "fuse", "is linked with FUSE", "mounting through /dev/fuse will not work"),
    ("libcuda", "gpu", "is linked with CUDA", "there is no graphics processor; use the CPU build"),
    ("libvirt", "kvm", "is linked with libvirt", "it can manage hosts over the network only"),
    ("libnftables", "packet-filter", "is linked with nftables", "there is no packet filter"),
    ("libcryptsetup", "block-devices", "is linked with cryptsetup", "there is no device mapper"),
    ("libsystemd-shared", "init", "is a part of systemd", "there is no systemd to talk to"),
];

/// Devices that are not there, as programs name them.
const DEVICES: [(&str, &str); 9] = [
    ("/dev/net/tun", "tun"),
    ("/dev/fuse", "fuse"),
    ("/dev/kvm", "kvm"),
    ("/dev/vfio/vfio", "vfio"),
    ("/dev/dri", "gpu"),
    ("/dev/nvidiactl", "gpu"),
    ("/dev/snd", "sound"),
    ("/dev/video0", "video"),
    ("/dev/mapper/control", "block-devices"),
];

/// What is known of a program by its name; `main`: it is what the image is for.
pub fn program(name: &str, main: bool) -> Option<(&'static str, Finding)> {
    let is_qemu = name.starts_with("qemu-system-");
    let known = KNOWN
        .iter()
        .find(|known| known.names.contains(&name) || is_qemu && known.feature == "kvm")?;
    // QEMU has its own translator, and helpers may be there for a case that does not come up.
    let blocks = known.blocks && main && !is_qemu;
    let severity = if blocks { Severity::Blocker } else { Severity::Note };
    let finding = Finding {
        severity,
        id: known.feature.to_owned(),
        text: format!("`{name}` {}", known.text),
        advice: Some(known.advice.to_owned()),
    };
    Some((known.feature, finding))
}

/// What a library says about the program that is linked with it.
pub fn library(name: &str, program: &str) -> Option<(&'static str, Finding)> {
    let (_, feature, text, advice) = LIBRARIES.iter().find(|(prefix, ..)| {
        name.strip_prefix(prefix).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphabetic()))
    })?;
    let finding = Finding {
        severity: Severity::Note,
        id: (*feature).to_owned(),
        text: format!("`{program}` {text}"),
        advice: Some((*advice).to_owned()),
    };
    Some((feature, finding))
}

/// Devices that the machine lacks among the texts in a program.
pub fn devices(bytes: &[u8]) -> Vec<(&'static str, &'static str)> {
    let mut found: Vec<(&str, &str)> = Vec::new();
    for text in bytes.split(|&byte| byte == 0).filter(|text| text.starts_with(b"/dev/")) {
        let known = DEVICES.iter().find(|(device, _)| text == device.as_bytes());
        found.extend(
            known.filter(|known| !found.contains(known)).copied().into_iter().collect::<Vec<_>>(),
        );
    }
    found
}

/// Whether this machine has a device, by its path.
pub fn has_device(path: &str) -> bool {
    const HAS: [&str; 17] = [
        "/dev/null",
        "/dev/zero",
        "/dev/full",
        "/dev/random",
        "/dev/urandom",
        "/dev/tty",
        "/dev/console",
        "/dev/ptmx",
        "/dev/fd",
        "/dev/stdin",
        "/dev/stdout",
        "/dev/stderr",
        "/dev/pts",
        "/dev/shm",
        "/dev/mqueue",
        "/dev/core",
        "/dev/tcp",
    ];
    HAS.iter().any(|known| path == *known || path.starts_with(&format!("{known}/")))
}

/// Memory in MiB that a program takes beyond its own file, by name: what it allocates when it
/// starts with its default settings.
pub fn memory(name: &str) -> Option<u64> {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    Some(match stem {
        "mariadbd" | "mysqld" => 400,
        "postgres" => 120,
        "mongod" => 400,
        "clickhouse" | "clickhouse-server" => 1024,
        "redis-server" | "valkey-server" | "memcached" => 40,
        "nginx" | "haproxy" | "caddy" | "lighttpd" | "traefik" => 24,
        "apache" | "httpd" => 64,
        "etcd" | "prometheus" | "grafana" | "consul" | "vault" | "minio" => 200,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_known_by_their_exact_names() {
        let (feature, finding) = program("dockerd", true).unwrap();
        assert_eq!((feature, finding.severity), ("containers", Severity::Blocker));
        assert_eq!(program("dockerd", false).unwrap().1.severity, Severity::Note);
        assert_eq!(program("qemu-system-arm", true).unwrap().1.severity, Severity::Note);
        assert!(program("dockerize", true).is_none());
        assert!(library("liburing.so.2", "x").is_some() && library("liburingx.so", "x").is_none());
        assert_eq!(devices(b"a\0/dev/fuse\0/dev/null\0/dev/fusex\0"), [("/dev/fuse", "fuse")]);
        assert!(has_device("/dev/shm/x") && !has_device("/dev/fuse"));
    }
}

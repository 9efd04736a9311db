//! /sys: what applications look at to size themselves, and the cgroup files of a container.

use super::FileType;
use super::hooks;
use super::inode::FileSystem;
use super::pseudo::{Changing, Dir, Emit, Entry, Key, Kind, PseudoFs, Text, entry, numbered};
use crate::arch::speculation;
use crate::drivers::block;
use crate::errno::{Errno, Result};
use crate::net::socket::ifreq::{Interface, interfaces};
use crate::net::stack;
use crate::say;
use alloc::format;
use alloc::sync::Arc;

const SYSFS_MAGIC: u64 = 0x6265_6572;
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// A new sysfs.
pub fn filesystem() -> Arc<dyn FileSystem> {
    PseudoFs::new("sysfs", SYSFS_MAGIC, &ROOT, 4096).share()
}

/// A new cgroup2 hierarchy: the one group that everything is in.
pub fn cgroup() -> Arc<dyn FileSystem> {
    PseudoFs::new("cgroup2", CGROUP2_MAGIC, &CGROUP, 0).share()
}

static EMPTY: Dir = Dir::fixed(&[]);

const fn dir(name: &'static str, entries: &'static Dir) -> Entry {
    entry(name, Kind::Dir(entries))
}

const fn text(name: &'static str, text: &'static str) -> Entry {
    entry(name, Kind::Const(text))
}

static ROOT: Entry = dir(
    "",
    &Dir::fixed(&[
        dir("block", &BLOCK),
        dir("bus", &EMPTY),
        dir("class", &Dir::fixed(&[dir("net", &NET), dir("block", &BLOCK)])),
        dir("dev", &Dir::fixed(&[dir("block", &EMPTY), dir("char", &EMPTY)])),
        dir(
            "devices",
            &Dir::fixed(&[
                dir(
                    "system",
                    &Dir::fixed(&[
                        dir("cpu", &CPU),
                        dir("node", &NODE),
                        dir(
                            "clocksource",
                            &Dir::fixed(&[dir(
                                "clocksource0",
                                &Dir::fixed(&[
                                    text("available_clocksource", "tsc \n"),
                                    text("current_clocksource", "tsc\n"),
                                ]),
                            )]),
                        ),
                    ]),
                ),
                dir("virtual", &EMPTY),
            ]),
        ),
        dir("firmware", &EMPTY),
        dir("fs", &Dir::fixed(&[dir("cgroup", &EMPTY)])),
        dir("hypervisor", &EMPTY),
        dir(
            "kernel",
            &Dir::fixed(&[
                dir(
                    "mm",
                    &Dir::fixed(&[
                        dir("hugepages", &EMPTY),
                        dir(
                            "transparent_hugepage",
                            &Dir::fixed(&[
                                text("enabled", "always madvise [never]\n"),
                                text("defrag", "always defer defer+madvise madvise [never]\n"),
                                text("hpage_pmd_size", "2097152\n"),
                                text(
                                    "shmem_enabled",
                                    "always within_size advise [never] deny force\n",
                                ),
                                text("use_zero_page", "0\n"),
                                dir(
                                    "khugepaged",
                                    &Dir::fixed(&[
                                        text("defrag", "0\n"),
                                        text("max_ptes_none", "511\n"),
                                        text("pages_to_scan", "4096\n"),
                                    ]),
                                ),
                            ]),
                        ),
                    ]),
                ),
                dir("security", &EMPTY),
            ]),
        ),
        dir("module", &EMPTY),
        dir("power", &EMPTY),
    ]),
);

fn cpus() -> u32 {
    crate::arch::cpu::count() as u32
}

/// `0-3`, or `0` for one.
fn cpu_range(out: &mut Text) {
    match cpus() {
        1 => say!(out, "0\n"),
        n => say!(out, "0-{}\n", n - 1),
    }
}

/// A mask of CPUs in the kernel's notation: groups of 32 bits, highest first.
fn cpu_mask(out: &mut Text, mask: u64) {
    if mask >> 32 != 0 {
        say!(out, "{:x},{:08x}\n", mask >> 32, mask & 0xffff_ffff);
    } else {
        say!(out, "{mask:x}\n");
    }
}

fn all_mask() -> u64 {
    u64::MAX >> (64 - cpus().clamp(1, 64))
}

static CPU: Dir = Dir {
    entries: &[
        entry("online", Kind::Text(|_, out| Ok(cpu_range(out)))),
        entry("possible", Kind::Text(|_, out| Ok(cpu_range(out)))),
        entry("present", Kind::Text(|_, out| Ok(cpu_range(out)))),
        dir("vulnerabilities", &VULNERABILITIES),
        text("offline", "\n"),
        text("isolated", "\n"),
        entry(
            "kernel_max",
            Kind::Text(|_, out| {
                say!(out, "{}\n", crate::arch::MAX_CPUS - 1);
                Ok(())
            }),
        ),
    ],
    changing: Some(Changing {
        find: |_, name| {
            let index = numbered("cpu", name).filter(|&cpu| cpu < cpus())?;
            Some((Key { index: index.into(), ..Key::default() }, &ONE_CPU))
        },
        list: |_, from, emit| list_cpus(from, FileType::Directory, emit),
    }),
};

static VULNERABILITIES: Dir = Dir {
    entries: &[],
    changing: Some(Changing {
        find: |_, name| {
            let index = speculation::NAMES.iter().position(|known| known.as_bytes() == name)?;
            Some((Key { index: index as u64, ..Key::default() }, &VULNERABILITY))
        },
        list: |_, from, emit| {
            for (at, name) in speculation::NAMES.iter().enumerate().skip(from as usize) {
                if !emit(at as u64 + 1, name.as_bytes(), FileType::Regular) {
                    return;
                }
            }
        },
    }),
};

static VULNERABILITY: Entry = entry(
    "",
    Kind::Text(|key, out| {
        say!(out, "{}\n", speculation::status(key.index as usize));
        Ok(())
    }),
);

fn list_cpus(from: u64, kind: FileType, emit: Emit<'_>) {
    for cpu in from..u64::from(cpus()) {
        if !emit(cpu + 1, format!("cpu{cpu}").as_bytes(), kind) {
            return;
        }
    }
}

fn one_mask(key: &Key, out: &mut Text) -> Result<()> {
    cpu_mask(out, 1 << key.index.min(63));
    Ok(())
}

fn one_list(key: &Key, out: &mut Text) -> Result<()> {
    say!(out, "{}\n", key.index);
    Ok(())
}

static ONE_CPU: Entry = dir(
    "cpu",
    &Dir::fixed(&[
        text("online", "1\n"),
        entry("node0", Kind::Link(|_| Ok(b"../../node/node0".to_vec()))),
        dir(
            "topology",
            &Dir::fixed(&[
                entry("core_id", Kind::Text(one_list)),
                text("physical_package_id", "0\n"),
                text("die_id", "0\n"),
                entry("thread_siblings", Kind::Text(one_mask)),
                entry("thread_siblings_list", Kind::Text(one_list)),
                entry("core_cpus", Kind::Text(one_mask)),
                entry("core_cpus_list", Kind::Text(one_list)),
                entry("core_siblings", Kind::Text(|_, out| Ok(cpu_mask(out, all_mask())))),
                entry("core_siblings_list", Kind::Text(|_, out| Ok(cpu_range(out)))),
                entry("package_cpus", Kind::Text(|_, out| Ok(cpu_mask(out, all_mask())))),
                entry("package_cpus_list", Kind::Text(|_, out| Ok(cpu_range(out)))),
            ]),
        ),
    ]),
);

static NODE: Dir = Dir::fixed(&[
    text("online", "0\n"),
    text("possible", "0\n"),
    text("has_cpu", "0\n"),
    text("has_memory", "0\n"),
    text("has_normal_memory", "0\n"),
    dir(
        "node0",
        &Dir {
            entries: &[
                entry("cpulist", Kind::Text(|_, out| Ok(cpu_range(out)))),
                entry("cpumap", Kind::Text(|_, out| Ok(cpu_mask(out, all_mask())))),
                text("distance", "10\n"),
                entry(
                    "meminfo",
                    Kind::Text(|_, out| {
                        let (total, free) = hooks::memory();
                        say!(out, "Node 0 MemTotal:       {} kB\n", total / 1024);
                        say!(out, "Node 0 MemFree:        {} kB\n", free / 1024);
                        say!(out, "Node 0 MemUsed:        {} kB\n", (total - free) / 1024);
                        say!(out, "Node 0 HugePages_Total:     0\nNode 0 HugePages_Free:      0\n");
                        Ok(())
                    }),
                ),
                text(
                    "numastat",
                    "numa_hit 0\nnuma_miss 0\nnuma_foreign 0\ninterleave_hit 0\n\
                local_node 0\nother_node 0\n",
                ),
                dir("hugepages", &EMPTY),
            ],
            changing: Some(Changing {
                find: |_, name| {
                    let index = numbered("cpu", name).filter(|&cpu| cpu < cpus())?;
                    Some((Key { index: index.into(), ..Key::default() }, &CPU_LINK))
                },
                list: |_, from, emit| list_cpus(from, FileType::Symlink, emit),
            }),
        },
    ),
]);

static CPU_LINK: Entry =
    entry("cpu", Kind::Link(|key| Ok(format!("../../cpu/cpu{}", key.index).into_bytes())));

fn disk(key: &Key) -> Result<Arc<dyn block::BlockDevice>> {
    block::disks().get(key.index as usize).cloned().ok_or(Errno::ENODEV)
}

static BLOCK: Dir = Dir {
    entries: &[],
    changing: Some(Changing {
        find: |_, name| {
            let disks = block::disks();
            let index = disks.iter().position(|disk| disk.name().as_bytes() == name)?;
            Some((Key { index: index as u64, ..Key::default() }, &DISK))
        },
        list: |_, from, emit| {
            for (at, disk) in block::disks().iter().enumerate().skip(from as usize) {
                if !emit(at as u64 + 1, disk.name().as_bytes(), FileType::Directory) {
                    return;
                }
            }
        },
    }),
};

static DISK: Entry = dir(
    "disk",
    &Dir::fixed(&[
        entry(
            "size",
            Kind::Text(|key, out| {
                say!(out, "{}\n", disk(key)?.capacity() / block::SECTOR);
                Ok(())
            }),
        ),
        entry(
            "ro",
            Kind::Text(|key, out| {
                say!(out, "{}\n", u8::from(disk(key)?.read_only()));
                Ok(())
            }),
        ),
        entry(
            "dev",
            Kind::Text(|key, out| {
                say!(out, "{}:{}\n", super::devfs::VIRTIO_MAJOR, key.index * 16);
                Ok(())
            }),
        ),
        text("removable", "0\n"),
        dir(
            "queue",
            &Dir::fixed(&[
                text("rotational", "0\n"),
                text("physical_block_size", "512\n"),
                text("logical_block_size", "512\n"),
                text("hw_sector_size", "512\n"),
                text("minimum_io_size", "512\n"),
                text("optimal_io_size", "0\n"),
                text("max_sectors_kb", "1280\n"),
                text("nr_requests", "256\n"),
                text("read_ahead_kb", "128\n"),
                text("scheduler", "[none]\n"),
                text("discard_granularity", "0\n"),
                text("zoned", "none\n"),
                text("write_cache", "write back\n"),
            ]),
        ),
    ]),
);

fn interface(key: &Key) -> Result<Interface> {
    interfaces(stack()).into_iter().nth(key.index as usize).ok_or(Errno::ENODEV)
}

static NET: Dir = Dir {
    entries: &[],
    changing: Some(Changing {
        find: |_, name| {
            let all = interfaces(stack());
            let index = all.iter().position(|one| one.name.as_bytes() == name)?;
            Some((Key { index: index as u64, ..Key::default() }, &INTERFACE))
        },
        list: |_, from, emit| {
            for (at, one) in interfaces(stack()).iter().enumerate().skip(from as usize) {
                if !emit(at as u64 + 1, one.name.as_bytes(), FileType::Directory) {
                    return;
                }
            }
        },
    }),
};

static INTERFACE: Entry = dir(
    "interface",
    &Dir::fixed(&[
        entry(
            "address",
            Kind::Text(|key, out| {
                let [a, b, c, d, e, f] = interface(key)?.mac;
                say!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}\n");
                Ok(())
            }),
        ),
        entry(
            "mtu",
            Kind::Text(|key, out| {
                say!(out, "{}\n", interface(key)?.mtu);
                Ok(())
            }),
        ),
        entry(
            "ifindex",
            Kind::Text(|key, out| {
                say!(out, "{}\n", interface(key)?.index);
                Ok(())
            }),
        ),
        entry(
            "flags",
            Kind::Text(|key, out| {
                say!(out, "{:#x}\n", interface(key)?.flags);
                Ok(())
            }),
        ),
        entry(
            "type",
            Kind::Text(|key, out| {
                // ARPHRD_LOOPBACK, ARPHRD_ETHER
                say!(out, "{}\n", if interface(key)?.name == "lo" { 772 } else { 1 });
                Ok(())
            }),
        ),
        entry(
            "operstate",
            Kind::Text(|key, out| {
                say!(out, "{}\n", if interface(key)?.name == "lo" { "unknown" } else { "up" });
                Ok(())
            }),
        ),
        text("carrier", "1\n"),
        text("dormant", "0\n"),
        text("tx_queue_len", "1000\n"),
        dir("queues", &NET_QUEUES),
        dir(
            "statistics",
            &Dir::fixed(&[
                entry("rx_bytes", Kind::Text(|key, out| statistic(key, out, 0))),
                entry("rx_packets", Kind::Text(|key, out| statistic(key, out, 1))),
                entry("tx_bytes", Kind::Text(|key, out| statistic(key, out, 2))),
                entry("tx_packets", Kind::Text(|key, out| statistic(key, out, 3))),
                text("collisions", "0\n"),
                text("multicast", "0\n"),
                text("rx_compressed", "0\n"),
                text("rx_crc_errors", "0\n"),
                text("rx_dropped", "0\n"),
                text("rx_errors", "0\n"),
                text("rx_fifo_errors", "0\n"),
                text("rx_frame_errors", "0\n"),
                text("rx_length_errors", "0\n"),
                text("rx_missed_errors", "0\n"),
                text("rx_nohandler", "0\n"),
                text("rx_over_errors", "0\n"),
                text("tx_aborted_errors", "0\n"),
                text("tx_carrier_errors", "0\n"),
                text("tx_compressed", "0\n"),
                text("tx_dropped", "0\n"),
                text("tx_errors", "0\n"),
                text("tx_fifo_errors", "0\n"),
                text("tx_heartbeat_errors", "0\n"),
                text("tx_window_errors", "0\n"),
            ]),
        ),
    ]),
);

/// `rx-0`, `tx-0`, `rx-1`, ...: empty here.
static NET_QUEUES: Dir = Dir {
    entries: &[],
    changing: Some(Changing {
        find: |key, name| {
            let number = numbered("rx-", name).or_else(|| numbered("tx-", name))?;
            (number < interface(key).ok()?.queues).then_some((*key, &NET_QUEUE))
        },
        list: |key, from, emit| {
            let queues = interface(key).map_or(0, |interface| u64::from(interface.queues));
            for at in from..2 * queues {
                let direction = if at % 2 == 0 { "rx" } else { "tx" };
                let name = alloc::format!("{direction}-{}", at / 2);
                if !emit(at + 1, name.as_bytes(), FileType::Directory) {
                    return;
                }
            }
        },
    }),
};

static NET_QUEUE: Entry = dir("queue", &EMPTY);

fn statistic(key: &Key, out: &mut Text, which: usize) -> Result<()> {
    say!(out, "{}\n", interface(key)?.counters[which]);
    Ok(())
}

fn used_memory() -> u64 {
    let (total, free) = hooks::memory();
    total.saturating_sub(free)
}

static CGROUP: Entry = dir(
    "",
    &Dir::fixed(&[
        text("cgroup.controllers", "cpuset cpu io memory pids\n"),
        entry(
            "cgroup.procs",
            Kind::Text(|_, out| {
                for pid in hooks::pids() {
                    say!(out, "{pid}\n");
                }
                Ok(())
            }),
        ),
        text("cgroup.subtree_control", "\n"),
        text("cgroup.type", "domain\n"),
        text("cgroup.events", "populated 1\nfrozen 0\n"),
        text("cgroup.freeze", "0\n"),
        text("cgroup.max.depth", "max\n"),
        text("cgroup.max.descendants", "max\n"),
        text("cgroup.stat", "nr_descendants 0\nnr_dying_descendants 0\n"),
        text("cpu.max", "max 100000\n"),
        text("cpu.max.burst", "0\n"),
        text("cpu.weight", "100\n"),
        text("cpu.weight.nice", "0\n"),
        entry(
            "cpu.stat",
            Kind::Text(|_, out| {
                let (user, system) = hooks::cpu_times();
                let (user, system) = (user / 1000, system / 1000);
                say!(out, "usage_usec {}\nuser_usec {user}\nsystem_usec {system}\n", user + system);
                say!(out, "nr_periods 0\nnr_throttled 0\nthrottled_usec 0\n");
                Ok(())
            }),
        ),
        text("cpuset.cpus", "\n"),
        entry("cpuset.cpus.effective", Kind::Text(|_, out| Ok(cpu_range(out)))),
        text("cpuset.mems", "\n"),
        text("cpuset.mems.effective", "0\n"),
        text("io.max", ""),
        text("io.stat", ""),
        // The VM is the limit; the amount of memory it has is in /proc/meminfo.
        text("memory.max", "max\n"),
        text("memory.high", "max\n"),
        text("memory.low", "0\n"),
        text("memory.min", "0\n"),
        entry(
            "memory.current",
            Kind::Text(|_, out| {
                say!(out, "{}\n", used_memory());
                Ok(())
            }),
        ),
        entry(
            "memory.peak",
            Kind::Text(|_, out| {
                say!(out, "{}\n", used_memory());
                Ok(())
            }),
        ),
        text("memory.events", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n"),
        text("memory.oom.group", "0\n"),
        entry(
            "memory.stat",
            Kind::Text(|_, out| {
                let stat = hooks::memory_stat();
                let page = crate::arch::PAGE_SIZE as u64;
                say!(out, "anon {}\n", stat.anon * page);
                say!(out, "file {}\n", stat.cached * page);
                say!(out, "kernel_stack 0\nslab {}\n", stat.slab * page);
                say!(out, "shmem {}\n", stat.shared * page);
                say!(out, "file_mapped 0\nfile_dirty 0\nfile_writeback 0\n");
                say!(out, "inactive_anon 0\nactive_anon {}\n", stat.anon * page);
                say!(out, "inactive_file 0\nactive_file {}\n", stat.cached * page);
                say!(out, "unevictable 0\npgfault 0\npgmajfault 0\n");
                Ok(())
            }),
        ),
        text("memory.swap.current", "0\n"),
        text("memory.swap.max", "0\n"),
        text("pids.max", "max\n"),
        entry(
            "pids.current",
            Kind::Text(|_, out| {
                say!(out, "{}\n", hooks::thread_count());
                Ok(())
            }),
        ),
        text("pids.events", "max 0\n"),
    ]),
);

//! Numbers of the whole system.

use crate::arch::{PAGE_SIZE, kstack};
use crate::errno::Result;
use crate::fs::hooks;
use crate::fs::pseudo::{Key, Text};
use crate::mm::commit;
use crate::say;
use crate::time::{SECOND, now_ns, realtime_ns};

/// Kernel release shown to applications: the Linux whose behaviour is followed (uname(2) says the
/// same).
pub const RELEASE: &str = "6.6.0-dock2uni";

/// Ticks per second of times in /proc (`USER_HZ`).
pub const HZ: u64 = 100;

pub const FILESYSTEMS: &str = "nodev\tsysfs\nnodev\ttmpfs\nnodev\tproc\nnodev\tcgroup2\n\
    nodev\tdevpts\nnodev\toverlay\nnodev\tpipefs\nnodev\tsockfs\nnodev\t9p\n\terofs\n\text4\n";

pub const CGROUPS: &str = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n\
    cpuset\t0\t1\t1\ncpu\t0\t1\t1\ncpuacct\t0\t1\t1\nblkio\t0\t1\t1\nmemory\t0\t1\t1\n\
    devices\t0\t1\t1\nfreezer\t0\t1\t1\npids\t0\t1\t1\n";

pub const DEVICES: &str = "Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n\
    \x20 5 /dev/ptmx\n136 pts\n\nBlock devices:\n254 virtblk\n";

/// Nanoseconds as ticks.
pub fn ticks(ns: u64) -> u64 {
    ns / (SECOND / HZ)
}

pub fn version(_key: &Key, out: &mut Text) -> Result<()> {
    say!(out, "Linux version {RELEASE} (dock2uni) (rustc) #1 SMP PREEMPT_DYNAMIC\n");
    Ok(())
}

/// What exists at this moment, one number a line: frames of memory, and the kernel's objects.
pub fn counters(_key: &Key, out: &mut Text) -> Result<()> {
    let stat = hooks::memory_stat();
    // Stacks are kept for the tasks to come.
    let stacks = kstack::frames() as u64;
    let frames = [
        ("frames_total", stat.total),
        ("frames_free", stat.free),
        ("frames_cached", stat.cached),
        ("frames_heap", stat.slab),
        ("frames_stacks", stacks),
        ("frames_other", stat.anon.saturating_sub(stacks)),
        ("heap_bytes", crate::mm::heap::used() as u64),
    ];
    for (name, count) in frames {
        say!(out, "{name} {count}\n");
    }
    for (name, count) in crate::live::NAMES.into_iter().zip(crate::live::counts()) {
        say!(out, "{name} {count}\n");
    }
    say!(out, "timers {}\n", crate::time::timer::count());
    Ok(())
}

pub fn cmdline(_key: &Key, out: &mut Text) -> Result<()> {
    say!(out, "quiet\n");
    Ok(())
}

pub fn meminfo(_key: &Key, out: &mut Text) -> Result<()> {
    let stat = hooks::memory_stat();
    let kib = |frames: u64| frames * (PAGE_SIZE as u64 / 1024);
    let clean = stat.cached.saturating_sub(stat.shared);
    let lines: [(&str, u64); 36] = [
        ("MemTotal", kib(stat.total)),
        ("MemFree", kib(stat.free)),
        ("MemAvailable", kib(stat.free + clean)),
        ("Buffers", 0),
        ("Cached", kib(stat.cached)),
        ("SwapCached", 0),
        ("Active", kib(stat.anon + clean)),
        ("Inactive", 0),
        ("Active(anon)", kib(stat.anon)),
        ("Inactive(anon)", 0),
        ("Active(file)", kib(clean)),
        ("Inactive(file)", 0),
        ("Unevictable", 0),
        ("Mlocked", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Dirty", 0),
        ("Writeback", 0),
        ("AnonPages", kib(stat.anon)),
        ("Mapped", 0),
        ("Shmem", kib(stat.shared)),
        ("KReclaimable", 0),
        ("Slab", kib(stat.slab)),
        ("SReclaimable", 0),
        ("SUnreclaim", kib(stat.slab)),
        ("KernelStack", 0),
        ("PageTables", 0),
        ("NFS_Unstable", 0),
        ("Bounce", 0),
        ("WritebackTmp", 0),
        ("CommitLimit", commit::limit() as u64 / 1024),
        ("Committed_AS", commit::promised() as u64 / 1024 + kib(stat.shared)),
        ("VmallocTotal", 34_359_738_367),
        ("VmallocUsed", 0),
        ("VmallocChunk", 0),
        ("Percpu", 0),
    ];
    for (name, value) in lines {
        let name = alloc::format!("{name}:");
        say!(out, "{name:<16}{value:>8} kB\n");
    }
    say!(out, "AnonHugePages:         0 kB\nHugePages_Total:       0\nHugePages_Free:        0\n");
    say!(out, "HugePages_Rsvd:        0\nHugePages_Surp:        0\nHugepagesize:       2048 kB\n");
    say!(out, "Hugetlb:               0 kB\n");
    Ok(())
}

/// User, system and idle time of all CPUs in nanoseconds.
fn times() -> (u64, u64, u64) {
    let (user, system) = hooks::cpu_times();
    let all = now_ns() * crate::arch::cpu::count() as u64;
    (user, system, all.saturating_sub(user + system))
}

pub fn stat(_key: &Key, out: &mut Text) -> Result<()> {
    let (user, system, idle) = times();
    let cpus = crate::arch::cpu::count() as u64;
    let line = |out: &mut Text, name: &str, share: u64| {
        let [user, system, idle] = [user, system, idle].map(|ns| ticks(ns) / share);
        say!(out, "{name} {user} 0 {system} {idle} 0 0 0 0 0 0\n");
    };
    line(out, "cpu ", 1);
    for cpu in 0..cpus {
        line(out, &alloc::format!("cpu{cpu}"), cpus);
    }
    let boot = (realtime_ns().saturating_sub(now_ns())) / SECOND;
    let (processes, running) = (hooks::last_pid(), hooks::running_count());
    say!(out, "intr 0\nctxt {}\nbtime {boot}\n", hooks::context_switches());
    say!(out, "processes {processes}\nprocs_running {running}\nprocs_blocked 0\n");
    say!(out, "softirq 0 0 0 0 0 0 0 0 0 0 0\n");
    Ok(())
}

pub fn uptime(_key: &Key, out: &mut Text) -> Result<()> {
    let hundredths = |ns: u64| (ns / SECOND, ns % SECOND / 10_000_000);
    let (up, up_frac) = hundredths(now_ns());
    let (idle, idle_frac) = hundredths(times().2);
    say!(out, "{up}.{up_frac:02} {idle}.{idle_frac:02}\n");
    Ok(())
}

pub fn loadavg(_key: &Key, out: &mut Text) -> Result<()> {
    let [one, five, fifteen] = hooks::load_average();
    for load in [one, five, fifteen] {
        say!(out, "{}.{:02} ", load / 100, load % 100);
    }
    let (running, threads) = (hooks::running_count(), hooks::thread_count());
    say!(out, "{running}/{threads} {}\n", hooks::last_pid());
    Ok(())
}

pub fn vmstat(_key: &Key, out: &mut Text) -> Result<()> {
    let stat = hooks::memory_stat();
    let lines = [
        ("nr_free_pages", stat.free),
        ("nr_anon_pages", stat.anon),
        ("nr_mapped", 0),
        ("nr_file_pages", stat.cached),
        ("nr_dirty", 0),
        ("nr_writeback", 0),
        ("nr_shmem", stat.shared),
        ("nr_slab_unreclaimable", stat.slab),
        ("pgpgin", 0),
        ("pgpgout", 0),
        ("pswpin", 0),
        ("pswpout", 0),
        ("pgfault", 0),
        ("pgmajfault", 0),
        ("oom_kill", 0),
    ];
    for (name, value) in lines {
        say!(out, "{name} {value}\n");
    }
    Ok(())
}

pub fn diskstats(_key: &Key, out: &mut Text) -> Result<()> {
    for (index, disk) in crate::drivers::block::disks().iter().enumerate() {
        let major = crate::fs::devfs::VIRTIO_MAJOR;
        let (minor, name) = (index * 16, disk.name());
        say!(out, "{major:4} {minor:7} {name} 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n");
    }
    Ok(())
}

pub fn partitions(_key: &Key, out: &mut Text) -> Result<()> {
    say!(out, "major minor  #blocks  name\n\n");
    for (index, disk) in crate::drivers::block::disks().iter().enumerate() {
        let major = crate::fs::devfs::VIRTIO_MAJOR;
        let (minor, blocks) = (index * 16, disk.capacity() / 1024);
        say!(out, "{major:4} {minor:8} {blocks:10} {}\n", disk.name());
    }
    Ok(())
}

pub fn interrupts(_key: &Key, out: &mut Text) -> Result<()> {
    say!(out, "    ");
    for cpu in 0..crate::arch::cpu::count() {
        say!(out, "       CPU{cpu}");
    }
    say!(out, "\n");
    Ok(())
}

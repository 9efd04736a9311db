//! /proc/sys (proc_sys(5)): what applications read to size themselves. As in a container, little
//! can be written.

use super::system::RELEASE;
use crate::errno::{Errno, Result};
use crate::event::inotify;
use crate::fs::pseudo::{
    Dir, Entry, Kind, Text, entry, numbers, parse_number, parse_numbers, show_numbers,
};
use crate::fs::{leases, mount, pipe};
use crate::ipc::{keys, mqueue, msg, sem};
use crate::mm::{MAX_MAPS, commit, shm};
use crate::net::settings;
use crate::say;
use crate::setting::Setting;
use crate::task::coredump::pattern;
use crate::task::{pid, rlimit};
use crate::uts;
use core::sync::atomic::Ordering::Relaxed;

const fn dir(name: &'static str, entries: &'static Dir) -> Entry {
    entry(name, Kind::Dir(entries))
}

const fn text(name: &'static str, text: &'static str) -> Entry {
    entry(name, Kind::Const(text))
}

/// Settings in one line.
macro_rules! numbers {
    ($name:literal, $($setting:expr),+) => {{
        static ALL: &[&Setting] = &[$(&$setting),+];
        numbers($name, ALL)
    }};
}

/// A number that keeps what is written to it.
macro_rules! number {
    ($name:literal, $default:literal) => {{
        static VALUE: Setting = Setting::new($default, i32::MIN as i64, i32::MAX as i64);
        numbers!($name, VALUE)
    }};
    ($name:literal, $value:expr) => {
        entry(
            $name,
            Kind::Setting(
                |_, out| {
                    say!(out, "{}\n", $value.load(Relaxed));
                    Ok(())
                },
                |_, bytes| {
                    $value.store(parse_number(bytes)?, Relaxed);
                    Ok(())
                },
            ),
        )
    };
}

pub static ROOT: Dir = Dir::fixed(&[
    dir("abi", &Dir::fixed(&[])),
    dir("debug", &Dir::fixed(&[])),
    dir("dev", &Dir::fixed(&[])),
    dir("fs", &FS),
    dir("kernel", &KERNEL),
    dir("net", &NET),
    dir("vm", &VM),
]);

static FS: Dir = Dir::fixed(&[
    text("aio-max-nr", "65536\n"),
    text("aio-nr", "0\n"),
    dir("epoll", &Dir::fixed(&[text("max_user_watches", "1048576\n")])),
    text("file-max", "9223372036854775807\n"),
    text("file-nr", "1024\t0\t9223372036854775807\n"),
    dir(
        "inotify",
        &Dir::fixed(&[
            numbers!("max_queued_events", inotify::MAX_QUEUED),
            numbers!("max_user_instances", inotify::MAX_INSTANCES),
            numbers!("max_user_watches", inotify::MAX_WATCHES),
        ]),
    ),
    text("inode-nr", "1024\t0\n"),
    number!("lease-break-time", leases::BREAK_TIME),
    number!("leases-enable", leases::ENABLED),
    entry(
        "mount-max",
        Kind::Text(|_, out| {
            say!(out, "{}\n", mount::MOST);
            Ok(())
        }),
    ),
    dir(
        "mqueue",
        &Dir::fixed(&[
            numbers!("msg_default", mqueue::DEFAULT_MESSAGES),
            numbers!("msg_max", mqueue::MAX_MESSAGES),
            numbers!("msgsize_default", mqueue::DEFAULT_LEN),
            numbers!("msgsize_max", mqueue::MAX_LEN),
            numbers!("queues_max", mqueue::MAX_QUEUES),
        ]),
    ),
    entry(
        "nr_open",
        Kind::Setting(
            |_, out| {
                say!(out, "{}\n", rlimit::NR_OPEN_NOW.load(Relaxed));
                Ok(())
            },
            |_, bytes| {
                // Linux takes more, which no table here could hold.
                let most = u64::try_from(parse_number(bytes)?).ok();
                let most = most.filter(|most| (64..=rlimit::NR_OPEN).contains(most));
                Ok(rlimit::NR_OPEN_NOW.store(most.ok_or(crate::Errno::EINVAL)?, Relaxed))
            },
        ),
    ),
    text("overflowgid", "65534\n"),
    text("overflowuid", "65534\n"),
    entry(
        "pipe-max-size",
        Kind::Setting(
            |_, out| {
                say!(out, "{}\n", pipe::MAX_CAPACITY.load(Relaxed));
                Ok(())
            },
            |_, bytes| {
                let size = usize::try_from(parse_number(bytes)?).ok().filter(|&size| size > 0);
                let size = pipe::rounded(size.ok_or(crate::Errno::EINVAL)?)?;
                Ok(pipe::MAX_CAPACITY.store(size, Relaxed))
            },
        ),
    ),
    number!("pipe-user-pages-hard", pipe::HARD_PAGES),
    number!("pipe-user-pages-soft", pipe::SOFT_PAGES),
    text("protected_hardlinks", "1\n"),
    text("protected_symlinks", "0\n"),
    text("suid_dumpable", "0\n"),
]);

fn uuid(out: &mut Text, bytes: [u8; 16]) {
    for (at, byte) in bytes.into_iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            say!(out, "-");
        }
        say!(out, "{byte:02x}");
    }
    say!(out, "\n");
}

fn random_uuid() -> [u8; 16] {
    let mut bytes = [0; 16];
    crate::random::fill(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes
}

fn show_name(name: &uts::Name, out: &mut Text) -> Result<()> {
    out.bytes(&name.get());
    say!(out, "\n");
    Ok(())
}

/// What was written, up to the end of its first line; names are cut to what fits.
fn first_line(bytes: &[u8]) -> &[u8] {
    let line = line(bytes);
    &line[..line.len().min(uts::MAX)]
}

fn line(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| matches!(byte, b'\n' | 0)).next().unwrap_or_default()
}

static KERNEL: Dir = Dir::fixed(&[
    text("cap_last_cap", "40\n"),
    entry(
        "core_pattern",
        Kind::Setting(
            |_, out| {
                out.bytes(&pattern::get());
                say!(out, "\n");
                Ok(())
            },
            |_, bytes| pattern::set(line(bytes)),
        ),
    ),
    number!("core_uses_pid", pattern::USES_PID),
    text("dmesg_restrict", "1\n"),
    entry(
        "domainname",
        Kind::Setting(
            |_, out| show_name(&uts::DOMAIN, out),
            |_, bytes| uts::DOMAIN.set(first_line(bytes)),
        ),
    ),
    entry(
        "hostname",
        Kind::Setting(
            |_, out| show_name(&uts::HOST, out),
            |_, bytes| uts::HOST.set(first_line(bytes)),
        ),
    ),
    text("io_uring_disabled", "2\n"),
    dir(
        "keys",
        &Dir::fixed(&[
            number!("gc_delay", keys::KEPT),
            number!("maxbytes", keys::LIMITS[1]),
            number!("maxkeys", keys::LIMITS[0]),
            text("persistent_keyring_expiry", "259200\n"),
            number!("root_maxbytes", keys::LIMITS[3]),
            number!("root_maxkeys", keys::LIMITS[2]),
        ]),
    ),
    text("kptr_restrict", "1\n"),
    numbers!("msgmax", msg::MAX_LEN),
    numbers!("msgmnb", msg::MAX_BYTES),
    number!("msg_next_id", msg::QUEUES.numbering.next),
    numbers!("msgmni", msg::QUEUES.limit),
    text("ngroups_max", "65536\n"),
    text("numa_balancing", "0\n"),
    entry(
        "osrelease",
        Kind::Text(|_, out| {
            say!(out, "{RELEASE}\n");
            Ok(())
        }),
    ),
    text("ostype", "Linux\n"),
    text("overflowgid", "65534\n"),
    text("overflowuid", "65534\n"),
    text("panic", "0\n"),
    text("perf_event_paranoid", "4\n"),
    entry(
        "pid_max",
        Kind::Setting(
            |_, out| {
                say!(out, "{}\n", pid::limit());
                Ok(())
            },
            |_, bytes| pid::set_limit(parse_number(bytes)?),
        ),
    ),
    text("printk", "4\t4\t1\t7\n"),
    dir(
        "random",
        &Dir::fixed(&[
            entry(
                "boot_id",
                Kind::Text(|_, out| {
                    static ID: crate::sync::Once<[u8; 16]> = crate::sync::Once::new();
                    Ok(uuid(out, *ID.get_or_init(random_uuid)))
                }),
            ),
            text("entropy_avail", "256\n"),
            text("poolsize", "256\n"),
            entry("uuid", Kind::Text(|_, out| Ok(uuid(out, random_uuid())))),
        ]),
    ),
    text("randomize_va_space", "2\n"),
    text("sched_child_runs_first", "0\n"),
    dir(
        "seccomp",
        &Dir::fixed(&[text(
            "actions_avail",
            "kill_process kill_thread trap errno trace log allow\n",
        )]),
    ),
    number!("sem_next_id", sem::SETS.numbering.next),
    numbers!("sem", sem::MAX_IN_SET, sem::MAX_IN_ALL, sem::MAX_OPS, sem::SETS.limit),
    number!("shm_next_id", shm::NUMBERING.next),
    numbers!("shmall", shm::MAX_PAGES),
    numbers!("shmmax", shm::MAX_BYTES),
    numbers!("shmmni", shm::MAX_SEGMENTS),
    text("tainted", "0\n"),
    text("threads-max", "65536\n"),
    entry("version", Kind::Const("#1 SMP PREEMPT_DYNAMIC\n")),
    dir("yama", &Dir::fixed(&[text("ptrace_scope", "1\n")])),
]);

/// Lets go of what can be made again: with 1 clean pages of files, with 2 unused names (and the kernel's
/// memory that they take), with 3 both.
mod drop_caches {
    use crate::errno::{Errno, Result};
    use crate::fs::mount;
    use crate::fs::pseudo::{Key, Text, parse_number};
    use crate::say;
    use core::sync::atomic::{AtomicI64, Ordering::Relaxed};

    static LAST: AtomicI64 = AtomicI64::new(0);

    pub fn show(out: &mut Text) -> Result<()> {
        say!(out, "{}\n", LAST.load(Relaxed));
        Ok(())
    }

    pub fn set(_key: &Key, bytes: &[u8]) -> Result<()> {
        let what = parse_number(bytes)?;
        if !(1..=4).contains(&what) {
            return Err(Errno::EINVAL);
        }
        LAST.store(what, Relaxed);
        if what & 2 != 0 {
            // The first only takes the marks of use away.
            mount::sweep_names();
            mount::sweep_names();
        }
        if what & 1 != 0 {
            crate::mm::reclaim::shrink(usize::MAX);
        }
        Ok(())
    }
}

static VM: Dir = Dir::fixed(&[
    text("compaction_proactiveness", "0\n"),
    number!("dirty_background_ratio", 10),
    number!("dirty_expire_centisecs", 3000),
    number!("dirty_ratio", 20),
    number!("dirty_writeback_centisecs", 500),
    entry("drop_caches", Kind::Setting(|_, out| drop_caches::show(out), drop_caches::set)),
    text("hugetlb_shm_group", "0\n"),
    text("legacy_va_layout", "0\n"),
    numbers!("max_map_count", MAX_MAPS),
    number!("min_free_kbytes", 1024),
    text("mmap_min_addr", "65536\n"),
    text("nr_hugepages", "0\n"),
    text("nr_overcommit_hugepages", "0\n"),
    text("oom_kill_allocating_task", "0\n"),
    numbers!("overcommit_kbytes", commit::KIBIBYTES),
    numbers!("overcommit_memory", commit::MODE),
    numbers!("overcommit_ratio", commit::RATIO),
    text("panic_on_oom", "0\n"),
    number!("swappiness", 60),
    number!("vfs_cache_pressure", 100),
    text("zone_reclaim_mode", "0\n"),
]);

static NET: Dir = Dir::fixed(&[
    dir(
        "core",
        &Dir::fixed(&[
            text("default_qdisc", "pfifo_fast\n"),
            number!("netdev_max_backlog", 1000),
            numbers!("optmem_max", settings::OPTIONS),
            numbers!("rmem_default", settings::BUFFERS[0]),
            numbers!("rmem_max", settings::MAX_BUFFERS[0]),
            numbers!("somaxconn", settings::SOMAXCONN),
            numbers!("wmem_default", settings::BUFFERS[1]),
            numbers!("wmem_max", settings::MAX_BUFFERS[1]),
        ]),
    ),
    dir(
        "ipv4",
        &Dir::fixed(&[
            numbers!("icmp_echo_ignore_all", settings::SILENT),
            number!("ip_forward", 0),
            entry(
                "ip_local_port_range",
                Kind::Setting(
                    |_, out| {
                        let ports = settings::ports();
                        show_numbers(out, &[(*ports.start()).into(), (*ports.end()).into()]);
                        Ok(())
                    },
                    |_, bytes| settings::set_ports(&parse_numbers(bytes)?),
                ),
            ),
            entry(
                "ip_local_reserved_ports",
                Kind::Setting(
                    |_, out| {
                        say!(out, "{}\n", settings::reserved());
                        Ok(())
                    },
                    |_, bytes| {
                        let text = core::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?;
                        settings::set_reserved(text)
                    },
                ),
            ),
            numbers!("ip_nonlocal_bind", settings::NONLOCAL_BIND),
            numbers!("ip_unprivileged_port_start", settings::FIRST_FREE_PORT),
            entry(
                "ping_group_range",
                Kind::Setting(
                    |_, out| {
                        show_numbers(out, &settings::ping_groups());
                        Ok(())
                    },
                    |_, bytes| settings::set_ping_groups(&parse_numbers(bytes)?),
                ),
            ),
            text("tcp_allowed_congestion_control", "reno cubic\n"),
            text("tcp_available_congestion_control", "reno cubic\n"),
            entry(
                "tcp_congestion_control",
                Kind::Setting(
                    |_, out| {
                        say!(out, "{}\n", settings::congestion().name());
                        Ok(())
                    },
                    |_, bytes| settings::set_congestion(bytes),
                ),
            ),
            number!("tcp_fastopen", 0),
            numbers!("tcp_fin_timeout", settings::FIN_TIMEOUT),
            numbers!("tcp_keepalive_intvl", settings::KEEP_ALIVE[1]),
            numbers!("tcp_keepalive_probes", settings::KEEP_ALIVE[2]),
            numbers!("tcp_keepalive_time", settings::KEEP_ALIVE[0]),
            numbers!("tcp_max_syn_backlog", settings::SYN_BACKLOG),
            numbers!("tcp_max_tw_buckets", settings::TIME_WAITS),
            text("tcp_mem", "46704\t62274\t93408\n"),
            numbers!(
                "tcp_rmem",
                settings::TCP_RECEIVE[0],
                settings::TCP_RECEIVE[1],
                settings::TCP_RECEIVE[2]
            ),
            text("tcp_sack", "1\n"),
            number!("tcp_slow_start_after_idle", 1),
            numbers!("tcp_syn_retries", settings::SYN_RETRIES),
            numbers!("tcp_syncookies", settings::COOKIES),
            text("tcp_timestamps", "1\n"),
            number!("tcp_tw_reuse", 2),
            text("tcp_window_scaling", "1\n"),
            numbers!(
                "tcp_wmem",
                settings::TCP_SEND[0],
                settings::TCP_SEND[1],
                settings::TCP_SEND[2]
            ),
        ]),
    ),
    dir(
        "ipv6",
        &Dir::fixed(&[
            text("bindv6only", "0\n"),
            dir(
                "conf",
                &Dir::fixed(&[
                    dir("all", &CONF6),
                    dir("default", &CONF6),
                    dir("eth0", &CONF6),
                    dir("lo", &CONF6),
                ]),
            ),
        ]),
    ),
    dir("unix", &Dir::fixed(&[numbers!("max_dgram_qlen", settings::DATAGRAMS)])),
]);

static CONF6: Dir = Dir::fixed(&[
    text("accept_ra", "1\n"),
    text("autoconf", "1\n"),
    text("disable_ipv6", "0\n"),
    text("forwarding", "0\n"),
]);

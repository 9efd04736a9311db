//! /proc/config.gz: what there is of Linux's options, for programs that ask before they use it.
//!
//! The options are Linux's names (`Kconfig`); those that say how it is built have no meaning here and
//! are left out. What is said not to be set is what programs ask about most.

use crate::errno::Result;
use crate::fs::pseudo::{Key, Text};

const TEXT: &[u8] = b"\
# What dock2uni's kernel has of Linux 6.6's options\n\
CONFIG_64BIT=y\n\
CONFIG_X86_64=y\n\
CONFIG_X86=y\n\
CONFIG_MMU=y\n\
CONFIG_SMP=y\n\
CONFIG_NUMA=y\n\
CONFIG_MULTIUSER=y\n\
CONFIG_SYSVIPC=y\n\
CONFIG_SYSVIPC_SYSCTL=y\n\
CONFIG_POSIX_MQUEUE=y\n\
CONFIG_POSIX_MQUEUE_SYSCTL=y\n\
CONFIG_BSD_PROCESS_ACCT=y\n\
CONFIG_BSD_PROCESS_ACCT_V3=y\n\
CONFIG_IKCONFIG=y\n\
CONFIG_IKCONFIG_PROC=y\n\
CONFIG_NAMESPACES=y\n\
# CONFIG_UTS_NS is not set\n\
# CONFIG_TIME_NS is not set\n\
# CONFIG_IPC_NS is not set\n\
# CONFIG_USER_NS is not set\n\
# CONFIG_PID_NS is not set\n\
# CONFIG_NET_NS is not set\n\
CONFIG_CHECKPOINT_RESTORE=y\n\
CONFIG_SYSCTL=y\n\
CONFIG_POSIX_TIMERS=y\n\
CONFIG_HIGH_RES_TIMERS=y\n\
CONFIG_FUTEX=y\n\
CONFIG_FUTEX_PI=y\n\
CONFIG_EPOLL=y\n\
CONFIG_SIGNALFD=y\n\
CONFIG_TIMERFD=y\n\
CONFIG_EVENTFD=y\n\
CONFIG_SHMEM=y\n\
CONFIG_AIO=y\n\
# CONFIG_IO_URING is not set\n\
CONFIG_ADVISE_SYSCALLS=y\n\
CONFIG_MEMBARRIER=y\n\
CONFIG_KCMP=y\n\
CONFIG_RSEQ=y\n\
# CONFIG_BPF_SYSCALL is not set\n\
# CONFIG_USERFAULTFD is not set\n\
# CONFIG_PERF_EVENTS is not set\n\
CONFIG_SECCOMP=y\n\
CONFIG_SECCOMP_FILTER=y\n\
# CONFIG_MODULES is not set\n\
CONFIG_BLOCK=y\n\
CONFIG_BINFMT_ELF=y\n\
CONFIG_BINFMT_SCRIPT=y\n\
CONFIG_COREDUMP=y\n\
CONFIG_ELF_CORE=y\n\
# CONFIG_SWAP is not set\n\
CONFIG_TRANSPARENT_HUGEPAGE=y\n\
CONFIG_CROSS_MEMORY_ATTACH=y\n\
CONFIG_NET=y\n\
CONFIG_PACKET=y\n\
CONFIG_UNIX=y\n\
CONFIG_UNIX_DIAG=y\n\
CONFIG_INET=y\n\
CONFIG_IP_MULTICAST=y\n\
CONFIG_INET_DIAG=y\n\
CONFIG_INET_TCP_DIAG=y\n\
CONFIG_INET_UDP_DIAG=y\n\
CONFIG_TCP_CONG_CUBIC=y\n\
CONFIG_IPV6=y\n\
# CONFIG_NETFILTER is not set\n\
# CONFIG_VSOCKETS is not set\n\
CONFIG_NET_9P=y\n\
CONFIG_NET_9P_VIRTIO=y\n\
CONFIG_PCI=y\n\
CONFIG_BLK_DEV_LOOP=y\n\
CONFIG_VIRTIO_BLK=y\n\
CONFIG_VIRTIO_NET=y\n\
# CONFIG_TUN is not set\n\
CONFIG_TTY=y\n\
CONFIG_UNIX98_PTYS=y\n\
CONFIG_VIRTIO_CONSOLE=y\n\
CONFIG_HW_RANDOM_VIRTIO=y\n\
CONFIG_VIRTIO_PCI=y\n\
CONFIG_VIRTIO_MMIO=y\n\
CONFIG_EXT4_FS=y\n\
CONFIG_FILE_LOCKING=y\n\
CONFIG_FSNOTIFY=y\n\
CONFIG_DNOTIFY=y\n\
CONFIG_INOTIFY_USER=y\n\
# CONFIG_FANOTIFY is not set\n\
# CONFIG_QUOTA is not set\n\
CONFIG_OVERLAY_FS=y\n\
CONFIG_ISO9660_FS=y\n\
CONFIG_FHANDLE=y\n\
CONFIG_PROC_FS=y\n\
CONFIG_PROC_SYSCTL=y\n\
CONFIG_SYSFS=y\n\
CONFIG_TMPFS=y\n\
CONFIG_TMPFS_XATTR=y\n\
# CONFIG_HUGETLBFS is not set\n\
CONFIG_MEMFD_CREATE=y\n\
CONFIG_EROFS_FS=y\n\
CONFIG_9P_FS=y\n\
CONFIG_KEYS=y\n\
# CONFIG_SECURITY is not set\n\
# CONFIG_SECURITY_LANDLOCK is not set\n\
";

/// Header and trailer of a member, and the header of its one block (RFC 1952, 2.3; RFC 1951, 3.2.4).
const FRAME: usize = 10 + 5 + 8;

/// The text as a file of gzip, in one stored block: there is nothing to be packed with here, and three
/// kilobytes to be won.
static PACKED: [u8; TEXT.len() + FRAME] = stored(TEXT);

const fn stored<const N: usize>(text: &[u8]) -> [u8; N] {
    const GZIP: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    assert!(text.len() + FRAME == N && text.len() <= u16::MAX as usize);
    let mut out = [0; N];
    let len = (text.len() as u16).to_le_bytes();
    // The last block, and its length with the complement.
    let block = [1, len[0], len[1], !len[0], !len[1]];
    let size = (text.len() as u32).to_le_bytes();
    let sum = crc32(text).to_le_bytes();
    let mut at = 0;
    while at < N {
        out[at] = match at {
            0..10 => GZIP[at],
            10..15 => block[at - 10],
            _ if at < 15 + text.len() => text[at - 15],
            _ if at < N - 4 => sum[at + 8 - N],
            _ => size[at + 4 - N],
        };
        at += 1;
    }
    out
}

/// The sum of RFC 1952, 8.
const fn crc32(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    let mut at = 0;
    while at < bytes.len() {
        sum ^= bytes[at] as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 0 { sum >> 1 } else { sum >> 1 ^ 0xedb8_8320 };
            bit += 1;
        }
        at += 1;
    }
    !sum
}

pub fn config(_key: &Key, out: &mut Text) -> Result<()> {
    out.bytes(&PACKED);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    #[test]
    fn gzip_reads_it() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        let mut gzip = Command::new("gzip")
            .arg("-dc")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        gzip.stdin.take().unwrap().write_all(&PACKED).unwrap();
        let output = gzip.wait_with_output().unwrap();
        assert!(output.status.success());
        assert_eq!(output.stdout, TEXT);
    }

    #[test]
    fn every_line_is_an_option() {
        let text = core::str::from_utf8(TEXT).unwrap();
        let mut names: Vec<&str> = Vec::new();
        for line in text.lines().skip(1) {
            let name = line.strip_suffix("=y").or_else(|| {
                line.strip_prefix("# ").and_then(|rest| rest.strip_suffix(" is not set"))
            });
            let name = name.unwrap_or_else(|| panic!("{line}"));
            assert!(name.starts_with("CONFIG_") && !names.contains(&name), "{line}");
            names.push(name);
        }
    }
}

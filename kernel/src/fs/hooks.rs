//! What the filesystems ask of the rest of the kernel, in one place.

use crate::arch::PAGE_SIZE;
use crate::mm::frame;
use crate::net::socket::ifreq;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;

/// The current task wrote to a pipe that nobody reads: SIGPIPE.
pub fn broken_pipe() {}

/// Bytes of memory that the kernel manages.
pub fn total_memory() -> u64 {
    memory().0
}

/// Bytes of memory: all, and free or easily freed.
pub fn memory() -> (u64, u64) {
    let page = PAGE_SIZE as u64;
    let stat = memory_stat();
    let clean = stat.cached.saturating_sub(stat.shared);
    (stat.total * page, (stat.free + clean) * page)
}

/// Frames by use.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryStat {
    /// All.
    pub total: u64,
    /// Unused.
    pub free: u64,
    /// In page caches.
    pub cached: u64,
    /// Those of tmpfs and shared memory.
    pub shared: u64,
    /// Private memory of processes.
    pub anon: u64,
    /// The kernel's heap.
    pub slab: u64,
}

/// Frames by use, now.
pub fn memory_stat() -> MemoryStat {
    let (cached, shared) = crate::mm::cached_frames();
    let total = frame::total_frames() as u64;
    let free = frame::free_frames() as u64;
    let (cached, shared) = (cached as u64, shared as u64);
    MemoryStat { total, free, cached, shared, ..MemoryStat::default() }
}

/// A network interface and its counters: bytes and packets received, bytes and packets sent.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// Number.
    pub index: u32,
    /// `IFF_*`
    pub flags: u32,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Hardware address.
    pub mac: [u8; 6],
    /// What went through it.
    pub counters: [u64; 4],
}

/// Every network interface.
pub fn interfaces() -> Vec<Interface> {
    let stats = &crate::net::stack().stats;
    let all = ifreq::interfaces(crate::net::stack());
    let load = |counter: &core::sync::atomic::AtomicU64| counter.load(Relaxed);
    all.into_iter()
        .map(|one| Interface {
            counters: if one.name == "lo" {
                let (bytes, packets) = (load(&stats.lo_bytes), load(&stats.lo_packets));
                [bytes, packets, bytes, packets]
            } else {
                [&stats.rx_bytes, &stats.rx_packets, &stats.tx_bytes, &stats.tx_packets].map(load)
            },
            name: one.name.into(),
            index: one.index,
            flags: one.flags,
            mtu: one.mtu,
            mac: one.mac,
        })
        .collect()
}

/// Thousands of cycles per second of the clock counter.
pub fn cpu_khz() -> u64 {
    // Measured once against the monotonic clock since boot.
    static KHZ: crate::sync::Once<u64> = crate::sync::Once::new();
    *KHZ.get_or_init(|| {
        let ms = (crate::time::now_ns() / 1_000_000).max(1);
        crate::arch::clock::cycles() / ms
    })
}

/// Whether the current task should leave a long loop: a signal is pending.
pub fn interrupted() -> bool {
    false
}

/// Numbers of all processes, in order.
pub fn pids() -> Vec<i32> {
    Vec::new()
}

/// Number of threads.
pub fn thread_count() -> usize {
    1
}

/// Number of threads that run or could.
pub fn running_count() -> usize {
    1
}

/// The number given out last.
pub fn last_pid() -> i32 {
    1
}

/// Switches between tasks since boot.
pub fn context_switches() -> u64 {
    0
}

/// User and system time since boot, in nanoseconds.
pub fn cpu_times() -> (u64, u64) {
    (0, 0)
}

/// Load averages over 1, 5 and 15 minutes, in hundredths.
pub fn load_average() -> [u64; 3] {
    [0; 3]
}

/// The host name.
pub fn host_name() -> Vec<u8> {
    Vec::new()
}

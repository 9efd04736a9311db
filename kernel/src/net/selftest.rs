//! `d2u.selftest=net`: finds the devices, takes an address by DHCP, serves HTTP on port 80 until
//! somebody asks for `/quit`. Runs without tasks, so everything is non-blocking.

use super::addr::{Address, Ipv4Addr, SocketAddr};
use super::socket::{Caller, Incoming, Outgoing, Socket, create};
use crate::arch::{clock, idle};
use crate::drivers::block;
use crate::drivers::virtio::rng;
use crate::io::{IoDst, IoSrc};
use crate::{Errno, Result, error};
use alloc::sync::Arc;
use alloc::vec::Vec;
use dock2uni_format::record;
use linux_raw_sys::net::{AF_INET, SOCK_STREAM};

/// Runs it.
pub fn run() -> core::result::Result<(), &'static str> {
    crate::drivers::virtio::probe(crate::arch::boot_info::get().map_or("", |boot| boot.cmdline()));
    // There is no scheduler that this could let in; softirqs are what we want.
    crate::arch::cpu::set_preempt_count(0);
    crate::arch::irq::enable();
    super::init();
    for disk in block::disks() {
        let mut first = [0; 1536];
        let read = disk.read_bytes(0, &mut first);
        let sum = first.iter().fold(0u32, |sum, &byte| sum.rotate_left(5) ^ u32::from(byte));
        error!("{}: {} bytes, {read:?}, sum {sum:#x}", disk.name(), disk.capacity());
    }
    if let Ok(bytes) = rng::read() {
        error!("entropy: {}", if bytes == [0; 64] { "all zero" } else { "ok" });
    }
    let started = clock::now_ns();
    super::configure(&record::Net::default(), "selftest");
    let stack = super::stack();
    while !stack.config().addresses.iter().any(|cidr| cidr.addr.is_ipv4()) {
        if clock::now_ns() > started + 5_000_000_000 {
            return Err("no lease within five seconds");
        }
        idle();
    }
    error!("lease after {} us: {:?}", (clock::now_ns() - started) / 1000, stack.config());
    let served = serve().map_err(Errno::name)?;
    error!("served {served}");
    Ok(())
}

fn receive(socket: &dyn Socket, buf: &mut [u8]) -> Result<usize> {
    let mut dst = IoDst::kernel(buf);
    socket.receive(&mut Incoming::new(&mut dst, 0, true))
}

fn send(socket: &dyn Socket, bytes: &[u8]) -> Result<usize> {
    let mut src = IoSrc::kernel(bytes);
    let control = Vec::new();
    let mut message = Outgoing { to: None, src: &mut src, flags: 0, control, nonblock: true };
    socket.send(&Caller::kernel(), &mut message)
}

struct Client {
    socket: Arc<dyn Socket>,
    pending: Vec<u8>,
}

fn serve() -> Result<usize> {
    let who = Caller::kernel();
    let listener = create(&who, AF_INET, SOCK_STREAM, 0)?;
    listener.bind(&who, &Address::Inet(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 80)))?;
    listener.listen(&who, 128)?;
    let mut clients: Vec<Client> = Vec::new();
    let mut served = 0;
    let mut quit = false;
    loop {
        while let Ok((socket, _)) = listener.accept(true) {
            clients.push(Client { socket, pending: Vec::new() });
        }
        clients.retain_mut(|client| {
            let mut buf = [0; 2048];
            match receive(&*client.socket, &mut buf) {
                Ok(0) => {
                    client.socket.close(true);
                    return false;
                }
                Ok(n) => {
                    served += 1;
                    let size = if buf[..n].starts_with(b"GET /big") { 300_000 } else { 612 };
                    quit |= buf[..n].starts_with(b"GET /quit");
                    let head = alloc::format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
                    client.pending.extend(head.bytes());
                    client.pending.resize(client.pending.len() + size, b'x');
                }
                Err(Errno::EAGAIN) => {}
                Err(_) => {
                    client.socket.close(true);
                    return false;
                }
            }
            if !client.pending.is_empty() {
                if let Ok(sent) = send(&*client.socket, &client.pending) {
                    client.pending.drain(..sent);
                }
            }
            true
        });
        if quit && clients.is_empty() {
            return Ok(served);
        }
        idle();
    }
}

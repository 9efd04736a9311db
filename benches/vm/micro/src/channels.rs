//! Pipes and sockets.

use crate::peer::{Pair, close, pipe, read, round_trips, stream, write};
use crate::{Case, fastest, ok};

pub const CASES: &[Case] = &[
    ("pipe, 1 byte, same process", pipe_alone),
    ("pipe, 64 KiB, same process", pipe_alone_large),
    ("pipe, round trip of 2 processes", pipe_trips),
    ("pipe, 64 KiB to a peer", pipe_stream),
    ("pipe, create and close", pipe_create),
    ("unix stream, 1 byte, same process", unix_alone),
    ("unix stream, round trip", unix_trips),
    ("unix stream, 64 KiB to a peer", unix_stream),
    ("unix datagram, round trip", unix_datagrams),
    ("unix socketpair, create and close", unix_create),
    ("tcp loopback, round trip", tcp_trips),
    ("tcp loopback, 64 KiB to a peer", tcp_stream),
    ("tcp loopback, connect, accept, close", tcp_connect),
    ("udp loopback, same process", udp_alone),
];

fn alone([from, to]: Pair, size: usize) -> f64 {
    let mut bytes = vec![0; size];
    let result = fastest(|count| {
        for _ in 0..count {
            write(to, &bytes);
            let mut got = 0;
            while got < size {
                got += read(from, &mut bytes[got..]);
            }
        }
    });
    close(&[from, to]);
    result
}

fn pipe_alone() -> f64 {
    alone(pipe(), 1)
}

fn pipe_alone_large() -> f64 {
    alone(pipe(), 64 * 1024)
}

fn pipe_trips() -> f64 {
    let (there, back) = (pipe(), pipe());
    let result = round_trips((there[1], back[0]), (back[1], there[0]));
    close(&there);
    close(&back);
    result
}

fn pipe_stream() -> f64 {
    let pair = pipe();
    let result = stream(pair[1], pair[0]);
    close(&pair);
    result
}

fn pipe_create() -> f64 {
    fastest(|count| {
        for _ in 0..count {
            close(&pipe());
        }
    })
}

fn pair(kind: i32) -> Pair {
    let mut pair = [0; 2];
    ok(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, pair.as_mut_ptr()) });
    pair
}

fn unix_alone() -> f64 {
    alone(pair(libc::SOCK_STREAM), 1)
}

fn both_ways(pair: Pair) -> f64 {
    let result = round_trips((pair[0], pair[0]), (pair[1], pair[1]));
    close(&pair);
    result
}

fn unix_trips() -> f64 {
    both_ways(pair(libc::SOCK_STREAM))
}

fn unix_datagrams() -> f64 {
    both_ways(pair(libc::SOCK_DGRAM))
}

fn unix_stream() -> f64 {
    let pair = pair(libc::SOCK_STREAM);
    let result = stream(pair[0], pair[1]);
    close(&pair);
    result
}

fn unix_create() -> f64 {
    fastest(|count| {
        for _ in 0..count {
            close(&pair(libc::SOCK_STREAM));
        }
    })
}

const ADDRESS_SIZE: u32 = size_of::<libc::sockaddr_in>() as u32;

/// A socket on a port of 127.0.0.1 that the kernel chooses, and its address.
fn bound(kind: i32) -> (i32, libc::sockaddr_in) {
    let socket = ok(unsafe { libc::socket(libc::AF_INET, kind, 0) }) as i32;
    let mut address: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    address.sin_family = libc::AF_INET as u16;
    address.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
    let mut size = ADDRESS_SIZE;
    unsafe {
        ok(libc::bind(socket, (&raw const address).cast(), size));
        ok(libc::getsockname(socket, (&raw mut address).cast(), &mut size));
    }
    (socket, address)
}

fn connect(address: &libc::sockaddr_in) -> i32 {
    let socket = ok(unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) }) as i32;
    ok(unsafe { libc::connect(socket, (&raw const *address).cast(), ADDRESS_SIZE) });
    socket
}

fn accept(listener: i32) -> i32 {
    let null = std::ptr::null_mut();
    ok(unsafe { libc::accept(listener, null, std::ptr::null_mut()) }) as i32
}

fn listener() -> (i32, libc::sockaddr_in) {
    let (listener, address) = bound(libc::SOCK_STREAM);
    ok(unsafe { libc::listen(listener, 16) });
    (listener, address)
}

fn tcp_pair() -> Pair {
    let (listener, address) = listener();
    let pair = [connect(&address), accept(listener)];
    close(&[listener]);
    let on = 1i32;
    for socket in pair {
        let (level, option) = (libc::IPPROTO_TCP, libc::TCP_NODELAY);
        ok(unsafe { libc::setsockopt(socket, level, option, (&raw const on).cast(), 4) });
    }
    pair
}

fn tcp_trips() -> f64 {
    both_ways(tcp_pair())
}

fn tcp_stream() -> f64 {
    let pair = tcp_pair();
    let result = stream(pair[0], pair[1]);
    close(&pair);
    result
}

/// The client resets its end, so that no ports are used up by connections that wait.
fn tcp_connect() -> f64 {
    let (listener, address) = listener();
    let reset = libc::linger { l_onoff: 1, l_linger: 0 };
    let size = size_of::<libc::linger>() as u32;
    let result = fastest(|count| {
        for _ in 0..count {
            let (client, server) = (connect(&address), accept(listener));
            let option = (&raw const reset).cast();
            let (level, name) = (libc::SOL_SOCKET, libc::SO_LINGER);
            ok(unsafe { libc::setsockopt(client, level, name, option, size) });
            close(&[client, server]);
        }
    });
    close(&[listener]);
    result
}

fn udp_alone() -> f64 {
    let (socket, address) = bound(libc::SOCK_DGRAM);
    ok(unsafe { libc::connect(socket, (&raw const address).cast(), ADDRESS_SIZE) });
    let mut bytes = [0; 64];
    let result = fastest(|count| {
        for _ in 0..count {
            write(socket, &bytes);
            assert_eq!(read(socket, &mut bytes), 64);
        }
    });
    close(&[socket]);
    result
}

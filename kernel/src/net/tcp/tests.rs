//! Connections over links that lose, delay, reorder, repeat and damage.

use super::{Conn, Listener, State, TcpOptions};
use crate::io::IoDst;
use crate::net::tests::{World, receive, send, state};
use alloc::sync::Arc;
use alloc::vec::Vec;

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1000 * MILLI;

/// A client, a server and their connection.
fn connected(world: &mut World) -> (Arc<Conn>, Arc<Conn>) {
    let listener: Arc<Listener> = world.listen(1, "0.0.0.0:80", 5, TcpOptions::default());
    let client = world.connect(0, "10.0.0.2:80", 40000);
    world.pass(SECOND);
    assert_eq!(state(&client), State::Established);
    (client, listener.accept().unwrap())
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| ((at * 7) >> 3) as u8 ^ (at >> 11) as u8).collect()
}

/// Carries `data` from one end to the other, looking every `step`; returns how long it took.
fn carry(world: &mut World, from: &Arc<Conn>, to: &Arc<Conn>, data: &[u8], step: u64) -> u64 {
    let start = world.now;
    let (mut sent, mut got) = (0, Vec::new());
    while got.len() < data.len() {
        if sent < data.len() {
            sent += send(from, &data[sent..]);
        }
        world.pass(step);
        got.extend(receive(to));
        assert!(world.now < start + 120 * SECOND, "{} of {}", got.len(), data.len());
    }
    assert!(got == data, "damaged");
    world.now - start
}

#[test]
fn a_megabyte_survives_every_bad_wire() {
    let data = pattern(1_000_000);
    for (loss, duplicates, damage, jitter, delay) in [
        (0, 0, 0, 0, 0),
        (5, 0, 0, 0, 5),
        (0, 10, 0, 3, 1),
        (0, 0, 5, 0, 5),
        (3, 5, 2, 10, 10),
        (20, 0, 0, 0, 2),
    ] {
        let mut world = World::new();
        let (client, server) = connected(&mut world);
        (world.loss, world.duplicates, world.damage) = (loss, duplicates, damage);
        (world.delay, world.jitter) = (delay * MILLI, jitter * MILLI);
        carry(&mut world, &client, &server, &data, MILLI);
        server.close(false);
        client.close(false);
        world.pass(120 * SECOND);
        for (stack, _) in &world.ends {
            assert_eq!(stack.tcp.connections(), 0, "{loss} {duplicates} {damage} {jitter}");
        }
    }
}

#[test]
fn a_lost_packet_costs_round_trips_and_no_second() {
    // Every single packet of a response, lost once.
    for victim in 0..20 {
        let mut world = World::new();
        let (client, server) = connected(&mut world);
        world.delay = 10 * MILLI;
        // Something to measure the round trip by.
        carry(&mut world, &server, &client, &pattern(3000), MILLI);
        let data = pattern(20 * 1460);
        send(&server, &data[..14600]);
        let mut frames: Vec<_> = world.ends[1].1.out.lock().drain(..).collect();
        if victim < frames.len() {
            frames.remove(victim);
        }
        world.ends[1].1.out.lock().extend(frames);
        let start = world.now;
        let mut got = Vec::new();
        while got.len() < 14600 {
            world.pass(MILLI);
            got.extend(receive(&client));
            assert!(world.now - start < 400 * MILLI, "victim {victim}: {} bytes", got.len());
        }
        assert!(got == data[..14600]);
        // The last one needs a probe of the end; the others a fast retransmission.
        let limit = if victim == 9 { 110 } else { 75 };
        assert!(world.now - start <= limit * MILLI, "{victim}: {} ms", (world.now - start) / MILLI);
    }
}

#[test]
fn the_first_flight_is_ten_segments_and_buffers_grow_with_the_path() {
    let mut world = World::new();
    let (client, server) = connected(&mut world);
    send(&server, &pattern(100_000));
    assert_eq!(world.ends[1].1.out.lock().len(), 10);
    world.pass(SECOND);
    assert_eq!(receive(&client).len(), 100_000);
    // 20 MB/s over 40 ms: 800 kB under way fill it, six times the first window.
    world.delay = 20 * MILLI;
    world.rate = 20_000_000;
    let took = carry(&mut world, &server, &client, &pattern(40_000_000), 2 * MILLI);
    let rate = 40_000_000 * 1000 / (took / MILLI);
    let inner = server.lock();
    let (counters, limits, congestion) = (inner.counters, inner.limits(), inner.congestion);
    assert!(rate > 12_000_000, "{rate} bytes/s {counters:?} {limits:?} {congestion:?}");
}

#[test]
fn a_closed_window_is_probed_and_opens_again() {
    let mut world = World::new();
    let (client, server) = connected(&mut world);
    let data = pattern(1 << 20);
    let mut sent = send(&client, &data);
    world.pass(5 * SECOND);
    sent += send(&client, &data[sent..]);
    world.pass(5 * SECOND);
    assert!(sent < data.len());
    // The update is lost: only a probe can find out.
    world.loss = 100;
    let mut got = receive(&server);
    world.pass(MILLI);
    world.loss = 0;
    while got.len() < data.len() {
        sent += send(&client, &data[sent..]);
        world.pass(10 * MILLI);
        got.extend(receive(&server));
        assert!(world.now < 60 * SECOND, "{}", got.len());
    }
    assert!(got == data);
}

#[test]
fn small_writes_are_gathered_unless_the_program_says_otherwise() {
    let mut world = World::new();
    let (client, server) = connected(&mut world);
    world.delay = 5 * MILLI;
    let before = client.lock().counters.segments_out;
    for _ in 0..100 {
        send(&client, b"x");
    }
    assert_eq!(client.lock().counters.segments_out - before, 1);
    world.pass(6 * MILLI);
    assert_eq!(receive(&server).len(), 1);
    world.pass(20 * MILLI);
    assert_eq!(receive(&server).len(), 99);
    let mut inner = client.lock();
    let options = TcpOptions { no_delay: true, ..*inner.options() };
    inner.set_options(options, world.now);
    let before = inner.counters.segments_out;
    drop(inner);
    for _ in 0..10 {
        send(&client, b"x");
    }
    assert_eq!(client.lock().counters.segments_out - before, 10);
}

#[test]
fn a_reader_that_finds_nothing_acknowledges_and_another_waits() {
    let mut world = World::new();
    let (client, server) = connected(&mut world);
    send(&client, b"half a request");
    world.settle();
    assert_eq!(client.lock().queued(), 14, "delayed");
    // Looks once more.
    assert_eq!(receive(&server).len(), 14);
    world.settle();
    assert_eq!(client.lock().queued(), 0);
    send(&client, b"unread");
    world.pass(39 * MILLI);
    assert_eq!(client.lock().queued(), 6);
    world.pass(2 * MILLI);
    assert_eq!(client.lock().queued(), 0);
}

#[test]
fn answers_carry_the_acknowledgements_whether_windows_are_scaled_or_not() {
    for scaled in [true, false] {
        let mut world = World::new();
        let (client, server) = connected(&mut world);
        if !scaled {
            for conn in [&client, &server] {
                let mut inner = conn.lock();
                (inner.scale, inner.peer_scale) = (0, 0);
                inner.edge = inner.rcv_nxt.wrapping_add(65535);
                inner.wnd = 65535;
            }
        }
        let read = |conn: &Arc<Conn>| {
            let mut inner = conn.lock();
            let mut buf = [0; 100];
            let (n, _) = inner.peek(0, &mut IoDst::kernel(&mut buf), false, false);
            conn.after_read(inner, n, false);
            n
        };
        let before = world.carried;
        for _ in 0..50 {
            send(&client, &[1; 36]);
            world.settle();
            assert_eq!(read(&server), 36);
            send(&server, &[2; 5]);
            world.settle();
            assert_eq!(read(&client), 5);
        }
        assert_eq!(world.carried - before, 100, "{scaled}");
    }
}

#[test]
fn blind_resets_and_syns_are_answered_and_not_obeyed() {
    use super::segment::{ACK, Header, RST, SYN};
    let mut world = World::new();
    let (client, server) = connected(&mut world);
    let last = server.lock().last();
    let forge = |seq: u32, flags: u8| {
        let mut bytes = [0; 20];
        Header { seq, ack: last.snd_nxt, flags, ..Header::default() }.emit(&mut bytes, &[]);
        server.input(&super::segment::Segment::parse(&bytes).unwrap());
    };
    forge(last.rcv_nxt.wrapping_add(100), RST);
    forge(last.rcv_nxt.wrapping_add(1), SYN);
    forge(last.rcv_nxt.wrapping_sub(99999), RST);
    forge(last.rcv_nxt, ACK | 0x20);
    assert_eq!(state(&server), State::Established);
    forge(last.rcv_nxt, RST);
    assert_eq!(state(&server), State::Closed);
    drop(client);
}

#[test]
fn urgent_bytes_leave_the_stream_and_mark_their_place() {
    use crate::io::IoDst;
    let mut world = World::new();
    let (client, server) = connected(&mut world);
    send(&client, b"abc");
    let mut inner = client.lock();
    inner.write(&mut crate::io::IoSrc::kernel(b"!"));
    inner.mark_urgent();
    client.push(inner);
    send(&client, b"def");
    world.pass(SECOND);
    let mut inner = server.lock();
    assert_eq!(inner.urgent.unwrap().byte, Some(b'!'));
    let mut buf = [0; 9];
    let (n, _) = inner.peek(0, &mut IoDst::kernel(&mut buf), false, false);
    assert_eq!(&buf[..n], b"abc");
    server.after_read(inner, n, false);
    let mut inner = server.lock();
    assert!(inner.at_mark());
    inner.pass_mark(false);
    let (n, _) = inner.peek(0, &mut IoDst::kernel(&mut buf), false, false);
    assert_eq!(&buf[..n], b"def");
}

#[test]
fn random_segments_break_no_connection_rule() {
    use super::segment::{Header, Segment};
    let mut world = World::new();
    let (client, server) = connected(&mut world);
    let mut seed = 7u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) as u32
    };
    for round in 0..200_000u32 {
        let (near, end) = if round % 2 == 0 { (&server, 1) } else { (&client, 0) };
        if state(near) == State::Closed {
            break;
        }
        let last = near.lock().last();
        let spread = |random: u32| random % 200_000;
        let header = Header {
            seq: last.rcv_nxt.wrapping_add(spread(random())).wrapping_sub(100_000),
            ack: last.snd_nxt.wrapping_add(spread(random())).wrapping_sub(100_000),
            // No resets: they would be obeyed in the end.
            flags: random() as u8 & !4,
            window: random() as u16,
            urgent: random() as u16,
            ..Header::default()
        };
        let mut bytes = alloc::vec![0; 20 + 40 + random() as usize % 3000];
        let options: Vec<u8> = match random() % 3 {
            0 => Vec::new(),
            1 => (0..40).map(|_| random() as u8).collect(),
            _ => {
                let mut options = alloc::vec![1, 1, 5, 34];
                for _ in 0..8 {
                    let seq = last.snd_nxt.wrapping_add(spread(random())).wrapping_sub(100_000);
                    options.extend(seq.to_be_bytes());
                }
                options
            }
        };
        header.emit(&mut bytes, &options);
        if let Some(segment) = Segment::parse(&bytes) {
            near.input(&segment);
        }
        if random() % 8 == 0 {
            send(near, &[1; 5000]);
        }
        if random() % 16 == 0 {
            receive(near);
        }
        if random() % 64 == 0 {
            world.ends[end].1.out.lock().clear();
            let now = world.now + u64::from(random() % 1000) * MILLI;
            world.now = now;
            for (stack, _) in &world.ends {
                stack.set_clock(now);
                stack.run_timers();
            }
        }
        let inner = near.lock();
        assert!(inner.readable() <= 5 << 20 && inner.queued() <= 5 << 20);
    }
}

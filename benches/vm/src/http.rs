//! The client's side.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Asks again and again until a response with status 200 has begun.
///
/// QEMU's user network accepts connections before the guest can, and some of those are lost; so a
/// new attempt starts every few milliseconds while the older ones stay open, and the first answer
/// to any of them counts.
pub fn wait_for_200(address: SocketAddr, limit: Duration) -> Result<(), String> {
    let start = Instant::now();
    let mut open: Vec<TcpStream> = Vec::new();
    let mut last = None::<Instant>;
    while start.elapsed() < limit {
        if last.is_none_or(|at| at.elapsed() > Duration::from_millis(20)) && open.len() < 500 {
            last = Some(Instant::now());
            if let Ok(mut stream) = TcpStream::connect(address)
                && stream.write_all(REQUEST).is_ok()
                && stream.set_nonblocking(true).is_ok()
            {
                open.push(stream);
            }
        }
        let mut answered = false;
        open.retain_mut(|stream| {
            let mut head = [0; 12];
            match stream.read(&mut head) {
                Ok(n) => {
                    answered |= n == 12 && &head[9..] == b"200";
                    false
                }
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            }
        });
        if answered {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(format!("no answer from {address} within {} s", limit.as_secs()))
}

/// One request; an error if the answer isn't a 200.
pub fn get(address: SocketAddr, limit: Duration) -> Result<(), String> {
    let attempt = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(REQUEST)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer.get(9..12) == Some(b"200"))
    };
    match attempt() {
        Ok(true) => Ok(()),
        Ok(false) => Err("the answer is not a 200".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// Requests per second by wrk, which waits for an answer for `patience` seconds. An answer of another status is an error. Connections that failed or
/// timed out are not in the rate; how many they were is said, for either guest may drop some.
pub fn wrk(
    who: &str,
    address: SocketAddr,
    keep_alive: bool,
    connections: u32,
    seconds: u64,
    patience: u64,
) -> Result<f64, String> {
    let mut command = Command::new("wrk");
    command.args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s")]);
    command.args(["--timeout", &format!("{patience}s")]);
    if !keep_alive {
        command.args(["-H", "Connection: close"]);
    }
    command.arg(format!("http://{address}/"));
    let output = command.output().map_err(|error| format!("wrk: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let field = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name));
    if let Some(count) = field("Non-2xx or 3xx responses:") {
        return Err(format!("{} answers were not a 200", count.trim()));
    }
    if let Some(errors) = field("Socket errors:") {
        let kind = if keep_alive { "keep-alive" } else { "close" };
        eprintln!("note: {who}, {kind}, {connections}: wrk's socket errors:{errors}");
    }
    let rate = field("Requests/sec:").ok_or(format!("wrk printed no rate:\n{text}"))?;
    rate.trim().parse().map_err(|_| format!("wrk's rate is not a number: {rate}"))
}

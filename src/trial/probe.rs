//! Asks a TCP port what it speaks.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// How long a server that speaks first is waited for, and one that answers.
const BANNER: Duration = Duration::from_millis(400);
const REPLY: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);

/// What answered.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "text")]
pub enum Answer {
    /// An HTTP status line.
    Http(String),
    /// The first line of something else.
    Text(String),
    /// Bytes that are no text, the first few in hexadecimal.
    Bytes(String),
    /// Nothing was said, but the connection was kept.
    Accepts,
    /// The connection was taken, and closed on an opening of another protocol, as brokers do.
    Closes,
}

/// How one connection went.
enum Heard {
    Said(Answer),
    /// It was open until it was written to.
    Closed,
    Refused,
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Answer::Http(line) | Answer::Text(line) => f.write_str(line),
            Answer::Bytes(hex) => write!(f, "bytes {hex}"),
            Answer::Accepts => f.write_str("accepts connections"),
            Answer::Closes => {
                f.write_str("accepts connections, and closes them on what is not its protocol")
            }
        }
    }
}

/// A first message for a protocol that does not greet, by the port it is usually on.
fn opening(port: u16) -> &'static [u8] {
    match port {
        // SSLRequest of the PostgreSQL protocol: answered by one byte.
        5432 => b"\0\0\0\x08\x04\xd2\x16\x2f",
        6379 | 16379 | 26379 => b"PING\r\n",
        11211 => b"version\r\n",
        // ZooKeeper's four letters.
        2181 => b"ruok",
        // A query for the name servers of the root, behind its length (RFC 1035, 4.2.2).
        53 => b"\0\x11\0\x01\x01\0\0\x01\0\0\0\0\0\0\0\0\x02\0\x01",
        // An anonymous bind (RFC 4511, 4.2).
        389 => b"\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\0\x80\0",
        // CONNECT of MQTT 3.1.1 with an empty client identifier.
        1883 => b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0",
        _ => {
            b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
               User-Agent: dock2uni\r\nAccept: */*\r\n\r\n"
        }
    }
}

/// Asks until there is an answer; `None` if there is none before the deadline. The port is known to
/// be listened on, so a connection that stays open is one that was accepted. One that is closed on
/// being written to may have met a server that was about to end: that counts the second time.
pub fn ask(address: SocketAddr, guest: u16, deadline: Instant) -> Option<Answer> {
    let mut closed = false;
    while Instant::now() < deadline {
        match once(address, guest) {
            Heard::Said(answer) => return Some(answer),
            Heard::Closed if closed => return Some(Answer::Closes),
            heard => closed = matches!(heard, Heard::Closed),
        }
        thread::sleep(PAUSE);
    }
    None
}

fn once(address: SocketAddr, guest: u16) -> Heard {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, REPLY) else { return Heard::Refused };
    let mut bytes = vec![0; 512];
    let mut read = |stream: &mut TcpStream, patience| {
        stream.set_read_timeout(Some(patience))?;
        stream.read(&mut bytes).map(|len| (len > 0).then(|| answer(&bytes[..len])))
    };
    match read(&mut stream, BANNER) {
        Ok(Some(answer)) => return Heard::Said(answer),
        Err(error) if is_timeout(&error) => {}
        Ok(None) | Err(_) => return Heard::Refused,
    }
    if stream.write_all(opening(guest)).is_err() {
        return Heard::Refused;
    }
    match read(&mut stream, REPLY) {
        Ok(Some(answer)) => Heard::Said(answer),
        Err(error) if is_timeout(&error) => Heard::Said(Answer::Accepts),
        Ok(None) | Err(_) => Heard::Closed,
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

fn answer(bytes: &[u8]) -> Answer {
    let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let printable = |byte: &u8| (b' '..=b'~').contains(byte) || *byte == b'\t';
    if !line.is_empty() && line.iter().all(printable) {
        let text: String = String::from_utf8_lossy(line).chars().take(80).collect();
        return if text.starts_with("HTTP/") { Answer::Http(text) } else { Answer::Text(text) };
    }
    let hex: Vec<String> = bytes.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    Answer::Bytes(hex.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn answers_are_told_apart() {
        assert_eq!(answer(b"HTTP/1.1 200 OK\r\nServer: x"), Answer::Http("HTTP/1.1 200 OK".into()));
        assert_eq!(answer(b"+PONG\r\n"), Answer::Text("+PONG".into()));
        assert_eq!(answer(b"\x4a\0\0\x01"), Answer::Bytes("4a 00 00 01".into()));
    }

    #[test]
    fn servers_that_greet_and_servers_that_answer_are_heard_and_refusals_are_none() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut first, _) = listener.accept().unwrap();
            first.write_all(b"220 ready\r\n").unwrap();
            // One that closes at once, as QEMU does if the guest refuses.
            drop(listener.accept().unwrap());
            let (mut second, _) = listener.accept().unwrap();
            let mut bytes = [0; 64];
            let len = second.read(&mut bytes).unwrap();
            assert!(bytes[..len].starts_with(b"GET / "));
            second.write_all(b"HTTP/1.0 404 Not Found\r\n\r\n").unwrap();
            drop(second);
            // A broker, which knows only its own protocol.
            for _ in 0..2 {
                let (mut broker, _) = listener.accept().unwrap();
                assert!(broker.read(&mut bytes).unwrap() > 0);
            }
        });
        let deadline = Instant::now() + Duration::from_secs(30);
        assert_eq!(ask(address, 80, deadline), Some(Answer::Text("220 ready".into())));
        assert_eq!(ask(address, 80, deadline), Some(Answer::Http("HTTP/1.0 404 Not Found".into())));
        assert_eq!(ask(address, 80, deadline), Some(Answer::Closes));
        assert_eq!(ask(address, 80, Instant::now()), None);
    }
}

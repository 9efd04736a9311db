//! A small HTTP client.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::lab::PATIENCE;

/// One GET on a connection of its own, until there is an answer.
pub fn get(port: u16, path: &str) -> String {
    get_within(port, path, PATIENCE)
}

/// Like [`get`], for servers that take long to start.
pub fn get_within(port: u16, path: &str, patience: Duration) -> String {
    let deadline = Instant::now() + patience;
    loop {
        let answer = try_get(port, path);
        match answer {
            Ok(text) if text.starts_with("HTTP/1.1 200") => return text,
            other => assert!(Instant::now() < deadline, "no answer: {other:?}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// One GET on a connection of its own; returns the whole answer.
pub fn try_get(port: u16, path: &str) -> std::io::Result<String> {
    fetch(port, "GET", path, "")
}

/// One request on a connection of its own; returns the whole answer.
pub fn fetch(port: u16, method: &str, path: &str, body: &str) -> std::io::Result<String> {
    let length = body.len();
    exchange(
        port,
        &format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        ),
    )
}

/// Sends a text on a connection of its own and returns all that comes back.
pub fn exchange(port: u16, text: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(text.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Requests on one connection; returns how many were answered by 200 with the whole body.
pub fn keep_alive(port: u16, path: &str, count: usize) -> usize {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    // In one piece: Nagle's algorithm would hold the second one back for 40 ms.
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut good = 0;
    for _ in 0..count {
        stream.write_all(request.as_bytes()).unwrap();
        let mut status = String::new();
        reader.read_line(&mut status).unwrap();
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        good += usize::from(status.starts_with("HTTP/1.1 200") && length > 0);
    }
    good
}

//! A small HTTP server that misbehaves as told.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as it came in. Header names are in lower case.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The start of an open byte range.
    pub fn range(&self) -> Option<usize> {
        let range = self.header("range")?;
        Some(range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().unwrap())
    }
}

/// What to answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Send so many bytes of the body and cut the connection.
    pub cut: Option<usize>,
    /// Wait so long before the cut.
    pub stall: Duration,
    /// Send the body in one chunk instead of with a length.
    pub chunked: bool,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let (headers, body) = (Vec::new(), body.into());
        Self { status, headers, body, cut: None, stall: Duration::ZERO, chunked: false }
    }

    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.into(), value.to_string()));
        self
    }

    /// The part of `body` that a request asks for.
    pub fn ranged(request: &Request, body: &[u8]) -> Self {
        match request.range() {
            Some(start) => Self::new(206, &body[start..])
                .with("Content-Range", format!("bytes {start}-{}/{}", body.len() - 1, body.len())),
            None => Self::new(200, body),
        }
    }
}

/// A running server; stops when dropped.
pub struct Server {
    pub addr: SocketAddr,
    log: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
}

impl Server {
    /// Answers every request with what `answer` says.
    pub fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (log, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let answer = Arc::new(answer);
        let server = Self { addr, log: log.clone(), stop: stop.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let (answer, log) = (answer.clone(), log.clone());
                std::thread::spawn(move || serve(stream, &*answer, &log));
            }
        });
        server
    }

    /// All requests so far but the probes of `/v2/`.
    pub fn requests(&self) -> Vec<Request> {
        let log = self.log.lock().unwrap();
        log.iter().filter(|request| request.path != "/v2/").cloned().collect()
    }

    /// Requests whose path ends so.
    pub fn requests_for(&self, suffix: &str) -> Vec<Request> {
        self.requests().into_iter().filter(|request| request.path.ends_with(suffix)).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.addr);
    }
}

/// One request a connection. A client that goes away early is no error here.
fn serve(
    stream: TcpStream,
    answer: &(dyn Fn(&Request) -> Reply + Send + Sync),
    log: &Mutex<Vec<Request>>,
) {
    let mut reader = BufReader::new(&stream);
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let mut words = line.split_whitespace().map(str::to_string);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return };
    let mut request = Request { method, path, headers: Vec::new(), body: String::new() };
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        request.headers.push((name.to_ascii_lowercase(), value.trim().to_string()));
    }
    let length = request.header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
    let _ = reader.take(length).read_to_string(&mut request.body);
    log.lock().unwrap().push(request.clone());

    let reply = answer(&request);
    let mut head = format!("HTTP/1.1 {} Test\r\nConnection: close\r\n", reply.status);
    let length = reply.body.len();
    let given = reply.headers.iter().any(|(name, _)| name == "Content-Length");
    if reply.chunked {
        head += "Transfer-Encoding: chunked\r\n";
    } else if !given {
        head += &format!("Content-Length: {length}\r\n");
    }
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    if reply.chunked {
        head += &format!("{length:x}\r\n");
    }
    let mut out = &stream;
    if out.write_all(head.as_bytes()).is_err() || request.method == "HEAD" {
        return;
    }
    let sent = reply.cut.unwrap_or(length).min(length);
    let _ = out.write_all(&reply.body[..sent]);
    std::thread::sleep(reply.stall);
    if reply.chunked && reply.cut.is_none() {
        let _ = out.write_all(b"\r\n0\r\n\r\n");
    }
    let _ = stream.shutdown(Shutdown::Both);
}

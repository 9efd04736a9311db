//! Chromium without a screen, driven by W3C WebDriver (<https://www.w3.org/TR/webdriver2/>), which is
//! HTTP and JSON: no client library is needed for the dozen calls that are used here.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};

use super::common::vm::free_port;
use super::service::PATIENCE;

/// The Tab key, as WebDriver writes it.
pub const TAB: &str = "\u{e004}";
/// The Enter key.
pub const ENTER: &str = "\u{e007}";

/// A browser with one window; it ends when this is dropped.
pub struct Browser {
    port: u16,
    driver: Child,
    session: String,
}

impl Browser {
    /// Starts one.
    pub fn start() -> Browser {
        let port = free_port();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver, which scripts/setup installs (chromium-driver)");
        let mut browser = Browser { port, driver, session: String::new() };
        let end = Instant::now() + PATIENCE;
        while browser.call("GET", "/status", None).is_err() {
            assert!(Instant::now() < end, "chromedriver does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
        // There is nobody to protect from these pages but a sandbox needs rights that tests lack.
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--window-size=1280,900",
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": { "args": arguments },
        }}});
        let session = browser.call("POST", "/session", Some(&wanted)).unwrap();
        session["sessionId"].as_str().unwrap().clone_into(&mut browser.session);
        browser
    }

    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let words = |error: std::io::Error| error.to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).map_err(words)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(words)?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost:{}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.port,
            body.len()
        );
        stream.write_all(request.as_bytes()).map_err(words)?;
        // By its length: the driver leaves connections open, whatever it is asked.
        let mut reader = BufReader::new(stream);
        let (mut head, mut length) = (String::new(), 0);
        while !head.ends_with("\r\n\r\n") {
            let begin = head.len();
            if reader.read_line(&mut head).map_err(words)? == 0 {
                return Err("no answer".to_owned());
            }
            let line = head[begin..].to_ascii_lowercase();
            if let Some(text) = line.strip_prefix("content-length:") {
                length = text.trim().parse().map_err(|_| line.clone())?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).map_err(words)?;
        let body = String::from_utf8_lossy(&body);
        let value: Value =
            serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
        if head.starts_with("HTTP/1.1 200") {
            Ok(value["value"].clone())
        } else {
            Err(value.to_string())
        }
    }

    fn command(&self, path: &str, body: &Value) -> Value {
        let path = format!("/session/{}/{path}", self.session);
        self.call("POST", &path, Some(body)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Goes to an address and waits until it is loaded.
    pub fn go(&self, address: &str) {
        self.command("url", &json!({ "url": address }));
    }

    /// What a script returns.
    pub fn run(&self, script: &str) -> Value {
        self.command("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Whether a JavaScript expression is true.
    pub fn is(&self, expression: &str) -> bool {
        self.run(&format!("return Boolean({expression})")) == json!(true)
    }

    /// Waits until a JavaScript expression is true. One that fails is not true yet.
    pub fn until(&self, expression: &str) {
        let script =
            format!("(() => {{ try {{ return {expression} }} catch {{ return false }} }})()");
        let end = Instant::now() + PATIENCE;
        while !self.is(&script) {
            let page = self.run("return document.body.innerText");
            assert!(Instant::now() < end, "not {expression}: {page}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Presses keys, one after the other.
    pub fn press(&self, keys: &str) {
        let actions: Vec<_> = keys
            .chars()
            .flat_map(|key| {
                let of = |kind: &str| json!({ "type": kind, "value": key.to_string() });
                [of("keyDown"), of("keyUp")]
            })
            .collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": actions });
        self.command("actions", &json!({ "actions": [keyboard] }));
    }

    /// One command of the Chrome DevTools Protocol.
    pub fn devtools(&self, command: &str, parameters: &Value) {
        self.command("goog/cdp/execute", &json!({ "cmd": command, "params": parameters }));
    }

    /// A window of this size, and whether it is dark.
    pub fn look_like(&self, width: u32, height: u32, dark: bool) {
        let phone = width < 600;
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone });
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
        let scheme = if dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", &media);
    }

    /// What the browser has complained about since it was asked the last time.
    pub fn complaints(&self) -> Vec<String> {
        let entries = self.command("se/log", &json!({ "type": "browser" }));
        let entries = entries.as_array().cloned().unwrap_or_default();
        entries
            .iter()
            .map(|entry| entry["message"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// Writes a picture of the page into the directory that `D2U_SCREENSHOTS` names, if it does.
    pub fn picture(&self, name: &str) {
        let Some(dir) = std::env::var_os("D2U_SCREENSHOTS") else { return };
        let path = format!("/session/{}/screenshot", self.session);
        let picture = self.call("GET", &path, None).unwrap();
        let text = picture.as_str().unwrap();
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
        std::fs::write(std::path::Path::new(&dir).join(format!("{name}.png")), bytes).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.call("DELETE", &format!("/session/{}", self.session), None);
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

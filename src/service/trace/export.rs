//! OTLP over HTTP with JSON (<https://opentelemetry.io/docs/specs/otlp/>), set by OpenTelemetry's own
//! environment variables.
//!
//! Spans wait in a queue of bounded length for a thread that sends them in batches. Who sends never
//! waits: when the collector is away for long, spans are lost, and counted in the log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use reqwest::blocking::Client;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{StatusCode, Url};
use serde_json::{Value as Json, json};

use super::{Span, Value};

/// Spans that may wait.
const QUEUE: usize = 2048;
/// Spans in a batch.
const BATCH: usize = 512;
/// Longest wait for a batch to fill.
const DELAY: Duration = Duration::from_secs(2);
/// Time for a batch to be taken.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts to send a batch.
const ATTEMPTS: u32 = 5;
/// Longest wait at the end.
const FLUSH: Duration = Duration::from_secs(5);

/// What the environment says.
#[derive(Debug)]
pub(super) struct Settings {
    endpoint: Url,
    headers: HeaderMap,
    resource: Vec<(String, String)>,
    ratio: f64,
}

impl Settings {
    /// Reads the variables; `None` if nothing is to be sent.
    pub(super) fn read(
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Settings>, String> {
        let own = |name: &str| {
            variable(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}"))
                .or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{name}")))
        };
        let off = variable("OTEL_SDK_DISABLED").is_some_and(|off| off.eq_ignore_ascii_case("true"));
        let none = variable("OTEL_TRACES_EXPORTER").is_some_and(|exporter| exporter == "none");
        if off || none {
            return Ok(None);
        }
        let endpoint = match variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
            Some(endpoint) => endpoint,
            None => match variable("OTEL_EXPORTER_OTLP_ENDPOINT") {
                Some(base) => format!("{}/v1/traces", base.trim_end_matches('/')),
                None => return Ok(None),
            },
        };
        let endpoint: Url = endpoint.parse().map_err(|error| format!("OTLP endpoint: {error}"))?;
        if !matches!(endpoint.scheme(), "http" | "https") {
            return Err("OTLP endpoint: it begins with http:// or https://".to_owned());
        }
        if let Some(protocol) = own("PROTOCOL").filter(|protocol| protocol != "http/json") {
            return Err(format!(
                "OTEL_EXPORTER_OTLP_PROTOCOL is {protocol}: only http/json is spoken here, which \
                 collectors take at the same port as http/protobuf (4318)"
            ));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in pairs(&own("HEADERS").unwrap_or_default())? {
            // The value may be a secret.
            let bad = |_| format!("OTEL_EXPORTER_OTLP_HEADERS: `{name}` cannot be sent");
            let mut text: HeaderValue = value.parse().map_err(|_| bad(()))?;
            text.set_sensitive(true);
            headers.insert(name.parse::<HeaderName>().map_err(|_| bad(()))?, text);
        }
        let mut resource = pairs(&variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default())?;
        let mut set = |name: &str, value: Option<String>, given: &str| {
            if let Some(value) = value {
                resource.retain(|(known, _)| known != name);
                resource.push((name.to_owned(), value));
            } else if !resource.iter().any(|(known, _)| known == name) {
                resource.push((name.to_owned(), given.to_owned()));
            }
        };
        set("service.name", variable("OTEL_SERVICE_NAME"), "dock2uni");
        set("service.version", None, env!("CARGO_PKG_VERSION"));
        set("host.name", None, &rustix::system::uname().nodename().to_string_lossy());
        Ok(Some(Settings { endpoint, headers, resource, ratio: ratio(variable)? }))
    }

    /// The endpoint without what may be secret in it.
    pub(super) fn origin(&self) -> String {
        self.endpoint.origin().ascii_serialization()
    }
}

/// The part of new traces that are sent. Those that began elsewhere are sent if they are sampled there.
fn ratio(variable: &dyn Fn(&str) -> Option<String>) -> Result<f64, String> {
    let sampler = variable("OTEL_TRACES_SAMPLER").unwrap_or_default();
    match sampler.as_str() {
        "" | "parentbased_always_on" => Ok(1.0),
        "parentbased_always_off" => Ok(0.0),
        "parentbased_traceidratio" => {
            let text = variable("OTEL_TRACES_SAMPLER_ARG").unwrap_or_else(|| "1".to_owned());
            let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
            ratio.ok_or_else(|| format!("OTEL_TRACES_SAMPLER_ARG: `{text}` is not from 0 to 1"))
        }
        other => Err(format!(
            "OTEL_TRACES_SAMPLER is {other}: there are parentbased_always_on, \
             parentbased_always_off and parentbased_traceidratio"
        )),
    }
}

/// `name=value,name=value`, values percent-encoded (W3C Baggage).
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=').ok_or("a pair without `=`")?;
            let value = percent(value.trim()).ok_or("a value that is not percent-encoded UTF-8")?;
            Ok((name.trim().to_owned(), value))
        })
        .collect::<Result<_, &str>>()
        .map_err(|why| format!("OTEL_EXPORTER_OTLP_HEADERS or OTEL_RESOURCE_ATTRIBUTES: {why}"))
}

fn percent(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        bytes.push((high << 4 | low) as u8);
    }
    String::from_utf8(bytes).ok()
}

enum Message {
    Span(Box<Span>),
    Flush(SyncSender<()>),
}

/// Sends spans.
#[derive(Debug)]
pub(super) struct Exporter {
    sender: SyncSender<Message>,
    lost: AtomicU64,
    ratio: f64,
}

impl Exporter {
    /// Starts the thread that sends.
    pub(super) fn start(settings: Settings) -> Result<Exporter, std::io::Error> {
        let (sender, receiver) = sync_channel(QUEUE);
        let ratio = settings.ratio;
        thread::Builder::new().name("traces".to_owned()).spawn(move || {
            // Made here: a client that blocks must not be made within a runtime.
            match Client::builder().timeout(TIMEOUT).build() {
                Ok(client) => keep_sending(&client, &settings, &receiver),
                Err(error) => tracing::error!(%error, "no traces can be sent"),
            }
        })?;
        Ok(Exporter { sender, lost: AtomicU64::new(0), ratio })
    }

    /// Whether a new trace is sampled: by its ID, so that all that see it decide alike.
    pub(super) fn samples(&self, trace: &str) -> bool {
        let low = u64::from_str_radix(trace.get(16..).unwrap_or_default(), 16).unwrap_or(0);
        (low >> 1) as f64 <= self.ratio * (u64::MAX >> 1) as f64 && self.ratio > 0.0
    }

    pub(super) fn send(&self, span: Span) {
        if self.sender.try_send(Message::Span(Box::new(span))).is_err() {
            let lost = self.lost.fetch_add(1, Ordering::Relaxed) + 1;
            if lost.is_power_of_two() {
                tracing::warn!(lost, "spans are lost: the collector does not take them in time");
            }
        }
    }

    pub(super) fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.sender.try_send(Message::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(FLUSH);
        }
    }
}

fn keep_sending(client: &Client, settings: &Settings, receiver: &Receiver<Message>) {
    let mut batch: Vec<Span> = Vec::new();
    let mut due = Instant::now();
    loop {
        let wait = if batch.is_empty() {
            Duration::from_secs(3600)
        } else {
            due.saturating_duration_since(Instant::now())
        };
        let mut flushed = None;
        match receiver.recv_timeout(wait) {
            Ok(Message::Span(span)) => {
                if batch.is_empty() {
                    due = Instant::now() + DELAY;
                }
                batch.push(*span);
                if batch.len() < BATCH {
                    continue;
                }
            }
            Ok(Message::Flush(done)) => flushed = Some(done),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if !batch.is_empty() {
            if let Err(why) = deliver(client, settings, &body(settings, &batch)) {
                tracing::warn!(%why, spans = batch.len(), "spans are lost");
            }
            batch.clear();
        }
        if let Some(done) = flushed {
            let _ = done.try_send(());
        }
    }
}

/// Sends a batch; what may pass is tried again.
fn deliver(client: &Client, settings: &Settings, body: &str) -> Result<(), String> {
    let mut wait = Duration::from_millis(500);
    for attempt in 1.. {
        let request = client
            .post(settings.endpoint.clone())
            .headers(settings.headers.clone())
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_owned());
        let (why, later) = match request.send() {
            Ok(answer) if answer.status().is_success() => return Ok(()),
            Ok(answer) => {
                let passes = matches!(
                    answer.status(),
                    StatusCode::TOO_MANY_REQUESTS
                        | StatusCode::BAD_GATEWAY
                        | StatusCode::SERVICE_UNAVAILABLE
                        | StatusCode::GATEWAY_TIMEOUT
                );
                let why = format!("the collector says {}", answer.status());
                if !passes {
                    return Err(why);
                }
                let later = answer.headers().get(RETRY_AFTER);
                (why, later.and_then(|text| text.to_str().ok()?.parse().ok()).unwrap_or(0))
            }
            // Without the address: it may hold a secret.
            Err(error) => (error.without_url().to_string(), 0u64),
        };
        if attempt >= ATTEMPTS {
            return Err(why);
        }
        thread::sleep(wait.max(Duration::from_secs(later.min(30))));
        wait *= 2;
    }
    Ok(())
}

/// `ExportTraceServiceRequest` as JSON. IDs are hexadecimal there, and 64-bit numbers are texts.
fn body(settings: &Settings, spans: &[Span]) -> String {
    let text = |name: &str, value: &str| json!({ "key": name, "value": { "stringValue": value } });
    let resource: Vec<_> =
        settings.resource.iter().map(|(name, value)| text(name, value)).collect();
    let spans: Vec<_> = spans.iter().map(span).collect();
    let scope = json!({ "name": "dock2uni", "version": env!("CARGO_PKG_VERSION") });
    json!({ "resourceSpans": [{
        "resource": { "attributes": resource },
        "scopeSpans": [{ "scope": scope, "spans": spans }],
    }]})
    .to_string()
}

fn span(span: &Span) -> Json {
    let attributes: Vec<_> = span
        .attributes
        .iter()
        .map(|(name, value)| match value {
            Value::Text(text) => json!({ "key": name, "value": { "stringValue": text } }),
            Value::Number(number) => {
                json!({ "key": name, "value": { "intValue": number.to_string() } })
            }
        })
        .collect();
    let status = match &span.error {
        Some(why) => json!({ "code": 2, "message": why }),
        None => json!({}),
    };
    let mut value = json!({
        "traceId": span.context.trace, "spanId": span.context.span, "flags": 1,
        "name": span.name, "kind": span.kind as i32,
        "startTimeUnixNano": span.start.to_string(),
        "endTimeUnixNano": span.end.max(span.start).to_string(),
        "attributes": attributes, "status": status,
    });
    if let Some(parent) = &span.parent {
        value["parentSpanId"] = json!(parent);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::trace::{Context, Kind};

    fn read(variables: &[(&str, &str)]) -> Result<Option<Settings>, String> {
        Settings::read(&|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_environment_says_where_spans_go() {
        assert!(read(&[]).unwrap().is_none());
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");
        assert!(read(&[base, ("OTEL_SDK_DISABLED", "true")]).unwrap().is_none());
        assert!(read(&[base, ("OTEL_TRACES_EXPORTER", "none")]).unwrap().is_none());
        let headers = ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x, b=c");
        let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,team=red");
        let settings = read(&[base, headers, attributes, ("OTEL_SERVICE_NAME", "b")]).unwrap();
        let settings = settings.unwrap();
        assert_eq!(settings.endpoint.as_str(), "http://collector:4318/v1/traces");
        assert_eq!(settings.headers["authorization"], "Bearer x");
        assert!(!format!("{settings:?}").contains("Bearer"));
        let value = |name: &str| {
            let found: Vec<_> =
                settings.resource.iter().filter(|(known, _)| known == name).collect();
            assert_eq!(found.len(), 1);
            found[0].1.clone()
        };
        assert_eq!([value("service.name"), value("team")], ["b", "red"]);
        let whole = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://x/y");
        assert_eq!(read(&[base, whole]).unwrap().unwrap().endpoint.as_str(), "https://x/y");
        for bad in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4317"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x=%f"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ] {
            assert!(read(&[base, bad]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_part_of_new_traces_is_sampled() {
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
        for (ratio, least, most) in [("0", 0, 0), ("0.25", 150, 350), ("1", 1000, 1000)] {
            let sampler = ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio");
            let settings = read(&[base, sampler, ("OTEL_TRACES_SAMPLER_ARG", ratio)]);
            let exporter = Exporter {
                sender: sync_channel(1).0,
                lost: AtomicU64::new(0),
                ratio: settings.unwrap().unwrap().ratio,
            };
            // Spread evenly, as random IDs are.
            let step = u64::MAX / 1000;
            let ids = (0..1000u64).map(|n| format!("{:016x}{:016x}", 1, n * step + 1));
            let count = ids.filter(|id| exporter.samples(id)).count();
            assert!((least..=most).contains(&count), "{ratio}: {count}");
        }
    }

    #[test]
    fn spans_are_written_as_the_protocol_says() {
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
        let settings = read(&[base]).unwrap().unwrap();
        let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let span = Span {
            context: Context::parse(header).unwrap(),
            parent: Some("00f067aa0ba902b7".into()),
            name: "convert".into(),
            kind: Kind::Consumer,
            start: 1_544_712_660_000_000_000,
            end: 1_544_712_661_000_000_000,
            attributes: vec![("a", Value::Text("x".into())), ("n", Value::Number(7))],
            error: Some("no".into()),
        };
        let body: Json = serde_json::from_str(&body(&settings, &[span])).unwrap();
        let written = &body["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
        let expected = json!({
            "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331",
            "parentSpanId": "00f067aa0ba902b7", "flags": 1, "name": "convert", "kind": 5,
            "startTimeUnixNano": "1544712660000000000", "endTimeUnixNano": "1544712661000000000",
            "attributes": [{ "key": "a", "value": { "stringValue": "x" } },
                { "key": "n", "value": { "intValue": "7" } }],
            "status": { "code": 2, "message": "no" },
        });
        assert_eq!(written, &expected);
    }
}

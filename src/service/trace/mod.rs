//! Traces (OpenTelemetry): what became of a request, from the webhook through the queue to the worker.
//!
//! A request that comes with a trace (W3C Trace Context, <https://www.w3.org/TR/trace-context/>)
//! continues it, one without begins one. The context of the request's span is stored with its jobs, so
//! that the worker that takes a job, on whatever machine and however much later, continues the same
//! trace: a span for the wait, one for the conversion, and one for each of its stages below it.
//!
//! Spans leave by OTLP over HTTP in its JSON form ([`export`]), which every collector takes. Written
//! here: the `opentelemetry` crates for the same (API, SDK, OTLP, its protobuf types with prost and
//! tonic, the bridge to `tracing`) are two dozen more to build and to follow through their releases,
//! for spans of five kinds and an HTTP client that is here already.

mod export;

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::HeaderMap;

use self::export::Exporter;
use super::queue::Lease;
use super::secret::random_hex;

/// Where spans go, once [`start`] has said so.
static EXPORTER: OnceLock<Exporter> = OnceLock::new();

/// Begins to send spans to where the environment says (`OTEL_EXPORTER_OTLP_ENDPOINT` and its kin,
/// see `templates/service/README.md`). Without it there are trace IDs, and no spans.
///
/// # Errors
/// If the environment asks for what there is not.
pub fn start() -> Result<(), String> {
    let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(settings) = export::Settings::read(&environment)? {
        tracing::info!(endpoint = %settings.origin(), "sends traces");
        let exporter = Exporter::start(settings).map_err(|error| error.to_string())?;
        // A second start changes nothing.
        let _ = EXPORTER.set(exporter);
    }
    Ok(())
}

/// Sends what is waiting; for a few seconds at most.
pub fn finish() {
    if let Some(exporter) = EXPORTER.get() {
        exporter.flush();
    }
}

/// A place in a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The trace: 32 hexadecimal digits.
    pub trace: String,
    /// The span: 16 of them.
    pub span: String,
    /// Whether spans of this trace are sent.
    pub sampled: bool,
}

impl Context {
    /// Reads a `traceparent`. Of later versions than 00, what 00 has is read.
    pub fn parse(text: &str) -> Option<Context> {
        let mut parts = text.splitn(4, '-');
        let (version, trace, span, rest) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |text: &str, length: usize| {
            text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let some = |text: &str| text.bytes().any(|byte| byte != b'0');
        let flags = match version {
            "00" => rest,
            _ => rest.split('-').next()?,
        };
        let good = hex(version, 2) && version != "ff" && hex(flags, 2);
        let good = good && hex(trace, 32) && some(trace) && hex(span, 16) && some(span);
        let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        good.then(|| Context { trace: trace.to_owned(), span: span.to_owned(), sampled })
    }

    /// The context that a request comes with.
    pub fn of(headers: &HeaderMap) -> Option<Context> {
        Context::parse(headers.get("traceparent")?.to_str().ok()?)
    }

    /// A new span below this one, or of a new trace.
    pub fn below(parent: Option<&Context>) -> Context {
        let span = random_hex(8);
        match parent {
            Some(parent) => Context { span, ..parent.clone() },
            None => {
                let trace = random_hex(16);
                let sampled = EXPORTER.get().is_some_and(|exporter| exporter.samples(&trace));
                Context { trace, span, sampled }
            }
        }
    }

    /// As `traceparent`.
    pub fn header(&self) -> String {
        format!("00-{}-{}-0{}", self.trace, self.span, u8::from(self.sampled))
    }
}

/// What a span is for (OTLP's numbers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Work within.
    Internal = 1,
    /// Answers a request.
    Server = 2,
    /// Takes from a queue.
    Consumer = 5,
}

/// What a span says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
}

/// A span that is over.
#[derive(Clone, Debug)]
pub struct Span {
    /// Where it is.
    pub context: Context,
    /// The span above it.
    pub parent: Option<String>,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub kind: Kind,
    /// When it began, in nanoseconds since 1970.
    pub start: u64,
    /// When it ended.
    pub end: u64,
    /// What it says.
    pub attributes: Vec<(&'static str, Value)>,
    /// What went wrong.
    pub error: Option<String>,
}

/// Sends a span, if its trace is sampled and anybody wants it.
pub fn record(span: Span) {
    if let Some(exporter) = EXPORTER.get().filter(|_| span.context.sampled) {
        exporter.send(span);
    }
}

/// Nanoseconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A job in the hands of a worker. Its span is sent when this is dropped.
#[derive(Debug)]
pub struct Work {
    context: Context,
    parent: Option<Context>,
    start: u64,
    attributes: Vec<(&'static str, Value)>,
    stage: Mutex<Option<(String, u64)>>,
    outcome: Mutex<(&'static str, Option<String>)>,
}

impl Work {
    /// A worker has taken a job.
    pub fn begin(lease: &Lease) -> Work {
        let parent = lease.trace.as_deref().and_then(Context::parse);
        let context = Context::below(parent.as_ref());
        let (job, request) = (&lease.job, &lease.job.request);
        let text = |text: &str| Value::Text(text.to_owned());
        let mut attributes = vec![
            ("messaging.system", text("dock2uni")),
            ("messaging.operation.type", text("process")),
            ("messaging.message.id", text(&job.id)),
            ("dock2uni.image", text(&request.image)),
            ("dock2uni.tenant", text(&request.tenant)),
            ("dock2uni.origin", text(&request.origin)),
            ("dock2uni.attempt", Value::Number(job.attempts + 1)),
        ];
        if let Some(worker) = &job.worker {
            attributes.push(("dock2uni.worker", text(worker)));
        }
        let start = now();
        let work = Work {
            context,
            parent,
            start,
            attributes,
            stage: Mutex::default(),
            outcome: Mutex::new(("left", None)),
        };
        if job.attempts == 0 && job.lost == 0 {
            // By the database's clock and this machine's: they need not agree.
            let created = u64::try_from(job.created).unwrap_or(0).saturating_mul(1_000_000);
            let parent = work.parent.as_ref().unwrap_or(&work.context);
            record(Span {
                context: Context::below(Some(parent)),
                parent: Some(parent.span.clone()),
                name: "wait".to_owned(),
                kind: Kind::Internal,
                start: created.min(start),
                end: start,
                attributes: vec![("messaging.message.id", text(&job.id))],
                error: None,
            });
        }
        work
    }

    /// Where it is.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Something begins, and what was being done before ends.
    pub fn stage(&self, name: &str) {
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        if stage.as_ref().is_none_or(|(last, _)| last != name) {
            let now = now();
            self.end_stage(stage.replace((name.to_owned(), now)), now, None);
        }
    }

    /// How it ended, and why if not well.
    pub fn end(&self, outcome: &'static str, error: Option<&str>) {
        let mut known = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        *known = (outcome, error.map(str::to_owned));
    }

    fn end_stage(&self, stage: Option<(String, u64)>, end: u64, error: Option<String>) {
        let Some((name, start)) = stage else { return };
        record(Span {
            context: Context::below(Some(&self.context)),
            parent: Some(self.context.span.clone()),
            name,
            kind: Kind::Internal,
            start,
            end,
            attributes: Vec::new(),
            error,
        });
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let end = now();
        let (outcome, error) =
            self.outcome.get_mut().unwrap_or_else(PoisonError::into_inner).clone();
        let stage = self.stage.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        self.end_stage(stage, end, error.clone());
        let mut attributes = std::mem::take(&mut self.attributes);
        attributes.push(("dock2uni.outcome", Value::Text(outcome.to_owned())));
        record(Span {
            context: self.context.clone(),
            parent: self.parent.as_ref().map(|parent| parent.span.clone()),
            name: "convert".to_owned(),
            kind: Kind::Consumer,
            start: self.start,
            end,
            attributes,
            error,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_read_as_the_standard_says() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = Context::parse(text).unwrap();
        assert!(context.sampled && context.header() == text);
        assert!(!Context::parse(&text.replace("-01", "-02")).unwrap().sampled);
        assert_eq!(Context::parse(&format!("cc{}-what", &text[2..])), Some(context.clone()));
        for bad in [
            "",
            "00",
            &text[..54],
            &format!("{text}-x"),
            &text.to_uppercase(),
            &text.replace("00-", "ff-"),
            &text.replace("b7ad6b7169203331", "0000000000000000"),
            &text.replace("0af7651916cd43dd8448eb211c80319c", "00000000000000000000000000000000"),
            &text.replace("-01", "-0'"),
        ] {
            assert_eq!(Context::parse(bad), None, "{bad}");
        }
        let below = Context::below(Some(&context));
        assert!(below.trace == context.trace && below.span != context.span && below.sampled);
        assert!(Context::parse(&Context::below(None).header()).is_some());
    }
}

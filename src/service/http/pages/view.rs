//! Pages of values: the templates, and how jobs and workers look in them.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use axum::response::{Html, IntoResponse as _, Response};
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, Value, context};

use super::super::api;
use crate::dockerfile::rfc3339;
use crate::service::convert::STAGES;
use crate::service::job::{Job, State};
use crate::service::queue::Worker;

/// The templates. Names that end with `.html` have all values escaped.
static TEMPLATES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.add_filter("bytes", bytes);
    environment.add_filter("time", time);
    environment.add_filter("span", span);
    for (name, text) in [
        ("frame.html", include_str!("../../../../templates/service/frame.html")),
        ("login.html", include_str!("../../../../templates/service/login.html")),
        ("message.html", include_str!("../../../../templates/service/message.html")),
        ("overview.html", include_str!("../../../../templates/service/overview.html")),
        ("job.html", include_str!("../../../../templates/service/job.html")),
        ("report.html", include_str!("../../../../templates/service/report.html")),
    ] {
        environment.add_template(name, text).expect("a template that a test has parsed");
    }
    environment
});

/// A page: what the template makes of the values, in the frame that all have.
pub(super) fn page(
    status: StatusCode,
    template: &'static str,
    title: &str,
    values: Value,
) -> Response {
    match render(template, title, values) {
        Ok(text) => (status, Html(text)).into_response(),
        Err(error) => {
            tracing::error!(%error, template, "a page cannot be made");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn render(template: &'static str, title: &str, values: Value) -> Result<String, minijinja::Error> {
    let template = TEMPLATES.get_template(&format!("{template}.html"))?;
    let body = Value::from_safe_string(template.render(&values)?);
    let values = context! { title, body, version => env!("CARGO_PKG_VERSION"), ..values };
    TEMPLATES.get_template("frame.html")?.render(values)
}

/// A job in a list.
pub(super) fn row(job: &Job, now: i64) -> Value {
    let end = job.finished.unwrap_or(now);
    let took = job.started.map(|started| (end - started).max(0));
    let (name, version) = image(&job.request.image);
    let result = job.result.as_ref();
    let size = result.map(|result| result.files.iter().map(|file| file.size).sum::<u64>());
    context! {
        id => job.id.as_str(), state => job.state.name(), name, version, took, size,
        tenant => job.request.tenant.as_str(), origin => job.request.origin.as_str(), created => job.created,
        stage => job.stage.as_deref(), percent => percent(job), attempts => job.attempts,
        cancelling => job.cancelling, verdict => result.and_then(|result| result.verdict.clone()),
        is_final => job.state.is_final(),
    }
}

/// An image's name, and what follows it.
fn image(image: &str) -> (&str, &str) {
    let (rest, digest) = image.split_once('@').unwrap_or((image, ""));
    match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (rest, digest),
    }
}

fn percent(job: &Job) -> Option<i64> {
    let (done, total) = job.progress.filter(|_| job.state == State::Running)?;
    Some((done.saturating_mul(100) / total.max(1)).clamp(0, 100))
}

/// A job on its own page.
pub(super) fn job(job: &Job, log: &[(i64, i64, String)], now: i64) -> Value {
    let all = Value::from(Serde(api::view(job)));
    let stages = stages(job, log, now);
    let end = job.finished.unwrap_or(now);
    let waited = job.started.unwrap_or(end) - job.created;
    let lines: Vec<_> =
        log.iter().map(|(_, at, text)| context! { at => *at, text => text.as_str() }).collect();
    let last = log.last().map_or(0, |line| line.0);
    context! {
        job => all, row => row(job, now), stages, lines, last, waited => waited.max(0),
        // For those without scripts.
        refresh => !job.state.is_final(),
    }
}

/// What has been done so far, of all that is to be done: from the lines that a worker writes when it
/// begins something, since it took the job the last time.
fn stages(job: &Job, log: &[(i64, i64, String)], now: i64) -> Vec<Value> {
    let since = log.iter().rposition(|(_, _, text)| text.starts_with("taken by "));
    let lines = since.map_or(&[][..], |since| &log[since..]);
    let mut spent = [None; STAGES.len()];
    let mut current: Option<(usize, i64)> = None;
    let end = job.finished.unwrap_or(now);
    let over = job.state != State::Running;
    for (_, at, text) in lines {
        if let Some(next) = STAGES.iter().position(|stage| stage == text) {
            if let Some((stage, begun)) = current {
                *spent[stage].get_or_insert(0) += at - begun;
            }
            current = Some((next, *at));
        }
    }
    if let Some((stage, begun)) = current {
        // Put off until later, it ended when it was last heard of.
        let end = if over && job.finished.is_none() { job.updated } else { end };
        *spent[stage].get_or_insert(0) += (end - begun).max(0);
    }
    let now_at = current.map(|(stage, _)| stage);
    let broken = matches!(job.state, State::Failed | State::Cancelled | State::Queued);
    let options = &job.request.options;
    let asked = |name: &str| match name {
        "slimming" => options.slim,
        "reporting" => options.report,
        "verifying" => options.verify,
        _ => true,
    };
    STAGES
        .iter()
        .enumerate()
        .filter(|(_, name)| asked(name))
        .map(|(index, name)| {
            let is = match spent[index] {
                Some(_) if now_at == Some(index) && !over => "now",
                Some(_) if now_at == Some(index) && broken => "broken",
                Some(_) => "done",
                None if job.state.is_final() || now_at.is_some_and(|now| now > index) => "skipped",
                None => "to come",
            };
            context! { name => *name, is, took => spent[index] }
        })
        .collect()
}

/// A worker in the list.
pub(super) fn worker(worker: &Worker, now: i64) -> Value {
    context! {
        id => worker.id.as_str(), host => worker.host.as_str(),
        version => worker.version.as_str(), slots => worker.slots,
        running => worker.running, draining => worker.draining, up => (now - worker.started).max(0),
        silent => Some((now - worker.seen).max(0)).filter(|silent| *silent > 15_000),
    }
}

/// Milliseconds since 1970.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A text in a URL's query (RFC 3986, all but unreserved characters).
pub(super) fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn bytes(count: u64) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{:.1} KiB", count as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", count as f64 / 1_048_576.0),
        _ => format!("{:.2} GiB", count as f64 / 1_073_741_824.0),
    }
}

/// A moment, in UTC: `2025-01-31T12:00:00Z`.
fn time(millis: i64) -> String {
    rfc3339(UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or(0)))
}

/// A span of milliseconds in two units at most.
fn span(millis: i64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0 => format!("{millis} ms"),
        1..60 => format!("{seconds}.{} s", millis % 1000 / 100),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::job::{Options, Request};

    fn job_in(state: State) -> Job {
        let request = Request {
            image: "r.io:5000/<b>:v1".into(),
            options: Options::default(),
            destinations: vec!["files".into()],
            priority: 0,
            tenant: "red".into(),
            callback: Some("https://x/?secret".into()),
            origin: "api:<i>".into(),
            rule: None,
        };
        Job {
            id: "0123".into(),
            state,
            request,
            attempts: 1,
            lost: 0,
            worker: Some("w-1".into()),
            stage: Some("fetching".into()),
            progress: Some((50, 200)),
            result: None,
            error: Some("<script>alert(1)</script>".into()),
            cancelling: false,
            trace: None,
            created: 1_000,
            started: Some(2_000),
            finished: None,
            updated: 9_000,
        }
    }

    fn lines(texts: &[(i64, &str)]) -> Vec<(i64, i64, String)> {
        texts
            .iter()
            .enumerate()
            .map(|(seq, (at, text))| (seq as i64, *at, (*text).into()))
            .collect()
    }

    #[test]
    fn stages_are_told_by_the_log_of_the_last_attempt() {
        let log = lines(&[
            (1000, "queued by api"),
            (2000, "taken by w-1"),
            (2000, "converting"),
            (3000, "to be tried again in 10 s: x"),
            (4000, "taken by w-2"),
            (4000, "resolving"),
            (4500, "the image is sha256:0"),
            (5000, "fetching"),
            (6000, "resolving"),
            (6500, "fetching"),
        ]);
        let of = |job: &Job| -> Vec<String> {
            let all = stages(job, &log, 10_000);
            let text = |stage: &Value, name: &str| stage.get_attr(name).unwrap().to_string();
            all.iter().take(3).map(|stage| text(stage, "is") + " " + &text(stage, "took")).collect()
        };
        let mut job = job_in(State::Running);
        assert_eq!(stages(&job, &log, 10_000).len(), STAGES.len() - 3, "what is asked for alone");
        assert_eq!(of(&job), ["done 1500", "now 4500", "to come None"]);
        (job.state, job.finished) = (State::Failed, Some(8000));
        assert_eq!(of(&job), ["done 1500", "broken 2500", "skipped None"]);
        job.state = State::Done;
        assert_eq!(of(&job), ["done 1500", "done 2500", "skipped None"]);
    }

    #[test]
    fn what_comes_from_outside_is_escaped_and_secrets_are_left_out() {
        let running = job_in(State::Running);
        let log = lines(&[(1000, "<script>alert(2)</script>"), (2000, "taken by w-1")]);
        let visitor = context! { name => "<u>", proof => "p", may_write => true, may_fetch => true,
        tenant => () };
        let page = render("job", "<title>", context! { visitor, ..job(&running, &log, 9_000) });
        let page = page.unwrap();
        for raw in ["<script>alert", "<b>", "<i>", "<u>", "<title><", "secret"] {
            assert!(!page.contains(raw), "{raw}: {page}");
        }
        assert!(page.contains("&lt;script&gt;alert(1)") && page.contains("&lt;script&gt;alert(2)"));
        assert!(page.contains("25"), "{page}");
    }

    #[test]
    fn images_have_a_name_and_a_version() {
        assert_eq!(image("r.io:5000/a/b:v1@sha256:00"), ("r.io:5000/a/b", "v1"));
        assert_eq!(image("r.io:5000/a@sha256:00"), ("r.io:5000/a", "sha256:00"));
        assert_eq!(image("r.io:5000/a"), ("r.io:5000/a", ""));
    }

    #[test]
    fn spans_and_moments_are_for_eyes() {
        assert_eq!([span(7), span(1_950), span(61_000)], ["7 ms", "1.9 s", "1 min 1 s"]);
        assert_eq!([span(3_700_000), span(90_000_000)], ["1 h 1 min", "1 d 1 h"]);
        assert_eq!(time(1_000_000_000_999), "2001-09-09T01:46:40Z");
        assert_eq!(encode("/ui/?a=ü b"), "/ui/%3Fa%3D%C3%BC%20b");
    }
}

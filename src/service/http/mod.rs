//! The HTTP side: what registries, people and machines say to the service.
//!
//! Handlers that touch the queue run on the runtime's blocking threads ([`blocking`]): databases are
//! spoken to by blocking calls, as everything else in this program.

pub mod access;
mod api;
pub mod audit;
mod hooks;
pub mod limit;
pub mod pages;
mod ready;
mod server;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;
use tracing::Instrument as _;

pub use self::api::OPENAPI;
use self::audit::Audit;
use self::limit::Limiter;
pub use self::server::{Limits, serve};
use super::config::watch::Current;
use super::metrics::Metrics;
use super::queue::Queue;
use super::trace::{self, Context, Kind, Span};
use super::webhook::oidc;
use super::worker;

/// What all handlers share.
pub struct App {
    /// The configuration.
    pub config: Arc<Current>,
    /// The queue.
    pub queue: Arc<Queue>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// The workers of this process, to be told of new jobs.
    pub workers: Arc<worker::Shared>,
    /// Who asked for what.
    pub audit: Audit,
    /// Who asks too often.
    pub limiter: Limiter,
    /// Who looks at the pages.
    pub sessions: pages::Sessions,
    /// Keys of token issuers.
    pub keys: oidc::Cache,
    /// Asks for the configuration to be read again.
    pub reload: Box<dyn Fn() -> Result<Vec<&'static str>, String> + Send + Sync>,
    /// The layer store.
    pub store: PathBuf,
    /// The process is about to end.
    pub ending: AtomicBool,
}

/// The address that a request came from.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// An answer that is no success: problem details (RFC 9457).
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    text: String,
    retry: Option<Duration>,
}

impl Problem {
    /// A problem with words for people.
    pub fn new(status: StatusCode, text: impl Into<String>) -> Problem {
        Problem { status, text: text.into(), retry: None }
    }

    /// Try again then.
    pub fn after(mut self, wait: Duration) -> Problem {
        self.retry = Some(wait);
        self
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Its words.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// A response in another form, with when to try again.
    pub fn mark(&self, mut response: Response) -> Response {
        if let Some(wait) = self.retry {
            response.headers_mut().insert(header::RETRY_AFTER, wait.as_secs().max(1).into());
        }
        response
    }
}

impl From<super::queue::Error> for Problem {
    fn from(error: super::queue::Error) -> Problem {
        let passes = error.passes();
        match error {
            super::queue::Error::Full { .. } => {
                Problem::new(StatusCode::TOO_MANY_REQUESTS, error.to_string())
                    .after(Duration::from_secs(30))
            }
            _ => {
                // What the database says is for the log.
                tracing::error!(%error, "the queue cannot be used");
                let problem =
                    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the queue is not there");
                if passes { problem.after(Duration::from_secs(5)) } else { problem }
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Problem");
        let body = json!({ "title": title, "status": self.status.as_u16(), "detail": self.text });
        let mut response = (self.status, Json(body)).into_response();
        response = self.mark(response);
        let headers = response.headers_mut();
        let kind = header::HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, kind);
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = header::HeaderValue::from_static("Bearer realm=\"dock2uni\"");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

/// Runs something that blocks where that does no harm.
///
/// # Errors
/// A problem if it panics.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    let span = tracing::Span::current();
    let done = tokio::task::spawn_blocking(move || span.in_scope(work)).await;
    done.map_err(|error| {
        tracing::error!(%error, "a request panicked");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "something went wrong; the log says what")
    })
}

/// All routes.
pub fn router(app: &Arc<App>) -> Router {
    let max_body = app.config.get().server.max_body;
    Router::new()
        .route("/hooks/{name}", post(hooks::receive))
        .merge(api::routes())
        .merge(pages::routes())
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready::ready))
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "there is nothing here") })
        .layer(DefaultBodyLimit::max(max_body))
        .layer(middleware::from_fn_with_state(app.clone(), watch))
        .with_state(app.clone())
}

/// Limits, counts and logs every request.
async fn watch(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let route = route.unwrap_or_else(|| "other".to_owned());
    let method = request.method().clone();
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let began = std::time::Instant::now();
    let health = matches!(route.as_str(), "/healthz" | "/readyz");
    let parent = Context::of(request.headers());
    let context = Context::below(parent.as_ref());
    let start = trace::now();
    // What comes of the request belongs below it, jobs as well.
    if let Ok(header) = context.header().parse() {
        request.headers_mut().insert("traceparent", header);
    }
    // Of the weightiest level, so that it is there whatever is logged.
    let (trace_id, span_id) = (&context.trace, &context.span);
    let span = tracing::error_span!("request", %trace_id, %span_id);
    let rate = app.config.get().server.rate;
    let response = match peer.filter(|_| !health).map_or(Ok(()), |peer| app.limiter.ask(peer, rate))
    {
        Ok(()) => next.run(request).instrument(span.clone()).await,
        Err(wait) => Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many requests")
            .after(wait)
            .into_response(),
    };
    let status = response.status();
    app.metrics.requests.with_label_values(&[route.as_str(), status.as_str()]).inc();
    if !health {
        // The path may hold a token in its query, so the route is all that is logged.
        let millis = began.elapsed().as_millis() as u64;
        let peer = peer.map(|peer| peer.to_string());
        span.in_scope(|| {
            tracing::info!(%method, route, status = status.as_u16(), millis, peer, "request");
        });
        trace::record(Span {
            context,
            parent: parent.map(|parent| parent.span),
            name: format!("{method} {route}"),
            kind: Kind::Server,
            start,
            end: trace::now(),
            attributes: vec![
                ("http.request.method", trace::Value::Text(method.to_string())),
                ("http.route", trace::Value::Text(route)),
                ("http.response.status_code", trace::Value::Number(status.as_u16().into())),
            ],
            error: status.is_server_error().then(|| status.to_string()),
        });
    }
    response
}

async fn metrics(
    State(app): State<Arc<App>>,
    headers: header::HeaderMap,
) -> Result<Response, Problem> {
    let config = app.config.get();
    if !config.server.public_metrics {
        access::check(&config, &headers, super::config::Scope::Metrics)?;
    }
    let text = blocking(move || app.metrics.text(&app.queue)).await??;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}

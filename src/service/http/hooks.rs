//! `POST /hooks/NAME`: webhooks. Answered when their jobs are on disk.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, extract::rejection::BytesRejection};
use serde_json::json;

use super::{App, Peer, Problem, blocking};
use crate::service::config::Config;
use crate::service::webhook::verify::{Auth, Message};
use crate::service::webhook::{Webhook, payload};

/// How a webhook ended, for metrics.
#[derive(Clone, Copy)]
enum Ended {
    Accepted,
    /// Nothing in it was for us.
    Ignored,
    Forged,
    Malformed,
    /// It may be sent again.
    Refused,
}

impl Ended {
    fn name(self) -> &'static str {
        match self {
            Ended::Accepted => "accepted",
            Ended::Ignored => "ignored",
            Ended::Forged => "forged",
            Ended::Malformed => "malformed",
            Ended::Refused => "refused",
        }
    }
}

pub(super) async fn receive(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let config = app.config.get();
    let Some(webhook) = config.webhooks.get(&name).cloned() else {
        // Whoever tries names learns no more than whoever tries secrets.
        app.metrics.webhooks.with_label_values(&["unknown", Ended::Forged.name()]).inc();
        return refused().into_response();
    };
    let body = match body {
        Ok(body) => body,
        Err(rejection) => {
            let ended = Ended::Malformed.name();
            app.metrics.webhooks.with_label_values(&[name.as_str(), ended]).inc();
            return Problem::new(rejection.status(), rejection.body_text()).into_response();
        }
    };
    let token = query.get("token").map(String::as_str);
    let (ended, answer) = match take(&app, &config, &webhook, &headers, token, body).await {
        Ok((ended, value)) => (ended, (StatusCode::ACCEPTED, Json(value)).into_response()),
        Err((ended, why, problem)) => {
            tracing::warn!(webhook = %name, outcome = ended.name(), %why, "webhook");
            app.audit.note(&format!("webhook:{name}"), Some(peer.0), "push", &why, ended.name());
            (ended, problem.into_response())
        }
    };
    app.metrics.webhooks.with_label_values(&[name.as_str(), ended.name()]).inc();
    answer
}

fn refused() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "the webhook is not known, or not proved")
}

type Taken = Result<(Ended, serde_json::Value), (Ended, String, Problem)>;

async fn take(
    app: &Arc<App>,
    config: &Arc<Config>,
    webhook: &Webhook,
    headers: &HeaderMap,
    token: Option<&str>,
    body: Bytes,
) -> Taken {
    let keys = match &webhook.auth {
        Auth::Oidc { keys, .. } => {
            let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
            let bearer = bearer.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
            match app.keys.get(keys, bearer, &config.guard).await {
                Ok(keys) => Some(keys),
                Err(why) => {
                    let status = StatusCode::SERVICE_UNAVAILABLE;
                    let problem = Problem::new(status, "the issuer's keys are not to be had");
                    let problem = problem.after(std::time::Duration::from_secs(10));
                    return Err((Ended::Refused, why, problem));
                }
            }
        }
        _ => None,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let message = Message { headers, url_token: token, body: &body, now };
    webhook.auth.verify(&message, keys.as_ref()).map_err(|why| (Ended::Forged, why, refused()))?;
    let pushes = payload::read(webhook, headers, &body).map_err(|why| {
        let problem = Problem::new(StatusCode::BAD_REQUEST, why.clone());
        (Ended::Malformed, why, problem)
    })?;
    let origin = format!("webhook:{}", webhook.name);
    let requests: Vec<_> =
        pushes.iter().flat_map(|push| config.requests(&webhook.name, &origin, push)).collect();
    if requests.is_empty() {
        return Ok((Ended::Ignored, json!({ "jobs": [] })));
    }
    let trace = super::api::trace(headers);
    let queue = app.queue.clone();
    let submitted = blocking(move || queue.submit(&requests, trace.as_deref())).await;
    let submitted = match submitted {
        Ok(Ok(submitted)) => submitted,
        Ok(Err(error)) => {
            let why = error.to_string();
            return Err((Ended::Refused, why, error.into()));
        }
        Err(problem) => return Err((Ended::Refused, "a panic".to_owned(), problem)),
    };
    let mut new = false;
    for job in &submitted {
        new |= job.new;
        let labels = [origin.as_str(), if job.new { "true" } else { "false" }];
        app.metrics.submitted.with_label_values(&labels).inc();
        if job.new {
            app.audit.note(&origin, None, "submit", &job.id, "accepted");
        }
    }
    if new {
        app.workers.ring();
    }
    let jobs: Vec<_> =
        submitted.iter().map(|job| json!({ "id": job.id, "new": job.new })).collect();
    Ok((Ended::Accepted, json!({ "jobs": jobs })))
}

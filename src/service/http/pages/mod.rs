//! The pages: queue, workers and conversions for people, rendered here and readable without scripts.
//!
//! Who looks at them has shown a token of the API once and carries a [`session`] since. What is on a
//! page comes from the queue at that moment; `live.js` fetches the page again when something happens
//! and puts the parts that have changed in place, so nothing is rendered twice in two languages.
//! All that comes from outside is escaped by the template engine, and the policy of every answer
//! ([`POLICY`]) lets no script run but the one that is served here.

mod job;
mod login;
mod overview;
pub mod session;
mod view;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use minijinja::{Value, context};

use self::session::Refused;
pub use self::session::Sessions;
use super::{App, Problem};
use crate::service::config::{Scope, Token};

const STYLE: &str = include_str!("../../../../templates/service/style.css");
const SCRIPT: &str = include_str!("../../../../templates/service/live.js");
const ICON: &str = include_str!("../../../../templates/service/icon.svg");

/// What a page may do (Content Security Policy, level 3): its own style, its own script, its own forms,
/// and nothing of anybody else's.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
    connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The routes below `/ui/`, and the way there.
pub(super) fn routes() -> Router<Arc<App>> {
    let pages = Router::new()
        .route("/ui/", get(overview::show))
        .route("/ui/login", get(login::show).post(login::submit))
        .route("/ui/logout", post(login::leave))
        .route("/ui/jobs/{id}", get(job::show))
        .route("/ui/jobs/{id}/report", get(job::report))
        .route("/ui/jobs/{id}/events", get(job::events))
        .route("/ui/jobs/{id}/cancel", post(job::cancel))
        .route("/ui/jobs/{id}/retry", post(job::retry))
        .route("/ui/jobs/{id}/files/{name}", get(job::file))
        .layer(map_response(async |mut response: Response| {
            // Pages hold what not everybody may see.
            let store = HeaderValue::from_static("no-store");
            response.headers_mut().entry(header::CACHE_CONTROL).or_insert(store);
            response
        }));
    let fixed = |kind, text| get(async move |headers| fixed(kind, text, &headers));
    Router::new()
        .route("/", get(async || Redirect::to("/ui/")))
        .route("/ui", get(async || Redirect::to("/ui/")))
        .route("/ui/style.css", fixed("text/css; charset=utf-8", STYLE))
        .route("/ui/live.js", fixed("text/javascript; charset=utf-8", SCRIPT))
        .route("/ui/icon.svg", fixed("image/svg+xml", ICON))
        .merge(pages)
        .layer(map_response(guarded))
}

/// Adds what keeps a page from being misused.
async fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_SECURITY_POLICY, POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::X_FRAME_OPTIONS, "DENY");
    // `no-referrer` would take the origin from forms, by which they are known to be ours.
    set(header::REFERRER_POLICY, "same-origin");
    set(header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    response
}

/// Something that never changes while the program runs.
fn fixed(kind: &'static str, text: &'static str, headers: &HeaderMap) -> Response {
    let tag = format!("\"{}\"", &crate::source::Digest::of(text.as_bytes()).hex()[..16]);
    let known =
        headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let about = [(header::ETAG, tag.as_str()), (header::CACHE_CONTROL, "max-age=60")];
    if known {
        return (StatusCode::NOT_MODIFIED, about).into_response();
    }
    (about, [(header::CONTENT_TYPE, kind)], text).into_response()
}

/// Who looks at a page.
struct Visitor {
    token: Token,
    /// Proves that a form was on a page of this session.
    proof: String,
}

impl Visitor {
    /// The visitor behind a request, if there is a session, and its token has this scope.
    ///
    /// # Errors
    /// The way to the login page, or a page that names the scope.
    fn of(
        app: &App,
        headers: &HeaderMap,
        uri: &Uri,
        scope: Scope,
    ) -> Result<Visitor, Box<Response>> {
        let config = app.config.get();
        let found = app.sessions.visitor(&config, headers);
        let (token, proof) = found.map(|(token, proof)| (token.clone(), proof)).map_err(|why| {
            let target = uri.path_and_query().map_or("/ui/", |path| path.as_str());
            let why = if why == Refused::Expired { "&expired=1" } else { "" };
            let target = format!("/ui/login?next={}{why}", view::encode(target));
            Box::new(Redirect::to(&target).into_response())
        })?;
        let visitor = Visitor { token, proof };
        if visitor.may(scope) {
            return Ok(visitor);
        }
        let text = format!("the token {} lacks the scope {}", visitor.token.name, scope.name());
        Err(Box::new(visitor.problem(Problem::new(StatusCode::FORBIDDEN, text))))
    }

    fn may(&self, scope: Scope) -> bool {
        self.token.scopes.contains(&scope)
    }

    fn tenant(&self) -> Option<&str> {
        self.token.tenant.as_deref()
    }

    /// Who it is, in the audit log and in those of jobs.
    fn name(&self) -> String {
        format!("ui:{}", self.token.name)
    }

    /// A page for this visitor.
    fn page(&self, template: &'static str, title: &str, values: Value) -> Response {
        self.page_of(StatusCode::OK, template, title, values)
    }

    fn page_of(
        &self,
        status: StatusCode,
        template: &'static str,
        title: &str,
        values: Value,
    ) -> Response {
        let visitor = context! { name => self.token.name.as_str(), tenant => self.tenant(),
        proof => self.proof.as_str(), may_write => self.may(Scope::Write),
        may_fetch => self.may(Scope::Results) };
        view::page(status, template, title, context! { visitor, ..values })
    }

    /// A problem as a page.
    fn problem(&self, problem: Problem) -> Response {
        let status = problem.status();
        let title = status.canonical_reason().unwrap_or("Problem");
        let values = context! { title, text => problem.text() };
        problem.mark(self.page_of(status, "message", title, values))
    }
}

/// Whether a form that changes something is one of ours, sent by whom it was made for.
fn is_genuine(app: &App, headers: &HeaderMap, visitor: &Visitor, proof: &str) -> bool {
    session::is_same_origin(headers) && app.sessions.proves(&visitor.proof, proof)
}

type Shared = State<Arc<App>>;

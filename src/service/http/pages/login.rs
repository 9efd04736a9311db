//! Coming and going: a token of the API for a session.

use axum::Form;
use axum::extract::{Extension, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse as _, Redirect, Response};
use minijinja::context;
use serde::Deserialize;

use super::super::{Peer, access};
use super::session::{Sessions, is_same_origin, is_secure};
use super::{Shared, view};
use crate::service::config::Scope;

#[derive(Debug, Deserialize)]
pub(super) struct Ask {
    #[serde(default)]
    next: String,
    expired: Option<String>,
}

pub(super) async fn show(State(app): Shared, Query(ask): Query<Ask>) -> Response {
    let text = ask.expired.map(|_| "The session is over. Please sign in again.");
    form(&app, StatusCode::OK, &ask.next, text)
}

fn form(app: &super::App, status: StatusCode, next: &str, text: Option<&str>) -> Response {
    let possible = app.config.get().tokens.iter().any(|token| token.scopes.contains(&Scope::Read));
    let values = context! { next => local(next), text, possible };
    view::page(status, "login", "Sign in", values)
}

#[derive(Deserialize)]
pub(super) struct Login {
    token: String,
    #[serde(default)]
    next: String,
}

pub(super) async fn submit(
    State(app): Shared,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Form(login): Form<Login>,
) -> Response {
    if !is_same_origin(&headers) {
        // Else a stranger's page could sign somebody in as somebody else.
        return form(&app, StatusCode::FORBIDDEN, "", Some("That form was not this server's own."));
    }
    let config = app.config.get();
    let Some(token) = access::find(&config, login.token.trim()) else {
        app.audit.note("ui", Some(peer.0), "sign-in", "session", "refused");
        let text = "The token is not known.";
        return form(&app, StatusCode::UNAUTHORIZED, &login.next, Some(text));
    };
    let who = format!("ui:{}", token.name);
    if !token.scopes.contains(&Scope::Read) {
        app.audit.note(&who, Some(peer.0), "sign-in", "session", "refused");
        let text = "The token lacks the scope jobs:read, which pages need.";
        return form(&app, StatusCode::FORBIDDEN, &login.next, Some(text));
    }
    app.audit.note(&who, Some(peer.0), "sign-in", "session", "accepted");
    let cookie = app.sessions.begin(token, is_secure(&config, &headers));
    ([(header::SET_COOKIE, cookie)], Redirect::to(local(&login.next))).into_response()
}

/// Ends the session. Another page that makes a visitor leave does little harm, but need not be let.
pub(super) async fn leave(headers: HeaderMap) -> Response {
    if !is_same_origin(&headers) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let cookies = Sessions::end().map(|cookie| (header::SET_COOKIE, cookie));
    (AppendHeaders(cookies), Redirect::to("/ui/login")).into_response()
}

/// Where to go on: to a page of ours, whatever the address says.
fn local(next: &str) -> &str {
    let plain = next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let there = next == "/ui/" || next.starts_with("/ui/?") || next.starts_with("/ui/jobs/");
    if plain && there && !next.contains("//") { next } else { "/ui/" }
}

#[cfg(test)]
mod tests {
    use super::local;

    #[test]
    fn after_signing_in_one_stays_here() {
        for good in ["/ui/", "/ui/?state=failed", "/ui/jobs/abc"] {
            assert_eq!(local(good), good);
        }
        for bad in
            ["", "//evil", "https://evil", "/ui/jobs//evil", "/ui/jobs/\\evil", "/ui/x\r\ny", "/ui"]
        {
            assert_eq!(local(bad), "/ui/", "{bad}");
        }
    }
}

//! Who may do what: tokens and their scopes.

use axum::http::{HeaderMap, StatusCode, header};

use super::Problem;
use crate::service::config::{Config, Proof, Scope, Token};
use crate::service::secret::same;
use crate::source::Digest;

/// The token of a request, if it has this scope.
///
/// # Errors
/// 401 without a token that is known, 403 for one without the scope.
pub fn check<'a>(
    config: &'a Config,
    headers: &HeaderMap,
    scope: Scope,
) -> Result<&'a Token, Problem> {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.split_once(' ')).filter(|(scheme, token)| {
        scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty()
    });
    let Some((_, given)) = given else {
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "a bearer token is needed"));
    };
    let token = find(config, given.trim())
        .ok_or_else(|| Problem::new(StatusCode::UNAUTHORIZED, "the token is not known"))?;
    if !token.scopes.contains(&scope) {
        let text = format!("the token lacks the scope {}", scope.name());
        return Err(Problem::new(StatusCode::FORBIDDEN, text));
    }
    Ok(token)
}

/// The token that somebody shows, if it is one of ours.
pub fn find<'a>(config: &'a Config, given: &str) -> Option<&'a Token> {
    let hash = Digest::of(given.as_bytes());
    // All are compared, so that the time does not tell which of them is near.
    let mut found = None;
    for token in &config.tokens {
        let matches = match &token.proof {
            Proof::Hash(expected) => same(&expected.0, &hash.0),
            Proof::Text(secret) => secret.matches(given.as_bytes()),
        };
        if matches {
            found = Some(token);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn tokens_are_known_by_hash_or_text_and_have_scopes() {
        let hash = Digest::of(b"tok-a").hex();
        let text = format!(
            "[server]\nstate = \"s\"\n[[token]]\nname = \"a\"\nscopes = [\"jobs:read\"]\n\
             sha256 = \"{hash}\"\n[[token]]\nname = \"b\"\nscopes = []\nsecret = \"tok-b\"\n"
        );
        let config = Config::parse(&text, Path::new("c.toml")).unwrap();
        let status = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            match check(&config, &headers, Scope::Read) {
                Ok(token) => token.name.clone(),
                Err(problem) => problem.status().as_u16().to_string(),
            }
        };
        assert_eq!(status("Bearer tok-a"), "a");
        assert_eq!(status("bearer  tok-a "), "a");
        assert_eq!(status("Bearer tok-b"), "403");
        for value in ["Bearer tok-c", "Bearer", "Bearer ", "tok-a", "Basic tok-a"] {
            assert_eq!(status(value), "401", "{value}");
        }
        assert!(check(&config, &HeaderMap::new(), Scope::Read).is_err());
    }
}

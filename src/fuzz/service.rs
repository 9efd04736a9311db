//! What strangers send to the service: webhooks before and behind their proof.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::service::secret::Secret;
use crate::service::trace::Context;
use crate::service::webhook::oidc::Keys;
use crate::service::webhook::verify::{Auth, Message};
use crate::service::webhook::{Kind, Webhook, payload};
use crate::source::Name;

/// Where all images come from, whatever a message says.
const REGISTRY: &str = "registry.example:5000";
/// When all messages come.
const NOW: u64 = 1_700_000_000;

/// Messages of webhooks: the first byte says of which kind, and with which headers.
pub fn webhook(data: &[u8]) {
    let Some((&first, body)) = data.split_first() else { return };
    let (kind, form) = (usize::from(first) % Kind::ALL.len(), usize::from(first) / Kind::ALL.len());
    let auth = Auth::Url(Secret::new("t"));
    let (name, registry) = ("w".to_owned(), REGISTRY.to_owned());
    let webhook = Webhook { name, kind: Kind::ALL[kind], registry, auth };
    let mut headers = HeaderMap::new();
    if let Some((name, value)) = [
        ("x-github-event", "package"),
        ("x-github-event", "registry_package"),
        ("ce-type", "zotregistry.image.updated"),
        ("ce-type", "harbor.artifact.pushed"),
    ]
    .get(form)
    {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    for push in payload::read(&webhook, &headers, body).unwrap_or_default() {
        let name: Result<Name, _> = push.reference().parse();
        assert!(name.is_ok_and(|name| name.host == REGISTRY), "{push:?}");
    }
}

/// Proofs of webhooks, and places in traces: the first byte says of which kind, the first line is what
/// a header holds, and the rest is the body.
pub fn proof(data: &[u8]) {
    let Some((&kind, rest)) = data.split_first() else { return };
    let mut parts = rest.splitn(2, |&byte| byte == b'\n');
    let (line, body) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let Ok(value) = HeaderValue::from_bytes(line) else { return };
    let mut headers = HeaderMap::new();
    for name in ["authorization", "x-hub-signature-256", "traceparent"] {
        headers.insert(HeaderName::from_static(name), value.clone());
    }
    let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
    for (name, part) in names.into_iter().zip(line.splitn(3, |&byte| byte == b'|')) {
        if let Ok(value) = HeaderValue::from_bytes(part) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    let secret = || Secret::new("s3cret");
    let auth = match kind % 6 {
        0 => Auth::Token { header: "authorization".to_owned(), secret: secret() },
        1 => Auth::Basic { user: "user".to_owned(), password: secret() },
        2 => Auth::HubSignature(secret()),
        3 => Auth::Standard(secret()),
        4 => Auth::Url(secret()),
        _ => Auth::Oidc { audience: "a".into(), email: "e".into(), keys: String::new() },
    };
    // Keys are the issuer's own word, and come over the network as well.
    let keys = serde_json::from_slice::<Keys>(body).unwrap_or_default();
    let url_token = std::str::from_utf8(line).ok();
    let message = Message { headers: &headers, url_token, body, now: NOW };
    let proved = auth.verify(&message, Some(&keys));
    assert!(proved.is_err() || !matches!(auth, Auth::Oidc { .. }), "nobody signed it");
    if let Some(context) = Context::of(&headers) {
        assert!(Context::parse(&context.header()).is_some(), "{line:?}");
    }
}

//! Every kind of webhook: messages in the shape of its sender's documentation, and hostile ones.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dock2uni::service::config::Config;
use dock2uni::service::webhook::{Kind, Push, Webhook, payload};
use proptest::prelude::*;
use reqwest::header::{HeaderMap, HeaderName};
use serde_json::{Value, json};

use super::common::webhooks::{DIGEST, acr, ecr, github, harbor, quay, samples, zot};

/// A webhook of this kind, by a configuration as one would write it.
fn webhook(kind: &str) -> Webhook {
    let (registry, proof) = match kind {
        "docker-hub" => ("docker.io", "url_token = \"t\""),
        "github" => ("ghcr.io", "secret = \"s\""),
        "quay" => ("quay.io", "url_token = \"t\""),
        "artifact-registry" => {
            ("europe-docker.pkg.dev", "audience = \"a\"\nservice_account = \"e\"")
        }
        _ => ("registry.example:5000", "token = \"t\""),
    };
    let text = format!(
        "[server]\nstate = \"s\"\n[[webhook]]\nname = \"w\"\nkind = \"{kind}\"\n\
         registry = \"{registry}\"\n{proof}\n"
    );
    let config = Config::parse(&text, std::path::Path::new("c.toml")).unwrap();
    config.webhooks["w"].clone()
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    pairs.iter().map(|(k, v)| (k.parse::<HeaderName>().unwrap(), v.parse().unwrap())).collect()
}

fn read(kind: &str, pairs: &[(&str, &str)], body: &Value) -> Result<Vec<String>, String> {
    let body = body.to_string();
    let pushes = payload::read(&webhook(kind), &headers(pairs), body.as_bytes())?;
    Ok(pushes.iter().map(Push::reference).collect())
}

#[test]
fn documented_messages_are_understood() {
    for (kind, headers, body, expected) in samples() {
        assert_eq!(read(kind, headers, &body), Ok(expected), "{kind}");
    }
    let kinds: std::collections::BTreeSet<_> =
        samples().iter().map(|sample| webhook(sample.0).kind).collect();
    assert_eq!(kinds.len(), Kind::ALL.len(), "none is left out");
}

#[test]
fn other_spellings_are_understood() {
    // CloudEvents in structured mode, with data as base64, under a prefix of one's own.
    let event = |data: Value| {
        let mut event = json!({ "specversion": "1.0", "id": "1", "source": "https://r.example",
            "type": "com.example.registry.image.updated" });
        event.as_object_mut().unwrap().extend(data.as_object().unwrap().clone());
        event
    };
    let expected = Ok(vec![format!("registry.example:5000/team/app:v1@{DIGEST}")]);
    for data in [
        json!({ "data": zot() }),
        json!({ "data": zot().to_string() }),
        json!({ "data_base64": STANDARD.encode(zot().to_string()) }),
    ] {
        assert_eq!(read("zot", &[], &event(data)), expected);
    }
    // GitHub's older name for the event, and a version without a tag.
    let mut body = json!({ "action": "published", "registry_package": github()["package"] });
    body["registry_package"]["package_version"]["container_metadata"]["tag"] = json!({});
    let untagged = Ok(vec![format!("ghcr.io/octo-org/hello-image@{DIGEST}")]);
    assert_eq!(read("github", &[("x-github-event", "registry_package")], &body), untagged);
    // Quay with image IDs, which are no digests.
    let mut body = quay();
    body["updated_tags"] = json!({ "latest": "b750fe79269d2ec9a3c593ef05b4332b" });
    let expected = Ok(vec!["quay.io/mynamespace/repository:latest".to_owned()]);
    assert_eq!(read("quay", &[], &body), expected);
    // Harbor has the digest for a tag where there is none.
    let mut body = harbor();
    body["event_data"]["resources"][0]["tag"] = json!(DIGEST);
    let expected = Ok(vec![format!("registry.example:5000/test-webhook/debian@{DIGEST}")]);
    assert_eq!(read("harbor", &[], &body), expected);
}

#[test]
fn what_is_no_push_of_an_image_leads_to_nothing() {
    let with = |mut body: Value, pointer: &str, value: Value| {
        *body.pointer_mut(pointer).unwrap() = value;
        body
    };
    let none = Ok(Vec::new());
    let chart = json!("application/vnd.cncf.helm.chart.v1");
    for (kind, headers, body) in [
        ("distribution", &[][..], json!({ "events": [] })),
        ("harbor", &[], with(harbor(), "/type", json!("DELETE_ARTIFACT"))),
        ("github", &[("x-github-event", "ping")], json!({ "zen": "Design for failure." })),
        ("github", &[("x-github-event", "package")], with(github(), "/action", json!("deleted"))),
        ("quay", &[], json!({ "build_id": "296ec063", "repository": "a/b" })),
        ("zot", &[("ce-type", "zotregistry.image.deleted")], zot()),
        ("zot", &[("ce-type", "zotregistry.repository.created")], json!({ "name": "team/app" })),
        ("ecr", &[], with(ecr(), "/detail/action-type", json!("DELETE"))),
        ("ecr", &[], with(ecr(), "/detail/result", json!("FAILURE"))),
        ("ecr", &[], with(ecr(), "/detail-type", json!("ECR Image Scan"))),
        ("acr", &[], json!({ "id": "1", "timestamp": "x", "action": "ping" })),
        ("acr", &[], with(acr(), "/target/mediaType", chart)),
    ] {
        assert_eq!(read(kind, headers, &body), none, "{kind} {body}");
    }
    // Another registry of the same project.
    let data = json!({ "action": "INSERT", "tag": "asia-docker.pkg.dev/p/r/x:1" });
    let body = json!({ "message": { "data": STANDARD.encode(data.to_string()) } });
    assert_eq!(read("artifact-registry", &[], &body), none);
}

#[test]
fn payloads_cannot_lead_elsewhere() {
    for repository in [
        "../etc",
        "a/../b",
        "evil.example/x",
        "x@sha256:00",
        "a b",
        "",
        "A",
        "x:1",
        "//x",
        "x?y",
        "127.0.0.1:1/x",
        "http://evil.example/x",
        &"x/".repeat(300),
    ] {
        let mut body = acr();
        body["target"]["repository"] = json!(repository);
        let read = read("acr", &[], &body);
        // A name with a dot is a name: what matters is the host.
        let safe = read.as_ref().is_err()
            || read.as_ref().is_ok_and(|found| {
                found.iter().all(|name| name.starts_with("registry.example:5000/"))
            });
        assert!(safe, "{repository}: {read:?}");
    }
    for tag in ["-x", "a/b", "a:b", "a@b", &"x".repeat(129)] {
        let mut body = acr();
        body["target"]["tag"] = json!(tag);
        assert!(read("acr", &[], &body).is_err(), "{tag}");
    }
    let mut body = acr();
    body["target"]["digest"] = json!("sha256:xyz");
    assert!(read("acr", &[], &body).is_err());
}

/// JSON of any shape.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(json!(DIGEST)),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// All places in a value.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, inner)| pointers(inner, &format!("{at}/{key}"), found));
        }
        Value::Array(list) => {
            let inner = list.iter().enumerate();
            inner.for_each(|(index, inner)| pointers(inner, &format!("{at}/{index}"), found));
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    /// Documented messages with one place replaced by anything: an error or pushes, and those from
    /// the configured registry.
    #[test]
    fn changed_messages_harm_nobody(
        sample in any::<prop::sample::Index>(),
        place in any::<prop::sample::Index>(),
        value in any_json(),
    ) {
        let samples = samples();
        let (kind, pairs, mut body, _) = samples[sample.index(samples.len())].clone();
        let mut places = Vec::new();
        pointers(&body, "", &mut places);
        *body.pointer_mut(&places[place.index(places.len())]).unwrap() = value;
        let webhook = webhook(kind);
        if let Ok(pushes) = payload::read(&webhook, &headers(pairs), body.to_string().as_bytes()) {
            for push in pushes {
                prop_assert_eq!(&push.registry, &webhook.registry);
                let name: dock2uni::source::Name = push.reference().parse().unwrap();
                prop_assert_eq!(name.host, push.registry);
            }
        }
    }

    /// Any bytes.
    #[test]
    fn noise_harms_nobody(sample in any::<prop::sample::Index>(), bytes: Vec<u8>) {
        let samples = samples();
        let (kind, pairs, body, _) = &samples[sample.index(samples.len())];
        let _ = payload::read(&webhook(kind), &headers(pairs), &bytes);
        // And the beginning of a message.
        let text = body.to_string();
        let end = bytes.len() * 7 % text.len();
        prop_assert!(payload::read(&webhook(kind), &headers(pairs), &text.as_bytes()[..end]).is_err());
    }
}

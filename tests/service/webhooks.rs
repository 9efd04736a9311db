//! Every kind of webhook: messages in the shape of its sender's documentation, and hostile ones.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dock2uni::service::config::Config;
use dock2uni::service::webhook::{Kind, Push, Webhook, payload};
use proptest::prelude::*;
use reqwest::header::{HeaderMap, HeaderName};
use serde_json::{Value, json};

/// The digest in all messages.
const DIGEST: &str = "sha256:80f0d5c8786bb9e621a45ece0db56d11cdc624ad20da9fe62e9d25490f331d7d";

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

fn distribution() -> Value {
    json!({ "events": [
        {
            "id": "asdf-asdf-asdf-asdf-0", "timestamp": "2026-01-02T15:04:05Z", "action": "push",
            "target": {
                "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
                "size": 1, "length": 1, "digest": DIGEST, "repository": "library/test", "tag": "v1",
                "url": "https://example.com/v2/library/test/manifests/sha256:c3b3692957d4",
            },
            "request": { "id": "asdfasdf", "addr": "client.local", "host": "registrycluster.local",
                "method": "PUT", "useragent": "test/0.1" },
            "actor": { "name": "test-actor" }, "source": { "addr": "hostname.local:port" },
        },
        {
            "id": "asdf-asdf-asdf-asdf-1", "timestamp": "2026-01-02T15:04:05Z", "action": "push",
            "target": {
                "mediaType": "application/octet-stream", "digest": DIGEST,
                "repository": "library/test", "url": "https://example.com/v2/library/test/blobs/x",
            },
        },
        {
            "id": "asdf-asdf-asdf-asdf-2", "timestamp": "2026-01-02T15:04:05Z", "action": "pull",
            "target": { "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": DIGEST,
                "repository": "library/test" },
        },
    ] })
}

fn harbor() -> Value {
    json!({
        "type": "PUSH_ARTIFACT", "occur_at": 1_586_922_308, "operator": "admin",
        "event_data": {
            "resources": [{ "digest": DIGEST, "tag": "latest",
                "resource_url": "hub.harbor.com/test-webhook/debian:latest" }],
            "repository": { "date_created": 1_586_922_308, "name": "debian",
                "namespace": "test-webhook", "repo_full_name": "test-webhook/debian",
                "repo_type": "private" },
        },
    })
}

fn harbor_event() -> Value {
    json!({
        "specversion": "1.0", "id": "4b2f89a6", "source": "/projects/2/webhook/policies/7",
        "type": "harbor.artifact.pushed", "datacontenttype": "application/json",
        "time": "2026-04-03T06:04:46Z", "operator": "admin",
        "data": harbor()["event_data"],
    })
}

fn docker_hub() -> Value {
    json!({
        "callback_url": "https://registry.hub.docker.com/u/svendowideit/testhook/hook/2141b5bi5i5b/",
        "push_data": { "pushed_at": 1_417_566_161, "pusher": "trustedbuilder", "tag": "latest" },
        "repository": { "comment_count": 0, "is_private": false, "name": "testhook",
            "namespace": "svendowideit", "owner": "svendowideit",
            "repo_name": "svendowideit/testhook", "status": "Active" },
    })
}

fn github() -> Value {
    json!({
        "action": "published",
        "package": {
            "id": 1, "name": "Hello-Image", "namespace": "Octo-Org", "package_type": "CONTAINER",
            "ecosystem": "CONTAINER", "owner": { "login": "Octo-Org", "type": "Organization" },
            "package_version": {
                "id": 2, "version": DIGEST, "name": DIGEST,
                "container_metadata": { "tag": { "name": "v1", "digest": DIGEST } },
                "package_url": "ghcr.io/octo-org/hello-image:v1",
            },
            "registry": { "name": "GitHub CONTAINER registry", "type": "CONTAINER" },
        },
        "sender": { "login": "octocat" },
    })
}

fn quay() -> Value {
    json!({
        "name": "repository", "repository": "mynamespace/repository", "namespace": "mynamespace",
        "docker_url": "quay.io/mynamespace/repository",
        "homepage": "https://quay.io/repository/mynamespace/repository",
        "updated_tags": ["latest", "v1"],
    })
}

fn zot() -> Value {
    json!({ "name": "team/app", "reference": "v1", "digest": DIGEST,
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "manifest": "{}" })
}

fn ecr() -> Value {
    json!({
        "version": "0", "id": "13cde686-328b-6117-af20-0e5566167482",
        "detail-type": "ECR Image Action", "source": "aws.ecr", "account": "123456789012",
        "time": "2026-11-16T01:54:34Z", "region": "us-west-2", "resources": [],
        "detail": { "result": "SUCCESS", "repository-name": "my-repository-name",
            "image-digest": DIGEST, "action-type": "PUSH", "image-tag": "latest" },
    })
}

fn acr() -> Value {
    json!({
        "id": "cb8c3971-9adc-488b-bdd8-43cbb4974ff5", "timestamp": "2026-11-17T16:52:01.343145347Z",
        "action": "push",
        "target": {
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json", "size": 524,
            "digest": DIGEST, "length": 524, "repository": "hello-world", "tag": "v1",
        },
        "request": { "id": "3cbb6949-7549-4fa1-86cd-a6d5451dffc7", "host": "myregistry.azurecr.io",
            "method": "PUT", "useragent": "docker/17.09.0-ce" },
    })
}

fn artifact_registry() -> Value {
    let name = "europe-docker.pkg.dev/my-project/my-repo/hello-world";
    let data = json!({ "action": "INSERT", "digest": format!("{name}@{DIGEST}"),
        "tag": format!("{name}:1.1") });
    json!({
        "message": { "data": STANDARD.encode(data.to_string()), "attributes": {},
            "messageId": "136969346945", "publishTime": "2026-11-25T12:00:00Z" },
        "subscription": "projects/my-project/subscriptions/dock2uni",
    })
}

type Sample = (&'static str, &'static [(&'static str, &'static str)], Value, Vec<String>);

/// A message of each kind, and what it tells of.
fn samples() -> Vec<Sample> {
    let at = |text: &str| vec![format!("{text}@{DIGEST}")];
    let ce: &[_] = &[("ce-type", "zotregistry.image.updated"), ("ce-specversion", "1.0")];
    vec![
        ("distribution", &[], distribution(), at("registry.example:5000/library/test:v1")),
        ("gitlab", &[], distribution(), at("registry.example:5000/library/test:v1")),
        ("harbor", &[], harbor(), at("registry.example:5000/test-webhook/debian:latest")),
        ("harbor", &[], harbor_event(), at("registry.example:5000/test-webhook/debian:latest")),
        ("docker-hub", &[], docker_hub(), vec!["docker.io/svendowideit/testhook:latest".into()]),
        (
            "github",
            &[("x-github-event", "package")],
            github(),
            at("ghcr.io/octo-org/hello-image:v1"),
        ),
        (
            "quay",
            &[],
            quay(),
            ["latest", "v1"].map(|tag| format!("quay.io/mynamespace/repository:{tag}")).to_vec(),
        ),
        ("zot", ce, zot(), at("registry.example:5000/team/app:v1")),
        ("ecr", &[], ecr(), at("registry.example:5000/my-repository-name:latest")),
        ("acr", &[], acr(), at("registry.example:5000/hello-world:v1")),
        (
            "artifact-registry",
            &[],
            artifact_registry(),
            at("europe-docker.pkg.dev/my-project/my-repo/hello-world:1.1"),
        ),
    ]
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

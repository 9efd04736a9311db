//! Messages of every kind of webhook in the shape of its sender's documentation.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// The digest in all messages.
pub const DIGEST: &str = "sha256:80f0d5c8786bb9e621a45ece0db56d11cdc624ad20da9fe62e9d25490f331d7d";

/// See [`samples`].
pub fn distribution() -> Value {
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

/// See [`samples`].
pub fn harbor() -> Value {
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

/// See [`samples`].
pub fn harbor_event() -> Value {
    json!({
        "specversion": "1.0", "id": "4b2f89a6", "source": "/projects/2/webhook/policies/7",
        "type": "harbor.artifact.pushed", "datacontenttype": "application/json",
        "time": "2026-04-03T06:04:46Z", "operator": "admin",
        "data": harbor()["event_data"],
    })
}

/// See [`samples`].
pub fn docker_hub() -> Value {
    json!({
        "callback_url": "https://registry.hub.docker.com/u/svendowideit/testhook/hook/2141b5bi5i5b/",
        "push_data": { "pushed_at": 1_417_566_161, "pusher": "trustedbuilder", "tag": "latest" },
        "repository": { "comment_count": 0, "is_private": false, "name": "testhook",
            "namespace": "svendowideit", "owner": "svendowideit",
            "repo_name": "svendowideit/testhook", "status": "Active" },
    })
}

/// See [`samples`].
pub fn github() -> Value {
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

/// See [`samples`].
pub fn quay() -> Value {
    json!({
        "name": "repository", "repository": "mynamespace/repository", "namespace": "mynamespace",
        "docker_url": "quay.io/mynamespace/repository",
        "homepage": "https://quay.io/repository/mynamespace/repository",
        "updated_tags": ["latest", "v1"],
    })
}

/// See [`samples`].
pub fn zot() -> Value {
    json!({ "name": "team/app", "reference": "v1", "digest": DIGEST,
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "manifest": "{}" })
}

/// See [`samples`].
pub fn ecr() -> Value {
    json!({
        "version": "0", "id": "13cde686-328b-6117-af20-0e5566167482",
        "detail-type": "ECR Image Action", "source": "aws.ecr", "account": "123456789012",
        "time": "2026-11-16T01:54:34Z", "region": "us-west-2", "resources": [],
        "detail": { "result": "SUCCESS", "repository-name": "my-repository-name",
            "image-digest": DIGEST, "action-type": "PUSH", "image-tag": "latest" },
    })
}

/// See [`samples`].
pub fn acr() -> Value {
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

/// See [`samples`].
pub fn artifact_registry() -> Value {
    let name = "europe-docker.pkg.dev/my-project/my-repo/hello-world";
    let data = json!({ "action": "INSERT", "digest": format!("{name}@{DIGEST}"),
        "tag": format!("{name}:1.1") });
    json!({
        "message": { "data": STANDARD.encode(data.to_string()), "attributes": {},
            "messageId": "136969346945", "publishTime": "2026-11-25T12:00:00Z" },
        "subscription": "projects/my-project/subscriptions/dock2uni",
    })
}

/// Kind, headers, body, and the references that it tells of.
pub type Sample = (&'static str, &'static [(&'static str, &'static str)], Value, Vec<String>);

/// A message of each kind, and what it tells of.
pub fn samples() -> Vec<Sample> {
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

//! One trace from a request through the queue to the worker, in spans and in logs.

use serde_json::{Value, json};

use super::common::server::{Reply, Server};
use super::common::vm::free_port;
use super::service::{Service, config, request};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// All spans that a collector has got.
fn spans(collector: &Server) -> Vec<Value> {
    let bodies = collector.requests_for("/v1/traces").into_iter().map(|request| {
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!(request.header("x-tenant"), Some("open sesame"));
        serde_json::from_str::<Value>(&request.body).unwrap()
    });
    let of = |body: Value| {
        assert_eq!(body["resourceSpans"][0]["resource"]["attributes"][0]["key"], "service.name");
        body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone()
    };
    bodies.flat_map(of).collect()
}

#[test]
fn a_trace_goes_through_the_queue() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let collector = Server::start(|_| Reply::new(200, "{}"));
    let endpoint = format!("http://{}", collector.addr);
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=open%20sesame"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=test"),
    ];
    let text = config(dir.path(), port, 1);
    let mut service = Service::start_with(dir.path(), port, &text, "serve", &environment);
    service.wait_ready();
    let (status, body) = request(port, "GET", "/readyz", "X: x", "").unwrap();
    let ready: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &ready["ready"]), (200, &json!(true)));
    assert_eq!(ready["checks"]["queue"], "ok");

    // Nothing listens there, so it fails at once: what matters here is who knows of it.
    let body = json!({ "image": "127.0.0.1:9/team/app:1", "destinations": ["images"] }).to_string();
    let headers = format!(
        "Authorization: Bearer test-token\r\nContent-Type: application/json\r\n\
         traceparent: 00-{TRACE}-{CALLER}-01"
    );
    let (status, answer) = request(port, "POST", "/api/v1/jobs", &headers, &body).unwrap();
    assert_eq!(status, 201, "{answer}");
    let id = serde_json::from_str::<Value>(&answer).unwrap()["id"].as_str().unwrap().to_owned();
    let found = |name: &str| {
        let all = spans(&collector);
        all.into_iter().find(|span| span["traceId"] == TRACE && span["name"] == name)
    };
    service.until("a span of the worker", || found("convert").is_some());
    let [server, wait, convert, stage] =
        ["POST /api/v1/jobs", "wait", "convert", "resolving"].map(|name| found(name).unwrap());
    assert_eq!((&server["parentSpanId"], &server["kind"]), (&json!(CALLER), &json!(2)));
    assert_eq!(wait["parentSpanId"], server["spanId"]);
    assert_eq!((&convert["parentSpanId"], &convert["kind"]), (&server["spanId"], &json!(5)));
    assert_eq!(stage["parentSpanId"], convert["spanId"]);
    assert_eq!(convert["status"]["code"], 2, "{convert:#}");
    let attributes = convert["attributes"].to_string();
    assert!(attributes.contains(&id) && attributes.contains("failed"), "{attributes}");

    let job = service.ask("GET", &format!("/api/v1/jobs/{id}"), None).1;
    assert_eq!(job["trace"], TRACE);
    let log = service.log();
    let lines: Vec<Value> =
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of_job = |line: &&Value| line["span"]["job"] == id.as_str();
    let line = lines.iter().find(of_job).unwrap_or_else(|| panic!("{log}"));
    assert_eq!(line["span"]["trace_id"], TRACE, "{line}");
    assert!(!log.contains("sesame") && log.contains("sends traces"), "{log}");

    // A trace that is not sampled by who began it is not sent. What waits is sent at the end.
    let quiet = headers.replace("-01", "-00").replace("0af7", "1af7");
    request(port, "GET", "/api/v1/jobs", &quiet, "").unwrap();
    let last = headers.replace("0af7", "2af7");
    request(port, "GET", "/api/v1/workers", &last, "").unwrap();
    assert_eq!(service.end(), 0);
    let traces: Vec<_> = spans(&collector).iter().map(|span| span["traceId"].to_string()).collect();
    assert!(traces.iter().any(|trace| trace.starts_with("\"2af7")), "{traces:?}");
    assert!(!traces.iter().any(|trace| trace.starts_with("\"1af7")), "{traces:?}");
}

#[test]
fn what_is_not_spoken_is_said_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ];
    let text = config(dir.path(), free_port(), 0);
    let service = Service::start_with(dir.path(), 0, &text, "serve", &environment);
    service.until("refused", || service.log().contains("only http/json is spoken here"));
}

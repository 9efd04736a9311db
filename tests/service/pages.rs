//! The pages: who may see them, that they do without scripts, and how they live in a browser.

use std::time::Duration;

use dock2uni::service::job::{Outcome, Published, ResultFile};
use dock2uni::service::queue::{Lease, Progress, Queue, Worker};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::browser::{Browser, ENTER, TAB};
use super::common::http::exchange;
use super::common::registry::Registry;
use super::common::vm::{can_boot, free_port};
use super::service::{Service, TOKEN, config, published};

/// A request of a browser: the head and the body of the answer.
fn ask(port: u16, method: &str, path: &str, headers: &str, body: &str) -> (String, String) {
    let length = body.len();
    let answer = exchange(
        port,
        &format!(
            "{method} {path} HTTP/1.1\r\nHost: here:1\r\nConnection: close\r\n{headers}\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n\r\n{body}"
        ),
    );
    let answer = answer.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    // The template engine escapes slashes as well.
    (head.to_ascii_lowercase(), body.replace("&#x2f;", "/"))
}

/// Signs in; returns the header that keeps the session.
fn sign_in(port: u16, token: &str) -> String {
    let form = format!("token={token}&next=/ui/");
    let (head, _) = ask(port, "POST", "/ui/login", "Origin: http://here:1\r\n", &form);
    assert!(head.starts_with("http/1.1 303") && head.contains("location: /ui/\r\n"), "{head}");
    let cookie = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    assert!(cookie.contains("httponly") && cookie.contains("samesite=lax"), "{cookie}");
    assert!(!cookie.contains(token), "{cookie}");
    format!("Cookie: {}\r\n", cookie.split(';').next().unwrap())
}

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn pages_are_for_those_who_may_and_forms_for_those_they_were_made_for() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let text = config(dir.path(), port, 0)
        + "[[token]]\nname = \"reader\"\ntenant = \"red\"\nscopes = [\"jobs:read\"]\n\
           secret = \"red-token\"\n[[token]]\nname = \"blind\"\nscopes = [\"metrics\"]\n\
           secret = \"blind-token\"\n";
    let service = Service::serve(dir.path(), port, &text);
    let id = service.submit("127.0.0.1:9/team/app:1");
    service.submit("127.0.0.1:9/other/thing_x:2");
    let page = format!("/ui/jobs/{id}");
    let get = |path: &str, headers: &str| ask(port, "GET", path, headers, "");

    let (head, _) = get("/", "");
    assert!(head.contains("location: /ui/\r\n"), "{head}");
    for path in ["/ui/", page.as_str(), &format!("{page}/events"), &format!("{page}/files/x")] {
        let (head, _) = get(path, "");
        assert!(status(&head) == 303 && head.contains("location: /ui/login?next=/ui/"), "{head}");
    }
    let form = |token: &str, headers: &str| {
        status(&ask(port, "POST", "/ui/login", headers, &format!("token={token}")).0)
    };
    assert_eq!(form("wrong", ""), 401);
    assert_eq!(form("blind-token", ""), 403);
    assert_eq!(form(TOKEN, "Sec-Fetch-Site: cross-site\r\n"), 403);
    assert_eq!(form(TOKEN, "Origin: http://evil\r\n"), 403);
    let (head, _) = ask(
        port,
        "POST",
        "/ui/login",
        "X-Forwarded-Proto: https\r\n",
        &format!("token={TOKEN}&next=//evil"),
    );
    assert!(head.contains("__host-dock2uni=") && head.contains("; secure"), "{head}");
    assert!(head.contains("location: /ui/\r\n"), "{head}");

    let cookie = sign_in(port, TOKEN);
    let (head, list) = get("/ui/", &cookie);
    for header in [
        "content-security-policy: default-src 'none'",
        "cache-control: no-store",
        "x-content-type-options: nosniff",
        "referrer-policy: same-origin",
    ] {
        assert!(head.contains(header), "{header}: {head}");
    }
    // All of it is there without scripts, and none is in the page.
    assert!(list.contains("127.0.0.1:9/team/app") && list.contains("thing_x"), "{list}");
    assert!(list.contains("No worker is there") && !list.contains("<script>"), "{list}");
    assert!(!list.contains("style=") && !list.contains("onclick"), "{list}");
    for (search, there, not_there) in [
        ("image=thing_x", "thing_x", "team/app"),
        ("image=TEAM%25&state=", "is like that", "team/app"),
        ("image=team&state=queued&tenant=default", "team/app", "thing_x"),
        ("state=failed", "is like that", "team/app"),
    ] {
        let (_, found) = get(&format!("/ui/?{search}"), &cookie);
        assert!(found.contains(there) && !found.contains(not_there), "{search}: {found}");
    }

    // What belongs to a tenant is seen by no other, and only those with the scope may change it.
    let red = sign_in(port, "red-token");
    assert_eq!(status(&get(&page, &red).0), 404);
    assert!(!get("/ui/", &red).1.contains("team/app"));

    let (_, shown) = get(&page, &cookie);
    let proof = shown.split("name=\"proof\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let act = |headers: &str, proof: &str| {
        let body = format!("proof={proof}");
        status(&ask(port, "POST", &format!("{page}/cancel"), headers, &body).0)
    };
    let state = || service.ask("GET", &format!("/api/v1/jobs/{id}"), None).1["state"].clone();
    assert_eq!(act("", proof), 303, "to the login page");
    assert_eq!(act(&cookie, "0"), 403);
    assert_eq!(act(&red, proof), 403);
    assert_eq!(act(&format!("{cookie}Sec-Fetch-Site: same-site\r\n"), proof), 403);
    assert_eq!(state(), "queued");
    assert_eq!(act(&format!("{cookie}Sec-Fetch-Site: same-origin\r\n"), proof), 303);
    assert_eq!(state(), "cancelled");
    let (_, shown) = get(&page, &cookie);
    assert!(shown.contains("Try again") && shown.contains("called off by ui:test"), "{shown}");
    let audit = std::fs::read_to_string(dir.path().join("state/audit.jsonl")).unwrap();
    assert!(audit.contains("\"action\":\"cancel\"") && audit.contains("\"outcome\":\"forged\""));
    assert!(!audit.contains(TOKEN) && !service.log().contains(TOKEN));

    let (head, style) = get("/ui/style.css", "");
    let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
    assert!(style.contains("prefers-color-scheme: dark"));
    assert_eq!(status(&get("/ui/style.css", &format!("If-None-Match: {tag}\r\n")).0), 304);
    let (head, _) = ask(port, "POST", "/ui/logout", &cookie, "");
    assert!(head.contains("max-age=0"), "{head}");
}

/// Texts whose contrast is less than WCAG 2.1 asks for (1.4.3), fields without a name, and whether the
/// page is wider than the window.
const FAULTS: &str = r#"
const faults = [];
const channel = (c) => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
const parse = (text) => text.match(/[\d.]+/g).map(Number);
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const behind = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const color = parse(getComputedStyle(e).backgroundColor);
    if (color.length < 4 || color[3] > 0) return color;
  }
  return [255, 255, 255];
};
for (const element of document.body.querySelectorAll("*")) {
  const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  const box = element.getBoundingClientRect();
  if (!own || box.width < 2 || box.height < 2 || element.closest("noscript, select, meter")) continue;
  const style = getComputedStyle(element);
  const [a, b] = [light(parse(style.color)), light(behind(element))].sort((x, y) => y - x);
  const size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 600);
  if ((a + 0.05) / (b + 0.05) < (large ? 3 : 4.5)) {
    faults.push(`contrast ${((a + 0.05) / (b + 0.05)).toFixed(2)}: ${element.textContent.trim()}`);
  }
}
for (const field of document.querySelectorAll("input:not([type=hidden]), select")) {
  if (!field.labels.length) faults.push(`no label: ${field.name}`);
}
const width = document.documentElement.scrollWidth;
if (width > innerWidth) faults.push(`${width} wide in ${innerWidth}`);
if (document.querySelectorAll("h1").length !== 1) faults.push("not one h1");
return faults;
"#;

/// Looks at a page on a desk and on a phone, by day and by night.
fn look(browser: &Browser, name: &str) {
    for (kind, width, height) in [("phone", 360, 740), ("desk", 1280, 900)] {
        for dark in [true, false] {
            browser.look_like(width, height, dark);
            let name = format!("{name}-{kind}-{}", if dark { "dark" } else { "light" });
            browser.picture(&name);
            assert_eq!(browser.run(FAULTS), json!([]), "{name}");
        }
    }
}

/// Takes a job as a worker of another process would.
fn take(queue: &Queue) -> Lease {
    let worker =
        Worker { id: "w-1".into(), host: "host".into(), slots: 2, running: 1, ..Worker::default() };
    queue.present(&worker).unwrap();
    queue.lease("w-1", Duration::from_secs(600)).unwrap().unwrap()
}

fn tell(queue: &Queue, lease: &Lease, stage: &str, done: u64, line: &str) {
    let lines = vec![stage.to_owned(), line.to_owned()];
    let progress = Progress { stage: stage.to_owned(), done, total: 4096, lines };
    queue.beat(lease, Duration::from_secs(600), &progress).unwrap();
}

#[test]
fn pages_live_in_a_browser_and_are_used_by_keyboard() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let service = Service::serve(dir.path(), port, &config(dir.path(), port, 0));
    let id = service.submit("127.0.0.1:9/team/application-with-a-long-name/server:1.27.3-alpine");
    let queue = Queue::sqlite(&dir.path().join("state/queue.db")).unwrap();
    let browser = Browser::start();

    // The field has the focus, so that the token can be typed at once.
    browser.go(&format!("http://127.0.0.1:{port}/"));
    assert!(browser.is("document.activeElement.id === 'token'"));
    look(&browser, "login");
    browser.press("wrong");
    browser.press(ENTER);
    browser.until("document.querySelector('[role=alert]').innerText.includes('not known')");
    browser.until("document.activeElement.id === 'token'");
    browser.press(TOKEN);
    browser.press(ENTER);
    browser.until("document.querySelector('h1').innerText === 'Conversions'");
    browser.until("document.querySelector('tbody .state').innerText === 'queued'");
    assert!(browser.is("document.cookie === ''"), "scripts see the session");
    // 401 is an answer that browsers complain about.
    browser.complaints();

    // What happens is seen without loading the page again.
    browser.run("window.mark = 1");
    let lease = take(&queue);
    tell(&queue, &lease, "resolving", 0, "the image is sha256:0");
    browser.until("document.querySelector('tbody .state').innerText === 'running'");
    browser.until("document.querySelector('[data-live=workers]').innerText.includes('1 of 2')");
    assert!(browser.is("window.mark === 1"));
    look(&browser, "overview");

    // To the job's page, without a mouse.
    browser.run("document.activeElement.blur(); window.getSelection().removeAllRanges()");
    let mut passed = Vec::new();
    while !browser.is(&format!("document.activeElement.pathname === '/ui/jobs/{id}'")) {
        browser.press(TAB);
        let at =
            browser.run("return document.activeElement.innerText || document.activeElement.id");
        assert!(passed.len() < 40, "{passed:?}");
        passed.push(at);
        assert!(
            browser.is("getComputedStyle(document.activeElement).outlineStyle !== 'none'"),
            "{passed:?}"
        );
    }
    assert_eq!(passed[0], "Skip to content", "{passed:?}");
    browser.press(ENTER);
    browser.until("document.querySelector('.stages .now').innerText.includes('resolving')");

    browser.run("window.mark = 2");
    tell(&queue, &lease, "fetching", 1024, "a <b>line</b>");
    browser.until("document.querySelector('#log').innerText.includes('a <b>line</b>')");
    browser.until("document.querySelector('progress').value === 25");
    look(&browser, "job-running");

    let place = dir.path().join("images/r");
    std::fs::create_dir_all(&place).unwrap();
    std::fs::write(place.join("disk.img"), "disk").unwrap();
    let file = ResultFile {
        name: "disk.img".into(),
        kind: "raw".into(),
        size: 4,
        digest: format!("sha256:{}", "0".repeat(64)),
    };
    let outcome = Outcome {
        digest: format!("sha256:{}", "a".repeat(64)),
        key: "b".repeat(64),
        files: vec![file],
        published: vec![Published {
            destination: "images".into(),
            location: "r".into(),
            digest: None,
        }],
        verdict: Some("runs-with-notes".into()),
        ..Outcome::default()
    };
    queue.complete(&lease, &outcome).unwrap().unwrap();
    browser.until("document.querySelector('.headline .state').innerText === 'done'");
    browser.until("document.querySelector('#log').innerText.trim().endsWith('done')");
    assert!(browser.is("window.mark === 2"), "the page was loaded again");
    look(&browser, "job-done");
    let fetched = browser.run(
        "return fetch(document.querySelector('a[download]').href).then((answer) => answer.text())",
    );
    assert_eq!(fetched, "disk");

    // Cancelling, by its form and the keyboard.
    let other = service.submit("127.0.0.1:9/team/other:1");
    browser.go(&format!("http://127.0.0.1:{port}/ui/jobs/{other}"));
    browser.run("document.querySelector('form[action$=cancel] button').focus()");
    browser.press(ENTER);
    service.until("cancelled", || {
        service.ask("GET", &format!("/api/v1/jobs/{other}"), None).1["state"] == "cancelled"
    });
    browser.until("document.querySelector('.headline .state').innerText === 'cancelled'");
    look(&browser, "job-cancelled");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn what_failed_is_tried_again_by_a_button_and_its_report_is_read() {
    if !can_boot() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    let layout = test_images::build("busybox").unwrap();
    let image = registry.push(&layout, "latest", "team/app:1");
    let port = free_port();
    let text = config(dir.path(), port, 1)
        + "[[token]]\nname = \"reader\"\nscopes = [\"jobs:read\"]\nsecret = \"reader-token\"\n";
    // The registry is on this machine, and at first nobody has said that it may be asked.
    let shut = text.replace("allow = [\"127.0.0.0/8\"]\n", "");
    let service = Service::serve(dir.path(), port, &shut);
    let options = json!({ "formats": ["qcow2"], "report": true });
    let body = json!({ "image": image, "destinations": ["images"], "options": options });
    let (created, answer) = service.ask("POST", "/api/v1/jobs", Some(&body));
    assert_eq!(created, 201, "{answer}");
    let id = answer["id"].as_str().unwrap();
    assert_eq!(service.over(id)["state"], "failed");

    let browser = Browser::start();
    browser.go(&format!("http://127.0.0.1:{port}/ui/jobs/{id}"));
    browser.press(TOKEN);
    browser.press(ENTER);
    browser.until("document.querySelector('.headline .state').innerText === 'failed'");
    // A form for a token has no field for a name.
    browser.complaints();
    assert!(browser.is("document.querySelector('.notice.bad').innerText.includes('internal')"));
    assert!(
        browser.is("document.querySelector('.stages .broken').innerText.includes('resolving')")
    );
    look(&browser, "job-failed");

    // The operator mends the configuration, and tries again.
    std::fs::write(dir.path().join("service.toml"), &text).unwrap();
    service.signal(Signal::HUP);
    service.until("read again", || {
        service.metric("dock2uni_config_reloads_total{outcome=\"done\"}") >= 1.0
    });
    browser.run("document.querySelector('form[action$=retry] button').focus()");
    browser.press(ENTER);
    browser.until("document.querySelector('.headline .state').innerText === 'done'");
    assert!(!browser.is("document.querySelector('form[action$=retry], .notice.bad')"));
    assert!(browser.is("document.querySelector('#log').innerText.includes('ui:test')"));

    // The report is what was published.
    let results = published(&dir.path().join("images"));
    let file = std::fs::read_to_string(results[0].join("report.json")).unwrap();
    let report: Value = serde_json::from_str(&file).unwrap();
    browser.run("document.querySelector('a[href$=\"/report\"]').focus()");
    browser.press(ENTER);
    browser.until("document.querySelector('h1').innerText === 'Report'");
    let shown = browser.run("return document.querySelector('main').innerText");
    let shown = shown.as_str().unwrap();
    let verdict = report["verdict"].as_str().unwrap();
    assert_eq!(service.over(id)["result"]["verdict"], verdict);
    assert!(browser.is(&format!("document.querySelector('.headline .verdict.{verdict}')")));
    let list = |pointer: &str| report.pointer(pointer).unwrap().as_array().unwrap().clone();
    let texts = list("/findings").into_iter().map(|finding| finding["text"].clone());
    let paths = list("/programs").into_iter().map(|program| program["path"].clone());
    let words = texts.chain(paths).chain(list("/runs/argv"));
    for word in words {
        assert!(shown.contains(word.as_str().unwrap()), "{word}: {shown}");
    }
    let calls = list("/syscalls/reachable").len();
    assert!(calls > 0 && shown.contains(&format!("{calls} can be made")), "{shown}");
    look(&browser, "report");
    let fetched = browser.run(
        "return fetch(document.querySelector('a[download]').href).then((answer) => answer.text())",
    );
    assert_eq!(fetched, file);
    assert_eq!(browser.complaints(), Vec::<String>::new());

    // Reading jobs is not reading results.
    let reader = sign_in(port, "reader-token");
    let (head, page) = ask(port, "GET", &format!("/ui/jobs/{id}"), &reader, "");
    assert!(status(&head) == 200 && !page.contains("/report\""), "{page}");
    let (head, page) = ask(port, "GET", &format!("/ui/jobs/{id}/report"), &reader, "");
    assert!(status(&head) == 403 && page.contains("results:read"), "{page}");
}

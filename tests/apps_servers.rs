//! Caches, web servers and proxies in the shape of their official images, unmodified.
//!
//! Each is converted from a registry, booted, loaded by its own kind of client, and stopped by the
//! power button. Two processors get the whole check, one and four a shorter one.

mod common;

use std::io::Read;
use std::process::Command;
use std::time::Duration;

use common::apps::{App, Lines, ab, assert_well, client, number_after};
use common::http::{get, try_get};
use common::lab::{Lab, PATIENCE};
use common::vm::can_boot;
use rustix::process::Signal;

fn redis_cli(port: u16) -> Command {
    let mut command = Command::new("redis-cli");
    // Errors fail it, and answers are printed raw.
    command.args(["-e", "-h", "127.0.0.1", "-p", &port.to_string()]);
    command
}

fn redis(port: u16, words: &[&str]) -> String {
    client(redis_cli(port).args(words), "").trim().to_owned()
}

/// Waits until no background save runs; the last one must have succeeded.
fn redis_saved(port: u16) {
    let info = loop {
        let info = redis(port, &["INFO", "persistence"]);
        if info.contains("rdb_bgsave_in_progress:0") && info.contains("aof_rewrite_in_progress:0") {
            break info;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    assert!(info.contains("rdb_last_bgsave_status:ok"), "{info}");
    assert!(info.contains("aof_last_bgrewrite_status:ok"), "{info}");
}

#[test]
fn redis_answers_saves_in_the_background_and_keeps_everything() {
    if !can_boot() {
        return;
    }
    let lab = Lab::new("redis");
    for cpus in [2, 1, 4] {
        let command = ["redis-server", "--protected-mode", "no", "--enable-debug-command", "yes"];
        let mut app = App::start(&lab, 6379, cpus, &[], &command);
        app.vm.wait_for("Ready to accept connections", PATIENCE);
        let port = app.port;
        assert_eq!(redis(port, &["PING"]), "PONG");
        // 8 MiB, so that the fork for a save has something to share.
        let fill = "for i = 1, 2000 do redis.call('SET', 'key:' .. i, string.rep('x', 4096)) end";
        redis(port, &["EVAL", fill, "0"]);
        let requests = if cpus == 2 { "4000" } else { "500" };
        let benchmark = |extra: &[&str]| {
            let mut command = Command::new("redis-benchmark");
            command.args([
                "-p",
                &port.to_string(),
                "-c",
                "2",
                "-n",
                requests,
                "-t",
                "set,get,incr",
            ]);
            let report = client(command.args(["-d", "64", "-r", "1000", "-q"]).args(extra), "");
            assert_eq!(report.matches("requests per second").count(), 3, "{report}");
        };
        benchmark(&["-P", "16"]);

        // A snapshot is of its moment, whatever is written while it is being saved.
        redis(port, &["SET", "when", "before"]);
        redis(port, &["BGSAVE"]);
        redis(port, &["SET", "when", "after"]);
        benchmark(&[]);
        redis_saved(port);
        assert_eq!(redis(port, &["GET", "when"]), "after");
        assert_eq!(redis(port, &["DEBUG", "RELOAD", "NOSAVE"]), "OK");
        assert_eq!(redis(port, &["GET", "when"]), "before");
        assert_eq!(redis(port, &["STRLEN", "key:2000"]), "4096");

        if cpus == 2 {
            // The log of commands is rewritten by another child, which gets what comes in meanwhile.
            redis(port, &["CONFIG", "SET", "appendonly", "yes"]);
            benchmark(&["-P", "4"]);
            redis_saved(port);
            redis(port, &["SET", "last", "word"]);
            redis(port, &["BGREWRITEAOF"]);
            redis_saved(port);
            assert_eq!(redis(port, &["DEBUG", "LOADAOF"]), "OK");
            assert_eq!(redis(port, &["GET", "last"]), "word");
        }
        let text = app.stop(0);
        assert!(text.contains("DB saved on disk") && text.contains("bye bye"), "{text}");
    }
}

#[test]
fn memcached_keeps_what_several_clients_store() {
    if !can_boot() {
        return;
    }
    let lab = Lab::new("memcached");
    for cpus in [2, 1, 4] {
        let mut app = App::start(&lab, 11211, cpus, &[], &["--", "-v"]);
        let port = app.port;
        // The port is forwarded before anybody listens.
        let ready = || {
            let mut lines = Lines::connect(port)?;
            lines.send("version\r\n")?;
            lines.line()
        };
        while !ready().is_ok_and(|line| line.starts_with("VERSION ")) {
            assert!(app.vm.is_running(), "{}", app.vm.text());
        }
        let rounds = if cpus == 2 { 500 } else { 100 };
        let clients: Vec<_> = (0..2)
            .map(|client| {
                std::thread::spawn(move || {
                    let mut lines = Lines::connect(port).unwrap();
                    for i in 0..rounds {
                        let value = format!("{client}:{i}:").repeat(100);
                        let length = value.len();
                        let set = format!("set key-{client}-{i} 7 0 {length}\r\n{value}\r\n");
                        lines.send(&set).unwrap();
                        assert_eq!(lines.line().unwrap(), "STORED");
                        lines.send(&format!("get key-{client}-{i}\r\n")).unwrap();
                        let head = format!("VALUE key-{client}-{i} 7 {length}");
                        assert_eq!(lines.line().unwrap(), head);
                        assert_eq!(lines.line().unwrap(), value);
                        assert_eq!(lines.line().unwrap(), "END");
                    }
                })
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
        let mut lines = Lines::connect(port).unwrap();
        lines.send("stats\r\nquit\r\n").unwrap();
        let stats = String::from_utf8(lines.rest()).unwrap();
        assert_eq!(number_after(&stats, "STAT curr_items"), 2 * rounds, "{stats}");
        assert_eq!(number_after(&stats, "STAT get_hits"), 2 * rounds, "{stats}");
        assert_eq!(number_after(&stats, "STAT threads"), 4, "{stats}");
        app.stop(0);
    }
}

/// Stops a server while it sends a large file to a client that is slow to read: a graceful stop
/// lets it finish.
fn stop_during_a_download(app: App, path: &str, size: usize) -> String {
    let mut download = Lines::connect(app.port).unwrap();
    download.send(&format!("GET {path} HTTP/1.0\r\n\r\n")).unwrap();
    while !download.line().unwrap().is_empty() {}
    app.vm.signal(Signal::TERM);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(download.rest().len(), size);
    let mut app = app;
    let code = app.vm.wait(PATIENCE);
    let text = app.vm.text();
    assert_eq!(code, 0, "{text}");
    assert_well(&text);
    text
}

#[test]
fn httpd_serves_by_threads_and_by_processes_and_finishes_downloads() {
    const SIZE: usize = 8 << 20;
    if !can_boot() {
        return;
    }
    let lab = Lab::new("httpd");
    for (cpus, mpm) in [(2, "event"), (2, "prefork"), (1, "event"), (4, "prefork")] {
        let script =
            format!("head -c {SIZE} /dev/zero >htdocs/big && exec httpd-foreground -D {mpm}");
        let command = ["--", "-c", &script];
        let mut app = App::start(&lab, 80, cpus, &["--entrypoint", "sh"], &command);
        let answer = get(app.port, "/");
        assert!(answer.contains("It works!"), "{answer}");
        ab(app.port, "/", if cpus == 2 { 500 } else { 100 }, &["-k"]);
        ab(app.port, "/", 50, &[]);
        let status = try_get(app.port, "/server-status?auto").unwrap();
        assert!(status.contains(&format!("ServerMPM: {mpm}")), "{status}");
        app.vm.wait_for("\"GET /server-status?auto HTTP/1.1\" 200", PATIENCE);
        let text = stop_during_a_download(app, "/big", SIZE);
        assert!(text.contains("caught SIGWINCH, shutting down gracefully"), "{text}");
    }
}

#[test]
fn haproxy_balances_checks_and_stops_softly() {
    if !can_boot() {
        return;
    }
    let lab = Lab::new("haproxy");
    for cpus in [2, 1, 4] {
        let mut app = App::start(&lab, 8080, cpus, &[], &[]);
        get(app.port, "/");
        let mut served = [0, 0];
        for _ in 0..20 {
            let answer = try_get(app.port, "/").unwrap();
            served[0] += usize::from(answer.contains("served by one"));
            served[1] += usize::from(answer.contains("served by two"));
        }
        assert_eq!(served, [10, 10], "{}", app.printed());
        ab(app.port, "/", if cpus == 2 { 400 } else { 50 }, &["-k"]);
        let text = app.stop(0);
        assert!(text.contains("Proxy web stopped"), "{text}");
        assert!(text.contains("exited with code 0"), "{text}");
    }
}

/// Posts a body to a PHP page and returns the page's answer.
fn post(port: u16, path: &str, body: &[u8]) -> serde_json::Value {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "POST {path} HTTP/1.0\r\nHost: x\r\nContent-Type: application/octet-stream\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    std::io::Write::write_all(&mut stream, &[head.as_bytes(), body].concat()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    assert!(head.contains(" 200 "), "{head}");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

/// A page that counts its visitors in a file under a lock, computes, and takes large bodies.
fn check_php(app: &App, sapi: &str, requests: u32) {
    let first = get(app.port, "/?q=a");
    assert!(first.contains(&format!("\"sapi\":\"{sapi}\"")), "{first}");
    let before = number_after(&first, "\"count\":") as u32;
    ab(app.port, "/?q=a", requests, &["-k"]);
    let answer = post(app.port, "/?q=b", &vec![b'x'; 300_000]);
    assert_eq!(answer["body"], 300_000, "{answer}");
    assert_eq!(answer["user"], "www-data", "{answer}");
    assert_eq!(answer["opcache"], true, "{answer}");
    // None was lost to a race.
    assert_eq!(answer["count"], before + requests + 1, "{answer}");
    let hash = "f6f118e120e52be0bd0cfdf2794cd12c07686cc871235ac2f11459378e6d235b";
    assert_eq!(answer["hash"], hash, "{answer}");
}

#[test]
fn php_fpm_and_nginx_serve_from_one_image_and_stop_together() {
    if !can_boot() {
        return;
    }
    let lab = Lab::new("php-nginx");
    for cpus in [2, 1, 4] {
        let app = App::start(&lab, 80, cpus, &[], &[]);
        check_php(&app, "fpm-fcgi", if cpus == 2 { 200 } else { 40 });
        let text = app.stop(0);
        assert!(text.contains("exiting, bye-bye!"), "{text}");
        assert!(text.contains("nginx and php-fpm have ended"), "{text}");
    }
}

#[test]
fn php_serves_inside_apache() {
    if !can_boot() {
        return;
    }
    let lab = Lab::new("php-apache");
    for cpus in [2, 1, 4] {
        let app = App::start(&lab, 80, cpus, &[], &[]);
        check_php(&app, "apache2handler", if cpus == 2 { 200 } else { 40 });
        let text = app.stop(0);
        assert!(text.contains("caught SIGWINCH, shutting down gracefully"), "{text}");
    }
}

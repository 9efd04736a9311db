//! Against Docker's documented behaviour.

use std::collections::HashMap;
use std::io;

use dock2uni_format::record::{Healthcheck, Port, Proto};

use super::*;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
                      # a comment\n\
                      nginx:x:101:102:nginx user:/nonexistent:/bin/false\n\
                      homeless:x:7:8::\n";
const GROUP: &str = "root:x:0:\ntty:x:5:nginx,root\nnginx:x:102:\nweb:x:33:www,nginx\n";

struct Fake(HashMap<Vec<u8>, (u32, Vec<u8>)>);

impl Fake {
    fn new() -> Fake {
        let mut fake = Fake(HashMap::new());
        fake.put("/etc/passwd", 0o100_644, PASSWD.as_bytes());
        fake.put("/etc/group", 0o100_644, GROUP.as_bytes());
        fake.put("/bin/sh", 0o100_755, &elf(62, 2, Some("/lib64/ld.so")));
        fake.put("/lib64/ld.so", 0o100_755, &elf(62, 2, None));
        fake.put("/usr/sbin/nginx", 0o100_755, &elf(62, 2, None));
        fake.put("/docker-entrypoint.sh", 0o100_755, b"#!/bin/sh\nexec \"$@\"\n");
        fake.put("/srv", 0o040_755, b"");
        fake
    }

    fn put(&mut self, path: &str, mode: u32, bytes: &[u8]) {
        self.0.insert(path.as_bytes().to_vec(), (mode, bytes.to_vec()));
    }
}

impl Files for Fake {
    fn stat(&self, path: &[u8]) -> io::Result<Option<Stat>> {
        Ok(self.0.get(path).map(|(mode, data)| Stat { mode: *mode, size: data.len() as u64 }))
    }

    fn read(&self, path: &[u8], offset: u64, len: usize) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.get(path).map(|(_, data)| {
            let start = data.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
            data[start..data.len().min(start.saturating_add(len))].to_vec()
        }))
    }
}

/// An ELF file of headers alone.
fn elf(machine: u16, class: u8, interpreter: Option<&str>) -> Vec<u8> {
    let mut out = vec![0; 64];
    out[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, 1, 1]);
    out[16] = 3;
    out[18..20].copy_from_slice(&machine.to_le_bytes());
    out[20] = 1;
    out[32] = 64;
    out[54] = 56;
    if let Some(path) = interpreter {
        out[56] = 1;
        let mut header = [0; 56];
        header[0] = 3;
        header[8] = 120;
        header[32] = path.len() as u8 + 1;
        out.extend_from_slice(&header);
        out.extend_from_slice(path.as_bytes());
        out.push(0);
    }
    out
}

fn nginx() -> &'static str {
    r#"{"architecture":"amd64","os":"linux","config":{
        "ExposedPorts":{"80/tcp":{}}, "Env":["PATH=/usr/sbin:/bin","NGINX_VERSION=1.27"],
        "Entrypoint":["/docker-entrypoint.sh"], "Cmd":["nginx","-g","daemon off;"],
        "Labels":{"b":"2","a":"1"}, "StopSignal":"SIGQUIT", "Volumes":null, "User":"",
        "WorkingDir":"", "OnBuild":null}}"#
}

fn with(json: &str, overrides: &Overrides) -> Result<Record, Error> {
    plan(json.as_bytes(), "0123456789abcdef", overrides, &Fake::new())
}

fn config(fields: &str) -> Result<Record, Error> {
    with(&format!(r#"{{"config":{{"Cmd":["/bin/sh"],{fields}}}}}"#), &Overrides::default())
}

fn texts(list: &[Vec<u8>]) -> Vec<&str> {
    list.iter().map(|text| std::str::from_utf8(text).unwrap()).collect()
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn the_nginx_image_runs_as_docker_runs_it() {
    let record = with(nginx(), &Overrides::default()).unwrap();
    assert_eq!(texts(&record.argv), ["/docker-entrypoint.sh", "nginx", "-g", "daemon off;"]);
    assert_eq!(
        texts(&record.env),
        ["PATH=/usr/sbin:/bin", "HOSTNAME=0123456789ab", "NGINX_VERSION=1.27", "HOME=/root"]
    );
    assert_eq!(record.cwd, b"/");
    assert_eq!(record.stop_signal, 3);
    assert_eq!(record.stop_grace_secs, 10);
    assert_eq!(record.ports, [Port { port: 80, proto: Proto::Tcp }]);
    assert_eq!(record.hostname, "0123456789ab");
    assert_eq!(record.labels, [("a".into(), "1".into()), ("b".into(), "2".into())]);
    assert_eq!((record.user.uid, record.user.gid), (0, 0));
    assert_eq!(record.user.groups, [0, 5]);
    assert_eq!(record.healthcheck, None);
}

#[test]
fn arguments_replace_cmd_and_an_entrypoint_drops_it() {
    let run = |entrypoint: Option<&str>, command: &[&str]| {
        let overrides = Overrides {
            entrypoint: entrypoint.map(str::to_owned),
            command: strings(command),
            ..Overrides::default()
        };
        with(nginx(), &overrides).map(|record| texts(&record.argv).join(" "))
    };
    assert_eq!(run(None, &["nginx", "-T"]).unwrap(), "/docker-entrypoint.sh nginx -T");
    assert_eq!(run(Some("/bin/sh"), &[]).unwrap(), "/bin/sh");
    assert_eq!(run(Some("/bin/sh"), &["-c", "ls"]).unwrap(), "/bin/sh -c ls");
    assert_eq!(run(Some(""), &["/bin/sh"]).unwrap(), "/bin/sh");
    assert!(matches!(run(Some(""), &[]), Err(Error::NoCommand)));
}

#[test]
fn later_variables_win_in_the_place_of_the_first() {
    let overrides = Overrides {
        env: strings(&["NGINX_VERSION=2", "A=1", "A=2", "HOSTNAME", "HOME=/home/x"]),
        tty: true,
        ..Overrides::default()
    };
    let record = with(nginx(), &overrides).unwrap();
    assert_eq!(
        texts(&record.env),
        ["PATH=/usr/sbin:/bin", "TERM=xterm", "NGINX_VERSION=2", "A=2", "HOME=/home/x"]
    );
}

#[test]
fn without_a_path_the_default_is_searched() {
    let record = with(r#"{"config":{"Cmd":["nginx"]}}"#, &Overrides::default()).unwrap();
    assert_eq!(texts(&record.env)[0], format!("PATH={}", env::DEFAULT_PATH));
}

#[test]
fn env_files_are_read_literally() {
    let text = b"\xef\xbb\xbfA=1\n# comment\n\n  B = x \nC=\"quoted\"\nD2U_SURELY_UNSET\nE=a=b\r\n";
    assert!(matches!(parse_env_file("f", text), Err(Error::EnvFile { line: 4, .. })));
    let text = b"A=1\n# comment\n\n  B= x \nC=\"quoted\"\nD2U_SURELY_UNSET\nE=a=b\r\n";
    assert_eq!(parse_env_file("f", text).unwrap(), ["A=1", "B= x ", "C=\"quoted\"", "E=a=b"]);
    assert!(matches!(parse_env_file("f", b"\n=x"), Err(Error::EnvFile { line: 2, .. })));
    assert!(env_from_option("=x").is_err());
    assert_eq!(env_from_option("D2U_SURELY_UNSET").unwrap(), "D2U_SURELY_UNSET");
}

#[test]
fn users_resolve_by_the_images_own_files() {
    let user = |spec: &str| user::resolve(spec, &Fake::new());
    let ids = |spec: &str| {
        let found = user(spec).unwrap();
        (found.ids.uid, found.ids.gid, found.ids.groups, found.home)
    };
    assert_eq!(ids(""), (0, 0, vec![0, 5], "/root".into()));
    assert_eq!(ids("nginx"), (101, 102, vec![102, 5, 33], "/nonexistent".into()));
    assert_eq!(ids("101"), (101, 102, vec![102, 5, 33], "/nonexistent".into()));
    assert_eq!(ids("nginx:web"), (101, 33, vec![33], "/nonexistent".into()));
    assert_eq!(ids("nginx:999"), (101, 999, vec![999], "/nonexistent".into()));
    assert_eq!(ids("1234"), (1234, 0, vec![0], "/".into()));
    assert_eq!(ids("1234:1234"), (1234, 1234, vec![1234], "/".into()));
    assert_eq!(ids("homeless"), (7, 8, vec![8], "/".into()));
    assert!(matches!(user("ghost"), Err(Error::UnknownUser(_))));
    assert!(matches!(user("4294967296"), Err(Error::UnknownUser(_))));
    assert!(matches!(user("nginx:ghosts"), Err(Error::UnknownGroup(_))));
    // A scratch image has no files at all.
    let bare = user::resolve("1000:1000", &Fake(HashMap::new())).unwrap();
    assert_eq!((bare.ids.uid, bare.ids.gid, bare.home.as_str()), (1000, 1000, "/"));
    assert_eq!(user::resolve("", &Fake(HashMap::new())).unwrap().ids.uid, 0);
}

#[test]
fn stop_signals_are_names_or_numbers() {
    for (text, number) in [
        ("SIGQUIT", 3),
        ("quit", 3),
        ("9", 9),
        ("SIGRTMIN+3", 37),
        ("RTMIN", 34),
        ("SIGRTMAX-1", 63),
        ("64", 64),
    ] {
        assert_eq!(signal::parse(Some(text)).unwrap(), number, "{text}");
    }
    assert_eq!(signal::parse(None).unwrap(), 15);
    for text in ["0", "65", "SIGFOO", "RTMIN+31", "RTMAX-31", "RTMIN-1", "-3"] {
        assert!(signal::parse(Some(text)).is_err(), "{text}");
    }
    assert_eq!(signal::name(37), "SIGRTMIN+3");
}

#[test]
fn health_checks_are_expanded() {
    let check = |json: &str| config(&format!(r#""Healthcheck":{json}"#)).map(|r| r.healthcheck);
    assert_eq!(check(r#"{"Test":["NONE"]}"#).unwrap(), None);
    assert_eq!(check(r#"{"Test":[]}"#).unwrap(), None);
    assert_eq!(check("null").unwrap(), None);
    assert_eq!(
        check(r#"{"Test":["CMD","curl","localhost"],"Interval":5000000000,"Retries":1}"#).unwrap(),
        Some(Healthcheck {
            argv: vec![b"curl".to_vec(), b"localhost".to_vec()],
            interval_ns: 5_000_000_000,
            timeout_ns: 30_000_000_000,
            start_period_ns: 0,
            start_interval_ns: 5_000_000_000,
            retries: 1,
        })
    );
    let shell = r#""Shell":["/bin/bash","-ec"],"Healthcheck":{"Test":["CMD-SHELL","exit 0"]}"#;
    let argv = config(shell).unwrap().healthcheck.unwrap().argv;
    assert_eq!(texts(&argv), ["/bin/bash", "-ec", "exit 0"]);
    for bad in
        [r#"{"Test":["CMD"]}"#, r#"{"Test":["RUN","x"]}"#, r#"{"Test":["CMD","x"],"Interval":-1}"#]
    {
        assert!(matches!(check(bad), Err(Error::Healthcheck(_))), "{bad}");
    }
}

#[test]
fn exposed_ports_expand_and_bad_ones_are_named() {
    let record =
        config(r#""ExposedPorts":{"8000-8002":{},"53/udp":{},"8001/tcp":{},"9/SCTP":{}}"#).unwrap();
    let list: Vec<_> = record.ports.iter().map(|p| (p.port, p.proto)).collect();
    let tcp = Proto::Tcp;
    assert_eq!(list, [(9, Proto::Sctp), (53, Proto::Udp), (8000, tcp), (8001, tcp), (8002, tcp)]);
    for bad in ["http", "0/tcp", "90-80", "80/icmp", "99999"] {
        let error = config(&format!(r#""ExposedPorts":{{"{bad}":{{}}}}"#)).unwrap_err();
        assert!(error.to_string().contains(bad), "{error}");
    }
}

#[test]
fn publish_takes_dockers_syntax() {
    let parse = |text: &str| -> Vec<String> {
        let show = |p: Publish| {
            let host = p.host.map_or("any".into(), |port| port.to_string());
            format!("{} {host} {} {:?}", p.ip, p.guest.port, p.guest.proto)
        };
        Publish::parse(text).unwrap().into_iter().map(show).collect()
    };
    assert_eq!(parse("80"), ["0.0.0.0 any 80 Tcp"]);
    assert_eq!(parse("8080:80"), ["0.0.0.0 8080 80 Tcp"]);
    assert_eq!(parse("127.0.0.1:8080:80/udp"), ["127.0.0.1 8080 80 Udp"]);
    assert_eq!(parse("127.0.0.1::80"), ["127.0.0.1 any 80 Tcp"]);
    assert_eq!(parse("[::1]:8080:80"), ["::1 8080 80 Tcp"]);
    assert_eq!(parse("8000-8001:90-91"), ["0.0.0.0 8000 90 Tcp", "0.0.0.0 8001 91 Tcp"]);
    assert_eq!(Publish::parse("1-3:1-2"), Err(PublishError::Ranges("1-3".into(), "1-2".into())));
    assert_eq!(Publish::parse("80/sctp"), Err(PublishError::Proto("sctp".into())));
    assert_eq!(Publish::parse("x:80"), Err(PublishError::Port("x".into())));
    assert_eq!(Publish::parse("1.2.3:80:80"), Err(PublishError::Address("1.2.3".into())));
    assert_eq!(Publish::parse("0"), Err(PublishError::Port("0".into())));
}

#[test]
fn volumes_and_working_directories_are_cleaned() {
    let record = config(r#""Volumes":{"/var/lib/x/":{},"/a/../b":{}},"WorkingDir":"app/./x/""#);
    let record = record.unwrap();
    assert_eq!(texts(&record.volumes), ["/b", "/var/lib/x"]);
    assert_eq!(record.cwd, b"/app/x");
    assert!(matches!(config(r#""Volumes":{"data":{}}"#), Err(Error::Volume(_))));
    assert!(matches!(config(r#""WorkingDir":"/bin/sh""#), Err(Error::WorkdirNotADirectory(_))));
    let relative = Overrides { workdir: Some("x".into()), ..Overrides::default() };
    assert!(matches!(with(nginx(), &relative), Err(Error::RelativeWorkdir(_))));
}

#[test]
fn programs_that_cannot_run_are_refused_before_any_boot() {
    let run = |files: &Fake, command: &[&str]| {
        let overrides = Overrides { command: strings(command), ..Overrides::default() };
        plan(br#"{"config":{"Env":["PATH=/usr/sbin:/bin"]}}"#, "0", &overrides, files)
            .map_err(|error| error.to_string())
    };
    let mut files = Fake::new();
    files.put("/srv/plain", 0o100_644, b"");
    files.put("/srv/text", 0o100_755, b"hello");
    files.put("/srv/arm", 0o100_755, &elf(183, 2, None));
    files.put("/srv/i386", 0o100_755, &elf(3, 1, None));
    files.put("/srv/musl", 0o100_755, &elf(62, 2, Some("/lib/ld-musl-x86_64.so.1")));
    files.put("/srv/script", 0o100_755, b"#! /usr/bin/python3 -u\n");
    files.put("/srv/loop", 0o100_755, b"#!/srv/loop\n");
    files.put("/srv/cut", 0o100_755, &elf(62, 2, Some("/lib64/ld.so"))[..70]);
    for (program, needle) in [
        ("/srv/none", "`/srv/none` is not in the image"),
        ("/srv", "`/srv` is a directory"),
        ("/srv/plain", "`/srv/plain` is not executable"),
        ("none", "`none` is in no directory of PATH (/usr/sbin:/bin)"),
        ("/srv/text", "`/srv/text` is neither an ELF program nor a script"),
        ("/srv/arm", "`/srv/arm` is a program for another machine"),
        ("/srv/i386", "32 bit"),
        ("/srv/musl", "`/lib/ld-musl-x86_64.so.1`, which is not in the image"),
        ("/srv/script", "`/usr/bin/python3`, which is not in the image"),
        ("/srv/loop", "too long a chain"),
        ("/srv/cut", "damaged"),
    ] {
        let error = run(&files, &[program]).unwrap_err();
        assert!(error.contains(needle), "{program}: {error}");
    }
    assert!(run(&files, &["sh", "-c", "true"]).is_ok());
    assert!(run(&files, &["bin/sh"]).is_ok());
}

#[test]
fn host_names_are_checked() {
    for (name, good) in [("web-1.example", true), ("", false), ("a b", false), ("-x", false)] {
        let overrides = Overrides { hostname: Some(name.into()), ..Overrides::default() };
        assert_eq!(with(nginx(), &overrides).is_ok(), good, "{name}");
    }
}

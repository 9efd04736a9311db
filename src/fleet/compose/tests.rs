use std::fs;
use std::path::PathBuf;

use super::*;
use crate::fleet::{
    Condition, Health, Image, MountKind, Restart, Severity, Test, Value as EnvValue, Workload,
};

/// Files in a directory of their own.
struct Files(tempfile::TempDir);

impl Files {
    fn new(files: &[(&str, &str)]) -> Files {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Files(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, names: &[&str], options: &Options) -> Result<Vec<Workload>, Error> {
        let files: Vec<PathBuf> = names.iter().map(|name| self.path(name)).collect();
        read(&files, options)
    }
}

fn text(workload: &Workload, name: &str) -> Option<String> {
    let found = workload.env.iter().find(|variable| variable.name == name)?;
    match &found.value {
        EnvValue::Text(text) => Some(text.clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_project_of_every_kind_of_key() {
    let files = Files::new(&[
        (".env", "TAG=16\nPASSWORD=from-env\n"),
        ("db.env", "POSTGRES_USER=app\nPOSTGRES_PASSWORD=${PASSWORD}\n"),
        (
            "compose.yaml",
            r#"
name: shop
x-common: &common
  restart: unless-stopped
  environment: &env
    LANG: C.UTF-8
services:
  db:
    <<: *common
    image: postgres:${TAG:-15}
    env_file: db.env
    environment:
      <<: *env
      PGDATA: /data
      FSYNC: off
    volumes:
      - data:/data
      - type: tmpfs
        target: /scratch
    healthcheck:
      test: ["CMD-SHELL", "pg_isready -U app"]
      start_period: 1m
      start_interval: 250ms
      interval: 1m30s
      retries: 5
    deploy:
      replicas: 2
      resources: {limits: {cpus: "1.5", memory: 512M}}
  web:
    build: {context: ./web, target: prod, args: [VERSION=3]}
    command: gunicorn --bind "0.0.0.0:8000" app:app
    entrypoint: ["/entry.sh", "--quiet"]
    ports: ["127.0.0.1:8080:8000", "9000", {target: 53, published: 53, protocol: udp}]
    expose: [8000, "7000"]
    depends_on:
      db: {condition: service_healthy}
      cache: {condition: service_started, required: false}
    volumes: ["./conf:/etc/app:ro", "/cache"]
    secrets: [token]
    stop_signal: SIGINT
    stop_grace_period: 20s
    ulimits: {nproc: 65535, nofile: {soft: 20000, hard: 40000}, memlock: -1}
    sysctls:
      - net.ipv4.ip_local_port_range=1024 65000
      - kernel.shm_rmid_forced=1
    user: "1000:1000"
    working_dir: /srv
    healthcheck: {timeout: 2s}
  cache:
    image: redis
    profiles: [fast]
  agent:
    image: agent
    profiles: ["*never*"]
volumes:
  data: {}
secrets:
  token: {file: ./token}
"#,
        ),
    ]);
    let all = files.read(&["compose.yaml"], &Options::default()).unwrap();
    assert_eq!(all.iter().map(|w| w.name.as_str()).collect::<Vec<_>>(), ["db", "web"]);
    let (db, web) = (&all[0], &all[1]);
    assert_eq!(db.image, Image::Reference("postgres:16".into()));
    assert_eq!(text(db, "POSTGRES_PASSWORD").as_deref(), Some("from-env"));
    assert_eq!(text(db, "PGDATA").as_deref(), Some("/data"));
    assert_eq!(text(db, "LANG").as_deref(), Some("C.UTF-8"));
    assert_eq!(text(db, "FSYNC").as_deref(), Some("off"));
    assert_eq!((db.replicas, db.restart), (2, Restart::Always));
    assert_eq!((db.resources.milli_cpus, db.resources.memory), (Some(1500), Some(512 << 20)));
    let kinds: Vec<_> = db.mounts.iter().map(|m| (m.kind, m.target.as_str())).collect();
    assert_eq!(kinds, [(MountKind::Volume, "/data"), (MountKind::Scratch, "/scratch")]);
    let Some(Health::Command { test, interval_ms: Some(90_000), retries: Some(5), .. }) =
        &db.health
    else {
        panic!("{:?}", db.health)
    };
    assert_eq!(*test, Test::Shell("pg_isready -U app".into()));
    let check = db.overrides().health;
    assert_eq!(check.start_period_ns, Some(60_000_000_000));
    assert_eq!(check.start_interval_ns, Some(250_000_000));
    assert_eq!((check.command.as_deref(), check.argv), (Some("pg_isready -U app"), None));
    assert_eq!(
        web.ulimits,
        ["memlock=unlimited:unlimited", "nofile=20000:40000", "nproc=65535:65535"]
    );
    assert_eq!(web.sysctls, ["net.ipv4.ip_local_port_range=1024 65000"]);
    assert!(web.notes.iter().any(|note| note.text.contains("`kernel.shm_rmid_forced`")));
    assert_eq!((web.overrides().limits.len(), web.overrides().settings.len()), (3, 1));
    // Times without a command are for the image's.
    let check = web.overrides().health;
    assert_eq!((check.command, check.argv, check.timeout_ns), (None, None, Some(2_000_000_000)));

    let Image::Build(build) = &web.image else { panic!("{:?}", web.image) };
    assert_eq!(build.context, files.path("./web"));
    assert_eq!(build.target.as_deref(), Some("prod"));
    assert_eq!(build.args[..], ["VERSION=3"]);
    assert_eq!(web.command.as_deref().unwrap(), ["gunicorn", "--bind", "0.0.0.0:8000", "app:app"]);
    let overrides = web.overrides();
    assert_eq!(overrides.entrypoint.as_deref(), Some("/entry.sh"));
    assert_eq!(overrides.command[..2], ["--quiet", "gunicorn"]);
    assert_eq!((overrides.stop_timeout, overrides.user.as_deref()), (Some(20), Some("1000:1000")));
    let ports: Vec<_> = web.ports.iter().map(|p| (p.host, p.guest, p.published)).collect();
    assert_eq!(
        ports,
        [(Some(8080), 8000, true), (None, 9000, true), (Some(53), 53, true), (None, 7000, false)]
    );
    let needs: Vec<_> = web.depends_on.iter().map(|d| (d.name.as_str(), d.condition)).collect();
    assert_eq!(needs, [("cache", Condition::Started), ("db", Condition::Healthy)]);
    let conf = &web.mounts[0];
    assert_eq!((conf.kind, conf.read_only), (MountKind::Host, true));
    assert_eq!(conf.source, files.path("conf").display().to_string());
    assert_eq!(web.mounts[1].kind, MountKind::Anonymous);
    assert_eq!(web.mounts[2].target, "/run/secrets/token");
    assert!(web.notes.iter().any(|note| note.severity == Severity::Warning));

    let options = Options { profiles: vec!["fast".into()], ..Options::default() };
    assert_eq!(files.read(&["compose.yaml"], &options).unwrap().len(), 3);
    let options = Options { profiles: vec!["*".into()], ..Options::default() };
    assert_eq!(files.read(&["compose.yaml"], &options).unwrap().len(), 4);
}

#[test]
fn files_are_laid_over_each_other_and_extend_and_include_others() {
    let files = Files::new(&[
        ("base.yaml", "services: {web: {image: a, environment: [A=1, B=2], ports: ['80:80']}}"),
        ("over.yaml", "services: {web: {image: b, environment: {B: '3'}, ports: ['81:81']}}"),
        (
            "sub/common.yaml",
            "services:\n  base: {image: c, env_file: x.env, volumes: ['./d:/d']}\n",
        ),
        ("sub/x.env", "X=1\n"),
        (
            "extend.yaml",
            "services:\n  one: {extends: {file: sub/common.yaml, service: base}, image: d}\n  \
             two: {extends: one, command: run}\n",
        ),
        ("include.yaml", "include: [sub/common.yaml]\nservices: {top: {image: t}}\n"),
    ]);
    let none = Options::default();
    let all = files.read(&["base.yaml", "over.yaml"], &none).unwrap();
    assert_eq!(all[0].image, Image::Reference("b".into()));
    assert_eq!((text(&all[0], "A"), text(&all[0], "B")), (Some("1".into()), Some("3".into())));
    assert_eq!(all[0].ports.len(), 2);

    let all = files.read(&["extend.yaml"], &none).unwrap();
    assert_eq!(all[1].image, Image::Reference("d".into()));
    assert_eq!(text(&all[1], "X").as_deref(), Some("1"));
    assert_eq!(all[1].mounts[0].source, files.path("sub/d").display().to_string());

    let all = files.read(&["include.yaml"], &none).unwrap();
    assert_eq!(all.iter().map(|w| w.name.as_str()).collect::<Vec<_>>(), ["base", "top"]);
}

#[test]
fn what_a_vm_cannot_do_is_said() {
    let files = Files::new(&[(
        "c.yaml",
        r#"
services:
  a: {image: i, volumes: ["/var/run/docker.sock:/var/run/docker.sock"]}
  b: {image: i, pid: host}
  c: {image: i, network_mode: "service:a"}
  d: {image: i, devices: ["/dev/fuse"]}
  e: {image: i, platform: linux/arm64}
  f: {image: i, privileged: true, cap_add: [NET_ADMIN]}
"#,
    )]);
    let all = files.read(&["c.yaml"], &Options::default()).unwrap();
    for workload in &all[..5] {
        let blocked = workload.notes.iter().any(|note| note.severity == Severity::Blocker);
        assert!(blocked, "{}: {:?}", workload.name, workload.notes);
    }
    assert!(all[5].notes.iter().all(|note| note.severity < Severity::Blocker));
    assert_eq!(all[5].notes.len(), 2);
}

#[test]
fn no_key_is_left_out_without_a_word() {
    let files = Files::new(&[(
        "c.yaml",
        r#"
services:
  a: {image: i, container_name: shop-a, read_only: true, post_start: [{command: ./x}], comand: y}
  b: {image: i, links: ["a:database", a], x-own: 1, use_api_socket: true, pids_limit: 3}
  c: {image: i, volumes: ["nfs:/n", "own:/o", {type: image, source: x, target: /x}]}
volumes: {nfs: {driver_opts: {type: nfs, o: addr=10.0.0.1}}, own: {driver: local}}
"#,
    )]);
    let all = files.read(&["c.yaml"], &Options::default()).unwrap();
    let notes = |index: usize, severity| {
        let notes = all[index].notes.iter().filter(move |note| note.severity == severity);
        notes.map(|note| note.text.clone()).collect::<Vec<_>>().join("\n")
    };
    let warnings = notes(0, Severity::Warning);
    for expected in ["`comand` is no key", "Docker runs once it has started"] {
        assert!(warnings.contains(expected), "{expected}: {warnings}");
    }
    assert!(notes(0, Severity::Info).contains("a read-only root"), "{:?}", all[0].notes);
    assert!(notes(1, Severity::Blocker).contains("no Docker daemon"), "{:?}", all[1].notes);
    assert_eq!(all[1].notes.len(), 2, "{:?}", all[1].notes);
    // A container's own name and the names of links lead there as well.
    assert_eq!(all[0].networks.as_ref().unwrap()[0].aliases, ["shop-a", "database"]);
    assert_eq!(all[1].networks, None);
    assert!(notes(2, Severity::Warning).starts_with("the volume `nfs` is what the driver `local`"));
    assert!(notes(2, Severity::Blocker).contains("type `image` at `/x`"), "{:?}", all[2].notes);
    assert_eq!(all[2].notes.len(), 2, "{:?}", all[2].notes);
}

#[test]
fn builds_get_what_their_section_says() {
    let files = Files::new(&[
        (
            "c.yaml",
            r#"
services:
  a:
    build:
      dockerfile_inline: |
        FROM busybox
        RUN --mount=type=secret,id=key cat /run/secrets/key
      additional_contexts: [lib=../lib, "base=docker-image://debian:12"]
      secrets: [token, {source: file, target: /run/secrets/key}]
      ssh: [default]
      network: none
      no_cache: true
      labels: [a=b]
      shm_size: 1g
      contxt: .
  b:
    extends: {file: sub/base.yaml, service: b}
secrets:
  token: {environment: TOKEN}
  file: {file: ./key}
"#,
        ),
        ("sub/base.yaml", "services: {b: {build: {context: x, additional_contexts: {lib: y}}}}"),
    ]);
    let all = files.read(&["c.yaml"], &Options::default()).unwrap();
    let Image::Build(build) = &all[0].image else { panic!("{:?}", all[0].image) };
    assert!(build.inline.as_deref().is_some_and(|text| text.starts_with("FROM busybox\nRUN")));
    let lib = files.path("../lib");
    let lib = format!("lib={}", lib.display());
    assert_eq!(build.contexts[..], [String::from("base=docker-image://debian:12"), lib]);
    let key = format!("id=key,src={}", files.path("key").display());
    assert_eq!(build.secrets[..], ["id=token,env=TOKEN".to_owned(), key]);
    assert_eq!(
        (build.offline, build.no_cache, &build.ssh[..]),
        (true, true, &["default".into()][..])
    );
    let notes: Vec<_> = all[0].notes.iter().map(|note| note.text.as_str()).collect();
    assert!(notes[0].starts_with("`build.contxt` is no key"), "{notes:?}");
    assert!(notes[1].starts_with("`build.shm_size` is not carried over"), "{notes:?}");
    assert_eq!(notes.len(), 2, "{notes:?}");
    let Image::Build(build) = &all[1].image else { panic!("{:?}", all[1].image) };
    assert_eq!(build.context, files.path("sub").join("x"));
    assert_eq!(build.contexts[..], [format!("lib={}", files.path("sub").join("y").display())]);
}

#[test]
fn later_files_take_back_and_replace() {
    let files = Files::new(&[
        (
            "a.yaml",
            r#"
services:
  a: {image: i, command: [x], ports: ["80:80"], environment: [A=1, B=2], depends_on: [b, c]}
  b: {image: j, environment: {A: "1"}}
  c: {image: k}
  d: {image: l, ports: !override ["1:1"], command: !reset null}
volumes: {v: {name: w}}
"#,
        ),
        (
            "b.yaml",
            r#"
services:
  a:
    command: !reset
    ports: !override ["81:80"]
    environment: !override [C=3]
    depends_on: {c: !reset {}}
  b: !override {image: "!override"}
  c: !reset null
volumes: {v: !override {}}
"#,
        ),
    ]);
    let all = files.read(&["a.yaml", "b.yaml"], &Options::default()).unwrap();
    assert_eq!(all.iter().map(|w| w.name.as_str()).collect::<Vec<_>>(), ["a", "b", "d"]);
    let ports = |at: usize| all[at].ports.iter().map(|p| (p.host, p.guest)).collect::<Vec<_>>();
    assert_eq!((all[0].command.as_ref(), ports(0)), (None, vec![(Some(81), 80)]));
    let names: Vec<_> = all[0].env.iter().map(|v| v.name.as_str()).collect();
    assert_eq!(names, ["C"]);
    assert_eq!(all[0].depends_on.len(), 1);
    assert_eq!((&all[1].image, all[1].env.len()), (&Image::Reference("!override".into()), 0));
    assert_eq!((all[2].command.as_ref(), ports(2)), (None, vec![(Some(1), 1)]));
    // A file that is read by itself is as if it had no tags.
    let all = files.read(&["b.yaml"], &Options::default());
    assert!(all.unwrap_err().to_string().contains("services.a: neither `image`"));
}

#[test]
fn errors_name_file_place_and_cause() {
    for (text, expected) in [
        ("services: {a: {}}", "services.a: neither `image` nor `build`"),
        ("services: {a: {provider: {type: x}}}", "services.a.provider: a plugin of Docker Compose"),
        (
            "services: {a: {build: 'https://x/y.git'}}",
            "a.build.context: `https://x/y.git` is not on",
        ),
        ("services: {a: {build: {network: n}}}", "a.build.network: `n` is no network"),
        ("services: {a: {build: {platforms: [linux/arm64]}}}", "a.build.platforms: VMs are for"),
        (
            "services: {a: {build: {additional_contexts: {b: 'service:b'}}}}",
            "additional_contexts.b: the image of the service `b`",
        ),
        (
            "services: {a: {build: {dockerfile: D, dockerfile_inline: FROM x}}}",
            "either `dockerfile` or `dockerfile_inline`",
        ),
        ("services: {a: {image: 'x:${T:?set T}'}}", "`T` is required: set T"),
        ("services: {a: {image: 'x$'}}", "services.a.image: a `$`"),
        ("services: {a: {image: i, ports: ['99999:1']}}", "services.a.ports: `99999`"),
        ("services: {a: {image: i, depends_on: [b]}}", "there is no service `b`"),
        ("services: {a: {image: i, volumes: ['v:/v']}}", "the volume `v` is not declared"),
        ("services: {a: {image: i, restart: sometimes}}", "`sometimes` is no known policy"),
        ("services: {a: {extends: a}}", "round in circles"),
        ("include: [c.yaml]", "round in circles"),
        ("services: !reset {}", "services: tags are for what is below it"),
        ("services: [a]", "services: a mapping is expected"),
        ("- a", "a Compose file is a mapping"),
        ("a: [", "not understood as YAML"),
    ] {
        let files = Files::new(&[("c.yaml", text)]);
        let error = files.read(&["c.yaml"], &Options::default()).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("c.yaml"), "{text}: {error}");
    }
}

#[test]
fn a_bomb_of_anchors_is_refused() {
    let mut text = String::from("a: &a [x, x, x, x, x, x, x, x, x, x]\n");
    for (name, of) in ["b", "c", "d", "e", "f", "g", "h", "i"].iter().zip("abcdefgh".chars()) {
        let refs = vec![format!("*{of}"); 10].join(", ");
        text += &format!("{name}: &{name} [{refs}]\n");
    }
    let files = Files::new(&[("c.yaml", &text)]);
    let error = files.read(&["c.yaml"], &Options::default()).unwrap_err();
    assert!(matches!(error, Error::Yaml { .. }), "{error}");
    let deep = "[".repeat(100_000);
    let files = Files::new(&[("c.yaml", &deep)]);
    assert!(matches!(
        files.read(&["c.yaml"], &Options::default()).unwrap_err(),
        Error::Yaml { .. }
    ));
}

#[test]
fn additional_names_and_permissions_are_carried_over() {
    let files = Files::new(&[(
        "compose.yaml",
        "services:\n  \
           a: {image: i, extra_hosts: ['db:10.0.0.7', 'six=[fd00::7]', 'me:host-gateway'],\n      \
               configs: [{source: c, target: /run.sh, mode: 0755}]}\n  \
           b: {image: i, extra_hosts: {db: 10.0.0.8}}\n\
         configs: {c: {content: x}}\n",
    )]);
    let all = files.read(&["compose.yaml"], &Options::default()).unwrap();
    let gateway = std::net::Ipv4Addr::new(10, 0, 2, 2);
    let hosts = |of: &Workload| -> Vec<String> {
        let all = of.own_hosts(Some(gateway)).unwrap();
        all.into_iter().map(|(name, address)| format!("{name} {address}")).collect()
    };
    assert_eq!(hosts(&all[0]), ["db 10.0.0.7", "six fd00::7", "me 10.0.2.2"]);
    assert_eq!(hosts(&all[1]), ["db 10.0.0.8"]);
    assert_eq!(all[0].own_hosts(None), None);
    assert_eq!(all[0].mounts[0].mode, Some(0o755));
    let files =
        Files::new(&[("c.yaml", "services: {a: {image: i, extra_hosts: ['db:nowhere']}}\n")]);
    let error = files.read(&["c.yaml"], &Options::default()).unwrap_err().to_string();
    assert!(error.contains("services.a.extra_hosts: `db` has no address: `nowhere`"), "{error}");
}

#[test]
fn limits_and_settings_that_can_not_be_are_refused() {
    for (keys, why) in [
        ("ulimits: {files: 3}", "`files` is not a resource"),
        ("ulimits: {nofile: {soft: 3}}", "no `soft` and `hard`"),
        ("ulimits: {nofile: {soft: 3, hard: 2}}", "`nofile=3:2` is not a limit"),
        ("sysctls: {net.core.somaxconn: \"\"}", "is not a setting and its value"),
    ] {
        let text = format!("services: {{a: {{image: a, {keys}}}}}");
        let error = Files::new(&[("compose.yaml", &text)])
            .read(&["compose.yaml"], &Options::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains(why), "{error}");
    }
}

//! What building does beside the image: the cache, failures, hostile files, interrupts.

mod common;
#[path = "common/dockerfiles.rs"]
mod dockerfiles;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::server::{Reply, Server};
use dock2uni::dockerfile::{self, Cancel, Error};
use dock2uni::source::{self, Digest, Store};
use dockerfiles::{Lab, Said};

fn nothing_left(lab: &Lab) {
    assert_eq!(lab.left_over(), Vec::<PathBuf>::new());
}

#[test]
fn steps_are_found_again_by_what_they_depend_on() {
    let lab = Lab::new(&["busybox"]);
    let text = "ARG REGISTRY\nFROM ${REGISTRY}/busybox\nCOPY data /data\nARG A=1\n\
                RUN echo $A > /a\nRUN --mount=type=cache,target=/c echo x >> /c/log; wc -l < /c/log > /n\n";
    let build = |options: &dockerfile::Options| {
        let said = Said::default();
        let image = lab.run(options, &said).unwrap();
        (image.config_digest, said.text().matches("CACHED").count())
    };
    let options = lab.options(text);
    let (first, cached) = build(&options);
    assert_eq!(cached, 0);
    assert_eq!(build(&options), (first, 3));
    // A time doesn't count, a content does.
    let file = lab.context().join("data/one.txt");
    std::fs::write(&file, "one\n").unwrap();
    assert_eq!(build(&options), (first, 3));
    std::fs::write(&file, "uno\n").unwrap();
    let (changed, cached) = build(&options);
    assert_eq!(cached, 0);
    assert_ne!(changed, first);
    let mut other = lab.options(text);
    other.args.insert("A".into(), "2".into());
    assert_eq!(build(&other).1, 1);
    let mut fresh = lab.options(text);
    fresh.no_cache = true;
    let (again, cached) = build(&fresh);
    assert_eq!(cached, 0);
    // The cache mount has grown by then.
    assert_ne!(again, changed);
    nothing_left(&lab);
}

#[test]
fn a_failing_command_is_shown_with_its_line_and_output() {
    let lab = Lab::new(&["busybox"]);
    let text = "ARG REGISTRY\nFROM ${REGISTRY}/busybox AS build\n\
                RUN echo some words; \\\n    exit 7\n";
    let (result, said) = lab.text(text);
    let error = result.unwrap_err();
    let Error::Run { place, end, output, .. } = &error else { panic!("{error}") };
    assert_eq!((place.line, end.as_str()), (3, "exited with status 7"));
    assert_eq!(output, &["some words"]);
    assert!(error.to_string().contains("4 |     exit 7"), "{error}");
    assert!(said.contains("#2 [build 2/2] RUN echo some words; exit 7"), "{said}");
    assert!(said.contains("#2 ERROR"), "{said}");
    let (result, _) = lab.text("ARG REGISTRY\nFROM ${REGISTRY}/busybox\nRUN [\"/no/such\"]\n");
    assert!(result.unwrap_err().to_string().contains("status 127"));
    nothing_left(&lab);
}

#[test]
fn hostile_files_are_errors_that_leave_nothing() {
    let lab = Lab::new(&["busybox"]);
    let base = "ARG REGISTRY\nFROM ${REGISTRY}/busybox\n";
    for (text, word) in [
        // The link leads out of the context, and is resolved in it.
        (format!("{base}COPY links/outside /x\n"), "not there"),
        (format!("{base}COPY ../../../../etc/shadow /x\n"), "not there"),
        (
            format!(
                "{base}RUN rm -rf /tmp && ln -s /proc/self/root/etc /tmp\nCOPY data /proc/self/x/\nCOPY app/link /etc/passwd/x\n"
            ),
            "in the way",
        ),
        (format!("{base}ADD https://127.0.0.1:1/x /x\n"), "127.0.0.1"),
        (
            format!(
                "{base}ARG A=aaaaaaaaaaaaaaaa\nARG A=$A$A$A$A$A$A$A$A$A$A$A$A$A$A$A$A\nARG A=$A$A$A$A$A$A$A$A$A$A$A$A$A$A$A$A\nARG A=$A$A$A$A$A$A$A$A$A$A$A$A$A$A$A$A\nARG A=$A$A$A$A$A$A$A$A$A$A$A$A$A$A$A$A\nARG A=$A$A$A$A$A$A$A$A$A$A$A$A$A$A$A$A\nLABEL a=$A\n"
            ),
            "longer than",
        ),
        (format!("{base}RUN <<EOF\n{}", "x\n".repeat(100_000)), "has no end"),
        (format!("{base}ONBUILD ONBUILD RUN x\n"), "ONBUILD ONBUILD"),
        (format!("{base}COPY --from=5 /x /\n"), "no stage `5`"),
        (format!("{base}COPY --chown=nobodyknows data /x\n"), "no user `nobodyknows`"),
        (format!("{base}RUN --security=insecure true\n"), "insecure"),
        (format!("{base}RUN --mount=type=bind,target=/ true\n"), "mounted at `/`"),
        (format!("{base}RUN --mount=type=secret,id=nope,required true\n"), "required"),
        ("FROM scratch\nRUN true\n".to_owned(), "status 127"),
        (format!("FROM scratch\n{}", "FROM scratch\n".repeat(300)), "stages"),
        (format!("{base}USER ghost\nRUN true\n"), "ghost"),
    ] {
        let (result, said) = lab.text(&text);
        let error = match result {
            Ok(_) => panic!("{text:.200} builds:\n{said}"),
            Err(error) => error,
        };
        let mut all = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            all += &format!(" {error}");
            cause = error.source();
        }
        assert!(all.contains(word), "{text:.200}: {all:.1000}");
    }
    nothing_left(&lab);
}

/// Answers for the files below a directory, each last changed at the same time.
fn serve(dir: PathBuf) -> Server {
    Server::start(move |request| {
        let path = request.path.split('?').next().unwrap().trim_start_matches('/');
        match std::fs::read(dir.join(path)) {
            Ok(bytes) => {
                Reply::new(200, bytes).with("Last-Modified", "Tue, 14 Nov 2023 22:13:20 GMT")
            }
            Err(_) => Reply::new(404, ""),
        }
    })
}

#[test]
fn files_and_repositories_come_from_servers() {
    let (lab, desk) = (Lab::new(&["busybox"]), tempfile::tempdir().unwrap());
    let work = desk.path().join("work");
    let git = |args: &[&str]| {
        let mut git = std::process::Command::new("git");
        git.args(["-c", "user.name=me", "-c", "user.email=me@localhost"]).args(args);
        String::from_utf8(dockerfiles::run(git.current_dir(&work)).stdout).unwrap()
    };
    std::fs::create_dir_all(work.join("app")).unwrap();
    std::fs::write(work.join("app/main.sh"), "#!/bin/sh\n").unwrap();
    git(&["init", "--quiet", "--initial-branch=main"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "--message=one"]);
    git(&["tag", "v1"]);
    std::fs::write(work.join("app/main.sh"), "#!/bin/sh\necho two\n").unwrap();
    git(&["commit", "--quiet", "--all", "--message=two"]);
    git(&["clone", "--quiet", "--bare", ".", "../repo.git"]);
    git(&["--git-dir=../repo.git", "update-server-info"]);
    let commit = git(&["rev-parse", "v1"]).trim().to_owned();
    std::fs::write(desk.path().join("file.txt"), "over the wire\n").unwrap();
    let digest = Digest::of(b"over the wire\n");
    let server = serve(desk.path().to_owned());
    let at = format!("http://{}", server.addr);

    let base = "ARG REGISTRY\nFROM ${REGISTRY}/busybox\n";
    let text = format!(
        "{base}ADD --checksum={digest} {at}/file.txt?x=1#y /named\n\
         ADD --chmod=640 --chown=3:4 {at}/file.txt /into/\n\
         ADD {at}/repo.git#v1:app /tagged\n\
         ADD --checksum={commit} {at}/repo.git#{commit} /whole\n\
         ADD {at}/repo.git /tip/\n\
         RUN date -u +%s -r /named > /time && stat -c '%a %u:%g' /named /into/file.txt > /modes\n\
         RUN cat /tagged/main.sh /whole/app/main.sh /tip/app/main.sh > /all; ls -A /whole > /names\n\
         RUN cat /time /modes /all /names\n"
    );
    let (result, said) = lab.text(&text);
    result.unwrap_or_else(|error| panic!("{error}\n{said}"));
    let shown: Vec<&str> =
        said.lines().filter_map(|line| line.split_once(' ')).map(|(_, t)| t).collect();
    let wanted = [
        "1700000000",
        "600 0:0",
        "640 3:4",
        "#!/bin/sh",
        "#!/bin/sh",
        "#!/bin/sh",
        "echo two",
        "app",
    ];
    let start = shown.iter().position(|line| line.ends_with(wanted[0]));
    let start = start.unwrap_or_else(|| panic!("{said}"));
    for (line, wanted) in shown[start..].iter().zip(wanted) {
        assert!(line.ends_with(wanted), "{line} is not {wanted}: {said}");
    }

    // What is there is not what was meant.
    for (text, word) in [
        (
            format!("ADD --checksum={} {at}/file.txt /x", Digest::of(b"other")),
            "not what `--checksum`",
        ),
        (format!("ADD --checksum={commit} {at}/repo.git /x"), "as `--checksum` says"),
        (format!("ADD {at}/repo.git#v1:none /x"), "no directory `none`"),
        (format!("ADD {at}/none.txt /x"), "404"),
        (format!("ADD {at}/repo.git#--upload-pack=/x /x"), "no git address"),
    ] {
        let error = lab.text(&format!("{base}{text}\n")).0.unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(format!("{error} {cause}").contains(word), "{text}: {error} {cause}");
    }
    nothing_left(&lab);
}

#[test]
fn an_interrupt_kills_the_command_and_clears_up() {
    let lab = Lab::new(&["busybox"]);
    let text = "ARG REGISTRY\nFROM ${REGISTRY}/busybox\nRUN echo started; sleep 600 & sleep 601\n";
    let options = lab.options(text);
    let (said, cancel) = (Said::default(), Cancel::default());
    let started = Instant::now();
    let result = std::thread::scope(|scope| {
        let build = scope.spawn(|| {
            let store = Store::open(lab.store()).unwrap();
            dockerfile::build(&options, &source::Options::default(), &store, &said, &cancel)
        });
        while !said.text().contains(" started") {
            assert!(started.elapsed() < Duration::from_secs(120), "{}", said.text());
            assert!(!build.is_finished(), "{}", said.text());
            std::thread::sleep(Duration::from_millis(20));
        }
        cancel.interrupt();
        build.join().unwrap()
    });
    assert!(matches!(result, Err(Error::Interrupted)), "{result:?}");
    assert!(started.elapsed() < Duration::from_secs(300));
    nothing_left(&lab);
    // Nothing of the command is left either.
    for process in std::fs::read_dir("/proc").unwrap() {
        let words = std::fs::read(process.unwrap().path().join("cmdline")).unwrap_or_default();
        assert!(!words.starts_with(b"sleep\x00601"), "the command lives on");
    }
}

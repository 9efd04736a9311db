//! How each image is made.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::{
    Result, cache_dir,
    debian::{self, run},
    layer::{Kind, Layer},
    layout,
};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Makes image `name` as an OCI layout in `dir`.
pub fn make(name: &str, dir: &Path) -> Result<()> {
    match name {
        "nginx" => nginx(dir),
        "debian" => {
            let (mut layer, _) = debian::base()?;
            debian::ld_cache(&[], &mut layer)?;
            layout::write(dir, &[("debian", layer)], json!({ "Env": [PATH], "Cmd": ["bash"] }))
        }
        "busybox" => busybox(dir),
        "alpine-like" => alpine_like(dir),
        "go" => go(dir),
        "hello-static" => hello(dir, true),
        "hello-dynamic" => hello(dir, false),
        _ => Err("no recipe".into()),
    }
}

fn files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("files")
}

fn nginx(dir: &Path) -> Result<()> {
    let (mut base, base_debs) = debian::base()?;
    debian::ld_cache(&[], &mut base)?;
    let wanted = [
        "nginx",
        "libnginx-mod-http-geoip",
        "libnginx-mod-http-image-filter",
        "libnginx-mod-http-xslt-filter",
        "gettext-base",
        "curl",
        "ca-certificates",
    ];
    let packages: Vec<&str> = debian::BASE.iter().copied().chain(wanted).collect();
    let debs = debian::fetch(&packages, &base_debs)?;
    let mut layer = Layer::default();
    debian::unpack(&debs, &mut layer)?;
    // Directories of the base layer are not new; what was only dropped from it is.
    layer.entries.retain(|path, entry| {
        !matches!(entry.kind, Kind::Directory) || !base.entries.contains_key(path)
    });
    let default = fs::read(files().join("nginx/default.conf"))?;
    let md5 = md5(&files().join("nginx/default.conf"))?;
    layer.file("etc/nginx/conf.d/default.conf", 0o644, default);
    layer.file("etc/nginx/nginx.conf", 0o644, fs::read(files().join("nginx/nginx.conf"))?);
    layer.dir("etc/nginx/conf.d", 0o755);
    layer.dir("docker-entrypoint.d", 0o755);
    layer.dir("var/log/nginx", 0o755);
    layer.dir("var/cache/nginx", 0o755);
    layer.file(
        "usr/share/nginx/html/index.html",
        0o644,
        fs::read(files().join("nginx/index.html"))?,
    );
    layer.symlink("var/log/nginx/access.log", "/dev/stdout");
    layer.symlink("var/log/nginx/error.log", "/dev/stderr");
    for (path, line) in [
        ("etc/passwd", "nginx:x:101:101:nginx user:/nonexistent:/bin/false\n"),
        ("etc/group", "nginx:x:101:\n"),
        ("etc/shadow", "nginx:!:19723::::::\n"),
    ] {
        let mut data = base.read(path).unwrap_or_default().to_vec();
        data.extend_from_slice(line.as_bytes());
        let entry = base.entries.get(path).cloned();
        let added = layer.file(path, entry.as_ref().map_or(0o644, |entry| entry.mode), data);
        added.gid = entry.map_or(0, |entry| entry.gid);
    }
    let conffiles = [("nginx", "/etc/nginx/conf.d/default.conf", md5)];
    let mut status =
        String::from_utf8_lossy(base.read("var/lib/dpkg/status").unwrap_or_default()).into_owned();
    status += &debian::status(&debs, &conffiles)?;
    layer.file("var/lib/dpkg/status", 0o644, status);
    debian::ld_cache(&[&base], &mut layer)?;
    let version = debs.iter().filter_map(|deb| deb.file_name()?.to_str()?.strip_prefix("nginx_"));
    let version = version.flat_map(|rest| rest.split(['-', '_']).next()).next().unwrap_or("0");
    let mut layers = vec![("debian", base), ("RUN nginx packages and user", layer)];
    for (file, at, mode) in [
        ("docker-entrypoint.sh", "docker-entrypoint.sh", 0o755),
        ("10-listen-on-ipv6-by-default.sh", "docker-entrypoint.d", 0o755),
        ("15-local-resolvers.envsh", "docker-entrypoint.d", 0o755),
        ("20-envsubst-on-templates.sh", "docker-entrypoint.d", 0o755),
        ("30-tune-worker-processes.sh", "docker-entrypoint.d", 0o755),
    ] {
        let mut layer = Layer::default();
        let data = fs::read(files().join("nginx").join(file))?;
        if at == file {
            layer.file(at, mode, data);
        } else {
            layer.dir(at, 0o755);
            layer.file(&format!("{at}/{file}"), mode, data);
        }
        layers.push(("COPY entrypoint script", layer));
    }
    let config = json!({
        "Env": [PATH, format!("NGINX_VERSION={version}"), "PKG_RELEASE=1~bookworm"],
        "Entrypoint": ["/docker-entrypoint.sh"],
        "Cmd": ["nginx", "-g", "daemon off;"],
        "ExposedPorts": { "80/tcp": {} },
        "StopSignal": "SIGQUIT",
        "Labels": { "maintainer": "dock2uni tests" },
    });
    layout::write(dir, &layers, config)
}

fn busybox(dir: &Path) -> Result<()> {
    let mut layer = Layer::default();
    let binary = busybox_binary()?;
    busybox_root(&mut layer, &binary)?;
    layout::write(dir, &[("busybox", layer)], json!({ "Env": [PATH], "Cmd": ["sh"] }))
}

/// Busybox under all its names: hard links, as the official image has them.
fn busybox_root(layer: &mut Layer, binary: &Path) -> Result<()> {
    layer.dir("bin", 0o755);
    layer.file("bin/busybox", 0o755, fs::read(binary)?);
    for applet in run(Command::new(binary).arg("--list"))?.lines().filter(|name| *name != "busybox")
    {
        layer.put(&format!("bin/{applet}"), 0o755, Kind::Link("bin/busybox".to_owned()));
    }
    for (path, mode) in [
        ("dev", 0o755),
        ("etc", 0o755),
        ("home", 0o755),
        ("proc", 0o755),
        ("root", 0o700),
        ("sys", 0o755),
        ("tmp", 0o1777),
        ("usr", 0o755),
        ("usr/bin", 0o755),
        ("usr/sbin", 0o755),
        ("var", 0o755),
        ("var/spool", 0o755),
    ] {
        layer.dir(path, mode);
    }
    layer.symlink("usr/bin/env", "../../bin/env");
    layer.file(
        "etc/passwd",
        0o644,
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n",
    );
    layer.file("etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n");
    layer.file("etc/hosts", 0o644, "127.0.0.1 localhost\n::1 localhost\n");
    Ok(())
}

fn alpine_like(dir: &Path) -> Result<()> {
    let mut layer = Layer::default();
    let binary = busybox_binary()?;
    busybox_root(&mut layer, &binary)?;
    let mut libc = Layer::default();
    debian::unpack(&debian::fetch(&["musl"], &[])?, &mut libc)?;
    let data = libc.read("usr/lib/x86_64-linux-musl/libc.so").ok_or("no libc.so in musl")?;
    layer.dir("lib", 0o755);
    layer.file("lib/ld-musl-x86_64.so.1", 0o755, data);
    layer.symlink("lib/libc.musl-x86_64.so.1", "ld-musl-x86_64.so.1");
    let program = cache_dir()?.join("hello-musl");
    run(Command::new("musl-gcc").args(["-O2", "-o"]).arg(&program).arg(files().join("c/hello.c")))?;
    layer.file("hello", 0o755, fs::read(&program)?);
    layout::write(dir, &[("musl", layer)], json!({ "Env": [PATH], "Cmd": ["/hello"] }))
}

fn go(dir: &Path) -> Result<()> {
    let program = cache_dir()?.join("go-server");
    run(Command::new("go")
        .args(["build", "-trimpath", "-ldflags=-s -w -buildid=", "-o"])
        .arg(&program)
        .arg("main.go")
        .current_dir(files().join("go"))
        .envs([("CGO_ENABLED", "0"), ("GOFLAGS", "-mod=mod"), ("GO111MODULE", "off")]))?;
    let mut layer = Layer::default();
    layer.file("server", 0o755, fs::read(&program)?);
    let config = json!({
        "Env": [PATH],
        "Entrypoint": ["/server"],
        "ExposedPorts": { "8080/tcp": {} },
        "User": "65534:65534",
        "WorkingDir": "/",
    });
    layout::write(dir, &[("COPY server /", layer)], config)
}

fn hello(dir: &Path, is_static: bool) -> Result<()> {
    let program =
        cache_dir()?.join(if is_static { "hello-static.bin" } else { "hello-dynamic.bin" });
    let feature = if is_static { "+crt-static" } else { "-crt-static" };
    run(Command::new("rustc")
        .args(["--edition=2024", "-O", "-Cstrip=symbols", "--target=x86_64-unknown-linux-gnu"])
        .arg(format!("-Ctarget-feature={feature}"))
        .arg("-o")
        .arg(&program)
        .arg(files().join("hello/hello.rs")))?;
    let mut layer = Layer::default();
    layer.file("hello", 0o755, fs::read(&program)?);
    let config: Value = json!({ "Env": [PATH], "Entrypoint": ["/hello"], "Cmd": ["from", "Cmd"] });
    if is_static {
        return layout::write(dir, &[("COPY hello /", layer)], config);
    }
    let mut libraries = Layer::default();
    for merged in ["bin", "lib", "lib64", "sbin"] {
        libraries.symlink(merged, &format!("usr/{merged}"));
        libraries.dir(&format!("usr/{merged}"), 0o755);
    }
    debian::unpack(&debian::fetch(&["libc6", "libgcc-s1"], &[])?, &mut libraries)?;
    debian::ld_cache(&[], &mut libraries)?;
    layout::write(dir, &[("libraries", libraries), ("COPY hello /", layer)], config)
}

/// The static busybox of Debian, on disk so that it can be asked for its applets.
fn busybox_binary() -> Result<PathBuf> {
    let mut package = Layer::default();
    debian::unpack(&debian::fetch(&["busybox-static"], &[])?, &mut package)?;
    let data = package.read("usr/bin/busybox").ok_or("no busybox in busybox-static")?;
    let path = cache_dir()?.join("busybox.bin");
    fs::write(&path, data)?;
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(path)
}

fn md5(path: &Path) -> Result<String> {
    let output = run(Command::new("md5sum").arg(path))?;
    Ok(output.split_whitespace().next().unwrap_or_default().to_owned())
}

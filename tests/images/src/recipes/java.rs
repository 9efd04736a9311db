use std::{fs, path::Path};

use serde_json::json;

use super::{Recipe, files, steps::Steps};
use crate::{Result, debian, layer::Layer};

pub const RECIPE: Recipe = Recipe {
    name: "java",
    about: "shaped like eclipse-temurin:17-jre, with an HTTP server and several GC threads",
    version: 1,
    make,
};

const HOME: &str = "/usr/lib/jvm/java-17-openjdk-amd64";

fn make(dir: &Path) -> Result<()> {
    let mut image = Steps::on_debian()?;
    image.install(&["openjdk-17-jre-headless"], &[], |step| {
        step.layer.dir("app", 0o755);
        Ok(())
    })?;
    // The archive of classes that every JVM maps.
    let java = format!("{HOME}/bin/java");
    image.run_inside(&[&java, "-Xshare:dump"], &[&HOME[1..]], None)?;
    image.copy("java/cacert-entrypoint.sh", "/__cacert_entrypoint.sh", 0o755)?;
    compile(&mut image, &java)?;
    let version = image.version("openjdk-17-jre-headless");
    let path =
        format!("PATH={HOME}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let java_home = format!("JAVA_HOME={HOME}");
    let java_version = format!("JAVA_VERSION=jdk-{version}");
    let config = json!({
        "Env": [path, java_home, java_version, "LANG=C.UTF-8", "LC_ALL=C.UTF-8"],
        "Entrypoint": ["/__cacert_entrypoint.sh"],
        "Cmd": [
            "java", "-XX:+UseG1GC", "-XX:ParallelGCThreads=3", "-XX:ConcGCThreads=2", "-Xmx96m",
            "-cp", "/app", "Server"
        ],
        "ExposedPorts": { "8080/tcp": {} },
        "WorkingDir": "/app",
    });
    image.write(dir, config)
}

/// Compiles the application with Eclipse's compiler, which asks for no development kit.
fn compile(image: &mut Steps, java: &str) -> Result<()> {
    let mut compiler = Layer::default();
    debian::unpack(&debian::fetch(&["libecj-java"], &[])?, &mut compiler)?;
    let source = fs::read(files().join("java/Server.java"))?;
    compiler.file("tmp/Server.java", 0o644, source);
    let main = "org.eclipse.jdt.internal.compiler.batch.Main";
    let command = [java, "-cp", "/usr/share/java/ecj.jar", main, "-11", "-d", "/app"];
    image.run_inside(&[&command[..], &["/tmp/Server.java"]].concat(), &["app"], Some(&compiler))
}

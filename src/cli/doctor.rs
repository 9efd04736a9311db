//! What this machine can do.

use std::process::Command;

use serde_json::{Value, json};

use super::{Failure, exit, size};
use crate::vmm::{accel, firmware, qemu};
use crate::{dockerfile, guest, source};

/// One thing that was looked at.
struct Finding {
    name: &'static str,
    ok: bool,
    /// Whether images cannot be run without it.
    needed: bool,
    text: String,
}

/// Checks QEMU, KVM, firmware, the kernel and the store; fails if images cannot be run here.
pub fn doctor(as_json: bool) -> Result<u8, Failure> {
    let findings = look();
    let able = findings.iter().all(|finding| finding.ok || !finding.needed);
    if as_json {
        let checks: Vec<Value> = findings
            .iter()
            .map(|Finding { name, ok, needed, text }| {
                json!({ "name": name, "ok": ok, "needed": needed, "detail": text })
            })
            .collect();
        println!("{:#}", json!({ "able": able, "checks": checks }));
    } else {
        for Finding { name, text, .. } in &findings {
            println!("{name:<8} {text}");
        }
    }
    Ok(if able { exit::OK } else { exit::FAILURE })
}

/// Whether commands of RUN in Dockerfiles can run here.
fn sandbox(store: &source::Store) -> Result<String, String> {
    use dockerfile::Users;
    match dockerfile::probe(&dockerfile::keeper(), store) {
        Ok(Users::All) => Ok("RUN works: user namespaces, overlays, all users of an image".into()),
        Ok(Users::One) => Ok("RUN works: user namespaces, overlays, root alone; for other users \
                              install `uidmap`, and give this one ranges in /etc/subuid and \
                              /etc/subgid"
            .into()),
        Err(error) => {
            let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
            Err(format!("{error}{hint}; Dockerfiles with RUN need it"))
        }
    }
}

fn look() -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |name, needed, result: Result<String, String>| {
        let ok = result.is_ok();
        let (Ok(text) | Err(text)) = result;
        findings.push(Finding { name, ok, needed, text });
    };
    let kernel = guest::kernel().map(|kernel| size::bytes(kernel.len() as u64));
    add(
        "kernel",
        true,
        kernel.map(|len| format!("built in, {len}")).map_err(|error| error.to_string()),
    );
    match qemu::find(None) {
        Ok(path) => {
            let version = Command::new(&path).arg("--version").output();
            let version = version.ok().and_then(|output| String::from_utf8(output.stdout).ok());
            let version = version.and_then(|text| text.lines().next().map(str::to_owned));
            let version = version.ok_or_else(|| format!("{}: does not start", path.display()));
            add("qemu", true, version.map(|text| format!("{}: {text}", path.display())));
            let kvm = accel::kvm(&path).map(|()| "works".to_owned());
            add("kvm", false, kvm.map_err(|why| format!("{why}; tcg is used instead")));
        }
        Err(error) => add("qemu", true, Err(error.to_string())),
    }
    let uefi = firmware::find(None, None).map(|found| found.code.display().to_string());
    add("uefi", false, uefi.map_err(|error| format!("{error}; `--boot uefi` needs it")));
    let store = source::Store::open_default().map_err(|error| error.to_string());
    add(
        "store",
        true,
        store.as_ref().map(|s| s.root().display().to_string()).map_err(Clone::clone),
    );
    add("build", false, store.and_then(|store| sandbox(&store)));
    findings
}

//! Credentials out of Docker's and podman's files and the helpers they name
//! (docker-credential-helpers, containers-auth.json(5)).

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::source::error::Error;
use crate::source::options::Options;

/// Largest credentials file or helper answer that is accepted.
const MAX_FILE: u64 = 4 << 20;
/// The key under which Docker keeps the credentials for Docker Hub.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// Proof of who is asking. No `Debug`: secrets stay out of messages.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credential {
    /// User name and password.
    Password { user: String, password: String },
    /// An OAuth 2 refresh token.
    Identity(String),
    /// A bearer token to send as it is.
    Registry(String),
}

impl Credential {
    /// Who it is, for messages.
    pub(super) fn user(&self) -> String {
        match self {
            Self::Password { user, .. } => format!("user `{user}`"),
            Self::Identity(_) | Self::Registry(_) => "the stored token".into(),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ConfigFile {
    auths: HashMap<String, Auth>,
    #[serde(rename = "credsStore")]
    creds_store: String,
    #[serde(rename = "credHelpers")]
    cred_helpers: HashMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    #[serde(default)]
    username: String,
    secret: String,
}

/// The credential for `repository` at `host`, from the first file that has one.
pub(super) fn find(
    options: &Options,
    host: &str,
    repository: &str,
) -> Result<Option<Credential>, Error> {
    for path in &options.auth_files {
        let Some(file) = read(path)? else { continue };
        let found = in_file(options, path, &file, host, repository)?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn read(path: &Path) -> Result<Option<ConfigFile>, Error> {
    let bad = |reason: String| Error::CredentialFile { path: path.into(), reason };
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(path);
    match opened.and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes)) {
        Ok(size) if size as u64 > MAX_FILE => Err(bad("it is too large".into())),
        Ok(0) => Ok(None),
        Ok(_) => serde_json::from_slice(&bytes).map(Some).map_err(|e| bad(e.to_string())),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        // podman's directory under /run belongs to one user; another one's isn't ours.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(None),
        Err(e) => Err(bad(e.to_string())),
    }
}

fn in_file(
    options: &Options,
    path: &Path,
    file: &ConfigFile,
    host: &str,
    repository: &str,
) -> Result<Option<Credential>, Error> {
    let key = if host == "docker.io" { HUB_KEY } else { host };
    let helper = [key, host].iter().find_map(|key| file.cred_helpers.get(*key));
    if let Some(helper) = helper {
        return ask_helper(options, helper, key, host);
    }
    if !file.creds_store.is_empty()
        && let Some(found) = ask_helper(options, &file.creds_store, key, host)?
    {
        return Ok(Some(found));
    }
    // podman keys may name a namespace or repository: the longest that fits counts.
    let scoped = format!("{host}/{repository}");
    let best = file
        .auths
        .iter()
        .filter_map(|(key, auth)| covers(key, host, &scoped).map(|len| (len, auth)))
        .max_by_key(|(len, _)| *len);
    best.map_or(Ok(None), |(_, auth)| {
        auth.credential()
            .map_err(|reason| Error::CredentialFile { path: path.into(), reason: reason.into() })
    })
}

/// How much of `scoped` (`host/repository`) the key covers; `None` if it is another's.
fn covers(key: &str, host: &str, scoped: &str) -> Option<usize> {
    if key == HUB_KEY {
        return (host == "docker.io").then_some(host.len());
    }
    if let Some(url) = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")) {
        // Docker once stored whole URLs; only their host counts.
        return (url.split('/').next() == Some(host)).then_some(host.len());
    }
    let key = key.trim_end_matches('/');
    let rest = scoped.strip_prefix(key)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(key.len())
}

impl Auth {
    fn credential(&self) -> Result<Option<Credential>, &'static str> {
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credential::Identity(self.identitytoken.clone())));
        }
        if !self.registrytoken.is_empty() {
            return Ok(Some(Credential::Registry(self.registrytoken.clone())));
        }
        if !self.auth.is_empty() {
            let bytes = STANDARD.decode(self.auth.trim()).map_err(|_| "`auth` is not base64")?;
            let text = String::from_utf8(bytes).map_err(|_| "`auth` is not UTF-8")?;
            let (user, password) = text.split_once(':').ok_or("`auth` has no `:`")?;
            // Docker pads old entries with NULs.
            let password = password.trim_end_matches('\0').to_string();
            return Ok(Some(Credential::Password { user: user.into(), password }));
        }
        if !self.username.is_empty() {
            let (user, password) = (self.username.clone(), self.password.clone());
            return Ok(Some(Credential::Password { user, password }));
        }
        Ok(None)
    }
}

/// Runs `docker-credential-NAME get`.
fn ask_helper(
    options: &Options,
    name: &str,
    key: &str,
    host: &str,
) -> Result<Option<Credential>, Error> {
    let program = format!("docker-credential-{name}");
    let fail = |reason: String| {
        let (helper, host) = (program.clone(), host.to_string());
        Error::CredentialHelper { helper, host, reason }
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(plain) {
        return Err(fail("its name has characters that no helper has".into()));
    }
    let path = if options.helper_dirs.is_empty() {
        PathBuf::from(&program)
    } else {
        let candidates = options.helper_dirs.iter().map(|dir| dir.join(&program));
        candidates
            .into_iter()
            .find(|path| path.is_file())
            .ok_or_else(|| fail("it is not installed".into()))?
    };
    let mut child = Command::new(path)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| fail(e.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that doesn't read its question says so by its exit status.
        let _ = stdin.write_all(key.as_bytes());
    }
    let mut answer = Vec::new();
    let read = match child.stdout.take() {
        Some(stdout) => stdout.take(MAX_FILE).read_to_end(&mut answer),
        None => Ok(0),
    };
    let status = child.wait().map_err(|e| fail(e.to_string()))?;
    read.map_err(|e| fail(e.to_string()))?;
    if !status.success() {
        let text = String::from_utf8_lossy(&answer);
        // The text is part of the protocol (docker-credential-helpers, `credentials.ErrNotFound`).
        if text.contains("credentials not found") {
            return Ok(None);
        }
        let text: String = text.trim().chars().filter(|c| !c.is_control()).take(200).collect();
        return Err(fail(if text.is_empty() { status.to_string() } else { text }));
    }
    let answer: HelperAnswer =
        serde_json::from_slice(&answer).map_err(|_| fail("its answer is no JSON".into()))?;
    Ok(match answer.username.as_str() {
        _ if answer.secret.is_empty() => None,
        "<token>" => Some(Credential::Identity(answer.secret)),
        _ => Some(Credential::Password { user: answer.username, password: answer.secret }),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn options(json: &str) -> (tempfile::TempDir, Options) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        std::fs::write(&file, json).unwrap();
        let helper_dirs = vec![dir.path().to_path_buf()];
        let options = Options {
            auth_files: vec!["/no/such".into(), file],
            helper_dirs,
            ..Options::default()
        };
        (dir, options)
    }

    fn password(user: &str, password: &str) -> Option<Credential> {
        Some(Credential::Password { user: user.into(), password: password.into() })
    }

    fn helper(dir: &Path, name: &str, script: &str) {
        let path = dir.join(format!("docker-credential-{name}"));
        std::fs::write(&path, format!("#!/bin/sh\n{script}")).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    #[test]
    fn auths_are_found_by_host_url_and_longest_scope() {
        let (_dir, options) = options(
            r#"{"auths": {
                "https://index.docker.io/v1/": {"auth": "aHViOnB3"},
                "r.io:5000": {"username": "u", "password": "p"},
                "https://old.io/v1/": {"auth": "YTpiOmM="},
                "q.io/team": {"auth": "dGVhbTp4"},
                "q.io": {"identitytoken": "T"},
                "empty.io": {}
            }}"#,
        );
        let get = |host: &str, repository: &str| find(&options, host, repository).unwrap();
        assert!(get("docker.io", "library/nginx") == password("hub", "pw"));
        assert!(get("r.io:5000", "a") == password("u", "p"));
        assert!(get("r.io", "a").is_none());
        assert!(get("old.io", "a") == password("a", "b:c"));
        assert!(get("q.io", "team/app") == password("team", "x"));
        assert!(get("q.io", "teams/app") == Some(Credential::Identity("T".into())));
        assert!(get("empty.io", "a").is_none());
    }

    #[test]
    fn helpers_answer_by_the_protocol() {
        let (dir, options) = options(
            r#"{"credsStore": "all", "credHelpers":
                {"h.io": "one", "broken.io": "broken", "gone.io": "gone", "evil.io": "../x"}}"#,
        );
        helper(
            dir.path(),
            "one",
            r#"read h; echo "{\"ServerURL\":\"$h\",\"Username\":\"$1-$h\",\"Secret\":\"s\"}""#,
        );
        helper(
            dir.path(),
            "all",
            r#"read h; [ "$h" = t.io ] && echo '{"Username":"<token>","Secret":"s"}' && exit
               echo credentials not found in native keychain; exit 1"#,
        );
        helper(dir.path(), "broken", "echo the keychain is locked; exit 1");
        let get = |host: &str| find(&options, host, "a");
        assert!(get("h.io").unwrap() == password("get-h.io", "s"));
        assert!(get("t.io").unwrap() == Some(Credential::Identity("s".into())));
        assert!(get("other.io").unwrap().is_none());
        let error = get("broken.io").err().unwrap().to_string();
        assert!(error.contains("keychain is locked"), "{error}");
        assert!(matches!(get("gone.io"), Err(Error::CredentialHelper { .. })));
        assert!(matches!(get("evil.io"), Err(Error::CredentialHelper { .. })));
    }

    #[test]
    fn a_malformed_file_is_named() {
        let (_dir, options) = options("{");
        let error = find(&options, "r.io", "a").err().unwrap();
        assert!(error.to_string().contains("config.json"), "{error}");
    }
}

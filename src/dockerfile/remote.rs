//! Sources elsewhere: files by HTTP, repositories by git.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use super::context;
use super::error::Error;
use super::exec::{Builder, Fail};
use super::index::Meta;
use super::pattern::Rules;
use super::tree::{Data, Tree};
use crate::source::digest::Hasher;
use crate::source::{self, Digest};

/// Largest file that is fetched.
const MAX_BYTES: u64 = 64 << 30;

/// Whether a source is an address rather than a path.
pub fn is_remote(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://") || is_git(text)
}

/// Whether an address is that of a repository.
pub fn is_git(text: &str) -> bool {
    if ["git://", "ssh://", "git@"].iter().any(|prefix| text.starts_with(prefix)) {
        return true;
    }
    let http = text.starts_with("http://") || text.starts_with("https://");
    let path = text.split(['#', '?']).next().unwrap_or_default();
    http && path.trim_end_matches('/').ends_with(".git")
}

/// A file that was fetched.
pub struct Fetched {
    /// The name it has by its address.
    pub name: String,
    /// Its metadata: 0600 and the time that the server gives.
    pub meta: Meta,
    /// Its data.
    pub data: Data,
}

/// Fetches a file.
///
/// # Errors
/// [`Error::Source`] if it can't be had; in words if it isn't what `checksum` says.
pub fn download(
    builder: &Builder<'_>,
    address: &str,
    checksum: Option<&str>,
) -> Result<Fetched, Fail> {
    let expected: Option<Digest> = checksum
        .map(|text| text.parse().map_err(|error| format!("`--checksum={text}`: {error}")))
        .transpose()?;
    let mut response = source::get(builder.source, address)?;
    let modified = response.headers().get("last-modified").and_then(|value| value.to_str().ok());
    let modified = modified.and_then(|text| httpdate::parse_http_date(text).ok());
    let time = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let path = builder.shop.fresh("download");
    let mut out = File::create(&path).map_err(|error| Error::io("create", &path, error))?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        builder.cancel.check()?;
        let got = response
            .read(&mut buffer)
            .map_err(|error| Fail::Words(format!("`{address}` broke off: {error}")))?;
        if got == 0 {
            break;
        }
        hasher.update(&buffer[..got]);
        if hasher.len() > MAX_BYTES {
            return Err(Fail::Words(format!("`{address}` has more than {MAX_BYTES} bytes")));
        }
        out.write_all(&buffer[..got]).map_err(|error| Error::io("write", &path, error))?;
    }
    let size = hasher.len();
    let found = hasher.finish();
    if let Some(expected) = expected.filter(|expected| *expected != found) {
        return Err(Fail::Hinted(
            format!(
                "`{address}` is not what `--checksum` says: its digest is {found}, not {expected}"
            ),
            "check the address; if the file was renewed on purpose, change the checksum".into(),
        ));
    }
    let seconds = time
        .map_or(builder.options.epoch, |time| i64::try_from(time.as_secs()).unwrap_or_default());
    let name = address.split(['?', '#']).next().unwrap_or_default();
    let name = name.splitn(4, '/').nth(3).unwrap_or_default().rsplit('/').next();
    let name = name.filter(|name| !name.is_empty()).unwrap_or("__unnamed__").to_owned();
    let root = File::open(&builder.shop.own)
        .map_err(|error| Error::io("open", &builder.shop.own, error))?;
    let data = Data::Host {
        root: Arc::new(root.into()),
        name: Arc::new(builder.shop.own.clone()),
        path: path.file_name().unwrap_or_default().as_encoded_bytes().to_vec(),
    };
    Ok(Fetched { name, meta: Meta::file(0o600, size, (seconds, 0)), data })
}

/// The files that a named context's address stands for.
///
/// # Errors
/// As [`git`]; in words for other addresses.
pub fn tree(builder: &Builder<'_>, address: &str) -> Result<Tree, Fail> {
    if is_git(address) {
        return git(builder, address, None, false);
    }
    Err(Fail::Hinted(
        format!("`{address}` can't be a build context"),
        "give a directory, a git address, `docker-image://...` or `oci-layout://...`".into(),
    ))
}

/// The files of a repository: `ADDRESS[#[REF][:DIRECTORY]]`. As BuildKit, this runs git: no
/// library of Rust's speaks all of its transports with the user's configuration.
///
/// # Errors
/// In words: git isn't there or fails, the directory isn't there, the commit is another than
/// `checksum` says.
pub fn git(
    builder: &Builder<'_>,
    address: &str,
    checksum: Option<&str>,
    keep_git_dir: bool,
) -> Result<Tree, Fail> {
    let (remote, fragment) = address.split_once('#').unwrap_or((address, ""));
    let (reference, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
    if reference.starts_with('-') || remote.starts_with('-') {
        return Err(Fail::Words(format!("`{address}` is no git address")));
    }
    let dir = builder.shop.fresh("git");
    std::fs::create_dir(&dir).map_err(|error| Error::io("create", &dir, error))?;
    let run = |args: &[&str]| run(builder, &dir, args);
    run(&["init", "--quiet", "."])?;
    run(&["remote", "add", "origin", remote])?;
    let wanted = if reference.is_empty() { "HEAD" } else { reference };
    let named = run(&["fetch", "--quiet", "--depth=1", "--no-tags", "origin", wanted])
        // Servers of plain files give no part of a history.
        .or_else(|_| run(&["fetch", "--quiet", "--no-tags", "origin", wanted]));
    let found = match named {
        Ok(_) => "FETCH_HEAD",
        // Some give a commit only to those who ask for everything.
        Err(_) => {
            run(&["fetch", "--quiet", "--tags", "origin"])?;
            wanted
        }
    };
    let commit = run(&["rev-parse", "--verify", &format!("{found}^{{commit}}")])?;
    let commit = commit.trim();
    if let Some(checksum) = checksum
        && (checksum.len() < 7 || !commit.starts_with(&checksum.to_ascii_lowercase()))
    {
        return Err(Fail::Words(format!(
            "`{address}` is at the commit {commit}, not at {checksum} as `--checksum` says"
        )));
    }
    run(&["checkout", "--quiet", "--detach", commit])?;
    if dir.join(".gitmodules").exists() {
        run(&["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"])?;
    }
    let exclude = if keep_git_dir { Rules::default() } else { Rules::new([".git", "**/.git"])? };
    let whole = context::scan(&dir, &exclude)?;
    if directory.is_empty() {
        return Ok(stamped(whole, builder.options.epoch));
    }
    let part = whole.lookup(directory.as_bytes(), true).filter(|&node| whole.is_dir(node));
    let Some(part) = part else {
        return Err(Fail::Words(format!("`{address}` has no directory `{directory}`")));
    };
    let below = dir.join(String::from_utf8_lossy(&whole.path(part)).as_ref());
    Ok(stamped(context::scan(&below, &exclude)?, builder.options.epoch))
}

/// Git keeps no times: all files get the build's.
fn stamped(mut tree: Tree, epoch: i64) -> Tree {
    tree.set_times((epoch, 0));
    tree
}

fn run(builder: &Builder<'_>, dir: &Path, args: &[&str]) -> Result<String, Fail> {
    let mut command = Command::new("git");
    command.args(["-c", "protocol.ext.allow=never", "-c", "core.hooksPath=/dev/null"]);
    command.args(args).current_dir(dir).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env("GIT_TERMINAL_PROMPT", "0").env_remove("GIT_DIR").env_remove("GIT_WORK_TREE");
    let mut child = command.spawn().map_err(|error| {
        Fail::Hinted(
            format!("git can't be started: {error}"),
            "install git, which fetches repositories".into(),
        )
    })?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let child = builder.cancel.adopt(child);
    let read = |from: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            // What can't be read isn't quoted.
            let _ = from.map(|from| from.take(1 << 20).read_to_end(&mut text));
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let err = read(err.map(|err| Box::new(err) as _));
    let out = read(out.map(|out| Box::new(out) as _));
    let (out, err) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
    let status = super::cancel::lock(&child).wait();
    builder.cancel.release(&child);
    builder.cancel.check()?;
    match status {
        Ok(status) if status.success() => Ok(out),
        _ => Err(Fail::Words(format!("git {} failed: {}", args.join(" "), err.trim()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_paths() {
        for (text, remote, git) in [
            ("https://x.io/a.tar.gz", true, false),
            ("https://x.io/a.git", true, true),
            ("https://x.io/a.git#v1:dir", true, true),
            ("https://x.io/a?b.git", true, false),
            ("git@github.com:x/y.git", true, true),
            ("ssh://git@x/y", true, true),
            ("a.git", false, false),
            ("./http:/x", false, false),
        ] {
            assert_eq!((is_remote(text), is_git(text)), (remote, git), "{text}");
        }
    }
}

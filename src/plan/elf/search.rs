//! Where the loader looks for libraries: ld.so(8), and musl's `ldso/dynlink.c`.

use super::cache::{self, Cache};
use super::object::Object;
use crate::plan::root::{Found, Root, base, parent};

/// Files that ld.so.conf may include.
const MAX_INCLUDES: usize = 256;

/// Which C library's loader it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Libc {
    /// GNU libc.
    Glibc,
    /// musl.
    Musl,
}

impl Libc {
    /// By the name of a program's interpreter.
    pub fn of_interpreter(path: &str) -> Libc {
        let name = path.rsplit('/').next().unwrap_or(path);
        if name.starts_with("ld-musl") || name == "libc.so" { Libc::Musl } else { Libc::Glibc }
    }
}

/// How a library was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// It is the program, or what the plan started from.
    Start,
    /// The program's interpreter.
    Interpreter,
    /// By a path in DT_NEEDED or in an argument of dlopen.
    Path,
    /// DT_RPATH of it or of what loaded it.
    Rpath,
    /// LD_LIBRARY_PATH.
    LibraryPath,
    /// DT_RUNPATH.
    Runpath,
    /// `/etc/ld.so.cache`.
    Cache,
    /// A directory that is always searched, or musl's path file.
    Default,
    /// `/etc/ld.so.conf`, without its being in the cache: the loader would not find it.
    Configured,
    /// LD_PRELOAD or `/etc/ld.so.preload`.
    Preload,
    /// A name service of `/etc/nsswitch.conf`.
    NameService,
    /// A text in the file looks like a library that it may load.
    Dlopen,
    /// An extension module of a script language.
    Extension,
}

/// The search path of an image.
pub struct Search {
    pub libc: Libc,
    library_path: Vec<String>,
    cache: Cache,
    /// Directories that are always searched.
    defaults: Vec<String>,
    /// Directories of ld.so.conf.
    configured: Vec<String>,
}

/// A library that was found, and how.
pub struct Hit {
    pub found: Found,
    pub how: How,
    /// Other builds of it for better processors, which the loader may prefer.
    pub variants: Vec<Found>,
}

impl Search {
    /// Reads the image's settings. `library_path` is the value of LD_LIBRARY_PATH.
    pub fn new(root: &Root<'_>, libc: Libc, library_path: &str) -> Search {
        let split = |text: &str| -> Vec<String> {
            let dirs = text.split([':', ';']).filter(|dir| !dir.is_empty());
            dirs.map(str::to_owned).collect()
        };
        let mut search = Search {
            libc,
            library_path: split(library_path),
            cache: Cache::new(),
            defaults: Vec::new(),
            configured: Vec::new(),
        };
        if libc == Libc::Musl {
            let file = root.text(b"/etc/ld-musl-x86_64.path", 64 << 10);
            let text = file.unwrap_or_else(|| "/lib:/usr/local/lib:/usr/lib".to_owned());
            let dirs = text.split([':', '\n']).filter(|dir| !dir.is_empty());
            search.defaults = dirs.map(str::to_owned).collect();
            return search;
        }
        search.cache = cache::parse(&root.read(b"/etc/ld.so.cache", 16 << 20).unwrap_or_default());
        // Debian's loader knows the multiarch directories, others' know lib64: what is not there
        // does no harm.
        let dirs = [
            "/lib/x86_64-linux-gnu",
            "/usr/lib/x86_64-linux-gnu",
            "/lib64",
            "/usr/lib64",
            "/lib",
            "/usr/lib",
        ];
        search.defaults = dirs.map(str::to_owned).into();
        let mut files = 0;
        configured(root, "/etc/ld.so.conf", &mut search.configured, &mut files);
        search
    }

    /// Finds a library that `object`, at `path`, asks for by `name`. `inherited` are the RPATHs of
    /// what loaded it, nearest first, expanded.
    pub fn library(
        &self,
        root: &Root<'_>,
        name: &str,
        path: &[u8],
        object: &Object,
        inherited: &[String],
    ) -> Option<Hit> {
        if name.contains('/') {
            let name = expand(name, path);
            return hit(root, &name, How::Path);
        }
        let within = |dirs: &[String], how: How| {
            dirs.iter().find_map(|dir| self.within(root, dir, name, how))
        };
        let runpath = object.runpath.as_deref().map(|dirs| split(dirs, path)).unwrap_or_default();
        let rpath = self.rpaths(path, object, inherited);
        if self.libc == Libc::Musl {
            return within(&self.library_path, How::LibraryPath)
                .or_else(|| within(&runpath, How::Runpath))
                .or_else(|| within(&rpath, How::Rpath))
                .or_else(|| within(&self.defaults, How::Default));
        }
        let by_rpath = if object.runpath.is_none() { within(&rpath, How::Rpath) } else { None };
        by_rpath
            .or_else(|| within(&self.library_path, How::LibraryPath))
            .or_else(|| within(&runpath, How::Runpath))
            .or_else(|| self.cached(root, name))
            .or_else(|| within(&self.defaults, How::Default))
            .or_else(|| within(&self.configured, How::Configured))
    }

    /// RPATHs that count for what `object` loads: its own, then those of what loaded it. musl
    /// treats RUNPATH alike.
    pub fn rpaths(&self, path: &[u8], object: &Object, inherited: &[String]) -> Vec<String> {
        let mut dirs = Vec::new();
        let own = match self.libc {
            Libc::Glibc if object.runpath.is_some() => None,
            Libc::Glibc => object.rpath.as_deref(),
            Libc::Musl => object.runpath.as_deref().or(object.rpath.as_deref()),
        };
        dirs.extend(own.map(|dirs| split(dirs, path)).unwrap_or_default());
        dirs.extend(inherited.iter().cloned());
        dirs.dedup();
        dirs.truncate(64);
        dirs
    }

    fn cached(&self, root: &Root<'_>, name: &str) -> Option<Hit> {
        let paths = self.cache.get(name)?;
        let mut found: Vec<Found> =
            paths.iter().filter_map(|path| root.file(path.as_bytes())).collect();
        let last = found.pop()?;
        Some(Hit { found: last, how: How::Cache, variants: found })
    }

    fn within(&self, root: &Root<'_>, dir: &str, name: &str, how: How) -> Option<Hit> {
        let path = |dir: &str| format!("{}/{name}", dir.trim_end_matches('/'));
        let mut hit = hit(root, &path(dir), how)?;
        if self.libc == Libc::Glibc {
            for level in ["x86-64-v4", "x86-64-v3", "x86-64-v2"] {
                let dir = format!("{}/glibc-hwcaps/{level}", dir.trim_end_matches('/'));
                hit.variants.extend(root.file(path(&dir).as_bytes()));
            }
        }
        Some(hit)
    }

    /// Whether musl's loader answers for this name itself.
    pub fn is_builtin(&self, name: &str) -> bool {
        const OWN: [&str; 7] = ["c.", "pthread.", "rt.", "m.", "dl.", "util.", "xnet."];
        self.libc == Libc::Musl
            && name
                .strip_prefix("lib")
                .is_some_and(|rest| OWN.iter().any(|prefix| rest.starts_with(prefix)))
    }
}

fn hit(root: &Root<'_>, path: &str, how: How) -> Option<Hit> {
    let found = root.file(path.as_bytes())?;
    Some(Hit { found, how, variants: Vec::new() })
}

/// Directories of a path list, tokens expanded for the object at `path`.
fn split(dirs: &str, path: &[u8]) -> Vec<String> {
    let dirs = dirs.split(':').filter(|dir| !dir.is_empty());
    dirs.map(|dir| expand(dir, path)).collect()
}

/// `$ORIGIN`, `$LIB` and `$PLATFORM`, with or without braces. LIB is what the distribution's loader
/// was built with; Debian's multiarch directory is told by the file's own place.
fn expand(text: &str, path: &[u8]) -> String {
    let origin = String::from_utf8_lossy(parent(path)).into_owned();
    let lib = if origin.contains("/x86_64-linux-gnu") || base(path).is_empty() {
        "lib/x86_64-linux-gnu"
    } else {
        "lib64"
    };
    let mut out = text.to_owned();
    for (token, value) in [("ORIGIN", origin.as_str()), ("LIB", lib), ("PLATFORM", "x86_64")] {
        out = out.replace(&format!("${{{token}}}"), value).replace(&format!("${token}"), value);
    }
    out
}

fn configured(root: &Root<'_>, path: &str, dirs: &mut Vec<String>, files: &mut usize) {
    *files += 1;
    if *files > MAX_INCLUDES {
        return;
    }
    let text = root.text(path.as_bytes(), 64 << 10).unwrap_or_default();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        match line.strip_prefix("include") {
            Some(pattern) if pattern.starts_with([' ', '\t']) => {
                let pattern = pattern.trim();
                let (dir, name) = pattern.rsplit_once('/').unwrap_or(("/etc", pattern));
                for (entry, _) in root.list(dir.as_bytes()) {
                    let entry = String::from_utf8_lossy(&entry).into_owned();
                    if crate::plan::shell::matches(name, &entry) {
                        configured(root, &format!("{dir}/{entry}"), dirs, files);
                    }
                }
            }
            _ if line.starts_with('/') => dirs.push(line.to_owned()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_expanded_by_the_object_s_place() {
        assert_eq!(expand("$ORIGIN/../lib:x", b"/opt/app/bin/a"), "/opt/app/bin/../lib:x");
        assert_eq!(expand("${ORIGIN}", b"/a"), "/");
        assert_eq!(
            expand("/usr/$LIB", b"/usr/lib/x86_64-linux-gnu/a.so"),
            "/usr/lib/x86_64-linux-gnu"
        );
        assert_eq!(Libc::of_interpreter("/lib/ld-musl-x86_64.so.1"), Libc::Musl);
        assert_eq!(Libc::of_interpreter("/lib64/ld-linux-x86-64.so.2"), Libc::Glibc);
    }
}

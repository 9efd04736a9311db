//! Everything that is loaded with some programs, and by whom it is needed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::object::Object;
use super::search::{Hit, How, Libc, Search};
use crate::plan::root::{Found, Root, show};

/// Longest file that is read for its headers, in bytes.
const MAX_FILE: usize = 512 << 20;
/// Files that a closure may have.
const MAX_OBJECTS: usize = 4096;

/// One file of the closure.
#[derive(Debug)]
pub struct Member {
    /// What it says.
    pub object: Object,
    /// How it was found first.
    pub how: How,
    /// Who needs it: paths.
    pub needed_by: BTreeSet<String>,
    /// Its length in bytes.
    pub size: u64,
}

/// Something that the loader will not find.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Missing {
    /// Library, interpreter or version.
    pub what: String,
    /// Who needs it.
    pub needed_by: String,
    /// The program it was needed for.
    pub program: String,
}

/// What is loaded.
#[derive(Debug, Default)]
pub struct Closure {
    /// Files by resolved path.
    pub members: BTreeMap<Vec<u8>, Member>,
    /// Symbolic links on the way to them, and other builds of them.
    pub also: BTreeSet<Vec<u8>>,
    /// Libraries that are needed and missing.
    pub missing: BTreeSet<Missing>,
    /// Symbol versions that a library does not have.
    pub unversioned: BTreeSet<Missing>,
}

/// A file to look into: where it is, the RPATHs it inherits, and for which program.
struct Task {
    path: Vec<u8>,
    inherited: Vec<String>,
    program: String,
}

/// Builds closures, one program after the other, over the same files.
pub struct Builder<'a, 'r> {
    root: &'a Root<'r>,
    library_path: String,
    searches: Vec<Search>,
    closure: Closure,
    queue: VecDeque<Task>,
    seen: BTreeSet<(Vec<u8>, String)>,
}

impl<'a, 'r> Builder<'a, 'r> {
    /// Starts with nothing. `library_path` is the value of LD_LIBRARY_PATH.
    pub fn new(root: &'a Root<'r>, library_path: &str) -> Builder<'a, 'r> {
        Builder {
            root,
            library_path: library_path.to_owned(),
            searches: Vec::new(),
            closure: Closure::default(),
            queue: VecDeque::new(),
            seen: BTreeSet::new(),
        }
    }

    /// Adds a program, or a library that will be loaded, with all that it needs. Returns false if
    /// it is no ELF file for this machine.
    pub fn add(&mut self, found: &Found, how: How, needed_by: &str) -> bool {
        let program = show(&found.path);
        if !self.member(found, how, needed_by) {
            return false;
        }
        self.enqueue(found.path.clone(), Vec::new(), program);
        self.drain();
        true
    }

    /// Looks a library up by name as the program at `path` would, and adds it; false if there is
    /// none.
    pub fn add_by_name(&mut self, name: &str, path: &[u8], how: How) -> bool {
        let Some(member) = self.closure.members.get(path) else { return false };
        let index = self.search_for(libc_of(&member.object, &self.closure));
        let object = &self.closure.members[path].object;
        let Some(hit) = self.searches[index].library(self.root, name, path, object, &[]) else {
            return false;
        };
        let hit = Hit { how, ..hit };
        // What it lacks is not missed by the program that may load it.
        let program = show(&hit.found.path);
        self.take(hit, &show(path), Vec::new(), &program);
        self.drain();
        true
    }

    /// The closure so far.
    pub fn closure(&self) -> &Closure {
        &self.closure
    }

    /// Ends.
    pub fn finish(mut self) -> Closure {
        self.check_versions();
        self.forgive();
        self.closure
    }

    fn search_for(&mut self, libc: Libc) -> usize {
        if let Some(index) = self.searches.iter().position(|search| search.libc == libc) {
            return index;
        }
        self.searches.push(Search::new(self.root, libc, &self.library_path));
        self.searches.len() - 1
    }

    fn enqueue(&mut self, path: Vec<u8>, inherited: Vec<String>, program: String) {
        if self.seen.insert((path.clone(), program.clone())) {
            self.queue.push_back(Task { path, inherited, program });
        }
    }

    /// Enters a file; false if it is no ELF file of ours.
    fn member(&mut self, found: &Found, how: How, needed_by: &str) -> bool {
        self.closure.also.extend(found.links.iter().cloned());
        if let Some(member) = self.closure.members.get_mut(&found.path) {
            if !needed_by.is_empty() {
                member.needed_by.insert(needed_by.to_owned());
            }
            return true;
        }
        if self.closure.members.len() >= MAX_OBJECTS {
            return false;
        }
        let bytes = self.root.contents(&found.node, MAX_FILE).unwrap_or_default();
        let Some(object) = Object::parse(&bytes) else { return false };
        let needed_by = Some(needed_by.to_owned()).filter(|name| !name.is_empty());
        let size = found.node.inode.size;
        let member = Member { object, how, needed_by: needed_by.into_iter().collect(), size };
        self.closure.members.insert(found.path.clone(), member);
        true
    }

    fn take(&mut self, hit: Hit, needed_by: &str, inherited: Vec<String>, program: &str) {
        self.closure.also.extend(hit.variants.iter().map(|found| found.path.clone()));
        if self.member(&hit.found, hit.how, needed_by) {
            self.enqueue(hit.found.path, inherited, program.to_owned());
        }
    }

    fn drain(&mut self) {
        while let Some(Task { path, inherited, program }) = self.queue.pop_front() {
            let Some(member) = self.closure.members.get(&path) else { continue };
            let object = member.object.clone();
            let by = show(&path);
            if let Some(interpreter) = &object.interpreter {
                match self.root.file(interpreter.as_bytes()) {
                    Some(found) => {
                        self.member(&found, How::Interpreter, &by);
                    }
                    None => self.missing(interpreter, &by, &program),
                }
            }
            let index = self.search_for(libc_of(&object, &self.closure));
            let rpaths = self.searches[index].rpaths(&path, &object, &inherited);
            for name in &object.needed {
                if self.searches[index].is_builtin(name) {
                    continue;
                }
                let search = &self.searches[index];
                match search.library(self.root, name, &path, &object, &inherited) {
                    Some(hit) if hit.how == How::Configured => {
                        // There, but only ldconfig would make it known.
                        self.missing(name, &by, &program);
                        self.take(hit, &by, rpaths.clone(), &program);
                    }
                    Some(hit) => self.take(hit, &by, rpaths.clone(), &program),
                    None if self.is_loaded(name) => {}
                    None => self.missing(name, &by, &program),
                }
            }
        }
    }

    /// Whether something of this name is loaded anyway: the loader matches DT_SONAME.
    fn is_loaded(&self, name: &str) -> bool {
        self.closure.members.values().any(|member| member.object.soname.as_deref() == Some(name))
    }

    /// What is loaded later meets libraries of that name that are loaded by then, wherever they were
    /// found: Java's all need libjvm.so, which its launcher loads from a directory of its own.
    fn forgive(&mut self) {
        let members = &self.closure.members;
        let there = members.values().filter(|member| member.how != How::Configured);
        let sonames: BTreeSet<&str> =
            there.filter_map(|member| member.object.soname.as_deref()).collect();
        let later = |path: &str| {
            let how = members.get(path.as_bytes()).map(|member| member.how);
            matches!(how, Some(How::Dlopen | How::NameService | How::Extension))
        };
        self.closure.missing.retain(|missing| {
            !(later(&missing.needed_by) && sonames.contains(missing.what.as_str()))
        });
    }

    fn missing(&mut self, what: &str, needed_by: &str, program: &str) {
        self.closure.missing.insert(Missing {
            what: what.to_owned(),
            needed_by: needed_by.to_owned(),
            program: program.to_owned(),
        });
    }

    /// glibc's loader refuses to start a program whose libraries lack a version that it asks for.
    fn check_versions(&mut self) {
        let by_soname: BTreeMap<&str, &Object> = self
            .closure
            .members
            .values()
            .filter_map(|member| Some((member.object.soname.as_deref()?, &member.object)))
            .collect();
        let mut found = BTreeSet::new();
        for (path, member) in &self.closure.members {
            for (library, version) in &member.object.versions_needed {
                let Some(object) = by_soname.get(library.as_str()) else { continue };
                // A library without any versions is taken as it is, with a warning.
                if !object.versions.is_empty() && !object.versions.contains(version) {
                    found.insert(Missing {
                        what: format!("version {version} of {library}"),
                        needed_by: show(path),
                        program: show(path),
                    });
                }
            }
        }
        self.closure.unversioned = found;
    }
}

/// Which loader will load an object: its own interpreter's, or that of what is loaded already.
fn libc_of(object: &Object, closure: &Closure) -> Libc {
    if let Some(interpreter) = &object.interpreter {
        return Libc::of_interpreter(interpreter);
    }
    if object.needed.iter().any(|name| name.starts_with("libc.musl") || name == "libc.so") {
        return Libc::Musl;
    }
    if object.needed.iter().any(|name| name == "libc.so.6") {
        return Libc::Glibc;
    }
    let first = closure.members.values().find_map(|member| member.object.interpreter.as_deref());
    first.map_or(Libc::Glibc, Libc::of_interpreter)
}

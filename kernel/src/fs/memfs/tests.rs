use super::*;
use crate::fs::erofs::tests::{mkfs, open};
use crate::fs::mount::Path;
use crate::fs::perm::Kernel;
use crate::fs::walk::{Resolve, Resolver, name_of};
use crate::fs::{File, Mount, ops};
use linux_raw_sys::general::*;
use std::collections::{BTreeMap, BTreeSet};
use std::string::ToString;
use std::vec::Vec;

fn resolver(fs: Arc<MemFs>) -> Resolver<'static> {
    let root = Path::root_of(&Mount::internal(fs));
    Resolver { root: root.clone(), start: root, who: &Kernel, resolve: Resolve::empty() }
}

fn tmpfs() -> Resolver<'static> {
    resolver(MemFs::tmpfs(&Options::default()))
}

fn create(r: &Resolver<'_>, name: &str) -> Result<Arc<File>> {
    ops::open(r, name.as_bytes(), O_CREAT | O_EXCL | O_RDWR, 0o644, 0)
}

fn mkdir(r: &Resolver<'_>, name: &str) -> Result<()> {
    ops::mkdir(r, name.as_bytes(), 0o755).map(drop)
}

fn rename(r: &Resolver<'_>, old: &str, new: &str, flags: u32) -> Result<()> {
    ops::rename(r, old.as_bytes(), r, new.as_bytes(), flags)
}

fn ino(r: &Resolver<'_>, name: &str) -> Result<u64> {
    Ok(r.lookup(name.as_bytes(), false)?.inode()?.metadata().ino)
}

fn nlink(r: &Resolver<'_>, name: &str) -> u32 {
    r.lookup(name.as_bytes(), false).unwrap().inode().unwrap().metadata().nlink
}

/// Names in a directory, read `batch` at a time.
fn list(r: &Resolver<'_>, name: &str, batch: usize) -> BTreeSet<std::string::String> {
    let file = ops::open(r, name.as_bytes(), O_RDONLY | O_DIRECTORY, 0, 0).unwrap();
    let mut names = BTreeSet::new();
    let mut offset = 0;
    loop {
        let mut count = 0;
        file.ops
            .read_dir(&file, offset, &mut |_, next, _, name| {
                if count == batch {
                    return false;
                }
                count += 1;
                assert!(next > offset);
                offset = next;
                let name = std::string::String::from_utf8(name.to_vec()).unwrap();
                assert!(names.insert(name.clone()), "{name} twice");
                true
            })
            .unwrap();
        if count == 0 {
            assert!(names.remove(".") && names.remove(".."));
            return names;
        }
    }
}

#[test]
fn names_resolve_as_path_resolution_says() {
    let r = tmpfs();
    mkdir(&r, "/a").unwrap();
    mkdir(&r, "/a/b").unwrap();
    create(&r, "/a/b/f").unwrap();
    ops::symlink(&r, b"/a/b", b"/abs").unwrap();
    ops::symlink(&r, b"b", b"/a/rel").unwrap();
    ops::symlink(&r, b"f", b"/a/b/lf").unwrap();
    ops::symlink(&r, b"nowhere", b"/dangling").unwrap();
    ops::symlink(&r, b"loop", b"/loop").unwrap();
    let f = ino(&r, "/a/b/f").unwrap();
    let found = |name: &str| {
        r.lookup(name.as_bytes(), true).map(|path| path.inode().unwrap().metadata().ino)
    };
    for name in [
        "a/b/f",
        "//a///b/./f",
        "/a/../a/b/f",
        "/../../a/b/f",
        "/abs/f",
        "/a/rel/f",
        "/abs/lf",
        "/a/rel/../rel/lf",
        "/a/b/../../abs/f",
    ] {
        assert_eq!(found(name), Ok(f), "{name}");
    }
    for (name, error) in [
        ("", Errno::ENOENT),
        ("/a/b/f/", Errno::ENOTDIR),
        ("/a/b/f/x", Errno::ENOTDIR),
        ("/a/b/f/.", Errno::ENOTDIR),
        ("/a/b/f/..", Errno::ENOTDIR),
        ("/none/x", Errno::ENOENT),
        ("/dangling", Errno::ENOENT),
        ("/loop", Errno::ELOOP),
        ("/loop/x", Errno::ELOOP),
    ] {
        assert_eq!(found(name), Err(error), "{name}");
    }
    assert_eq!(found(&"x".repeat(256)), Err(Errno::ENAMETOOLONG));
    assert_eq!(found(&"a/../".repeat(1000)), Err(Errno::ENAMETOOLONG));
    // A link at the end is followed only if asked, or if a slash follows.
    assert_eq!(
        r.lookup(b"/abs", false).unwrap().dentry.kind(),
        Some(super::super::FileType::Symlink)
    );
    assert!(r.lookup(b"/abs/", false).unwrap().dentry.is_dir());
    // Creating through a dangling link makes its target.
    ops::open(&r, b"/dangling", O_CREAT | O_WRONLY, 0o600, 0).unwrap();
    assert!(found("/nowhere").is_ok());
    let open = |name: &str, flags| ops::open(&r, name.as_bytes(), flags, 0o600, 0).map(drop);
    assert_eq!(open("/abs", O_RDONLY | O_NOFOLLOW), Err(Errno::ELOOP));
    assert_eq!(open("/a", O_WRONLY), Err(Errno::EISDIR));
    assert_eq!(open("/a", O_CREAT), Err(Errno::EISDIR));
    assert_eq!(open("/new/", O_CREAT | O_WRONLY), Err(Errno::EISDIR));
    assert_eq!(open("/abs", O_CREAT | O_EXCL | O_WRONLY), Err(Errno::EEXIST));
    assert_eq!(open("/a/b/f", O_DIRECTORY), Err(Errno::ENOTDIR));
    let deep = r.lookup(b"/abs", true).unwrap();
    assert_eq!(name_of(&deep, &r.root), b"/a/b");
}

#[test]
fn restricted_resolution_stays_inside() {
    let mut r = tmpfs();
    mkdir(&r, "/jail").unwrap();
    create(&r, "/outside").unwrap();
    create(&r, "/jail/inside").unwrap();
    ops::symlink(&r, b"/outside", b"/jail/abs").unwrap();
    ops::symlink(&r, b"../outside", b"/jail/up").unwrap();
    r.start = r.lookup(b"/jail", true).unwrap();
    let kinds = [
        (Resolve::BENEATH, [Ok(()), Err(Errno::EXDEV), Err(Errno::EXDEV), Err(Errno::EXDEV)]),
        (Resolve::IN_ROOT, [Ok(()), Err(Errno::ENOENT), Err(Errno::ENOENT), Err(Errno::ENOENT)]),
        (Resolve::NO_SYMLINKS, [Ok(()), Err(Errno::ELOOP), Err(Errno::ELOOP), Ok(())]),
    ];
    for (resolve, expected) in kinds {
        r.resolve = resolve;
        for (name, expected) in ["inside", "abs", "up", "../outside"].into_iter().zip(expected) {
            assert_eq!(r.lookup(name.as_bytes(), true).map(drop), expected, "{resolve:?} {name}");
        }
    }
}

#[test]
fn links_counts_and_removal() {
    let r = tmpfs();
    mkdir(&r, "/d").unwrap();
    create(&r, "/f").unwrap();
    let f = r.lookup(b"/f", true).unwrap();
    ops::link(&r, &f, b"/d/g").unwrap();
    assert_eq!((nlink(&r, "/f"), nlink(&r, "/d"), nlink(&r, "/")), (2, 2, 3));
    assert_eq!(ino(&r, "/f"), ino(&r, "/d/g"));
    assert_eq!(ops::link(&r, &r.lookup(b"/d", true).unwrap(), b"/e"), Err(Errno::EPERM));
    assert_eq!(ops::rmdir(&r, b"/d"), Err(Errno::ENOTEMPTY));
    assert_eq!(ops::unlink(&r, b"/d"), Err(Errno::EISDIR));
    assert_eq!(ops::rmdir(&r, b"/f"), Err(Errno::ENOTDIR));
    assert_eq!(ops::rmdir(&r, b"/d/."), Err(Errno::EINVAL));
    assert_eq!(ops::rmdir(&r, b"/d/.."), Err(Errno::ENOTEMPTY));
    ops::unlink(&r, b"/f").unwrap();
    assert_eq!(ops::unlink(&r, b"/f"), Err(Errno::ENOENT));
    assert_eq!(nlink(&r, "/d/g"), 1);
    ops::unlink(&r, b"/d/g").unwrap();
    let d = r.lookup(b"/d", true).unwrap();
    ops::rmdir(&r, b"/d/").unwrap();
    assert_eq!((nlink(&r, "/"), d.inode().unwrap().metadata().nlink), (2, 0));
    // Nothing can be made in a removed directory.
    let inside =
        Resolver { start: d, root: r.root.clone(), who: &Kernel, resolve: Resolve::empty() };
    assert_eq!(create(&inside, "x").map(drop), Err(Errno::ENOENT));
}

#[test]
fn renames_replace_exchange_and_refuse_loops() {
    let r = tmpfs();
    for dir in ["/a", "/a/b", "/c"] {
        mkdir(&r, dir).unwrap();
    }
    create(&r, "/f").unwrap();
    create(&r, "/g").unwrap();
    let (f, g) = (ino(&r, "/f").unwrap(), ino(&r, "/g").unwrap());
    assert_eq!(rename(&r, "/f", "/g", RENAME_NOREPLACE), Err(Errno::EEXIST));
    rename(&r, "/f", "/g", RENAME_EXCHANGE).unwrap();
    assert_eq!((ino(&r, "/g"), ino(&r, "/f")), (Ok(f), Ok(g)));
    rename(&r, "/g", "/f", 0).unwrap();
    assert_eq!((ino(&r, "/f"), ino(&r, "/g")), (Ok(f), Err(Errno::ENOENT)));
    assert_eq!(rename(&r, "/a", "/a/b/x", 0), Err(Errno::EINVAL));
    assert_eq!(rename(&r, "/a/b", "/a", 0), Err(Errno::ENOTEMPTY));
    assert_eq!(rename(&r, "/a", "/a/b", RENAME_EXCHANGE), Err(Errno::EINVAL));
    assert_eq!(rename(&r, "/f", "/c", 0), Err(Errno::EISDIR));
    assert_eq!(rename(&r, "/c", "/f", 0), Err(Errno::ENOTDIR));
    assert_eq!(rename(&r, "/c", "/a", 0), Err(Errno::ENOTEMPTY));
    assert_eq!(rename(&r, "/f", "/x/", 0), Err(Errno::ENOTDIR));
    assert_eq!(rename(&r, "/a/.", "/x", 0), Err(Errno::EBUSY));
    rename(&r, "/a/b", "/c", 0).unwrap();
    assert_eq!((nlink(&r, "/a"), nlink(&r, "/c"), nlink(&r, "/")), (2, 2, 4));
    rename(&r, "/a", "/c/a", 0).unwrap();
    assert_eq!((nlink(&r, "/c"), nlink(&r, "/")), (3, 3));
    rename(&r, "/c/a", "/f", RENAME_EXCHANGE).unwrap();
    assert_eq!((nlink(&r, "/c"), nlink(&r, "/"), ino(&r, "/c/a")), (2, 4, Ok(f)));
    rename(&r, "/c/a", "/c/a", 0).unwrap();
    assert_eq!(list(&r, "/", 1), ["c", "f"].map(|s| s.to_string()).into());
}

#[test]
fn sticky_directories_protect_names() {
    struct User(u32);
    impl crate::fs::perm::Subject for User {
        fn fsuid(&self) -> u32 {
            self.0
        }
        fn fsgid(&self) -> u32 {
            self.0
        }
        fn in_groups(&self, _gid: u32) -> bool {
            false
        }
        fn capable(&self, _cap: u32) -> bool {
            false
        }
    }
    let root = tmpfs();
    let as_user = |who| Resolver {
        root: root.root.clone(),
        start: root.root.clone(),
        who,
        resolve: Resolve::empty(),
    };
    let (one, two) = (as_user(&User(1)), as_user(&User(2)));
    // The root of a tmpfs has mode 1777.
    create(&one, "/mine").unwrap();
    assert_eq!(ops::unlink(&two, b"/mine"), Err(Errno::EPERM));
    assert_eq!(rename(&two, "/mine", "/theirs", 0), Err(Errno::EPERM));
    assert_eq!(ops::open(&two, b"/mine", O_RDWR, 0, 0).map(drop), Err(Errno::EACCES));
    assert!(ops::open(&two, b"/mine", O_RDONLY, 0, 0).is_ok());
    ops::unlink(&one, b"/mine").unwrap();
    ops::mkdir(&one, b"/private", 0o700).unwrap();
    assert_eq!(two.lookup(b"/private/x", true).map(drop), Err(Errno::EACCES));
    assert_eq!(mkdir(&two, "/private/x"), Err(Errno::EACCES));
    let path = root.lookup(b"/private", true).unwrap();
    assert_eq!(ops::chmod(&User(2), &path, 0o777), Err(Errno::EPERM));
    assert_eq!(ops::chown(&User(1), &path, Some(2), None), Err(Errno::EPERM));
    ops::chmod(&User(1), &path, 0o777).unwrap();
    mkdir(&two, "/private/x").unwrap();
}

#[test]
fn a_hundred_thousand_names_are_no_trouble() {
    let r = tmpfs();
    mkdir(&r, "/d").unwrap();
    for n in 0..100_000 {
        create(&r, &std::format!("/d/{n}")).unwrap();
    }
    assert_eq!(list(&r, "/d", 500).len(), 100_000);
    for n in 0..100_000 {
        ops::unlink(&r, std::format!("/d/{n}").as_bytes()).unwrap();
    }
    ops::rmdir(&r, b"/d").unwrap();
    crate::fs::dcache::sweep(&r.root.dentry);
}

#[test]
fn removed_directories_go_with_the_names_that_were_looked_for_in_them() {
    let r = tmpfs();
    let made = |name: &str| {
        mkdir(&r, name).unwrap();
        assert!(r.lookup(std::format!("{name}/absent").as_bytes(), true).is_err());
        Arc::downgrade(&r.lookup(name.as_bytes(), true).unwrap().dentry)
    };
    let removed = made("/removed");
    ops::rmdir(&r, b"/removed").unwrap();
    assert!(removed.upgrade().is_none());
    let replaced = made("/replaced");
    mkdir(&r, "/other").unwrap();
    ops::rename(&r, b"/other", &r, b"/replaced", 0).unwrap();
    assert!(replaced.upgrade().is_none());
}

#[test]
fn deep_trees_are_made_and_dropped_without_recursion() {
    let r = tmpfs();
    let mut at = Resolver {
        root: r.root.clone(),
        start: r.root.clone(),
        who: &Kernel,
        resolve: Resolve::empty(),
    };
    for _ in 0..50_000 {
        let path = ops::mkdir(&at, b"d", 0o755).unwrap();
        at.start = path;
    }
    drop(at);
    crate::fs::dcache::sweep(&r.root.dentry);
    drop(r);
}

/// The root over an image does what a plain model of the tree does.
#[test]
fn an_image_with_changes_behaves_like_a_tree() {
    let image = mkfs("model", |tree| {
        for dir in ["d0", "d1", "d2", "d0/d1"] {
            std::fs::create_dir_all(tree.join(dir)).unwrap();
        }
        for n in 0..20 {
            std::fs::write(tree.join(std::format!("d{}/f{n}", n % 3)), [n]).unwrap();
        }
        std::fs::hard_link(tree.join("d0/f0"), tree.join("d1/hard")).unwrap();
    });
    let Some(image) = image else { return };
    let fs = MemFs::over(open(image).unwrap()).unwrap();
    let r = resolver(fs);
    // The model: path to inode number; directories have `true`.
    let mut model: BTreeMap<std::string::String, (u64, bool)> = BTreeMap::new();
    fn scan(r: &Resolver<'_>, dir: &str, model: &mut BTreeMap<std::string::String, (u64, bool)>) {
        for name in list(r, if dir.is_empty() { "/" } else { dir }, 3) {
            let path = std::format!("{dir}/{name}");
            let found = r.lookup(path.as_bytes(), false).unwrap();
            let is_dir = found.dentry.is_dir();
            model.insert(path.clone(), (found.inode().unwrap().metadata().ino, is_dir));
            if is_dir {
                scan(r, &path, model);
            }
        }
    }
    scan(&r, "", &mut model);
    assert_eq!(model.len(), 4 + 21);
    assert_eq!(model["/d0/f0"], model["/d1/hard"]);
    let mut random = 88172645463325252u64;
    let mut next = |n: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % n as u64) as usize
    };
    for step in 0..6000 {
        let dirs: Vec<_> = std::iter::once(std::string::String::new())
            .chain(model.iter().filter(|(_, entry)| entry.1).map(|(path, _)| path.clone()))
            .collect();
        let mut pick = || {
            let dir = &dirs[next(dirs.len())];
            let kind = if next(3) == 0 { 'd' } else { 'f' };
            std::format!("{dir}/{kind}{}", next(8))
        };
        let (path, other) = (pick(), pick());
        let below = |dir: &str| std::format!("{dir}/");
        let has_children = |model: &BTreeMap<_, _>, dir: &str| {
            model.keys().any(|path: &std::string::String| path.starts_with(&below(dir)))
        };
        match next(5) {
            0 => {
                let result = create(&r, &path);
                assert_eq!(result.is_ok(), !model.contains_key(&path), "{step} create {path}");
                if result.is_ok() {
                    model.insert(path.clone(), (ino(&r, &path).unwrap(), false));
                }
            }
            1 => {
                let result = mkdir(&r, &path);
                assert_eq!(result.is_ok(), !model.contains_key(&path), "{step} mkdir {path}");
                if result.is_ok() {
                    model.insert(path.clone(), (ino(&r, &path).unwrap(), true));
                }
            }
            2 => {
                let expected = model.get(&path).is_some_and(|entry| !entry.1);
                let result = ops::unlink(&r, path.as_bytes());
                assert_eq!(result.is_ok(), expected, "{step} unlink {path} {result:?}");
                if expected {
                    model.remove(&path);
                }
            }
            3 => {
                let expected =
                    model.get(&path).is_some_and(|entry| entry.1) && !has_children(&model, &path);
                let result = ops::rmdir(&r, path.as_bytes());
                assert_eq!(result.is_ok(), expected, "{step} rmdir {path} {result:?}");
                if expected {
                    model.remove(&path);
                }
            }
            _ => {
                let exchange = next(4) == 0;
                let (from, to) = (model.get(&path).copied(), model.get(&other).copied());
                let loops = other.starts_with(&below(&path)) || path.starts_with(&below(&other));
                let expected = match (from, to) {
                    (Some(_), None) => !exchange && !loops,
                    (Some(a), Some(b)) if a.0 == b.0 => true,
                    (Some(_), Some(_)) if loops => false,
                    (Some(_), Some(_)) if exchange => true,
                    (Some(a), Some(b)) => a.1 == b.1 && !(b.1 && has_children(&model, &other)),
                    _ => false,
                };
                let flags = if exchange { RENAME_EXCHANGE } else { 0 };
                let result = rename(&r, &path, &other, flags);
                assert_eq!(result.is_ok(), expected, "{step} {path} -> {other} {result:?}");
                if expected && from.map(|e| e.0) != to.map(|e| e.0) {
                    let take = |model: &mut BTreeMap<_, _>,
                                dir: &str|
                     -> Vec<(std::string::String, _)> {
                        let keys: Vec<std::string::String> = model
                            .keys()
                            .filter(|path: &&std::string::String| {
                                *path == dir || path.starts_with(&below(dir))
                            })
                            .cloned()
                            .collect();
                        keys.into_iter()
                            .map(|key| (key[dir.len()..].to_string(), model.remove(&key).unwrap()))
                            .collect()
                    };
                    let one = take(&mut model, &path);
                    let two = take(&mut model, &other);
                    model.extend(
                        one.into_iter().map(|(rest, entry)| (other.clone() + &rest, entry)),
                    );
                    if exchange {
                        model.extend(
                            two.into_iter().map(|(rest, entry)| (path.clone() + &rest, entry)),
                        );
                    }
                }
            }
        }
        if step % 500 == 0 {
            crate::fs::dcache::sweep(&r.root.dentry);
            crate::fs::dcache::sweep(&r.root.dentry);
            let mut seen = BTreeMap::new();
            scan(&r, "", &mut seen);
            assert_eq!(seen, model, "after step {step}");
        }
    }
}

#[test]
fn attributes_of_image_files_survive_being_forgotten() {
    let image = mkfs("attr", |tree| {
        std::fs::write(tree.join("f"), b"x").unwrap();
        std::fs::write(tree.join("g"), b"x").unwrap();
    });
    let Some(image) = image else { return };
    let r = resolver(MemFs::over(open(image).unwrap()).unwrap());
    let path = r.lookup(b"/f", true).unwrap();
    ops::chmod(&Kernel, &path, 0o4700).unwrap();
    path.inode().unwrap().set_xattr(b"user.k", b"v", crate::fs::inode::XattrMode::Create).unwrap();
    let before = path.inode().unwrap().metadata();
    drop(path);
    for _ in 0..2 {
        crate::fs::dcache::sweep(&r.root.dentry);
    }
    let path = r.lookup(b"/f", true).unwrap();
    let after = path.inode().unwrap().metadata();
    assert_eq!((after.ino, after.mode, after.mode & 0o7777), (before.ino, before.mode, 0o4700));
    assert_eq!(path.inode().unwrap().xattr(b"user.k").unwrap().unwrap(), b"v");
    assert_eq!(r.lookup(b"/g", true).unwrap().inode().unwrap().xattr(b"user.k"), Ok(None));
}

fn contents(file: &File, offset: u64, len: usize) -> Vec<u8> {
    let mut buf = std::vec![0xee; len];
    let mut dst = crate::io::IoDst::kernel(&mut buf);
    let n = file.ops.read_at(file, offset, &mut dst).unwrap();
    buf.truncate(n);
    buf
}

fn put(file: &File, offset: u64, bytes: &[u8]) -> Result<u64> {
    let (n, end) = file.ops.write_at(file, offset, &mut crate::io::IoSrc::kernel(bytes))?;
    assert_eq!(n, bytes.len());
    Ok(end)
}

#[test]
fn writes_to_image_files_copy_pages_and_leave_the_rest() {
    let original: Vec<u8> = (0..50_000u32).map(|n| (n / 11) as u8).collect();
    let image = mkfs("write", |tree| std::fs::write(tree.join("f"), &original).unwrap());
    let Some(image) = image else { return };
    let r = resolver(MemFs::over(open(image).unwrap()).unwrap());
    let file = ops::open(&r, b"/f", O_RDWR, 0, 0).unwrap();
    let mut expected = original.clone();
    put(&file, 5000, b"changed").unwrap();
    expected[5000..5007].copy_from_slice(b"changed");
    assert_eq!(contents(&file, 0, 60_000), expected);
    drop(file);
    for _ in 0..2 {
        crate::fs::dcache::sweep(&r.root.dentry);
    }
    let file = ops::open(&r, b"/f", O_RDWR | O_APPEND, 0, 0).unwrap();
    assert_eq!(put(&file, 0, b"tail"), Ok(50_004));
    expected.extend_from_slice(b"tail");
    assert_eq!(contents(&file, 0, 60_000), expected);
    // What truncation cuts off doesn't come back from the image.
    let inode = file.inode();
    inode.truncate(100).unwrap();
    inode.truncate(10_000).unwrap();
    expected.truncate(100);
    expected.resize(10_000, 0);
    assert_eq!(contents(&file, 0, 60_000), expected);
    assert_eq!(ops::open(&r, b"/f", O_WRONLY | O_TRUNC, 0, 0).unwrap().inode().metadata().size, 0);
}

#[test]
fn holes_are_seen_and_quotas_kept() {
    let r = resolver(MemFs::tmpfs(&Options::parse(b"size=64k,mode=700").unwrap()));
    let file = create(&r, "/sparse").unwrap();
    put(&file, 1 << 20, b"x").unwrap();
    let meta = file.inode().metadata();
    assert_eq!((meta.size, meta.blocks), ((1 << 20) + 1, 8));
    assert_eq!(file.ops.seek_data(&file, 0, false), Ok(1 << 20));
    assert_eq!(file.ops.seek_data(&file, 0, true), Ok(0));
    assert_eq!(file.ops.seek_data(&file, 2 << 20, false), Err(Errno::ENXIO));
    assert_eq!(contents(&file, 0, 8), [0; 8]);
    file.ops.allocate(&file, FALLOC_FL_KEEP_SIZE, 0, 8192).unwrap();
    assert_eq!(file.inode().metadata().blocks, 24);
    assert_eq!(file.ops.allocate(&file, 0, 0, 128 << 10), Err(Errno::ENOSPC));
    let punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    file.ops.allocate(&file, punch, 0, 2 << 20).unwrap();
    assert!(file.inode().metadata().blocks <= 8);
    assert_eq!(file.inode().metadata().size, (1 << 20) + 1);
    assert_eq!(Options::parse(b"nonsense=1").err(), Some(Errno::EINVAL));
}

//! /proc/PID/mounts, mountinfo and mountstats.

use super::GONE;
use super::process::find;
use crate::errno::Result;
use crate::fs::inode::{dev_major, dev_minor};
use crate::fs::mount::{self, Flags, Propagation};
use crate::fs::pseudo::{Key, Text};
use crate::fs::walk::name_of;
use crate::fs::{Mount, Path};
use crate::say;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Mounts that the process sees, with their names.
fn visible(key: &Key) -> Result<Vec<(Arc<Mount>, Vec<u8>)>> {
    let task = find(key)?;
    let root = task.try_fs().ok_or(GONE)?.root();
    let mut out = Vec::new();
    for mount in mount::list() {
        let name = name_of(&Path::root_of(&mount), &root);
        if !name.starts_with(b"(unreachable)") {
            out.push((mount, name));
        }
    }
    Ok(out)
}

/// A name with white space and backslashes as octal escapes.
fn escaped(out: &mut Text, name: &[u8]) {
    for &byte in name {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => say!(out, "\\{byte:03o}"),
            _ => out.bytes(&[byte]),
        }
    }
}

fn options(flags: Flags) -> String {
    let mut text = String::from(if flags.contains(Flags::RDONLY) { "ro" } else { "rw" });
    for (flag, name) in [
        (Flags::SYNCHRONOUS, ",sync"),
        (Flags::DIRSYNC, ",dirsync"),
        (Flags::MANDLOCK, ",mand"),
        (Flags::LAZYTIME, ",lazytime"),
        (Flags::NOSUID, ",nosuid"),
        (Flags::NODEV, ",nodev"),
        (Flags::NOEXEC, ",noexec"),
        (Flags::NOATIME, ",noatime"),
        (Flags::NODIRATIME, ",nodiratime"),
        (Flags::RELATIME, ",relatime"),
        (Flags::NOSYMFOLLOW, ",nosymfollow"),
    ] {
        if flags.contains(flag) {
            text += name;
        }
    }
    text
}

pub fn mounts(key: &Key, out: &mut Text) -> Result<()> {
    for (mount, name) in visible(key)? {
        escaped(out, mount.source.as_bytes());
        say!(out, " ");
        escaped(out, &name);
        let (kind, flags) = (mount.fs.name(), options(mount.own_flags() | mount.whole_flags()));
        say!(out, " {kind} {flags}{} 0 0\n", mount.fs.options());
    }
    Ok(())
}

pub fn mountinfo(key: &Key, out: &mut Text) -> Result<()> {
    for (mount, name) in visible(key)? {
        let parent = mount.at().map_or(1, |at| at.mount.id);
        let dev = mount.fs.dev();
        say!(out, "{} {parent} {}:{} ", mount.id, dev_major(dev), dev_minor(dev));
        escaped(out, &root_within(&mount));
        say!(out, " ");
        escaped(out, &name);
        say!(out, " {}", options(mount.own_flags()));
        let Propagation { group, master, unbindable } = mount.propagation();
        for (name, number) in [("shared", group), ("master", master)] {
            if number != 0 {
                say!(out, " {name}:{number}");
            }
        }
        if unbindable {
            say!(out, " unbindable");
        }
        say!(out, " - {} ", mount.fs.name());
        escaped(out, mount.source.as_bytes());
        say!(out, " {}{}\n", options(mount.whole_flags()), mount.fs.options());
    }
    Ok(())
}

/// Which directory of the filesystem is mounted.
fn root_within(mount: &Mount) -> Vec<u8> {
    let mut parts = Vec::new();
    let mut at = mount.root.clone();
    while !at.is_root() {
        parts.push(at.name());
        at = at.parent();
    }
    let mut name = Vec::new();
    for part in parts.iter().rev() {
        name.push(b'/');
        name.extend_from_slice(part);
    }
    if name.is_empty() {
        name.push(b'/');
    }
    name
}

pub fn mountstats(key: &Key, out: &mut Text) -> Result<()> {
    for (mount, name) in visible(key)? {
        say!(out, "device {} mounted on ", mount.source);
        escaped(out, &name);
        say!(out, " with fstype {}\n", mount.fs.name());
    }
    Ok(())
}

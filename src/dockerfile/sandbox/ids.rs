//! Which IDs a user namespace has.
//!
//! Root keeps all its own. Others get their subordinate IDs by `newuidmap` and `newgidmap`, which
//! are allowed to give them; where those are missing they get one ID, their own, which is root
//! inside.

use std::fs;
use std::io;
use std::process::{Command, Stdio};

use rustix::process::{getegid, geteuid};

use super::super::error::Error;

/// Maps the IDs of process `id`, which has just entered a user namespace.
///
/// # Errors
/// [`Error::Sandbox`] if the system doesn't allow it.
pub fn map(id: u32) -> Result<(), Error> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let fail = |what: &str, error: io::Error| Error::Sandbox {
        reason: format!("the {what} of a user namespace can't be set ({error})"),
        hint: None,
    };
    let write = |file: &str, text: &str| fs::write(format!("/proc/{id}/{file}"), text);
    if uid == 0 {
        for file in ["uid_map", "gid_map"] {
            let own = fs::read_to_string(format!("/proc/self/{file}"));
            write(file, &same(&own.unwrap_or_default())).map_err(|error| fail(file, error))?;
        }
        return Ok(());
    }
    if let (Some(uids), Some(gids)) =
        (subordinate("/etc/subuid", uid), subordinate("/etc/subgid", uid))
        && helper("newuidmap", id, uid, &uids)
        && helper("newgidmap", id, gid, &gids)
    {
        return Ok(());
    }
    // One ID may be mapped by anybody who gives up on groups.
    write("setgroups", "deny").map_err(|error| fail("groups", error))?;
    write("uid_map", &format!("0 {uid} 1")).map_err(|error| fail("users", error))?;
    write("gid_map", &format!("0 {gid} 1")).map_err(|error| fail("groups", error))
}

/// Whether this user gets more than one ID, as far as can be seen beforehand.
pub fn many() -> bool {
    let uid = geteuid().as_raw();
    let there = |name: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
    };
    let ranges = |file| subordinate(file, uid).is_some();
    uid == 0
        || (there("newuidmap")
            && there("newgidmap")
            && ranges("/etc/subuid")
            && ranges("/etc/subgid"))
}

/// A map in which all IDs that exist here are themselves.
fn same(map: &str) -> String {
    let mut text = String::new();
    for line in map.lines() {
        let mut fields = line.split_whitespace();
        if let (Some(first), Some(_), Some(count)) = (fields.next(), fields.next(), fields.next()) {
            text.push_str(&format!("{first} {first} {count}\n"));
        }
    }
    text
}

/// The ranges that a file such as /etc/subuid gives to a user, by name or number: start and count.
fn subordinate(file: &str, uid: u32) -> Option<Vec<(u32, u32)>> {
    let text = fs::read_to_string(file).ok()?;
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let number = uid.to_string();
    let name = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.get(2) == Some(&number.as_str())).then(|| fields[0].to_owned())
    });
    let ranges = parse(&text, &number, name.as_deref());
    (!ranges.is_empty()).then_some(ranges)
}

fn parse(text: &str, number: &str, name: Option<&str>) -> Vec<(u32, u32)> {
    let range = |line: &str| {
        let mut fields = line.split(':');
        let who = fields.next()?;
        if who != number && Some(who) != name {
            return None;
        }
        Some((fields.next()?.parse().ok()?, fields.next()?.trim().parse().ok()?))
    };
    text.lines().filter_map(range).filter(|&(_, count)| count > 0).collect()
}

/// Runs newuidmap or newgidmap. Whether it did.
fn helper(program: &str, id: u32, own: u32, ranges: &[(u32, u32)]) -> bool {
    let mut command = Command::new(program);
    command.arg(id.to_string()).args(["0", &own.to_string(), "1"]);
    let mut next: u32 = 1;
    for &(start, count) in ranges {
        command.args([next.to_string(), start.to_string(), count.to_string()]);
        next = next.saturating_add(count);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_and_ranges() {
        assert_eq!(same("         0     100000      65536\n"), "0 0 65536\n");
        let text = "me:100000:65536\nother:1:2\n1000:300000:10\nbad\nme:x:y\n";
        assert_eq!(parse(text, "1000", Some("me")), [(100_000, 65536), (300_000, 10)]);
        assert!(parse(text, "7", None).is_empty());
    }
}

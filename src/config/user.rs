//! The user that the program runs as, by the image's own passwd(5) and group(5) files.
//!
//! The rules are those of `GetExecUser` in moby/sys/user, which Docker uses: a name must be in the
//! passwd file; a number need not be. Supplementary groups are those that list the user, and none
//! if a group was given.

use dock2uni_format::record::User;

use super::{Error, Files};

/// Larger account files are not looked at further than this many bytes.
const MAX_FILE: usize = 4 << 20;

/// An identity and what the environment needs to know of it.
#[derive(Debug)]
pub struct Resolved {
    pub ids: User,
    pub home: String,
}

/// Resolves `USER`: empty, `user` or `user:group`, each a name or a number.
pub fn resolve(spec: &str, files: &dyn Files) -> Result<Resolved, Error> {
    let (user, group) = spec.split_once(':').unwrap_or((spec, ""));
    let passwd = files.read(b"/etc/passwd", 0, MAX_FILE)?.unwrap_or_default();
    let number = number(user);
    let account = accounts(&passwd).find(|account| match (user, number) {
        ("", _) => account.uid == 0,
        (_, Some(uid)) => account.uid == uid,
        (name, None) => account.name == name.as_bytes(),
    });
    let (uid, mut gid, name) = match (&account, number) {
        (Some(account), _) => (account.uid, account.gid, Some(account.name)),
        (None, Some(uid)) => (uid, 0, None),
        (None, None) if user.is_empty() => (0, 0, None),
        (None, None) => return Err(Error::UnknownUser(user.to_owned())),
    };

    let mut groups = Vec::new();
    if !group.is_empty() || name.is_some() {
        let file = files.read(b"/etc/group", 0, MAX_FILE)?.unwrap_or_default();
        if group.is_empty() {
            let member = name.unwrap_or_default();
            groups = entries(&file)
                .filter(|fields| fields.get(3).is_some_and(|list| lists(list, member)))
                .filter_map(|fields| field_number(&fields, 2))
                .collect();
        } else {
            gid = group_id(group, &file)?;
        }
    }
    // Docker puts the primary group first among the supplementary ones (CVE-2022-36109).
    groups.retain(|other| *other != gid);
    groups.insert(0, gid);
    let home = account.map(|account| String::from_utf8_lossy(account.home).into_owned());
    let home = home.filter(|home| !home.is_empty()).unwrap_or_else(|| "/".to_owned());
    Ok(Resolved { ids: User { uid, gid, groups }, home })
}

struct Account<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

fn accounts(passwd: &[u8]) -> impl Iterator<Item = Account<'_>> {
    entries(passwd).filter_map(|fields| {
        let uid = field_number(&fields, 2)?;
        let gid = field_number(&fields, 3)?;
        Some(Account { name: fields[0], uid, gid, home: fields.get(5).copied().unwrap_or(b"") })
    })
}

fn group_id(spec: &str, file: &[u8]) -> Result<u32, Error> {
    if let Some(gid) = number(spec) {
        return Ok(gid);
    }
    entries(file)
        .find(|fields| fields[0] == spec.as_bytes())
        .and_then(|fields| field_number(&fields, 2))
        .ok_or_else(|| Error::UnknownGroup(spec.to_owned()))
}

/// The colon-separated fields of each line; there is always at least one field.
fn entries(file: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    file.split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty())
        .map(|line| line.split(|byte| *byte == b':').collect())
}

fn lists(members: &[u8], name: &[u8]) -> bool {
    members.split(|byte| *byte == b',').any(|member| member == name)
}

fn field_number(fields: &[&[u8]], index: usize) -> Option<u32> {
    number(std::str::from_utf8(fields.get(index)?).ok()?)
}

/// IDs end at 2^31 - 1, as Docker has it.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| i32::try_from(*id).is_ok())
}

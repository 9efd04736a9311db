//! What execve(2) does to identity and capabilities (capabilities(7), "Transformation of
//! capabilities during execve()").

use super::super::creds::{CapSet, Creds, SECBIT_KEEP_CAPS, SECBIT_NOROOT};

const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;
const S_IXGRP: u32 = 0o0010;

/// Capabilities attached to a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileCaps {
    /// Gained if the bounding set allows.
    pub permitted: CapSet,
    /// Gained if the process has them as inheritable.
    pub inheritable: CapSet,
    /// Whether what is gained is effective at once.
    pub effective: bool,
}

impl FileCaps {
    /// Reads the `security.capability` attribute (revisions 2 and 3). `None` if it isn't one.
    pub fn parse(bytes: &[u8]) -> Option<FileCaps> {
        let word = |at: usize| {
            let raw = bytes.get(at * 4..at * 4 + 4)?;
            Some(u64::from(u32::from_le_bytes(raw.try_into().ok()?)))
        };
        let magic = word(0)?;
        let revision = magic >> 24;
        if !(2..=3).contains(&revision) || bytes.len() != if revision == 2 { 20 } else { 24 } {
            return None;
        }
        let set = |low: usize| Some(CapSet(word(low)? | word(low + 2)? << 32).and(CapSet::ALL));
        Some(FileCaps { permitted: set(1)?, inheritable: set(2)?, effective: magic & 1 != 0 })
    }
}

/// What the file is: mode, owner, group, capabilities; nothing of it counts on a `nosuid` mount.
#[derive(Clone, Copy, Debug)]
pub struct FileIdentity {
    /// Mode bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Capabilities.
    pub caps: Option<FileCaps>,
}

/// The credentials of the new program, and whether it must distrust its environment (`AT_SECURE`).
pub fn transform(old: &Creds, file: Option<FileIdentity>) -> (Creds, bool) {
    let mut new = old.clone();
    new.keyrings = old.keyrings.inherited(false);
    let file = file.filter(|_| !old.no_new_privs);
    if let Some(file) = file {
        if file.mode & S_ISUID != 0 {
            new.euid = file.uid;
        }
        if file.mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP {
            new.egid = file.gid;
        }
    }
    (new.suid, new.fsuid) = (new.euid, new.euid);
    (new.sgid, new.fsgid) = (new.egid, new.egid);

    let root_counts = old.securebits & SECBIT_NOROOT == 0;
    let mut caps = file.and_then(|file| file.caps);
    let has_file_caps = caps.is_some();
    if root_counts && (new.uid == 0 || new.euid == 0) {
        let setuid_with_caps = has_file_caps && new.uid != 0 && new.euid == 0;
        if !setuid_with_caps {
            let effective = new.euid == 0 || caps.is_some_and(|caps| caps.effective);
            caps = Some(FileCaps { permitted: CapSet::ALL, inheritable: CapSet::ALL, effective });
        }
    }
    let changed_id = new.euid != old.uid || new.egid != old.gid;
    let gains_id = new.euid != old.euid || new.egid != old.egid;
    if has_file_caps || gains_id {
        new.ambient = CapSet::EMPTY;
    }
    let caps = caps.unwrap_or_default();
    let inherited = old.inheritable.and(caps.inheritable);
    new.permitted = inherited.or(caps.permitted.and(old.bounding)).or(new.ambient);
    new.effective = if caps.effective { new.permitted } else { new.ambient };
    new.securebits &= !SECBIT_KEEP_CAPS;
    let gained = new.uid != 0 && (caps.effective || !new.permitted.within(new.ambient));
    (new, changed_id || gained)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> Creds {
        Creds::for_user(1000, 1000, alloc::vec![])
    }

    #[test]
    fn setuid_root_gains_everything_and_plain_files_nothing() {
        let file = FileIdentity { mode: 0o4755, uid: 0, gid: 0, caps: None };
        let (new, secure) = transform(&user(), Some(file));
        assert_eq!((new.uid, new.euid, new.suid, new.permitted), (1000, 0, 0, CapSet::ALL));
        assert!(secure);
        let (same, secure) = transform(&user(), Some(FileIdentity { mode: 0o755, ..file }));
        assert_eq!((same, secure), (user(), false));
        let locked = Creds { no_new_privs: true, ..user() };
        assert_eq!(transform(&locked, Some(file)).0.euid, 1000);
    }

    #[test]
    fn file_capabilities_are_bounded() {
        let raw = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let caps = FileCaps::parse(&raw).unwrap();
        assert!(caps.effective && caps.permitted.has(10));
        let file = FileIdentity { mode: 0o755, uid: 0, gid: 0, caps: Some(caps) };
        let (new, secure) = transform(&user(), Some(file));
        assert_eq!((new.effective, secure), (CapSet(1 << 10), true));
        let bounded = Creds { bounding: CapSet::EMPTY, ..user() };
        assert_eq!(transform(&bounded, Some(file)).0.permitted, CapSet::EMPTY);
        assert_eq!(FileCaps::parse(&raw[..19]), None);
    }
}

//! Credentials of a task (credentials(7), capabilities(7)). Immutable: a change makes a new
//! [`Creds`].

use crate::ipc::keys::Keyrings;
use alloc::sync::Arc;
use alloc::vec::Vec;
use dock2uni_ext4::sort;

/// Largest number of supplementary groups (`NGROUPS_MAX`).
pub const MAX_GROUPS: usize = 65536;

/// Capability numbers (capabilities(7)).
#[allow(missing_docs, reason = "the names are those of capabilities(7)")]
pub mod cap {
    pub const CHOWN: u32 = 0;
    pub const DAC_OVERRIDE: u32 = 1;
    pub const DAC_READ_SEARCH: u32 = 2;
    pub const FOWNER: u32 = 3;
    pub const FSETID: u32 = 4;
    pub const KILL: u32 = 5;
    pub const SETGID: u32 = 6;
    pub const SETUID: u32 = 7;
    pub const SETPCAP: u32 = 8;
    pub const NET_BIND_SERVICE: u32 = 10;
    pub const NET_ADMIN: u32 = 12;
    pub const NET_RAW: u32 = 13;
    pub const IPC_LOCK: u32 = 14;
    pub const SYS_CHROOT: u32 = 18;
    pub const SYS_PTRACE: u32 = 19;
    pub const SYS_ADMIN: u32 = 21;
    pub const SYS_BOOT: u32 = 22;
    pub const SYS_NICE: u32 = 23;
    pub const SYS_RESOURCE: u32 = 24;
    pub const SYS_PACCT: u32 = 20;
    pub const SYS_TIME: u32 = 25;
    pub const SYS_TTY_CONFIG: u32 = 26;
    pub const SYSLOG: u32 = 34;
    pub const MKNOD: u32 = 27;
    pub const AUDIT_CONTROL: u32 = 30;
    pub const SETFCAP: u32 = 31;
    /// The highest number in use (`CAP_CHECKPOINT_RESTORE`).
    pub const LAST: u32 = 40;
}

/// A set of capabilities: bit N is capability N.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CapSet(pub u64);

impl CapSet {
    /// No capability.
    pub const EMPTY: CapSet = CapSet(0);
    /// Every capability there is.
    pub const ALL: CapSet = CapSet((1 << (cap::LAST + 1)) - 1);

    /// Whether the set holds capability `number`.
    pub const fn has(self, number: u32) -> bool {
        number < 64 && self.0 & (1 << number) != 0
    }
    /// What both hold.
    pub const fn and(self, other: CapSet) -> CapSet {
        CapSet(self.0 & other.0)
    }
    /// What either holds.
    pub const fn or(self, other: CapSet) -> CapSet {
        CapSet(self.0 | other.0)
    }
    /// What this holds and `other` doesn't.
    pub const fn minus(self, other: CapSet) -> CapSet {
        CapSet(self.0 & !other.0)
    }
    /// Whether everything in this set is in `other`.
    pub const fn within(self, other: CapSet) -> bool {
        self.0 & !other.0 == 0
    }
}

/// `SECBIT_NOROOT`: uid 0 means nothing to execve(2).
pub const SECBIT_NOROOT: u32 = 1 << 0;
/// `SECBIT_NO_SETUID_FIXUP`: uid changes leave the capability sets alone.
pub const SECBIT_NO_SETUID_FIXUP: u32 = 1 << 2;
/// `SECBIT_KEEP_CAPS`: permitted capabilities survive leaving uid 0.
pub const SECBIT_KEEP_CAPS: u32 = 1 << 4;
/// `SECBIT_NO_CAP_AMBIENT_RAISE`: the ambient set can't grow.
pub const SECBIT_NO_AMBIENT_RAISE: u32 = 1 << 6;

/// Identity and privileges.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of credentials(7) and capabilities(7)")]
pub struct Creds {
    pub uid: u32,
    pub euid: u32,
    pub suid: u32,
    pub fsuid: u32,
    pub gid: u32,
    pub egid: u32,
    pub sgid: u32,
    pub fsgid: u32,
    /// Supplementary groups, sorted.
    pub groups: Arc<Vec<u32>>,
    pub permitted: CapSet,
    pub effective: CapSet,
    pub inheritable: CapSet,
    pub bounding: CapSet,
    pub ambient: CapSet,
    pub securebits: u32,
    pub no_new_privs: bool,
    pub keyrings: Keyrings,
}

impl Creds {
    /// The superuser with every capability.
    pub fn root() -> Creds {
        Creds {
            uid: 0,
            euid: 0,
            suid: 0,
            fsuid: 0,
            gid: 0,
            egid: 0,
            sgid: 0,
            fsgid: 0,
            groups: Arc::default(),
            permitted: CapSet::ALL,
            effective: CapSet::ALL,
            inheritable: CapSet::EMPTY,
            bounding: CapSet::ALL,
            ambient: CapSet::EMPTY,
            securebits: 0,
            no_new_privs: false,
            keyrings: Keyrings::default(),
        }
    }

    /// The identity a container's main process starts with: all ids the same, capabilities only for
    /// uid 0.
    pub fn for_user(uid: u32, gid: u32, mut groups: Vec<u32>) -> Creds {
        sort::plain(&mut groups);
        groups.dedup();
        let caps = if uid == 0 { CapSet::ALL } else { CapSet::EMPTY };
        Creds {
            uid,
            euid: uid,
            suid: uid,
            fsuid: uid,
            gid,
            egid: gid,
            sgid: gid,
            fsgid: gid,
            groups: Arc::new(groups),
            permitted: caps,
            effective: caps,
            ..Creds::root()
        }
    }

    /// Whether the effective set holds capability `number`.
    pub fn capable(&self, number: u32) -> bool {
        self.effective.has(number)
    }

    /// Whether `gid` is the filesystem group or a supplementary group.
    pub fn in_group(&self, gid: u32) -> bool {
        self.fsgid == gid || self.in_groups(gid)
    }

    /// Whether `gid` is a supplementary group.
    pub fn in_groups(&self, gid: u32) -> bool {
        self.groups.binary_search(&gid).is_ok()
    }

    /// Adjusts capability sets after the user ids changed from those of `old` (capabilities(7),
    /// "Effect of user ID changes on capabilities").
    pub fn fix_up_capabilities(&mut self, old: &Creds) {
        if self.securebits & SECBIT_NO_SETUID_FIXUP != 0 {
            return;
        }
        let had_root = old.uid == 0 || old.euid == 0 || old.suid == 0;
        let has_root = self.uid == 0 || self.euid == 0 || self.suid == 0;
        if had_root && !has_root {
            if self.securebits & SECBIT_KEEP_CAPS == 0 {
                self.permitted = CapSet::EMPTY;
                self.effective = CapSet::EMPTY;
            }
            self.ambient = CapSet::EMPTY;
        }
        if old.euid == 0 && self.euid != 0 {
            self.effective = CapSet::EMPTY;
        } else if old.euid != 0 && self.euid == 0 {
            self.effective = self.permitted;
        }
        self.fix_up_fsuid(old);
    }

    /// The part of [`Creds::fix_up_capabilities`] that setfsuid(2) has too.
    pub fn fix_up_fsuid(&mut self, old: &Creds) {
        const FS_CAPS: CapSet = CapSet(
            1 << cap::CHOWN
                | 1 << cap::DAC_OVERRIDE
                | 1 << cap::DAC_READ_SEARCH
                | 1 << cap::FOWNER
                | 1 << cap::FSETID
                | 1 << cap::MKNOD
                | 1 << 9,
        );
        if self.securebits & SECBIT_NO_SETUID_FIXUP != 0 {
            return;
        }
        if old.fsuid == 0 && self.fsuid != 0 {
            self.effective = self.effective.minus(FS_CAPS);
        } else if old.fsuid != 0 && self.fsuid == 0 {
            self.effective = self.effective.or(self.permitted.and(FS_CAPS));
        }
    }
}

impl crate::fs::perm::Subject for Creds {
    fn fsuid(&self) -> u32 {
        self.fsuid
    }
    fn fsgid(&self) -> u32 {
        self.fsgid
    }
    fn in_groups(&self, gid: u32) -> bool {
        Creds::in_groups(self, gid)
    }
    fn capable(&self, cap: u32) -> bool {
        Creds::capable(self, cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaving_root_drops_capabilities_unless_kept() {
        let old = Creds::root();
        let mut new = Creds { uid: 5, euid: 5, suid: 5, fsuid: 5, ..old.clone() };
        new.fix_up_capabilities(&old);
        assert_eq!((new.permitted, new.effective), (CapSet::EMPTY, CapSet::EMPTY));

        let mut kept =
            Creds { securebits: SECBIT_KEEP_CAPS, uid: 5, euid: 5, suid: 5, ..old.clone() };
        kept.fix_up_capabilities(&old);
        assert_eq!((kept.permitted, kept.effective), (CapSet::ALL, CapSet::EMPTY));
    }

    #[test]
    fn a_saved_root_id_gives_capabilities_back() {
        let root = Creds::root();
        let mut dropped = Creds { euid: 5, fsuid: 5, ..root.clone() };
        dropped.fix_up_capabilities(&root);
        assert_eq!((dropped.permitted, dropped.effective), (CapSet::ALL, CapSet::EMPTY));
        let mut back = Creds { euid: 0, fsuid: 0, ..dropped.clone() };
        back.fix_up_capabilities(&dropped);
        assert_eq!(back.effective, CapSet::ALL);
    }
}

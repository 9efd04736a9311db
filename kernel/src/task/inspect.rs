//! Who may look into whom (ptrace(2), "Ptrace access mode checking").

use super::{Creds, Process, creds::cap, current};

/// The identity by which somebody looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Of who calls: ptrace(2), process_vm_readv(2), pidfd_getfd(2).
    Real,
    /// Of who opens files: /proc/PID.
    Filesystem,
}

/// Whether the caller may look into `process`, whose identity is, or was at its end, `theirs`.
pub fn may_inspect(process: &Process, theirs: &Creds, identity: Identity) -> bool {
    let caller = current();
    if core::ptr::eq(&**caller.process(), process) || caller.capable(cap::SYS_PTRACE) {
        return true;
    }
    let mine = caller.creds();
    let (uid, gid, caps) = match identity {
        Identity::Real => (mine.uid, mine.gid, mine.permitted),
        Identity::Filesystem => (mine.fsuid, mine.fsgid, mine.effective),
    };
    let same = [theirs.uid, theirs.euid, theirs.suid].iter().all(|&theirs| theirs == uid)
        && [theirs.gid, theirs.egid, theirs.sgid].iter().all(|&theirs| theirs == gid)
        && theirs.permitted.within(caps);
    // The dead have no memory that could be secret.
    same && (process.dumpable() == 1 || process.is_zombie())
}

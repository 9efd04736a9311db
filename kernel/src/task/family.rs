//! Parents and children, process groups and sessions.

use super::Process;
use super::pid::{self, PidRef};
use crate::errno::{Errno, Result};
use crate::sync::{SpinGuard, SpinLock};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

/// A process's place among its relatives.
#[derive(Default)]
pub struct Links {
    /// Who gets its SIGCHLD.
    pub parent: Weak<Process>,
    /// Children that were not reaped yet.
    pub children: Vec<Arc<Process>>,
}

static FAMILY: SpinLock<()> = SpinLock::new(());

/// Keeps every parent, group and session as it is.
pub struct FamilyGuard {
    _guard: SpinGuard<'static, ()>,
}

/// Locks the family tree.
pub fn lock() -> FamilyGuard {
    FamilyGuard { _guard: FAMILY.lock() }
}

impl FamilyGuard {
    /// Makes `child` a child of `parent`.
    pub fn adopt(&self, parent: &Arc<Process>, child: &Arc<Process>) {
        child.links.lock().parent = Arc::downgrade(parent);
        parent.links.lock().children.push(child.clone());
    }

    /// Removes a dead child from its parent.
    pub fn disown(&self, child: &Process) {
        let parent = core::mem::take(&mut child.links.lock().parent).upgrade();
        if let Some(parent) = parent {
            parent.links.lock().children.retain(|other| !core::ptr::eq(&**other, child));
        }
    }

    /// Gives the children of a dying process to the nearest subreaper, or to the main process.
    /// Returns the new parent and those it got.
    pub fn orphan(&self, dying: &Arc<Process>) -> Option<(Arc<Process>, Vec<Arc<Process>>)> {
        let children = core::mem::take(&mut dying.links.lock().children);
        if children.is_empty() {
            return None;
        }
        let heir = self.heir(dying)?;
        for child in &children {
            child.links.lock().parent = Arc::downgrade(&heir);
            heir.links.lock().children.push(child.clone());
        }
        Some((heir, children))
    }

    fn heir(&self, dying: &Arc<Process>) -> Option<Arc<Process>> {
        let mut at = dying.parent();
        while let Some(process) = at {
            if process.subreaper.load(Ordering::Relaxed) && !process.is_zombie() {
                return Some(process);
            }
            at = process.parent();
        }
        pid::find_process(1).filter(|init| !Arc::ptr_eq(init, dying))
    }

    /// Members of a process group that have not ended.
    pub fn group(&self, pgid: i32) -> Vec<Arc<Process>> {
        let mut all = pid::processes();
        all.retain(|process| process.pgid() == pgid && !process.is_zombie());
        all
    }

    /// Whether no member of the group has a parent in another group of the same session (POSIX
    /// "orphaned process group"). `without` counts as gone. The main process is a parent like any
    /// other, as in a container: it may be a shell with jobs.
    pub fn is_orphaned(&self, pgid: i32, without: Option<&Process>) -> bool {
        !self.group(pgid).iter().any(|member| {
            let leaving = without.is_some_and(|other| core::ptr::eq(&**member, other));
            !leaving
                && member
                    .parent()
                    .is_some_and(|parent| parent.pgid() != pgid && parent.sid() == member.sid())
        })
    }

    fn set_membership(&self, process: &Process, pgid: PidRef, sid: PidRef) {
        process.group.pgid.store(pgid.number(), Ordering::Relaxed);
        process.group.sid.store(sid.number(), Ordering::Relaxed);
        let old = process.group.refs.lock().replace((pgid, sid));
        drop(old);
    }
}

/// References to the numbers of a process's group and session, for its child.
pub(super) fn membership_of(process: &Process) -> Option<(PidRef, PidRef)> {
    let refs = process.group.refs.lock();
    refs.as_ref().map(|(pgid, sid)| (pgid.again(), sid.again()))
}

fn own_ref(process: &Process) -> Result<PidRef> {
    process.pid_ref.lock().as_ref().map(PidRef::again).ok_or(Errno::ESRCH)
}

/// setsid(2): a new session and group led by `process`. EPERM if it leads a group, or a group has
/// its number.
pub fn new_session(process: &Process) -> Result<i32> {
    let family = lock();
    if process.pgid() == process.pid() || !family.group(process.pid()).is_empty() {
        return Err(Errno::EPERM);
    }
    family.set_membership(process, own_ref(process)?, own_ref(process)?);
    drop(process.terminal.lock().take());
    Ok(process.pid())
}

/// Makes the first process leader of its session and group.
pub(super) fn found_session(process: &Process) -> Result<()> {
    lock().set_membership(process, own_ref(process)?, own_ref(process)?);
    Ok(())
}

/// setpgid(2).
pub fn set_group(caller: &Arc<Process>, pid: i32, pgid: i32) -> Result<()> {
    if pgid < 0 {
        return Err(Errno::EINVAL);
    }
    let target = match pid {
        0 => caller.clone(),
        pid => pid::find_process(pid).ok_or(Errno::ESRCH)?,
    };
    let pgid = if pgid == 0 { target.pid() } else { pgid };
    let family = lock();
    if !Arc::ptr_eq(&target, caller) {
        if !target.parent().is_some_and(|parent| Arc::ptr_eq(&parent, caller)) {
            return Err(Errno::ESRCH);
        }
        if target.sid() != caller.sid() {
            return Err(Errno::EPERM);
        }
        if target.did_exec.load(Ordering::Relaxed) {
            return Err(Errno::EACCES);
        }
    }
    if target.sid() == target.pid() {
        return Err(Errno::EPERM);
    }
    let group = if pgid == target.pid() {
        own_ref(&target)?
    } else {
        let members = family.group(pgid);
        let member = members.iter().find(|other| other.sid() == target.sid());
        membership_of(member.ok_or(Errno::EPERM)?).ok_or(Errno::EPERM)?.0
    };
    let session = membership_of(&target).ok_or(Errno::ESRCH)?.1;
    family.set_membership(&target, group, session);
    Ok(())
}

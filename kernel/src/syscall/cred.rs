//! Identity: setuid(2) and its family, setgroups(2), capset(2).

use crate::errno::{Errno, Result};
use crate::io::{get_user, get_user_slice, put_user, put_user_slice};
use crate::task::creds::{self, CapSet, Creds, MAX_GROUPS, cap};
use crate::task::{current, find_task};
use alloc::sync::Arc;
use alloc::vec::Vec;
use dock2uni_ext4::sort;

const KEEP: u32 = u32::MAX;

fn copy() -> Creds {
    (*current().creds()).clone()
}

/// Applies changed user ids with their effect on capabilities.
fn set_uids(mut new: Creds) -> Result<usize> {
    let old = current().creds();
    new.fix_up_capabilities(&old);
    if (new.euid, new.egid) != (old.euid, old.egid) {
        current().process().set_dumpable(0);
        current().set_pdeath_signal(0);
    }
    current().set_creds(new);
    Ok(0)
}

/// setuid(2)
pub fn setuid(uid: u32) -> Result<usize> {
    let mut new = copy();
    if uid == KEEP {
        return Err(Errno::EINVAL);
    }
    if new.capable(cap::SETUID) {
        (new.uid, new.suid) = (uid, uid);
    } else if uid != new.uid && uid != new.suid {
        return Err(Errno::EPERM);
    }
    (new.euid, new.fsuid) = (uid, uid);
    set_uids(new)
}

/// setgid(2)
pub fn setgid(gid: u32) -> Result<usize> {
    let mut new = copy();
    if gid == KEEP {
        return Err(Errno::EINVAL);
    }
    if new.capable(cap::SETGID) {
        (new.gid, new.sgid) = (gid, gid);
    } else if gid != new.gid && gid != new.sgid {
        return Err(Errno::EPERM);
    }
    (new.egid, new.fsgid) = (gid, gid);
    current().set_creds(new);
    Ok(0)
}

/// setreuid(2)
pub fn setreuid(ruid: u32, euid: u32) -> Result<usize> {
    let old = copy();
    let mut new = old.clone();
    let free = old.capable(cap::SETUID);
    if ruid != KEEP {
        if !free && ruid != old.uid && ruid != old.euid {
            return Err(Errno::EPERM);
        }
        new.uid = ruid;
    }
    if euid != KEEP {
        if !free && ![old.uid, old.euid, old.suid].contains(&euid) {
            return Err(Errno::EPERM);
        }
        new.euid = euid;
    }
    if ruid != KEEP || euid != KEEP && euid != old.uid {
        new.suid = new.euid;
    }
    new.fsuid = new.euid;
    set_uids(new)
}

/// setregid(2)
pub fn setregid(rgid: u32, egid: u32) -> Result<usize> {
    let old = copy();
    let mut new = old.clone();
    let free = old.capable(cap::SETGID);
    if rgid != KEEP {
        if !free && rgid != old.gid && rgid != old.egid {
            return Err(Errno::EPERM);
        }
        new.gid = rgid;
    }
    if egid != KEEP {
        if !free && ![old.gid, old.egid, old.sgid].contains(&egid) {
            return Err(Errno::EPERM);
        }
        new.egid = egid;
    }
    if rgid != KEEP || egid != KEEP && egid != old.gid {
        new.sgid = new.egid;
    }
    new.fsgid = new.egid;
    current().set_creds(new);
    Ok(0)
}

/// Three ids, each kept if `KEEP`; without privilege only values among the present ones.
fn three(free: bool, wanted: [u32; 3], present: [u32; 3]) -> Result<[u32; 3]> {
    if !free && wanted.iter().any(|id| *id != KEEP && !present.contains(id)) {
        return Err(Errno::EPERM);
    }
    let pick = |at: usize| if wanted[at] == KEEP { present[at] } else { wanted[at] };
    Ok([pick(0), pick(1), pick(2)])
}

/// setresuid(2)
pub fn setresuid(ruid: u32, euid: u32, suid: u32) -> Result<usize> {
    let mut new = copy();
    let present = [new.uid, new.euid, new.suid];
    let free = new.capable(cap::SETUID);
    [new.uid, new.euid, new.suid] = three(free, [ruid, euid, suid], present)?;
    new.fsuid = new.euid;
    set_uids(new)
}

/// setresgid(2)
pub fn setresgid(rgid: u32, egid: u32, sgid: u32) -> Result<usize> {
    let mut new = copy();
    let present = [new.gid, new.egid, new.sgid];
    let free = new.capable(cap::SETGID);
    [new.gid, new.egid, new.sgid] = three(free, [rgid, egid, sgid], present)?;
    new.fsgid = new.egid;
    current().set_creds(new);
    Ok(0)
}

/// getresuid(2)
pub fn getresuid(to: [usize; 3]) -> Result<usize> {
    let creds = current().creds();
    put_three(to, [creds.uid, creds.euid, creds.suid])
}

/// getresgid(2)
pub fn getresgid(to: [usize; 3]) -> Result<usize> {
    let creds = current().creds();
    put_three(to, [creds.gid, creds.egid, creds.sgid])
}

fn put_three(to: [usize; 3], ids: [u32; 3]) -> Result<usize> {
    for (addr, id) in to.into_iter().zip(ids) {
        put_user(addr, &id)?;
    }
    Ok(0)
}

/// setfsuid(2): returns the old one, whatever happens.
pub fn setfsuid(uid: u32) -> Result<usize> {
    let old = current().creds();
    let allowed = [old.uid, old.euid, old.suid, old.fsuid].contains(&uid);
    if uid != KEEP && (allowed || old.capable(cap::SETUID)) {
        let mut new = (*old).clone();
        new.fsuid = uid;
        new.fix_up_fsuid(&old);
        current().set_creds(new);
    }
    Ok(old.fsuid as usize)
}

/// setfsgid(2): returns the old one, whatever happens.
pub fn setfsgid(gid: u32) -> Result<usize> {
    let old = current().creds();
    let allowed = [old.gid, old.egid, old.sgid, old.fsgid].contains(&gid);
    if gid != KEEP && (allowed || old.capable(cap::SETGID)) {
        current().set_creds(Creds { fsgid: gid, ..(*old).clone() });
    }
    Ok(old.fsgid as usize)
}

/// getgroups(2)
pub fn getgroups(size: i32, to: usize) -> Result<usize> {
    let groups = current().creds().groups.clone();
    let size = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
    if size == 0 {
        return Ok(groups.len());
    }
    if size < groups.len() {
        return Err(Errno::EINVAL);
    }
    put_user_slice(to, &groups)?;
    Ok(groups.len())
}

/// setgroups(2)
pub fn setgroups(size: i32, from: usize) -> Result<usize> {
    if !current().capable(cap::SETGID) {
        return Err(Errno::EPERM);
    }
    let size =
        usize::try_from(size).ok().filter(|&size| size <= MAX_GROUPS).ok_or(Errno::EINVAL)?;
    let mut groups: Vec<u32> = alloc::vec![0; size];
    get_user_slice(from, &mut groups)?;
    sort::plain(&mut groups);
    current().set_creds(Creds { groups: Arc::new(groups), ..copy() });
    Ok(0)
}

const VERSION_1: u32 = 0x1998_0330;
const VERSION_2: u32 = 0x2007_1026;
const VERSION_3: u32 = 0x2008_0522;

/// Number of 32-bit halves the caller's version has.
fn halves(header: usize) -> Result<(usize, i32)> {
    let [version, pid]: [u32; 2] = get_user(header)?;
    match version {
        VERSION_1 => Ok((1, pid as i32)),
        VERSION_2 | VERSION_3 => Ok((2, pid as i32)),
        _ => {
            put_user(header, &VERSION_3)?;
            Err(Errno::EINVAL)
        }
    }
}

/// capget(2)
pub fn capget(header: usize, data: usize) -> Result<usize> {
    let (halves, pid) = match halves(header) {
        // Asking for the version only.
        Err(Errno::EINVAL) if data == 0 => return Ok(0),
        other => other?,
    };
    let creds = match pid {
        0 => current().creds(),
        pid if pid < 0 => return Err(Errno::EINVAL),
        pid => find_task(pid).ok_or(Errno::ESRCH)?.creds(),
    };
    let sets = [creds.effective, creds.permitted, creds.inheritable];
    let words = [0, 32].map(|shift| sets.map(|set| (set.0 >> shift) as u32));
    put_user_slice(data, &words[..halves])?;
    Ok(0)
}

/// capset(2)
pub fn capset(header: usize, data: usize) -> Result<usize> {
    let (halves, pid) = halves(header)?;
    if pid != 0 && pid != current().tid() {
        return Err(Errno::EPERM);
    }
    let mut words = [[0u32; 3]; 2];
    get_user_slice(data, &mut words[..halves])?;
    let set = |at: usize| {
        CapSet(u64::from(words[0][at]) | u64::from(words[1][at]) << 32).and(CapSet::ALL)
    };
    let (effective, permitted, inheritable) = (set(0), set(1), set(2));
    let old = current().creds();
    let gained = inheritable.minus(old.inheritable);
    if !permitted.within(old.permitted)
        || !effective.within(permitted)
        || !gained.within(old.bounding)
        || !old.capable(cap::SETPCAP) && !gained.within(old.permitted)
    {
        return Err(Errno::EPERM);
    }
    let ambient = old.ambient.and(permitted).and(inheritable);
    current().set_creds(Creds { effective, permitted, inheritable, ambient, ..(*old).clone() });
    Ok(0)
}

/// prctl(2) `PR_CAP_AMBIENT`.
pub fn ambient(operation: u32, number: usize) -> Result<usize> {
    const IS_SET: u32 = 1;
    const RAISE: u32 = 2;
    const LOWER: u32 = 3;
    const CLEAR_ALL: u32 = 4;
    let mut new = copy();
    if operation == CLEAR_ALL {
        new.ambient = CapSet::EMPTY;
        current().set_creds(new);
        return Ok(0);
    }
    if number > cap::LAST as usize {
        return Err(Errno::EINVAL);
    }
    let bit = CapSet(1 << number);
    match operation {
        IS_SET => return Ok(bit.within(new.ambient).into()),
        RAISE => {
            let held = bit.within(new.permitted) && bit.within(new.inheritable);
            if !held || new.securebits & creds::SECBIT_NO_AMBIENT_RAISE != 0 {
                return Err(Errno::EPERM);
            }
            new.ambient = new.ambient.or(bit);
        }
        LOWER => new.ambient = new.ambient.minus(bit),
        _ => return Err(Errno::EINVAL),
    }
    current().set_creds(new);
    Ok(0)
}

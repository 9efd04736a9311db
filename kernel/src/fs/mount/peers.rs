//! Mounts that share what is mounted below them (mount_namespaces(7), "shared subtrees").

use super::table::{copy_in, descend_in, subtree};
use super::{Mount, Path};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use linux_raw_sys::general::{MS_SHARED, MS_SLAVE, MS_UNBINDABLE};

/// How a mount shares mounts. Private by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Propagation {
    /// Its group of peers: what is mounted on one is mounted on all. 0 for none.
    pub group: u32,
    /// The group whose mounts it gets, without giving it its own. 0 for none.
    pub master: u32,
    /// It can't be bound to another place.
    pub unbindable: bool,
}

fn new_group() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Relaxed)
}

/// Makes a mount shared, a slave, private or unbindable (`MS_*`).
pub(super) fn change(mounts: &[Arc<Mount>], mount: &Arc<Mount>, kind: u32) {
    let old = mount.propagation();
    let peer =
        |other: &Arc<Mount>| !Arc::ptr_eq(other, mount) && other.propagation().group == old.group;
    *mount.peers.lock() = match kind {
        MS_SHARED if old.group == 0 => {
            Propagation { group: new_group(), master: old.master, unbindable: false }
        }
        MS_SHARED => old,
        // Without others in its group, there is nobody to get anything from.
        MS_SLAVE if old.group != 0 && mounts.iter().any(peer) => {
            Propagation { master: old.group, ..Propagation::default() }
        }
        MS_SLAVE => Propagation { group: 0, ..old },
        _ => Propagation { unbindable: kind == MS_UNBINDABLE, ..Propagation::default() },
    };
}

/// Mounts that get what is mounted on `from`: its peers, and slaves of any that get it.
fn receivers(mounts: &[Arc<Mount>], from: &Arc<Mount>) -> Vec<Arc<Mount>> {
    let mut found: Vec<Arc<Mount>> = Vec::new();
    let mut groups = Vec::from_iter(Some(from.propagation().group).filter(|&group| group != 0));
    let mut next = 0;
    while let Some(&group) = groups.get(next) {
        next += 1;
        for mount in mounts {
            let own = mount.propagation();
            let known = |other: &Arc<Mount>| Arc::ptr_eq(other, mount);
            if own.group != group && own.master != group || known(from) || found.iter().any(known) {
                continue;
            }
            if own.group != 0 && !groups.contains(&own.group) {
                groups.push(own.group);
            }
            found.push(mount.clone());
        }
    }
    found
}

/// How many mounts come along, at most, when a tree gets a place.
pub(super) fn copies(mounts: &[Arc<Mount>], top: &Arc<Mount>, at: &Path) -> usize {
    let at = descend_in(mounts, at.clone());
    match at.mount.propagation().group {
        0 => 0,
        _ => receivers(mounts, &at.mount).len() * subtree(mounts, top).len(),
    }
}

/// After a tree was mounted at a place: what shares mounts with the place's mount gets copies.
pub(super) fn mounted(mounts: &mut Vec<Arc<Mount>>, top: &Arc<Mount>, at: &Path) {
    if at.mount.propagation().group == 0 {
        return;
    }
    let new = subtree(mounts, top);
    for mount in &new {
        let mut own = mount.peers.lock();
        if own.group == 0 {
            own.group = new_group();
        }
    }
    for other in receivers(mounts, &at.mount) {
        // What was only just mounted may be a copy of the very mount that it is on.
        let is_new = new.iter().any(|mount| Arc::ptr_eq(mount, &other));
        if is_new || !other.root.is_ancestor_of(&at.dentry) {
            continue;
        }
        let pairs = copy_in(mounts, top, &top.root, true, false);
        let Some((_, copy)) = pairs.first() else { continue };
        if other.propagation().group != at.mount.propagation().group {
            for mount in subtree(mounts, copy) {
                let mut own = mount.peers.lock();
                let shared = other.propagation().group != 0;
                own.master = own.group;
                own.group = if shared { new_group() } else { 0 };
            }
        }
        let place = descend_in(mounts, Path { mount: other, dentry: at.dentry.clone() });
        place.dentry.set_mounted(true);
        *copy.at.lock() = Some(place);
        mounts.push(copy.clone());
    }
}

/// Before a mount goes: adds to `gone` the copies that came with it. With submounts they stay,
/// unless all goes.
pub(super) fn unmounted(
    mounts: &[Arc<Mount>],
    mount: &Arc<Mount>,
    at: &Path,
    all: bool,
    gone: &mut Vec<Arc<Mount>>,
) {
    for other in receivers(mounts, &at.mount) {
        let place = Path { mount: other, dentry: at.dentry.clone() };
        let copy = mounts.iter().find(|copy| {
            Arc::ptr_eq(&copy.root, &mount.root)
                && copy.at.lock().as_ref().is_some_and(|at| at.same(&place))
        });
        let tree = copy.map(|copy| subtree(mounts, copy)).unwrap_or_default();
        if all || tree.len() == 1 {
            gone.extend(tree);
        }
    }
}

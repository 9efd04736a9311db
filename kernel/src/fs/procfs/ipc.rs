//! /proc/sysvipc: System V objects, as ipcs(1) reads them.

use super::super::pseudo::{Dir, Key, Kind, Text, entry};
use crate::arch::PAGE_SIZE;
use crate::errno::Result;
use crate::ipc::{Perm, keys, msg, sem};
use crate::mm::shm;
use crate::say;

pub static SYSVIPC: Dir = Dir::fixed(&[
    entry("msg", Kind::Text(messages)),
    entry("sem", Kind::Text(semaphores)),
    entry("shm", Kind::Text(segments)),
]);

/// Owner and creator columns.
fn owners(out: &mut Text, perm: &Perm) {
    say!(out, "{:5} {:5} {:5} {:5} ", perm.uid, perm.gid, perm.cuid, perm.cgid);
}

fn head(out: &mut Text, key: i32, id: i32, mode: u32) {
    say!(out, "{key:10} {id:10}  {mode:4o} ");
}

fn messages(_key: &Key, out: &mut Text) -> Result<()> {
    say!(
        out,
        "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      \
         stime      rtime      ctime\n"
    );
    for (id, queue) in msg::QUEUES.list() {
        let state = queue.state.lock();
        let (count, [stime, rtime, ctime]) = (state.messages.len(), state.times);
        head(out, state.perm.key, id, state.perm.mode);
        say!(out, "{:10} {count:10} {:5} {:5} ", state.bytes, state.pids[0], state.pids[1]);
        owners(out, &state.perm);
        say!(out, "{stime:10} {rtime:10} {ctime:10}\n");
    }
    Ok(())
}

fn semaphores(_key: &Key, out: &mut Text) -> Result<()> {
    say!(
        out,
        "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n"
    );
    for (id, set) in sem::SETS.list() {
        let state = set.state.lock();
        head(out, state.perm.key, id, state.perm.mode);
        say!(out, "{:10} ", state.sems.len());
        owners(out, &state.perm);
        say!(out, "{:10} {:10}\n", state.otime, state.ctime);
    }
    Ok(())
}

fn segments(_key: &Key, out: &mut Text) -> Result<()> {
    say!(
        out,
        "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  \
         cgid      atime      dtime      ctime                   rss                  swap\n"
    );
    for (id, info) in shm::list() {
        head(out, info.key, id, info.mode);
        say!(out, "{:21} {:5} {:5} {:6} ", info.size, info.cpid, info.lpid, info.attached);
        say!(out, "{:5} {:5} {:5} {:5} ", info.uid, info.gid, info.cuid, info.cgid);
        say!(out, "{:10} {:10} {:10} ", info.atime, info.dtime, info.ctime);
        say!(out, "{:21} {:21}\n", info.resident * PAGE_SIZE, 0);
    }
    Ok(())
}

/// /proc/keys: the keys that the caller may view.
pub fn keys(_key: &Key, out: &mut Text) -> Result<()> {
    out.bytes(&keys::list());
    Ok(())
}

/// /proc/key-users: what users have of keys, and may have.
pub fn key_users(_key: &Key, out: &mut Text) -> Result<()> {
    for (uid, [count, bytes, most, most_bytes]) in keys::users() {
        say!(out, "{uid:5}: {count:5} {count}/{count} {count}/{most} {bytes}/{most_bytes}\n");
    }
    Ok(())
}

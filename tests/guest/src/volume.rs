//! A writer that is killed again and again with its machine, and checks what it was promised.
//!
//! ```text
//! guest-tests --volume-load DIR LAST
//! guest-tests --volume-check DIR LAST
//! ```
//!
//! First it checks that everything acknowledged up to number `LAST` is in `DIR`, and prints
//! `verified`; then, with `load`, it goes on writing from there and prints `ack N` once number N is durable.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

/// Files that are replaced in turn.
const SLOTS: u64 = 40;

pub fn load(dir: &Path, last: u64, more: bool) -> i32 {
    if let Err(why) = verify(dir, last) {
        println!("lost: {why}");
        return 1;
    }
    println!("verified {last}");
    if !more {
        return 0;
    }
    for sub in ["slots", "spare"] {
        fs::create_dir_all(dir.join(sub)).unwrap();
    }
    File::open(dir).unwrap().sync_all().unwrap();
    let slots = File::open(dir.join("slots")).unwrap();
    let mut log = OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
    let mut n = last + 1;
    loop {
        // As a database does it: a log, and a file replaced whole.
        log.write_all(&n.to_le_bytes()).unwrap();
        log.sync_data().unwrap();
        let (tmp, slot) = (dir.join("spare/tmp"), dir.join(format!("slots/{}", n % SLOTS)));
        let mut file = File::create(&tmp).unwrap();
        file.write_all(&content(n)).unwrap();
        file.sync_all().unwrap();
        fs::rename(&tmp, &slot).unwrap();
        slots.sync_all().unwrap();
        println!("ack {n}");
        // Work that nobody was promised: names that come and go, a file that grows and shrinks.
        let churn = dir.join(format!("spare/churn-{}", n % 97));
        if n.is_multiple_of(3) {
            let _ = fs::remove_file(&churn);
        } else {
            fs::write(&churn, vec![n as u8; (n * 977 % 50_000) as usize]).unwrap();
        }
        if n.is_multiple_of(11) {
            let file = OpenOptions::new().write(true).open(&churn);
            if let Ok(file) = file {
                file.set_len(n * 31 % 9000).unwrap();
            }
        }
        n += 1;
    }
}

/// The number, then a pattern; lengths differ.
fn content(n: u64) -> Vec<u8> {
    let len = 8 + (n * 7919 % 30_000) as usize;
    let mut bytes = n.to_le_bytes().to_vec();
    bytes.extend((0..len).map(|at| (n as usize * 31 + at) as u8));
    bytes
}

fn verify(dir: &Path, last: u64) -> Result<(), String> {
    if last == 0 {
        return Ok(());
    }
    let mut log = Vec::new();
    File::open(dir.join("log"))
        .and_then(|mut file| file.read_to_end(&mut log))
        .map_err(|error| format!("the log: {error}"))?;
    let numbers: Vec<u64> =
        log.chunks_exact(8).map(|n| u64::from_le_bytes(n.try_into().unwrap())).collect();
    let newest = *numbers.last().ok_or("the log is empty")?;
    // One write may have been under way.
    if newest < last || !numbers.contains(&last) {
        return Err(format!("the log ends with {newest}, {last} was acknowledged"));
    }
    for slot in 0..SLOTS {
        let Some(due) = (last.saturating_sub(SLOTS - 1).max(1)..=last).find(|n| n % SLOTS == slot)
        else {
            continue;
        };
        let path = dir.join(format!("slots/{slot}"));
        let bytes = fs::read(&path).map_err(|error| format!("slot {slot}, {due}: {error}"))?;
        let found = bytes.first_chunk().map(|n| u64::from_le_bytes(*n)).unwrap_or(0);
        if found < due || bytes != content(found) {
            return Err(format!("slot {slot} has {found}, {due} was acknowledged"));
        }
    }
    Ok(())
}

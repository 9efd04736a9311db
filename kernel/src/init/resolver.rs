//! Keeps /etc/resolv.conf as DHCP servers and routers have it, for as long as nobody else writes it.

use crate::errno::Result;
use crate::fs::boot::{RESOLV_CONF, write_replacing};
use crate::fs::ops;
use crate::fs::walk::Resolver;
use crate::io::IoDst;
use crate::net;
use crate::task::sched;
use alloc::string::String;
use alloc::vec;
use linux_raw_sys::general::O_RDONLY;

/// Starts following what the network says; `written` is what the file has.
pub(super) fn follow(written: String) -> Result<()> {
    sched::spawn_kernel("resolver", move || watch(written)).map(drop)
}

fn watch(mut written: String) {
    loop {
        let text = net::stack().configured.wait_uninterruptible(|| {
            let text = net::resolv_conf();
            (text != written).then_some(text)
        });
        // A program that has written the file itself knows better.
        if is_ours(&written).unwrap_or(false)
            && let Err(why) = write_replacing(RESOLV_CONF, &text)
        {
            crate::error!("{RESOLV_CONF} can't be written: {why:?}");
        }
        written = text;
    }
}

/// Whether the file has this text.
fn is_ours(text: &str) -> Result<bool> {
    let file = ops::open(&Resolver::kernel()?, RESOLV_CONF.as_bytes(), O_RDONLY, 0, 0)?;
    let mut found = vec![0; text.len() + 1];
    let len = file.ops.read_at(&file, 0, &mut IoDst::kernel(&mut found))?;
    Ok(found.get(..len) == Some(text.as_bytes()))
}

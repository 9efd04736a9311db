//! What the console says about a program that crashed: without a core file, enough to find the place
//! in its binaries.

use super::{SigInfo, SigSet, Signal, code};
use crate::arch::user::UserContext;
use crate::error;
use crate::io::get_user;
use crate::log::Limit;
use crate::mm::AddressSpace;
use crate::say;
use crate::task::current_arc;
use alloc::string::String;
use alloc::sync::Arc;

/// Callers that are named.
const FRAMES: usize = 10;

/// Prints signal and place, registers, callers as far as frame pointers lead, and where the files
/// they lie in are mapped.
pub(super) fn report(context: &UserContext, signal: Signal, info: &SigInfo) {
    static LIMIT: Limit = Limit::new();
    if !LIMIT.allows("crashes") {
        return;
    }
    let task = current_arc();
    let (comm, pid, name) = (task.comm(), task.pid(), signal.name());
    let Some(mm) = task.mm() else { return };
    let mut maps = String::new();
    let mut text = place(&mm, context.rip, &mut maps);
    registers(context, &mut text);
    let mut frame = context.rbp;
    for number in 0..FRAMES {
        // A frame is two words: the caller's frame, which is further up, and where it goes on.
        let words = if frame.is_multiple_of(8) { get_user::<[usize; 2]>(frame) } else { break };
        let Ok([next, caller]) = words else { break };
        if caller == 0 || next <= frame {
            break;
        }
        let at = place(&mm, caller, &mut maps);
        say!(&mut text, "{}{at}", if number == 0 { "\n  called from " } else { ", " });
        frame = next;
    }
    let sent = SigSet::SYNCHRONOUS.has(signal) && info.code > 0 && info.code != code::SI_KERNEL;
    let at = info.body[0];
    match sent {
        true => error!("{comm}[{pid}]: {name} at {at:#x}, ip {text}{maps}"),
        false => error!("{comm}[{pid}]: {name}, ip {text}{maps}"),
    }
}

fn registers(c: &UserContext, text: &mut String) {
    let named = [
        ("rip", c.rip),
        ("rsp", c.rsp),
        ("rbp", c.rbp),
        ("rax", c.rax),
        ("rbx", c.rbx),
        ("rcx", c.rcx),
        ("rdx", c.rdx),
        ("rsi", c.rsi),
        ("rdi", c.rdi),
        ("r8", c.r8),
        ("r9", c.r9),
        ("r10", c.r10),
        ("r11", c.r11),
        ("r12", c.r12),
        ("r13", c.r13),
        ("r14", c.r14),
        ("r15", c.r15),
        ("flags", c.rflags),
    ];
    for (at, (name, value)) in named.into_iter().enumerate() {
        say!(text, "{}{name} {value:x}", if at % 9 == 0 { "\n  " } else { " " });
    }
}

/// An address as file and offset; notes where the file is mapped in `maps`.
fn place(mm: &Arc<AddressSpace>, address: usize, maps: &mut String) -> String {
    let mut text = String::new();
    let map = mm.vmas().into_iter().find(|map| (map.start..map.end).contains(&address));
    let Some(map) = map else {
        say!(&mut text, "+{address:#x}");
        return text;
    };
    let offset = (address - map.start) as u64 + map.offset;
    let path = map.file.and_then(|file| file.path.clone()).zip(crate::fs::mount::root());
    let name = path.map(|(path, root)| crate::fs::walk::name_of(&path, root));
    let name = name.unwrap_or_else(|| map.name.as_bytes().to_vec());
    say!(&mut text, "{}+{offset:#x}", name.escape_ascii());
    let mut line = String::new();
    say!(&mut line, "\n  map {:x}-{:x} {}", map.start, map.end, name.escape_ascii());
    if !maps.contains(line.as_str()) {
        maps.push_str(&line);
    }
    text
}

//! What execve(2) has put on a program's stack, read back for others.

use crate::arch::PAGE_SIZE;
use crate::mm::AddressSpace;
use crate::task::Process;
use alloc::vec::Vec;

/// Longest arguments or environment that are shown.
const MAX: usize = 2 << 20;

/// Appends `start..end`, as far as it is there.
fn area(out: &mut Vec<u8>, space: &AddressSpace, start: usize, end: usize) {
    let len = end.saturating_sub(start).min(MAX);
    let mut done = 0;
    let mut piece = [0; 512];
    while done < len {
        let n = piece.len().min(len - done);
        if space.peek(start + done, &mut piece[..n]).is_err() {
            return;
        }
        out.extend_from_slice(&piece[..n]);
        done += n;
    }
}

/// The arguments, each with its end.
pub fn arguments(process: &Process, space: &AddressSpace) -> Vec<u8> {
    let mut out = Vec::new();
    let (start, end) = process.arg_range();
    area(&mut out, space, start, end);
    // A program that wrote a longer title over its arguments (setproctitle) goes on into its
    // environment.
    if out.last().is_some_and(|&last| last != 0) {
        let (start, end) = process.env_range();
        area(&mut out, space, start, end);
        if let Some(stop) = out.iter().position(|&byte| byte == 0) {
            out.truncate(stop + 1);
        }
    }
    out
}

/// The environment, each variable with its end.
pub fn environment(process: &Process, space: &AddressSpace) -> Vec<u8> {
    let mut out = Vec::new();
    let (start, end) = process.env_range();
    area(&mut out, space, start, end);
    out
}

/// The auxiliary vector. It stands on the stack behind the environment's pointers, which stand
/// behind the arguments' pointers, the first of which points to where the arguments' text starts.
pub fn auxiliary_vector(process: &Process, space: &AddressSpace) -> Vec<u8> {
    const WORD: usize = size_of::<usize>();
    // The pointers to arguments and environment and the vector itself, for all but absurdly many
    // arguments.
    const WINDOW: usize = 64 * 1024;
    let mut out = Vec::new();
    let (text, _) = process.arg_range();
    let end = text & !(WORD - 1);
    let mut stack = Vec::new();
    let window = WINDOW.min(end);
    // The stack's lowest pages may not be there; what counts is right below the text.
    let start = (0..=window / PAGE_SIZE).map(|pages| end - pages * PAGE_SIZE);
    let start = start.take_while(|&at| space.peek(at, &mut [0]).is_ok()).last().unwrap_or(end);
    area(&mut stack, space, start, end);
    let words: Vec<usize> =
        stack.as_chunks().0.iter().map(|word| usize::from_ne_bytes(*word)).collect();
    let first = (1..words.len()).find(|&at| {
        let count = words[at - 1];
        words[at] == text && count > 0 && words.get(at.saturating_add(count)) == Some(&0)
    });
    let Some(first) = first else { return out };
    let environment = first + words[first - 1] + 1;
    let vector = words[environment..].iter().position(|&word| word == 0);
    let vector = vector.map_or(words.len(), |nulls| environment + nulls + 1);
    for pair in words[vector.min(words.len())..].as_chunks::<2>().0 {
        out.extend(pair.iter().flat_map(|word| word.to_ne_bytes()));
        if pair[0] == 0 {
            break;
        }
    }
    out
}

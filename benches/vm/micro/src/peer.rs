//! A second process that works with the one that measures.

use crate::ok;

/// Runs `peer` in a process of its own until it returns or is dropped.
pub struct Peer(libc::pid_t);

impl Peer {
    /// Starts it.
    pub fn start(peer: impl FnOnce()) -> Peer {
        match ok(unsafe { libc::fork() }) {
            0 => {
                peer();
                unsafe { libc::_exit(0) }
            }
            child => Peer(child as libc::pid_t),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        unsafe { libc::kill(self.0, libc::SIGKILL) };
        wait(self.0);
    }
}

/// Waits for a child's end.
pub fn wait(child: libc::pid_t) {
    ok(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) });
}

/// Two connected descriptors.
pub type Pair = [i32; 2];

/// A pipe: the end that is read first.
pub fn pipe() -> Pair {
    let mut pair = [0; 2];
    ok(unsafe { libc::pipe(pair.as_mut_ptr()) });
    pair
}

/// Closes descriptors.
pub fn close(files: &[i32]) {
    for &file in files {
        ok(unsafe { libc::close(file) });
    }
}

/// Writes all of it.
pub fn write(file: i32, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let done = ok(unsafe { libc::write(file, bytes.as_ptr().cast(), bytes.len()) });
        bytes = &bytes[done as usize..];
    }
}

/// Reads what there is; 0 at the end.
pub fn read(file: i32, bytes: &mut [u8]) -> usize {
    ok(unsafe { libc::read(file, bytes.as_mut_ptr().cast(), bytes.len()) }) as usize
}

/// Sends a byte back and forth: `there` and `back` are what each side writes to and reads from.
pub fn round_trips(ours: (i32, i32), theirs: (i32, i32)) -> f64 {
    let _peer = Peer::start(|| {
        let mut byte = [0];
        while read(theirs.1, &mut byte) == 1 {
            write(theirs.0, &byte);
        }
    });
    let mut byte = [0];
    crate::fastest(|count| {
        for _ in 0..count {
            write(ours.0, &byte);
            assert_eq!(read(ours.1, &mut byte), 1);
        }
    })
}

/// Size of the pieces that [`stream`] moves.
pub const PIECE: usize = 64 * 1024;

/// Writes pieces to `to`, which a peer reads from `from`; a batch ends when it has all of them.
pub fn stream(to: i32, from: i32) -> f64 {
    let (order, done) = (pipe(), pipe());
    let _peer = Peer::start(|| {
        let mut buffer = vec![0; PIECE];
        let mut count = [0; 8];
        while read(order[0], &mut count) == 8 {
            let mut left = u64::from_ne_bytes(count) as usize * PIECE;
            while left > 0 {
                let space = left.min(PIECE);
                left -= read(from, &mut buffer[..space]);
            }
            write(done[1], &[0]);
        }
    });
    let piece = vec![1; PIECE];
    let result = crate::fastest(|count| {
        write(order[1], &count.to_ne_bytes());
        for _ in 0..count {
            write(to, &piece);
        }
        assert_eq!(read(done[0], &mut [0]), 1);
    });
    close(&order);
    close(&done);
    result
}

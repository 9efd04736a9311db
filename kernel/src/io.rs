//! Where bytes of a read go and where bytes of a write come from: user memory or the kernel's own.
//!
//! # Faults
//! The plain methods may fault pages in, hence sleep: never call them under a `SpinLock` or
//! `IrqLock`. The `_nofault` methods may be called there; they stop early where a page is not
//! present, and the caller drops its lock, calls [`IoDst::fault_in`] (or [`IoSrc::fault_in`]) and
//! tries again.

use crate::arch::{USER_END, uaccess};
use crate::errno::{Errno, Result};
use crate::sync::preempt_disable;
use alloc::vec::Vec;

/// One user or kernel range.
#[derive(Clone, Copy, Debug)]
struct Range {
    addr: usize,
    len: usize,
}

/// A sequence of ranges with a position in it.
struct Ranges<'a> {
    user: bool,
    one: Range,
    rest: Vec<Range>,
    next: usize,
    remaining: usize,
    done: usize,
    _kernel: core::marker::PhantomData<&'a mut [u8]>,
}

impl Ranges<'_> {
    fn user(addr: usize, len: usize) -> Result<Self> {
        check_user(addr, len)?;
        Ok(Self::new(true, Range { addr, len }, Vec::new(), len))
    }

    fn user_vec(iov: &[(usize, usize)]) -> Result<Self> {
        let mut total = 0usize;
        let mut rest = Vec::new();
        rest.try_reserve(iov.len()).map_err(|_| Errno::ENOMEM)?;
        for &(addr, len) in iov {
            if len as isize <= -1 {
                return Err(Errno::EINVAL);
            }
            check_user(addr, len)?;
            total = total.checked_add(len).filter(|&sum| sum as isize >= 0).ok_or(Errno::EINVAL)?;
            rest.push(Range { addr, len });
        }
        Ok(Self::new(true, Range { addr: 0, len: 0 }, rest, total))
    }

    fn new(user: bool, one: Range, rest: Vec<Range>, remaining: usize) -> Self {
        Ranges { user, one, rest, next: 0, remaining, done: 0, _kernel: core::marker::PhantomData }
    }

    /// The contiguous range at the position; empty only at the end.
    fn head(&mut self) -> Range {
        while self.one.len == 0 && self.next < self.rest.len() {
            self.one = self.rest[self.next];
            self.next += 1;
        }
        Range { addr: self.one.addr, len: self.one.len.min(self.remaining) }
    }

    fn advance(&mut self, n: usize) {
        self.one.addr += n;
        self.one.len -= n;
        self.remaining -= n;
        self.done += n;
    }

    /// Moves up to `len` bytes with `step(range, offset) -> bytes not moved`; stops at the first
    /// short move.
    fn walk(&mut self, len: usize, mut step: impl FnMut(Range, usize) -> usize) -> (usize, bool) {
        let mut moved = 0;
        while moved < len && self.remaining > 0 {
            let head = self.head();
            let n = head.len.min(len - moved);
            let missing = step(Range { addr: head.addr, len: n }, moved);
            self.advance(n - missing);
            moved += n - missing;
            if missing > 0 {
                return (moved, true);
            }
        }
        (moved, false)
    }
}

/// Fails with EFAULT if the range leaves user space.
pub fn check_user(addr: usize, len: usize) -> Result<()> {
    match addr.checked_add(len) {
        Some(end) if end <= USER_END || len == 0 => Ok(()),
        _ => Err(Errno::EFAULT),
    }
}

/// Destination of a read.
pub struct IoDst<'a>(Ranges<'a>);

impl<'a> IoDst<'a> {
    /// A user buffer.
    pub fn user(addr: usize, len: usize) -> Result<IoDst<'static>> {
        Ok(IoDst(Ranges::user(addr, len)?))
    }
    /// User buffers in sequence: (address, length).
    pub fn user_vec(iov: &[(usize, usize)]) -> Result<IoDst<'static>> {
        Ok(IoDst(Ranges::user_vec(iov)?))
    }
    /// A kernel buffer.
    pub fn kernel(buf: &'a mut [u8]) -> IoDst<'a> {
        let range = Range { addr: buf.as_mut_ptr() as usize, len: buf.len() };
        IoDst(Ranges::new(false, range, Vec::new(), buf.len()))
    }
    /// Bytes that still fit.
    pub fn remaining(&self) -> usize {
        self.0.remaining
    }
    /// Bytes written so far.
    pub fn done(&self) -> usize {
        self.0.done
    }
    /// Shortens what still fits to `len` bytes; a longer value changes nothing.
    pub fn limit(&mut self, len: usize) {
        self.0.remaining = self.0.remaining.min(len);
    }
    /// Appends as much of `bytes` as fits. EFAULT if not one byte could be stored; a fault later
    /// shortens the result.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let (moved, fault) = self.step(bytes);
        if fault && moved == 0 { Err(Errno::EFAULT) } else { Ok(moved) }
    }
    /// As [`write`](IoDst::write) without faulting pages in; the flag says whether it stopped at an
    /// absent page.
    pub fn write_nofault(&mut self, bytes: &[u8]) -> (usize, bool) {
        let _guard = preempt_disable();
        self.step(bytes)
    }
    /// Leaves out as many of `len` bytes as fit, which keep what they hold. Returns how many.
    pub fn skip(&mut self, len: usize) -> usize {
        self.0.walk(len, |_, _| 0).0
    }
    /// Appends `len` zero bytes.
    pub fn zero(&mut self, len: usize) -> Result<usize> {
        let user = self.0.user;
        let (moved, fault) = self.0.walk(len, |range, _| {
            if user {
                // SAFETY: user accessor; the range was checked to lie in user space.
                unsafe { uaccess::clear_user(range.addr, range.len) }
            } else {
                // SAFETY: the range lies in the kernel buffer that this value borrows mutably.
                unsafe { core::ptr::write_bytes(range.addr as *mut u8, 0, range.len) };
                0
            }
        });
        if fault && moved == 0 { Err(Errno::EFAULT) } else { Ok(moved) }
    }
    /// Makes the page at the position present and writable. EFAULT if it can't be.
    pub fn fault_in(&mut self) -> Result<()> {
        let head = self.0.head();
        if !self.0.user || head.len == 0 {
            return Ok(());
        }
        crate::mm::fault_in_user(head.addr, head.len.min(64 * 1024), true)
    }

    fn step(&mut self, bytes: &[u8]) -> (usize, bool) {
        let user = self.0.user;
        self.0.walk(bytes.len(), |range, at| {
            let src = bytes[at..at + range.len].as_ptr();
            if user {
                // SAFETY: `src` is valid for the length just sliced; the user range was checked.
                unsafe { uaccess::copy_to_user(range.addr, src, range.len) }
            } else {
                // SAFETY: the range lies in the kernel buffer that this value borrows mutably.
                unsafe { core::ptr::copy(src, range.addr as *mut u8, range.len) };
                0
            }
        })
    }
}

/// Source of a write.
pub struct IoSrc<'a>(Ranges<'a>);

impl<'a> IoSrc<'a> {
    /// A user buffer.
    pub fn user(addr: usize, len: usize) -> Result<IoSrc<'static>> {
        Ok(IoSrc(Ranges::user(addr, len)?))
    }
    /// User buffers in sequence: (address, length).
    pub fn user_vec(iov: &[(usize, usize)]) -> Result<IoSrc<'static>> {
        Ok(IoSrc(Ranges::user_vec(iov)?))
    }
    /// A kernel buffer.
    pub fn kernel(buf: &'a [u8]) -> IoSrc<'a> {
        let range = Range { addr: buf.as_ptr() as usize, len: buf.len() };
        IoSrc(Ranges::new(false, range, Vec::new(), buf.len()))
    }
    /// `len` bytes of consecutive cached pages, from byte `offset` of the first on. EINVAL if they
    /// don't reach that far.
    pub fn pages(pages: &'a [crate::mm::PageRef], offset: usize, len: usize) -> Result<IoSrc<'a>> {
        let size = crate::arch::PAGE_SIZE;
        if offset >= size || len > (pages.len() * size).saturating_sub(offset) {
            return Err(Errno::EINVAL);
        }
        let Some(first) = pages.first() else { return Ok(IoSrc::kernel(&[])) };
        let one = Range { addr: first.as_ptr() as usize + offset, len: size - offset };
        let mut rest = Vec::new();
        rest.try_reserve(pages.len() - 1).map_err(|_| Errno::ENOMEM)?;
        rest.extend(
            pages[1..].iter().map(|page| Range { addr: page.as_ptr() as usize, len: size }),
        );
        Ok(IoSrc(Ranges::new(false, one, rest, len)))
    }
    /// Bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.0.remaining
    }
    /// Bytes read so far.
    pub fn done(&self) -> usize {
        self.0.done
    }
    /// Shortens what is left to `len` bytes; a longer value changes nothing.
    pub fn limit(&mut self, len: usize) {
        self.0.remaining = self.0.remaining.min(len);
    }
    /// Fills as much of `buf` as there is. EFAULT if not one byte could be read; a fault later
    /// shortens the result.
    pub fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        let (moved, fault) = self.step(buf);
        if fault && moved == 0 { Err(Errno::EFAULT) } else { Ok(moved) }
    }
    /// As [`read`](IoSrc::read) without faulting pages in; the flag says whether it stopped at an
    /// absent page.
    pub fn read_nofault(&mut self, buf: &mut [u8]) -> (usize, bool) {
        let _guard = preempt_disable();
        self.step(buf)
    }
    /// Makes the page at the position present. EFAULT if it can't be.
    pub fn fault_in(&mut self) -> Result<()> {
        let head = self.0.head();
        if !self.0.user || head.len == 0 {
            return Ok(());
        }
        crate::mm::fault_in_user(head.addr, head.len.min(64 * 1024), false)
    }

    fn step(&mut self, buf: &mut [u8]) -> (usize, bool) {
        let user = self.0.user;
        self.0.walk(buf.len(), |range, at| {
            let dst = buf[at..at + range.len].as_mut_ptr();
            if user {
                // SAFETY: `dst` is valid for the length just sliced; the user range was checked.
                unsafe { uaccess::copy_from_user(dst, range.addr, range.len) }
            } else {
                // SAFETY: the range lies in the kernel buffer that this value borrows.
                unsafe { core::ptr::copy(range.addr as *const u8, dst, range.len) };
                0
            }
        })
    }
}

/// Types whose every bit pattern is a value and which have no padding that could leak kernel bytes.
///
/// # Safety
/// Implementors are `repr(C)` or primitive, accept any bit pattern and contain no padding bytes.
pub unsafe trait Plain: Copy {}
macro_rules! plain { ($($t:ty),*) => { $(
    // SAFETY: primitive integers accept any bit pattern and have no padding.
    unsafe impl Plain for $t {}
)* } }
plain!(u8, i8, u16, i16, u32, i32, u64, i64, usize, isize);
// SAFETY: an array of plain values is plain.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

/// Reads a value from user memory.
pub fn get_user<T: Plain>(addr: usize) -> Result<T> {
    check_user(addr, size_of::<T>())?;
    let mut value = core::mem::MaybeUninit::<T>::uninit();
    // SAFETY: `value` is valid for its size; the user range was checked.
    let missing =
        unsafe { uaccess::copy_from_user(value.as_mut_ptr().cast(), addr, size_of::<T>()) };
    if missing != 0 {
        return Err(Errno::EFAULT);
    }
    // SAFETY: every byte was written and `Plain` accepts any bit pattern.
    Ok(unsafe { value.assume_init() })
}

/// Writes a value to user memory.
pub fn put_user<T: Plain>(addr: usize, value: &T) -> Result<()> {
    check_user(addr, size_of::<T>())?;
    // SAFETY: `value` is valid for its size and free of padding; the user range was checked.
    let missing =
        unsafe { uaccess::copy_to_user(addr, core::ptr::from_ref(value).cast(), size_of::<T>()) };
    if missing == 0 { Ok(()) } else { Err(Errno::EFAULT) }
}

/// Reads a slice of values from user memory.
pub fn get_user_slice<T: Plain>(addr: usize, out: &mut [T]) -> Result<()> {
    let len = size_of_val(out);
    check_user(addr, len)?;
    // SAFETY: `out` is valid for its size and accepts any bit pattern; the user range was checked.
    let missing = unsafe { uaccess::copy_from_user(out.as_mut_ptr().cast(), addr, len) };
    if missing == 0 { Ok(()) } else { Err(Errno::EFAULT) }
}

/// Writes a slice of values to user memory.
pub fn put_user_slice<T: Plain>(addr: usize, values: &[T]) -> Result<()> {
    let len = size_of_val(values);
    check_user(addr, len)?;
    // SAFETY: `values` is valid for its size and free of padding; the user range was checked.
    let missing = unsafe { uaccess::copy_to_user(addr, values.as_ptr().cast(), len) };
    if missing == 0 { Ok(()) } else { Err(Errno::EFAULT) }
}

/// Reads a NUL-terminated string of at most `max` bytes (terminator included), without the
/// terminator. `too_long` is the error for a longer one: ENAMETOOLONG for paths, E2BIG for
/// arguments.
pub fn get_user_str(addr: usize, max: usize, too_long: Errno) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut at = addr;
    let mut chunk = [0u8; 128];
    while out.len() < max {
        // Never cross a page in one copy: the next page may be absent while the string ends in this
        // one.
        let page_left = crate::arch::PAGE_SIZE - at % crate::arch::PAGE_SIZE;
        let n = chunk.len().min(page_left).min(max - out.len());
        check_user(at, n)?;
        get_user_slice(at, &mut chunk[..n])?;
        out.try_reserve(n).map_err(|_| Errno::ENOMEM)?;
        if let Some(end) = find_zero(&chunk[..n]) {
            out.extend_from_slice(&chunk[..end]);
            return Ok(out);
        }
        out.extend_from_slice(&chunk[..n]);
        at += n;
    }
    Err(too_long)
}

/// Where the first zero byte is, looking at eight bytes at a time.
fn find_zero(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut words = bytes.chunks_exact(8);
    let mut at = 0;
    for word in &mut words {
        // The chunk has exactly eight bytes, so the default is never used.
        let word = u64::from_le_bytes(word.try_into().unwrap_or_default());
        let zeros = word.wrapping_sub(ONES) & !word & ONES << 7;
        if zeros != 0 {
            return Some(at + zeros.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    words.remainder().iter().position(|&byte| byte == 0).map(|rest| at + rest)
}

/// Reads an `iovec` array (readv(2)): pairs of address and length, at most IOV_MAX.
pub fn get_iovecs(addr: usize, count: usize) -> Result<Vec<(usize, usize)>> {
    const IOV_MAX: usize = 1024;
    if count > IOV_MAX {
        return Err(Errno::EINVAL);
    }
    let mut raw = alloc::vec![[0usize; 2]; count];
    get_user_slice(addr, &mut raw)?;
    Ok(raw.into_iter().map(|[base, len]| (base, len)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_fill_in_order_and_report_progress() {
        let (mut a, mut b) = ([0u8; 3], [0u8; 4]);
        let iov = [(a.as_mut_ptr() as usize, 3), (0, 0), (b.as_mut_ptr() as usize, 4)];
        let mut dst = IoDst::user_vec(&iov).unwrap();
        assert_eq!(dst.write(b"12345").unwrap(), 5);
        assert_eq!((dst.remaining(), dst.done()), (2, 5));
        assert_eq!(dst.write(b"6789").unwrap(), 2);
        assert_eq!((&a, &b), (b"123", b"4567"));
    }

    #[test]
    fn kernel_addresses_are_refused() {
        assert_eq!(check_user(USER_END - 1, 2), Err(Errno::EFAULT));
        assert_eq!(check_user(usize::MAX, 2), Err(Errno::EFAULT));
        assert!(IoSrc::user(0xffff_8000_0000_0000, 1).is_err());
    }

    #[test]
    fn zero_bytes_are_found_wherever_they_are() {
        for len in 0..40 {
            for zero in 0..=len {
                let mut bytes = std::vec![0xff; len];
                if let Some(byte) = bytes.get_mut(zero) {
                    *byte = 0;
                }
                let expected = (zero < len).then_some(zero);
                assert_eq!(find_zero(&bytes), expected, "{zero} of {len}");
                bytes.iter_mut().skip(zero).for_each(|byte| *byte = 0);
                assert_eq!(find_zero(&bytes), expected);
            }
        }
    }

    #[test]
    fn strings_end_at_the_terminator_or_fail() {
        let text = b"hello\0rest";
        let addr = text.as_ptr() as usize;
        assert_eq!(get_user_str(addr, 10, Errno::ENAMETOOLONG).unwrap(), b"hello");
        assert_eq!(get_user_str(addr, 5, Errno::ENAMETOOLONG), Err(Errno::ENAMETOOLONG));
    }
}

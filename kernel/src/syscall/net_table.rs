//! The numbers of the socket calls.

use super::net;
use crate::errno::Result;
use linux_raw_sys::general::*;

/// Makes the call, if `nr` is one of sockets.
#[expect(non_upper_case_globals, reason = "the names are those of the kernel headers")]
#[inline(always)]
pub fn call(nr: u32, args: [usize; 6]) -> Option<Result<usize>> {
    let [a, b, c, d, e, f] = args;
    let fd = a as i32;
    Some(match nr {
        __NR_socket => net::socket(a as u32, b as u32, c as u32),
        __NR_socketpair => net::socketpair(a as u32, b as u32, c as u32, d),
        __NR_bind => net::bind(fd, b, c as u32),
        __NR_listen => net::listen(fd, b as i32),
        __NR_accept => net::accept(fd, b, c),
        __NR_accept4 => net::accept4(fd, b, c, d as u32),
        __NR_connect => net::connect(fd, b, c as u32),
        __NR_getsockname => net::getsockname(fd, b, c),
        __NR_getpeername => net::getpeername(fd, b, c),
        __NR_sendto => net::sendto(fd, b, c, d as u32, e, f as u32),
        __NR_recvfrom => net::recvfrom(fd, b, c, d as u32, e, f),
        __NR_sendmsg => net::sendmsg(fd, b, c as u32),
        __NR_recvmsg => net::recvmsg(fd, b, c as u32),
        __NR_sendmmsg => net::sendmmsg(fd, b, c as u32, d as u32),
        __NR_recvmmsg => net::recvmmsg(fd, b, c as u32, d as u32, e),
        __NR_shutdown => net::shutdown(fd, b as u32),
        __NR_setsockopt => net::setsockopt(fd, b as u32, c as u32, d, e as u32),
        __NR_getsockopt => net::getsockopt(fd, b as u32, c as u32, d, e),
        _ => return None,
    })
}

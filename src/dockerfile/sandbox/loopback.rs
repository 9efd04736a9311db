//! Switching on the loopback device of a new network namespace, by rtnetlink(7).

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

/// `RTM_NEWLINK`, and the request's flags `NLM_F_REQUEST | NLM_F_ACK`.
const NEW_LINK: u16 = 16;
const FLAGS: u16 = 1 | 4;
/// A namespace's loopback device is its first.
const LOOPBACK: i32 = 1;
/// `IFF_UP`
const UP: u32 = 1;

/// Switches it on.
///
/// # Errors
/// What the kernel answers.
pub fn up() -> Result<(), Errno> {
    let family = AddressFamily::NETLINK;
    let flags = SocketFlags::CLOEXEC;
    // NETLINK_ROUTE is protocol 0.
    let socket = socket_with(family, SocketType::RAW, flags, None)?;
    // struct nlmsghdr, then struct ifinfomsg, in the machine's byte order.
    let mut message = Vec::with_capacity(32);
    message.extend(32u32.to_ne_bytes());
    message.extend(NEW_LINK.to_ne_bytes());
    message.extend(FLAGS.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([0; 4]);
    message.extend(LOOPBACK.to_ne_bytes());
    message.extend(UP.to_ne_bytes());
    message.extend(UP.to_ne_bytes());
    sendto(&socket, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0u8; 1024];
    let (len, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    // struct nlmsgerr follows the header; its first field is a negative error or zero.
    match answer[..len].get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes)
    {
        Some(0) => Ok(()),
        Some(code) => Err(Errno::from_raw_os_error(-code)),
        None => Err(Errno::BADMSG),
    }
}

//! Sockets: socket(2) and its family.

use super::{install_file, reserve_descriptor};
use crate::bpf;
use crate::errno::{Errno, Result};
use crate::fs::File;
use crate::fs::walk::{Resolve, Resolver};
use crate::io::{IoDst, IoSrc, get_iovecs, get_user, get_user_slice, put_user, put_user_slice};
use crate::net::addr::{Address, Ipv4Addr, MAX_LEN, SocketAddr, UnixName};
use crate::net::socket::{
    self, Caller, Control, Incoming, Outgoing, Shutdown, Socket, SocketFile, Ucred,
};
use crate::net::unix::UnixSocket;
use crate::task::current;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general::{O_CLOEXEC, O_NONBLOCK};
use linux_raw_sys::net::*;

/// `SOCK_CLOEXEC` and `SOCK_NONBLOCK` have the values of the `O_` flags.
const KIND_FLAGS: u32 = O_CLOEXEC | O_NONBLOCK;
/// Most bytes of ancillary data in one message (net.core.optmem_max).
const MAX_CONTROL: usize = 128 * 1024;
/// Most messages in one sendmmsg(2) or recvmmsg(2).
const MAX_MESSAGES: u32 = 1024;
/// Largest option value.
const MAX_OPTION: usize = 4096;
const CMSG_HEADER: usize = 16;
const SCM_RIGHTS: u32 = 1;
const SCM_CREDENTIALS: u32 = 2;
const MSG_CMSG_CLOEXEC: u32 = 0x4000_0000;
const MSG_WAITFORONE: u32 = 0x1_0000;

/// A socket descriptor's file.
fn file(fd: i32) -> Result<Arc<File>> {
    current().with_files(|files| files.get(fd))
}

/// Calls `f` as the current task. Names are resolved only for those who need it.
fn with_caller<R>(
    addr: Option<&Address>,
    f: impl FnOnce(&mut Caller<'_>) -> Result<R>,
) -> Result<R> {
    let mut caller = Caller::current();
    match addr {
        Some(Address::Unix(UnixName::Path(_))) => {
            let creds = current().creds();
            let context = current().fs();
            let (root, start) = (context.root(), context.cwd());
            let resolver = Resolver { root, start, who: &*creds, resolve: Resolve::empty() };
            caller.resolver = Some(resolver);
            caller.umask = context.umask();
            f(&mut caller)
        }
        _ => f(&mut caller),
    }
}

/// Reads a socket address.
fn get_address(addr: usize, len: u32) -> Result<Address> {
    let len = len as usize;
    if len > MAX_LEN {
        return Err(Errno::EINVAL);
    }
    let mut raw = [0u8; MAX_LEN];
    get_user_slice(addr, &mut raw[..len])?;
    Address::parse(&raw[..len])
}

/// Writes a socket address, cut to the room that the caller has; the length is the full one.
fn put_address(address: &Address, addr: usize, len_addr: usize) -> Result<()> {
    if addr == 0 {
        return Ok(());
    }
    let room: i32 = get_user(len_addr)?;
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
    let raw = address.emit();
    put_user_slice(addr, &raw[..raw.len().min(room)])?;
    put_user(len_addr, &(raw.len() as u32))
}

/// Where an address is asked for, unlike in accept(2), there must be a place for it.
fn check_address(addr: usize, len_addr: usize) -> Result<()> {
    let room: i32 = get_user(len_addr)?;
    if room < 0 {
        return Err(Errno::EINVAL);
    }
    if room > 0 && addr == 0 { Err(Errno::EFAULT) } else { Ok(()) }
}

fn open(socket: Arc<dyn Socket>, flags: u32) -> Result<usize> {
    let file = SocketFile::open(socket, Caller::current().cred, flags & O_NONBLOCK);
    install_file(file, flags & O_CLOEXEC != 0)
}

/// socket(2)
pub fn socket(family: u32, kind: u32, protocol: u32) -> Result<usize> {
    let (kind, flags) = (kind & !KIND_FLAGS, kind & KIND_FLAGS);
    if kind > 15 {
        return Err(Errno::EINVAL);
    }
    let socket = socket::create(&Caller::current(), family, kind, protocol)?;
    open(socket, flags)
}

/// socketpair(2)
pub fn socketpair(family: u32, kind: u32, protocol: u32, out: usize) -> Result<usize> {
    let (kind, flags) = (kind & !KIND_FLAGS, kind & KIND_FLAGS);
    if kind > 10 {
        return Err(Errno::EINVAL);
    }
    if family != AF_UNIX {
        return Err(match (family, kind, protocol) {
            // There the pair fails last, after its sockets were made.
            (AF_INET | AF_INET6, SOCK_STREAM, 1..=5 | 7..)
            | (AF_INET | AF_INET6, SOCK_DGRAM, 2..=16 | 18..)
            | (AF_INET | AF_INET6, SOCK_RAW, 0) => Errno::EPROTONOSUPPORT,
            (AF_INET | AF_INET6, ..) => Errno::EOPNOTSUPP,
            _ => Errno::EAFNOSUPPORT,
        });
    }
    if protocol > 1 {
        return Err(Errno::EPROTONOSUPPORT);
    }
    let kind = match kind {
        SOCK_STREAM | SOCK_DGRAM | SOCK_SEQPACKET => kind,
        SOCK_RAW => SOCK_DGRAM,
        _ => return Err(Errno::ESOCKTNOSUPPORT),
    };
    let (a, b) = UnixSocket::pair(kind, Caller::current().cred);
    let first = open(a, flags)? as i32;
    let second = match open(b, flags) {
        Ok(second) => second as i32,
        Err(error) => {
            current().with_files(|files| files.close(first))?;
            return Err(error);
        }
    };
    if let Err(error) = put_user_slice(out, &[first, second]) {
        current().with_files(|files| files.close(first))?;
        current().with_files(|files| files.close(second))?;
        return Err(error);
    }
    Ok(0)
}

/// bind(2)
pub fn bind(fd: i32, addr: usize, len: u32) -> Result<usize> {
    let file = file(fd)?;
    let socket = &socket::of(&file)?.socket;
    let mut address = get_address(addr, len)?;
    if address == Address::Unspecified && socket.family() == AF_INET {
        // As old as sockets: no family and no address is any address of IPv4.
        let [_, _, high, low, ip @ ..] = get_user::<[u8; 8]>(addr)?;
        if ip == [0; 4] {
            let port = u16::from_be_bytes([high, low]);
            address = Address::Inet(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port));
        }
    }
    let mode = file.with_inode(|inode| inode.access().mode);
    with_caller(Some(&address), |who| {
        who.umask |= !mode & 0o777;
        socket.bind(who, &address)
    })?;
    Ok(0)
}

/// listen(2)
pub fn listen(fd: i32, backlog: i32) -> Result<usize> {
    let file = file(fd)?;
    // Negative means as much as there may be.
    let backlog = usize::try_from(backlog).unwrap_or(usize::MAX);
    socket::of(&file)?.socket.listen(&Caller::current(), backlog)?;
    Ok(0)
}

/// accept(2)
pub fn accept(fd: i32, addr: usize, len: usize) -> Result<usize> {
    accept4(fd, addr, len, 0)
}

/// accept4(2)
pub fn accept4(fd: i32, addr: usize, len: usize, flags: u32) -> Result<usize> {
    if flags & !KIND_FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    let file = file(fd)?;
    // A connection stays in the queue if there is no descriptor for it.
    let reserved = reserve_descriptor()?;
    let (accepted, peer) = socket::of(&file)?.socket.accept(file.nonblocking())?;
    let new = SocketFile::open(accepted, Caller::current().cred, flags & O_NONBLOCK);
    put_address(&peer, addr, len)?;
    Ok(reserved.install(new, flags & O_CLOEXEC != 0) as usize)
}

/// connect(2)
pub fn connect(fd: i32, addr: usize, len: u32) -> Result<usize> {
    let file = file(fd)?;
    let socket = &socket::of(&file)?.socket;
    let address = get_address(addr, len)?;
    with_caller(Some(&address), |who| socket.connect(who, &address, file.nonblocking()))?;
    Ok(0)
}

/// getsockname(2)
pub fn getsockname(fd: i32, addr: usize, len: usize) -> Result<usize> {
    let file = file(fd)?;
    socket::of(&file)?;
    check_address(addr, len)?;
    put_address(&socket::of(&file)?.socket.local(), addr, len)?;
    Ok(0)
}

/// getpeername(2)
pub fn getpeername(fd: i32, addr: usize, len: usize) -> Result<usize> {
    let file = file(fd)?;
    socket::of(&file)?.socket.peer()?;
    check_address(addr, len)?;
    put_address(&socket::of(&file)?.socket.peer()?, addr, len)?;
    Ok(0)
}

/// sendto(2)
pub fn sendto(
    fd: i32,
    buf: usize,
    len: usize,
    flags: u32,
    addr: usize,
    addr_len: u32,
) -> Result<usize> {
    let file = file(fd)?;
    let socket = &socket::of(&file)?.socket;
    let to = if addr == 0 { None } else { Some(get_address(addr, addr_len)?) };
    let mut src = IoSrc::user(buf, len)?;
    let nonblock = file.nonblocking();
    with_caller(to.clone().as_ref(), |who| {
        let mut message = Outgoing { to, src: &mut src, flags, control: Vec::new(), nonblock };
        socket::send(&**socket, who, &mut message)
    })
}

/// recvfrom(2)
pub fn recvfrom(
    fd: i32,
    buf: usize,
    len: usize,
    flags: u32,
    addr: usize,
    addr_len: usize,
) -> Result<usize> {
    let file = file(fd)?;
    let mut dst = IoDst::user(buf, len)?;
    let mut message = Incoming::new(&mut dst, flags, file.nonblocking());
    let moved = socket::of(&file)?.socket.receive(&mut message)?;
    if addr != 0 {
        match &message.from {
            Some(from) => put_address(from, addr, addr_len)?,
            // Streams leave the address alone.
            None if get_user::<i32>(addr_len)? < 0 => return Err(Errno::EINVAL),
            None => put_user(addr_len, &0u32)?,
        }
    }
    Ok(moved)
}

/// `struct msghdr`.
struct MessageHeader {
    name: usize,
    name_len: u32,
    iov: Vec<(usize, usize)>,
    control: usize,
    control_len: usize,
}

impl MessageHeader {
    const SIZE: usize = 56;
    const NAME_LEN: usize = 8;
    const CONTROL_LEN: usize = 40;
    const FLAGS: usize = 48;

    fn read(addr: usize) -> Result<MessageHeader> {
        let mut words = [0usize; 7];
        get_user_slice(addr, &mut words)?;
        let [name, name_len, iov, count, control, control_len, _] = words;
        if count > 1024 {
            return Err(Errno::EMSGSIZE);
        }
        Ok(MessageHeader {
            name,
            name_len: name_len as u32,
            iov: get_iovecs(iov, count)?,
            control,
            control_len,
        })
    }
}

/// Reads ancillary data.
fn get_control(addr: usize, len: usize) -> Result<Vec<Control>> {
    let mut all = Vec::new();
    if len > MAX_CONTROL {
        return Err(Errno::ENOBUFS);
    }
    if addr == 0 || len < CMSG_HEADER {
        return Ok(all);
    }
    let mut raw = alloc::vec![0u8; len];
    get_user_slice(addr, &mut raw)?;
    let mut rest = raw.as_slice();
    while rest.len() >= CMSG_HEADER {
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&rest[at..at + 8]);
            usize::from_ne_bytes(bytes)
        };
        let (size, kind) = (word(0), word(8));
        if size < CMSG_HEADER || size > rest.len() {
            return Err(Errno::EINVAL);
        }
        let data = &rest[CMSG_HEADER..size];
        let int = |at: &[u8]| i32::from_ne_bytes([at[0], at[1], at[2], at[3]]);
        all.push(match (kind as u32, (kind >> 32) as u32) {
            (SOL_SOCKET, SCM_RIGHTS) => {
                let descriptors = data.chunks_exact(4).map(int);
                let files = descriptors.map(|fd| current().with_files(|files| files.get_any(fd)));
                Control::Rights(files.collect::<Result<_>>()?)
            }
            (SOL_SOCKET, SCM_CREDENTIALS) if data.len() >= 12 => {
                let field = |at: usize| int(&data[at..]) as u32;
                Control::Credentials(Ucred { pid: field(0), uid: field(4), gid: field(8) })
            }
            (SOL_SOCKET, _) => return Err(Errno::EINVAL),
            (level, kind) => Control::Raw(level, kind, data.to_vec()),
        });
        rest = rest.get(size.next_multiple_of(8)..).unwrap_or_default();
    }
    Ok(all)
}

/// Writes ancillary data; returns its length and whether some didn't fit. Descriptors are given out
/// only as far as there is room to name them.
fn put_control(
    control: Vec<Control>,
    addr: usize,
    room: usize,
    cloexec: bool,
) -> Result<(usize, bool)> {
    let mut used = 0;
    let mut cut = false;
    for one in control {
        let left = room.saturating_sub(used);
        if left < CMSG_HEADER {
            cut = true;
            break;
        }
        let fits = left - CMSG_HEADER;
        let (level, kind, mut data) = match one {
            Control::Rights(files) => {
                let mut data = Vec::new();
                cut |= files.len() * 4 > fits;
                for file in files.into_iter().take(fits / 4) {
                    match install_file(file, cloexec) {
                        Ok(fd) => data.extend((fd as i32).to_ne_bytes()),
                        Err(_) => {
                            cut = true;
                            break;
                        }
                    }
                }
                if data.is_empty() {
                    continue;
                }
                (SOL_SOCKET, SCM_RIGHTS, data)
            }
            Control::Credentials(Ucred { pid, uid, gid }) => {
                let data = [pid, uid, gid].into_iter().flat_map(u32::to_ne_bytes).collect();
                (SOL_SOCKET, SCM_CREDENTIALS, data)
            }
            Control::Raw(level, kind, data) => (level, kind, data),
        };
        if data.len() > fits {
            cut = true;
            data.truncate(fits);
        }
        let mut raw = Vec::with_capacity(CMSG_HEADER + data.len());
        raw.extend((CMSG_HEADER + data.len()).to_ne_bytes());
        raw.extend(level.to_ne_bytes());
        raw.extend(kind.to_ne_bytes());
        raw.extend(&data);
        put_user_slice(addr + used, &raw)?;
        used += raw.len().next_multiple_of(8).min(left);
    }
    Ok((used, cut))
}

fn send_one(file: &File, addr: usize, flags: u32) -> Result<usize> {
    let header = MessageHeader::read(addr)?;
    let socket = &socket::of(file)?.socket;
    let to = match header.name {
        0 => None,
        _ if header.name_len == 0 => None,
        name => Some(get_address(name, header.name_len)?),
    };
    let control = get_control(header.control, header.control_len)?;
    let mut src = IoSrc::user_vec(&header.iov)?;
    let nonblock = file.nonblocking();
    with_caller(to.clone().as_ref(), |who| {
        let mut message = Outgoing { to, src: &mut src, flags, control, nonblock };
        socket::send(&**socket, who, &mut message)
    })
}

fn receive_one(file: &File, addr: usize, flags: u32) -> Result<usize> {
    let header = MessageHeader::read(addr)?;
    let mut dst = IoDst::user_vec(&header.iov)?;
    let mut message = Incoming::new(&mut dst, flags, file.nonblocking());
    let moved = socket::of(file)?.socket.receive(&mut message)?;
    let (from, control) = (message.from.take(), core::mem::take(&mut message.control));
    let mut out_flags = message.out_flags | flags & MSG_CMSG_CLOEXEC;
    let mut name_len = 0;
    if let (Some(from), true) = (from, header.name != 0) {
        let raw = from.emit();
        let room = header.name_len as usize;
        put_user_slice(header.name, &raw[..raw.len().min(room)])?;
        name_len = raw.len() as u32;
    }
    if header.name != 0 {
        put_user(addr + MessageHeader::NAME_LEN, &name_len)?;
    }
    let room = if header.control == 0 { 0 } else { header.control_len };
    let cloexec = flags & MSG_CMSG_CLOEXEC != 0;
    let (used, cut) = put_control(control, header.control, room, cloexec)?;
    if cut {
        out_flags |= MSG_CTRUNC;
    }
    put_user(addr + MessageHeader::CONTROL_LEN, &used)?;
    put_user(addr + MessageHeader::FLAGS, &out_flags)?;
    Ok(moved)
}

/// sendmsg(2)
pub fn sendmsg(fd: i32, message: usize, flags: u32) -> Result<usize> {
    send_one(&*file(fd)?, message, flags)
}

/// recvmsg(2)
pub fn recvmsg(fd: i32, message: usize, flags: u32) -> Result<usize> {
    receive_one(&*file(fd)?, message, flags)
}

/// `sizeof(struct mmsghdr)`.
const STRIDE: usize = 64;

/// sendmmsg(2)
pub fn sendmmsg(fd: i32, messages: usize, count: u32, flags: u32) -> Result<usize> {
    let file = file(fd)?;
    let mut done = 0;
    for at in 0..count.min(MAX_MESSAGES) as usize {
        let addr = messages + at * STRIDE;
        match send_one(&file, addr, flags) {
            Ok(moved) => put_user(addr + MessageHeader::SIZE, &(moved as u32))?,
            Err(_) if done > 0 => break,
            Err(error) => return Err(error),
        }
        done += 1;
    }
    Ok(done)
}

/// recvmmsg(2)
pub fn recvmmsg(fd: i32, messages: usize, count: u32, flags: u32, timeout: usize) -> Result<usize> {
    let file = file(fd)?;
    let deadline = match timeout {
        0 => None,
        addr => {
            let [secs, nanos]: [i64; 2] = get_user(addr)?;
            if secs < 0 || !(0..1_000_000_000).contains(&nanos) {
                return Err(Errno::EINVAL);
            }
            let ns = (secs as u64).saturating_mul(1_000_000_000).saturating_add(nanos as u64);
            Some(crate::time::now_ns().saturating_add(ns))
        }
    };
    let mut flags = flags;
    let mut done = 0;
    for at in 0..count.min(MAX_MESSAGES) as usize {
        let addr = messages + at * STRIDE;
        match receive_one(&file, addr, flags & !MSG_WAITFORONE) {
            Ok(moved) => put_user(addr + MessageHeader::SIZE, &(moved as u32))?,
            Err(_) if done > 0 => break,
            Err(error) => return Err(error),
        }
        done += 1;
        if flags & MSG_WAITFORONE != 0 {
            flags |= MSG_DONTWAIT;
        }
        // As in Linux, the time is looked at between messages only.
        if deadline.is_some_and(|deadline| crate::time::now_ns() >= deadline) {
            break;
        }
    }
    Ok(done)
}

/// shutdown(2)
pub fn shutdown(fd: i32, how: u32) -> Result<usize> {
    let how = match how {
        0 => Shutdown { read: true, write: false },
        1 => Shutdown { read: false, write: true },
        2 => Shutdown { read: true, write: true },
        _ => return Err(Errno::EINVAL),
    };
    socket::of(&*file(fd)?)?.socket.shutdown(how)?;
    Ok(0)
}

/// Whether options of that level are IPv6's, and the socket IPv4's.
fn foreign(socket: &dyn Socket, level: u32) -> bool {
    level == IPPROTO_IPV6 as u32 && socket.family() == AF_INET
}

/// setsockopt(2)
pub fn setsockopt(fd: i32, level: u32, name: u32, value: usize, len: u32) -> Result<usize> {
    let len = len as usize;
    if len as i32 <= -1 {
        return Err(Errno::EINVAL);
    }
    let file = file(fd)?;
    let socket = &socket::of(&file)?.socket;
    let mut raw = alloc::vec![0u8; len.min(MAX_OPTION)];
    get_user_slice(value, &mut raw)?;
    if foreign(&**socket, level) {
        return Err(Errno::ENOPROTOOPT);
    }
    if level == SOL_SOCKET && matches!(name, SO_ATTACH_FILTER | SO_ATTACH_REUSEPORT_CBPF) {
        if len != size_of::<[u64; 2]>() {
            return Err(Errno::EINVAL);
        }
        // Sockets get the program itself: they are locked while they take it.
        raw = bpf::read(get_user(value)?)?;
    }
    socket.set_option(&Caller::current(), level, name, &raw)?;
    Ok(0)
}

/// getsockopt(2)
pub fn getsockopt(fd: i32, level: u32, name: u32, value: usize, len: usize) -> Result<usize> {
    let file = file(fd)?;
    let socket = &socket::of(&file)?.socket;
    let room: i32 = get_user(len)?;
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
    if foreign(&**socket, level) {
        return Err(Errno::EOPNOTSUPP);
    }
    let mut raw = match socket.option(level, name) {
        // A level that nobody serves.
        Err(Errno::ENOPROTOOPT) if level > 300 => return Err(Errno::EOPNOTSUPP),
        other => other?,
    };
    raw.truncate(room);
    put_user_slice(value, &raw)?;
    put_user(len, &(raw.len() as u32))?;
    Ok(0)
}

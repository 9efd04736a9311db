//! Sockets: what the system calls of socket(7) act on.

pub mod ancillary;
pub mod ifreq;
pub mod inet;
pub mod link;
pub mod options;
pub mod raw;
pub mod tcp;
pub mod udp;

#[cfg(test)]
mod tests;

use super::addr::Address;
use crate::errno::{Errno, Result};
use crate::event::{Events, PollTable};
use crate::fs::anon::AnonInode;
use crate::fs::walk::Resolver;
use crate::fs::{File, FileOps, Inode, hooks, inode::mode::S_IFSOCK};
use crate::io::{IoDst, IoSrc};
use crate::live::{Kind, Live};
use crate::sync::{WaitError, WaitMode, WaitQueue};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::net::{
    AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_UNIX, MSG_DONTWAIT, MSG_NOSIGNAL, SOCK_DGRAM,
    SOCK_RAW, SOCK_SEQPACKET, SOCK_STREAM,
};

/// Identity of a process as `SO_PEERCRED` and `SCM_CREDENTIALS` show it (`struct ucred`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ucred {
    /// Process.
    pub pid: u32,
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
}

/// capabilities(7).
const CAP_NET_RAW: u32 = 13;

/// Who makes a call.
pub struct Caller<'a> {
    /// Identity.
    pub cred: Ucred,
    /// May use low ports, raw sockets and the like (`CAP_NET_ADMIN`, `CAP_NET_RAW`,
    /// `CAP_NET_BIND_SERVICE`).
    pub privileged: bool,
    /// For names of unix sockets; `None` for the kernel's own calls.
    pub resolver: Option<Resolver<'a>>,
    /// Applied to names that bind(2) makes: the umask, and what fchmod(2) has taken from the socket.
    pub umask: u32,
}

impl Caller<'_> {
    /// The kernel itself.
    pub fn kernel() -> Caller<'static> {
        Caller { cred: Ucred::default(), privileged: true, resolver: None, umask: 0 }
    }

    /// The current task, without a way to resolve names; the kernel where there are no tasks.
    pub fn current() -> Caller<'static> {
        if crate::arch::cpu::current_task().is_null() {
            return Caller::kernel();
        }
        let task = crate::task::current();
        let pid = task.pid() as u32;
        task.with_creds(|creds| Caller {
            cred: Ucred { pid, uid: creds.euid, gid: creds.egid },
            privileged: creds.capable(CAP_NET_RAW),
            resolver: None,
            umask: 0,
        })
    }
}

/// Ancillary data.
#[derive(Clone)]
pub enum Control {
    /// `SCM_RIGHTS`.
    Rights(Vec<Arc<File>>),
    /// `SCM_CREDENTIALS`.
    Credentials(Ucred),
    /// Anything else, as it goes to the application: level, type, data.
    Raw(u32, u32, Vec<u8>),
}

/// A message to send.
pub struct Outgoing<'a, 'b> {
    /// Where to; `None`: to the connected peer.
    pub to: Option<Address>,
    /// What.
    pub src: &'a mut IoSrc<'b>,
    /// `MSG_*`.
    pub flags: u32,
    /// Ancillary data.
    pub control: Vec<Control>,
    /// Fail with EAGAIN instead of waiting.
    pub nonblock: bool,
}

/// Room for a message, and what came with it.
pub struct Incoming<'a, 'b> {
    /// Where the data goes.
    pub dst: &'a mut IoDst<'b>,
    /// `MSG_*`.
    pub flags: u32,
    /// Fail with EAGAIN instead of waiting.
    pub nonblock: bool,
    /// Sender.
    pub from: Option<Address>,
    /// Ancillary data.
    pub control: Vec<Control>,
    /// `msg_flags` of the answer.
    pub out_flags: u32,
}

impl<'a, 'b> Incoming<'a, 'b> {
    /// Room for a message.
    pub fn new(dst: &'a mut IoDst<'b>, flags: u32, nonblock: bool) -> Self {
        let nonblock = nonblock || flags & MSG_DONTWAIT != 0;
        Incoming { dst, flags, nonblock, from: None, control: Vec::new(), out_flags: 0 }
    }
}

/// Which halves shutdown(2) ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// Receiving.
    pub read: bool,
    /// Sending.
    pub write: bool,
}

/// A socket of any family. Defaults are the errors of one that can't do it.
pub trait Socket: Send + Sync {
    /// `AF_*`.
    fn family(&self) -> u32;
    /// `SOCK_*`.
    fn kind(&self) -> u32;
    /// The file that stands for it, and whose that is.
    fn owned(&self, _ino: u64, _uid: u32) {}
    /// bind(2).
    fn bind(&self, _who: &Caller<'_>, _addr: &Address) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// listen(2).
    fn listen(&self, _who: &Caller<'_>, _backlog: usize) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// accept(2): the new socket and its peer's address.
    fn accept(&self, _nonblock: bool) -> Result<(Arc<dyn Socket>, Address)> {
        Err(Errno::EOPNOTSUPP)
    }
    /// connect(2).
    fn connect(&self, _who: &Caller<'_>, _addr: &Address, _nonblock: bool) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// sendmsg(2).
    fn send(&self, who: &Caller<'_>, message: &mut Outgoing<'_, '_>) -> Result<usize>;
    /// recvmsg(2).
    fn receive(&self, message: &mut Incoming<'_, '_>) -> Result<usize>;
    /// shutdown(2).
    fn shutdown(&self, _how: Shutdown) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// getsockname(2).
    fn local(&self) -> Address;
    /// getpeername(2).
    fn peer(&self) -> Result<Address> {
        Err(Errno::ENOTCONN)
    }
    /// setsockopt(2).
    fn set_option(&self, who: &Caller<'_>, level: u32, name: u32, value: &[u8]) -> Result<()>;
    /// getsockopt(2).
    fn option(&self, level: u32, name: u32) -> Result<Vec<u8>>;
    /// Queues a message from the kernel itself (mq_notify(3)); only netlink sockets take any.
    fn tell(&self, _message: &[u8]) -> Result<()> {
        Err(Errno::EINVAL)
    }
    /// Present readiness; registers first.
    fn poll(&self, table: &mut PollTable<'_>) -> Events;
    /// ioctl(2) requests of this kind of socket only.
    fn ioctl(&self, _request: u32, _arg: usize) -> Result<usize> {
        Err(Errno::ENOTTY)
    }
    /// The last descriptor is gone.
    fn close(&self, nonblock: bool);
}

/// socket(2), without the descriptor. `kind` has no flags any more.
pub fn create(who: &Caller<'_>, family: u32, kind: u32, protocol: u32) -> Result<Arc<dyn Socket>> {
    match family {
        AF_UNIX => match kind {
            SOCK_STREAM | SOCK_DGRAM | SOCK_SEQPACKET | SOCK_RAW if protocol <= 1 => {
                let kind = if kind == SOCK_RAW { SOCK_DGRAM } else { kind };
                Ok(super::unix::UnixSocket::new(kind))
            }
            SOCK_STREAM | SOCK_DGRAM | SOCK_SEQPACKET => Err(Errno::EPROTONOSUPPORT),
            _ => Err(Errno::ESOCKTNOSUPPORT),
        },
        AF_INET | AF_INET6 => inet::create(who, family, kind, protocol),
        AF_PACKET => link::create(who, kind, protocol),
        AF_NETLINK => match kind {
            SOCK_RAW | SOCK_DGRAM => super::netlink::create(who, protocol),
            _ => Err(Errno::ESOCKTNOSUPPORT),
        },
        _ => Err(Errno::EAFNOSUPPORT),
    }
}

/// A socket as an open file.
pub struct SocketFile {
    /// The socket.
    pub socket: Arc<dyn Socket>,
    inode: Arc<AnonInode>,
    _live: Live,
}

impl SocketFile {
    /// An open file description of `socket`; `flags`: `O_NONBLOCK` or 0.
    pub fn open(socket: Arc<dyn Socket>, who: Ucred, flags: u32) -> Arc<File> {
        let inode = AnonInode::owned(S_IFSOCK | 0o777, who.uid, who.gid);
        socket.owned(inode.ino(), who.uid);
        let flags = linux_raw_sys::general::O_RDWR | flags;
        let live = Live::new(Kind::Sockets);
        File::anonymous(Arc::new(SocketFile { socket, inode, _live: live }), flags)
    }
}

/// The socket behind a file. ENOTSOCK if it is something else.
pub fn of(file: &File) -> Result<&SocketFile> {
    file.downcast::<SocketFile>().ok_or(Errno::ENOTSOCK)
}

/// Sends, with SIGPIPE where Linux raises it.
pub fn send(
    socket: &dyn Socket,
    who: &Caller<'_>,
    message: &mut Outgoing<'_, '_>,
) -> Result<usize> {
    let result = socket.send(who, message);
    let stream = matches!(socket.kind(), SOCK_STREAM | SOCK_SEQPACKET);
    if result == Err(Errno::EPIPE) && stream && message.flags & MSG_NOSIGNAL == 0 {
        hooks::broken_pipe();
    }
    result
}

impl FileOps for SocketFile {
    fn asynchronous(&self) -> bool {
        true
    }

    fn read(&self, file: &File, dst: &mut IoDst<'_>) -> Result<usize> {
        // Unlike recv(2), read(2) of nothing neither waits nor takes a datagram.
        if dst.remaining() == 0 {
            return Ok(0);
        }
        self.socket.receive(&mut Incoming::new(dst, 0, file.nonblocking()))
    }
    fn write(&self, file: &File, src: &mut IoSrc<'_>) -> Result<usize> {
        let nonblock = file.nonblocking();
        let mut message = Outgoing { to: None, src, flags: 0, control: Vec::new(), nonblock };
        send(&*self.socket, &Caller::current(), &mut message)
    }
    fn poll(&self, _file: &File, table: &mut PollTable<'_>) -> Events {
        self.socket.poll(table)
    }
    fn ioctl(&self, _file: &File, request: u32, arg: usize) -> Result<usize> {
        match self.socket.ioctl(request, arg) {
            Err(Errno::ENOTTY) => ifreq::ioctl(request, arg),
            result => result,
        }
    }
    fn inode(&self) -> Arc<dyn Inode> {
        self.inode.clone()
    }
    fn release(&self, file: &File) {
        self.socket.close(file.nonblocking());
    }
    fn describe(&self) -> String {
        alloc::format!("socket:[{}]", self.inode.ino())
    }
}

/// Sleeps until `condition` gives a value. `timeout` in nanoseconds, 0: none. EAGAIN when it is
/// over; an interrupted call is restarted only if it has no timeout (signal(7)).
pub fn wait<T>(
    queue: &WaitQueue,
    exclusive: bool,
    timeout: u64,
    condition: impl FnMut() -> Option<T>,
) -> Result<T> {
    let deadline = (timeout > 0).then(|| crate::arch::clock::now_ns().saturating_add(timeout));
    let result = if exclusive {
        queue.wait_exclusive(WaitMode::Interruptible, deadline, condition)
    } else {
        queue.wait(WaitMode::Interruptible, deadline, condition)
    };
    result.map_err(|error| match error {
        WaitError::TimedOut => Errno::EAGAIN,
        WaitError::Interrupted if timeout > 0 => Errno::EINTR,
        WaitError::Interrupted => Errno::ERESTARTSYS,
    })
}

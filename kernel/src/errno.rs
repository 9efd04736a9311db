//! Linux error numbers (errno(3), `asm-generic/errno.h`).

use core::fmt;

/// An error number as an application sees it, or one of the internal restart codes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub u16);

/// The kernel's result type.
pub type Result<T> = core::result::Result<T, Errno>;

macro_rules! errnos {
    ($($name:ident = $value:literal),* $(,)?) => {
        #[allow(missing_docs, reason = "each constant is the errno(3) of that name")]
        impl Errno {
            $(pub const $name: Errno = Errno($value);)*

            /// The symbolic name, for traces.
            pub const fn name(self) -> &'static str {
                match self.0 { $($value => stringify!($name),)* _ => "E?" }
            }
        }
    };
}

errnos! {
    EPERM = 1, ENOENT = 2, ESRCH = 3, EINTR = 4, EIO = 5, ENXIO = 6, E2BIG = 7, ENOEXEC = 8, EBADF = 9,
    ECHILD = 10, EAGAIN = 11, ENOMEM = 12, EACCES = 13, EFAULT = 14, ENOTBLK = 15, EBUSY = 16, EEXIST = 17,
    EXDEV = 18, ENODEV = 19, ENOTDIR = 20, EISDIR = 21, EINVAL = 22, ENFILE = 23, EMFILE = 24, ENOTTY = 25,
    ETXTBSY = 26, EFBIG = 27, ENOSPC = 28, ESPIPE = 29, EROFS = 30, EMLINK = 31, EPIPE = 32, EDOM = 33,
    ERANGE = 34, EDEADLK = 35, ENAMETOOLONG = 36, ENOLCK = 37, ENOSYS = 38, ENOTEMPTY = 39, ELOOP = 40,
    ENOMSG = 42, EIDRM = 43, ENOSTR = 60, ENODATA = 61, ETIME = 62, EPROTO = 71, ELIBBAD = 80, EBADMSG = 74, EOVERFLOW = 75,
    EUSERS = 87, ENOTSOCK = 88, EDESTADDRREQ = 89, EMSGSIZE = 90, EPROTOTYPE = 91, ENOPROTOOPT = 92,
    EPROTONOSUPPORT = 93, ESOCKTNOSUPPORT = 94, EOPNOTSUPP = 95, EPFNOSUPPORT = 96, EAFNOSUPPORT = 97,
    EADDRINUSE = 98, EADDRNOTAVAIL = 99, ENETDOWN = 100, ENETUNREACH = 101, ENETRESET = 102,
    ECONNABORTED = 103, ECONNRESET = 104, ENOBUFS = 105, EISCONN = 106, ENOTCONN = 107, ESHUTDOWN = 108,
    ETOOMANYREFS = 109, ETIMEDOUT = 110, ECONNREFUSED = 111, EHOSTDOWN = 112, EHOSTUNREACH = 113,
    EALREADY = 114, EINPROGRESS = 115, ESTALE = 116, EUCLEAN = 117, EDQUOT = 122, ECANCELED = 125,
    ENOKEY = 126, EKEYEXPIRED = 127, EKEYREVOKED = 128, EOWNERDEAD = 130,
    ENOTRECOVERABLE = 131,
    // Never seen by applications: how an interrupted call wants to be continued (signal delivery
    // decides). Restart if the handler has SA_RESTART or there is no handler, else EINTR.
    ERESTARTSYS = 512,
    // Restart always.
    ERESTARTNOINTR = 513,
    // Restart only if no handler runs, else EINTR.
    ERESTARTNOHAND = 514,
    // Restart by restart_syscall(2) if no handler runs, else EINTR.
    ERESTART_RESTARTBLOCK = 516,
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Errno {
    /// The value a system call returns in rax for this error.
    pub const fn as_ret(self) -> isize {
        -(self.0 as isize)
    }
}

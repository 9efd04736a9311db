//! POSIX message queues (mq_overview(7)).
//!
//! A descriptor of a queue is a file, so poll(2) and epoll(7) work on it. There is no filesystem of
//! the queues: a name lives in a table here until it is unlinked.

use super::{READ, WRITE};
use crate::errno::{Errno, Result};
use crate::event::{Events, PollTable};
use crate::fs::anon::AnonInode;
use crate::fs::inode::mode::S_IFREG;
use crate::fs::{File, FileOps, Inode, perm};
use crate::io::IoDst;
use crate::map::Sorted;
use crate::net::socket;
use crate::setting::Setting;
use crate::sync::{Mutex, SpinLock, WaitError, WaitMode, WaitQueue};
use crate::task::signal::{SigInfo, Signal, code, send_to_process};
use crate::task::{Creds, Process, current};
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use linux_raw_sys::general::{
    CAP_SYS_RESOURCE, O_CREAT, O_EXCL, RLIMIT_MSGQUEUE, SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD,
};

/// Priorities are below this (`MQ_PRIO_MAX`).
pub const PRIORITIES: u32 = 32768;
/// Messages in a queue, unless asked for otherwise (`fs.mqueue.msg_default`).
pub static DEFAULT_MESSAGES: Setting = Setting::new(10, 1, HARD_MESSAGES as i64);
/// The most with `CAP_SYS_RESOURCE` (`HARD_MSGMAX`).
const HARD_MESSAGES: usize = 65536;
/// Length of a message, likewise (`fs.mqueue.msgsize_default`).
pub static DEFAULT_LEN: Setting = Setting::new(8192, 128, HARD_LEN as i64);
const HARD_LEN: usize = 16 << 20;
/// The most without privileges (`fs.mqueue.msgsize_max`, `fs.mqueue.msg_max`).
pub static MAX_LEN: Setting = Setting::new(8192, 128, HARD_LEN as i64);
/// See [`MAX_LEN`].
pub static MAX_MESSAGES: Setting = Setting::new(10, 1, HARD_MESSAGES as i64);
/// Queues that exist at once, for the unprivileged (`fs.mqueue.queues_max`).
pub static MAX_QUEUES: Setting = Setting::new(256, 0, i32::MAX as i64);
/// What a message is said to need besides its text (getrlimit(2), `RLIMIT_MSGQUEUE`).
const OVERHEAD: usize = 96;
const NAME_MAX: usize = 255;

static NAMES: Mutex<Sorted<Vec<u8>, Arc<Queue>>> = Mutex::new(Sorted::new());
/// Bytes that queues of each user may take, by what they were made with.
static CHARGED: SpinLock<Sorted<u32, u64>> = SpinLock::new(Sorted::new());

/// Who is told when a message comes to an empty queue (mq_notify(3)).
struct Notify {
    process: Weak<Process>,
    pid: i32,
    how: How,
}

/// How a process is told.
pub enum How {
    /// Not at all: it only keeps others out.
    Silent,
    /// By a signal with a value.
    Signal(Signal, u64),
    /// The library starts a thread when these bytes come by a netlink socket, with what happened
    /// in the last of them.
    Thread(Arc<File>, [u8; COOKIE]),
}

/// Length of what [`How::Thread`] sends (`NOTIFY_COOKIE_LEN`).
pub const COOKIE: usize = 32;
/// What its last byte says: a message has come, or none will be told of any more.
const WOKEN: u8 = 1;
const REMOVED: u8 = 2;

impl How {
    fn tell_thread(self, event: u8) {
        if let How::Thread(file, mut cookie) = self {
            cookie[COOKIE - 1] = event;
            if let Ok(socket) = socket::of(&file) {
                // A full socket loses it, as on Linux.
                let _: Result<()> = socket.socket.tell(&cookie);
            }
        }
    }
}

#[derive(Default)]
struct State {
    /// Messages by priority.
    messages: Sorted<u32, VecDeque<Vec<u8>>>,
    count: usize,
    bytes: usize,
    receivers: usize,
    notify: Option<Notify>,
}

/// A queue.
pub struct Queue {
    /// Most messages.
    pub max_messages: usize,
    /// Longest message.
    pub max_len: usize,
    inode: Arc<AnonInode>,
    owner: u32,
    charge: u64,
    state: SpinLock<State>,
    readable: Arc<WaitQueue>,
    writable: Arc<WaitQueue>,
}

impl Drop for Queue {
    fn drop(&mut self) {
        let mut charged = CHARGED.lock();
        if let Some(sum) = charged.get_mut(&self.owner) {
            *sum = sum.saturating_sub(self.charge);
            if *sum == 0 {
                charged.remove(&self.owner);
            }
        }
    }
}

fn check_name(name: &[u8]) -> Result<()> {
    match name {
        b"" => Err(Errno::ENOENT),
        b"." | b".." => Err(Errno::EACCES),
        _ if name.contains(&b'/') => Err(Errno::EACCES),
        _ if name.len() > NAME_MAX => Err(Errno::ENAMETOOLONG),
        _ => Ok(()),
    }
}

/// mq_open(3): `size` are the most messages and the longest, if given; `mode` has the umask
/// applied.
pub fn open(
    name: &[u8],
    flags: u32,
    mode: u32,
    size: Option<(i64, i64)>,
    creds: &Creds,
) -> Result<Arc<File>> {
    check_name(name)?;
    let mut names = NAMES.lock();
    let queue = match names.get(name) {
        Some(_) if flags & (O_CREAT | O_EXCL) == O_CREAT | O_EXCL => return Err(Errno::EEXIST),
        Some(queue) => {
            let wanted = [READ, WRITE, READ | WRITE].get((flags & 3) as usize);
            let wanted = *wanted.ok_or(Errno::EINVAL)?;
            perm::check_access(creds, queue.inode.access(), wanted)?;
            queue.clone()
        }
        None if flags & O_CREAT == 0 => return Err(Errno::ENOENT),
        None => {
            if names.len() >= MAX_QUEUES.size() && !creds.capable(CAP_SYS_RESOURCE) {
                return Err(Errno::ENOSPC);
            }
            let queue = Queue::new(mode, size, creds)?;
            names.insert(name.to_vec(), queue.clone());
            queue
        }
    };
    Ok(File::anonymous(queue, flags & !(O_CREAT | O_EXCL)))
}

/// mq_unlink(3)
pub fn unlink(name: &[u8], creds: &Creds) -> Result<()> {
    check_name(name)?;
    let mut names = NAMES.lock();
    let queue = names.get(name).ok_or(Errno::ENOENT)?;
    // The directory of the names is sticky.
    if !perm::owner_or_capable(creds, queue.inode.access()) {
        return Err(Errno::EACCES);
    }
    let removed = names.remove(name);
    drop(names);
    drop(removed);
    Ok(())
}

impl Queue {
    fn new(mode: u32, size: Option<(i64, i64)>, creds: &Creds) -> Result<Arc<Queue>> {
        let (max_messages, max_len) = match size {
            None => (
                DEFAULT_MESSAGES.size().min(MAX_MESSAGES.size()),
                DEFAULT_LEN.size().min(MAX_LEN.size()),
            ),
            Some((messages, len)) => {
                let privileged = creds.capable(CAP_SYS_RESOURCE);
                let limits = [(MAX_MESSAGES.size(), MAX_LEN.size()), (HARD_MESSAGES, HARD_LEN)];
                let (most, longest) = limits[usize::from(privileged)];
                let within = |value: i64, limit: usize| {
                    usize::try_from(value).ok().filter(|value| (1..=limit).contains(value))
                };
                let pair = within(messages, most).zip(within(len, longest));
                pair.ok_or(Errno::EINVAL)?
            }
        };
        let owner = creds.fsuid;
        let charge = max_messages as u64 * (max_len + OVERHEAD) as u64;
        let limit = current().process().rlimit(RLIMIT_MSGQUEUE);
        {
            let mut charged = CHARGED.lock();
            let sum = charged.get(&owner).copied().unwrap_or(0) + charge;
            if sum > limit {
                return Err(Errno::EMFILE);
            }
            charged.insert(owner, sum);
        }
        Ok(Arc::new(Queue {
            max_messages,
            max_len,
            inode: AnonInode::owned(S_IFREG | mode & 0o777, owner, creds.fsgid),
            owner,
            charge,
            state: SpinLock::default(),
            readable: Arc::default(),
            writable: Arc::default(),
        }))
    }

    /// The messages in it.
    pub fn count(&self) -> usize {
        self.state.lock().count
    }

    fn wait<T>(
        &self,
        queue: &WaitQueue,
        file: &File,
        deadline: Option<u64>,
        mut attempt: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        if file.nonblocking() {
            return attempt().ok_or(Errno::EAGAIN);
        }
        queue.wait(WaitMode::Interruptible, deadline, attempt).map_err(|error| match error {
            WaitError::TimedOut => Errno::ETIMEDOUT,
            WaitError::Interrupted => Errno::ERESTARTSYS,
        })
    }

    /// mq_timedsend(3), until `deadline` (monotonic nanoseconds).
    pub fn send(
        &self,
        file: &File,
        text: Vec<u8>,
        priority: u32,
        deadline: Option<u64>,
    ) -> Result<()> {
        let mut text = Some(text);
        let notify = self.wait(&self.writable, file, deadline, || {
            let mut state = self.state.lock();
            if state.count >= self.max_messages {
                return None;
            }
            let text = text.take().unwrap_or_default();
            state.bytes += text.len();
            state.count += 1;
            state.messages.get_or_insert_with(priority, VecDeque::new).push_back(text);
            // Only for a message to an empty queue that nobody waits for, and once.
            let alone = state.count == 1 && state.receivers == 0;
            Some(if alone { state.notify.take() } else { None })
        })?;
        self.readable.wake_all(Events::IN | Events::RDNORM);
        match notify {
            Some(Notify { process, how: How::Signal(signal, value), .. }) => {
                if let Some(process) = process.upgrade() {
                    let sender = current();
                    let uid = sender.with_creds(|creds| creds.uid);
                    let mut info = SigInfo::sent_by(signal, code::SI_MESGQ, sender.pid(), uid);
                    info.body[1] = value;
                    send_to_process(&process, signal, info);
                }
            }
            Some(Notify { how, .. }) => how.tell_thread(WOKEN),
            None => {}
        }
        Ok(())
    }

    /// mq_timedreceive(3): the message and its priority.
    pub fn receive(&self, file: &File, deadline: Option<u64>) -> Result<(Vec<u8>, u32)> {
        self.state.lock().receivers += 1;
        let outcome = self.wait(&self.readable, file, deadline, || {
            let mut state = self.state.lock();
            let (&priority, first) = state.messages.last_mut()?;
            let text = first.pop_front()?;
            if first.is_empty() {
                state.messages.pop_last();
            }
            state.bytes -= text.len();
            state.count -= 1;
            Some((text, priority))
        });
        self.state.lock().receivers -= 1;
        if outcome.is_ok() {
            self.writable.wake_all(Events::OUT | Events::WRNORM);
        }
        outcome
    }

    /// mq_notify(3): registers the current process. EBUSY if somebody is registered.
    pub fn notify(&self, how: How) -> Result<()> {
        let process = current().process();
        let mut state = self.state.lock();
        let taken = state.notify.as_ref().and_then(|notify| notify.process.upgrade());
        if taken.is_some_and(|process| !process.is_zombie()) {
            return Err(Errno::EBUSY);
        }
        let pid = process.pid();
        let gone = state.notify.replace(Notify { process: Arc::downgrade(process), pid, how });
        drop(state);
        drop(gone);
        Ok(())
    }

    /// Takes back the current process's registration.
    pub fn forget(&self) {
        let pid = current().pid();
        let removed = {
            let mut state = self.state.lock();
            let mine = state.notify.as_ref().is_some_and(|notify| notify.pid == pid);
            if mine { state.notify.take() } else { None }
        };
        if let Some(Notify { how, .. }) = removed {
            how.tell_thread(REMOVED);
        }
    }
}

impl FileOps for Queue {
    fn seekable(&self) -> bool {
        true
    }

    fn read_at(&self, _file: &File, offset: u64, dst: &mut IoDst<'_>) -> Result<usize> {
        let (bytes, pid, kind, signal) = {
            let state = self.state.lock();
            let notify = state.notify.as_ref();
            let (kind, signal) = match notify.map(|notify| &notify.how) {
                Some(How::Signal(signal, _)) => (SIGEV_SIGNAL, signal.number()),
                Some(How::Silent) => (SIGEV_NONE, 0),
                Some(How::Thread(..)) => (SIGEV_THREAD, 0),
                None => (0, 0),
            };
            (state.bytes, notify.map_or(0, |n| n.pid), kind, signal)
        };
        let text = alloc::format!(
            "QSIZE:{bytes:<10} NOTIFY:{kind:<5} SIGNO:{signal:<5} NOTIFY_PID:{pid:<6}\n",
        );
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
        dst.write(&text.as_bytes()[start..])
    }

    fn poll(&self, _file: &File, table: &mut PollTable<'_>) -> Events {
        table.register(&self.readable);
        table.register(&self.writable);
        let count = self.count();
        let mut events = Events::empty();
        if count > 0 {
            events |= Events::IN | Events::RDNORM;
        }
        if count < self.max_messages {
            events |= Events::OUT | Events::WRNORM;
        }
        events
    }

    fn release(&self, _file: &File) {
        self.forget();
    }

    fn inode(&self) -> Arc<dyn Inode> {
        self.inode.clone()
    }

    fn describe(&self) -> String {
        String::from("/dev/mqueue/queue")
    }
}

//! Who has logged in, as audit records it: processes have it from their parents.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The user of a login session and its number.
#[derive(Debug)]
pub struct Login {
    uid: AtomicU32,
    session: AtomicU32,
}

impl Default for Login {
    fn default() -> Login {
        Login { uid: AtomicU32::new(Login::NONE), session: AtomicU32::new(Login::NONE) }
    }
}

impl Login {
    /// No user, no session.
    pub const NONE: u32 = u32::MAX;

    /// The user.
    pub fn uid(&self) -> u32 {
        self.uid.load(Relaxed)
    }

    /// The session's number.
    pub fn session(&self) -> u32 {
        self.session.load(Relaxed)
    }

    /// A user logs in, to a new session; or nobody does.
    pub fn set(&self, uid: u32) {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let session = if uid == Login::NONE { Login::NONE } else { NEXT.fetch_add(1, Relaxed) };
        self.uid.store(uid, Relaxed);
        self.session.store(session, Relaxed);
    }

    /// The same as another's.
    pub fn take_over(&self, other: &Login) {
        self.uid.store(other.uid(), Relaxed);
        self.session.store(other.session(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_login_is_a_session_and_children_are_in_it() {
        let [one, two] = [Login::default(), Login::default()];
        assert_eq!((one.uid(), one.session()), (Login::NONE, Login::NONE));
        one.set(1000);
        two.take_over(&one);
        assert_eq!((two.uid(), two.session()), (1000, one.session()));
        two.set(1000);
        assert_ne!(two.session(), one.session());
        two.set(Login::NONE);
        assert_eq!((two.uid(), two.session()), (Login::NONE, Login::NONE));
    }
}

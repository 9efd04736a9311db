//! Signal numbers and sets of them (signal(7)).

/// A signal number, 1 to 64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Signal(u8);

macro_rules! signals {
    ($($name:ident = $value:literal),* $(,)?) => {
        #[allow(missing_docs, reason = "the names are those of signal(7)")]
        impl Signal {
            $(pub const $name: Signal = Signal($value);)*
        }
        const NAMES: &[(u8, &str)] = &[$(($value, concat!("SIG", stringify!($name)))),*];
    };
}

signals! {
    HUP = 1, INT = 2, QUIT = 3, ILL = 4, TRAP = 5, ABRT = 6, BUS = 7, FPE = 8, KILL = 9, USR1 = 10,
    SEGV = 11, USR2 = 12, PIPE = 13, ALRM = 14, TERM = 15, STKFLT = 16, CHLD = 17, CONT = 18, STOP = 19,
    TSTP = 20, TTIN = 21, TTOU = 22, URG = 23, XCPU = 24, XFSZ = 25, VTALRM = 26, PROF = 27, WINCH = 28,
    IO = 29, PWR = 30, SYS = 31,
}

/// Number of signals.
pub const COUNT: usize = 64;
/// The first real-time signal.
pub const RTMIN: u8 = 32;

impl Signal {
    /// A signal by number; `None` outside 1..=64.
    pub const fn new(number: u32) -> Option<Signal> {
        if number >= 1 && number <= COUNT as u32 { Some(Signal(number as u8)) } else { None }
    }
    /// The number.
    pub const fn number(self) -> u8 {
        self.0
    }
    /// Index into tables.
    pub const fn index(self) -> usize {
        self.0 as usize - 1
    }
    /// Whether several can be pending at once.
    pub const fn is_realtime(self) -> bool {
        self.0 >= RTMIN
    }
    /// The symbolic name; real-time signals have none.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(number, _)| *number == self.0).map_or("SIGRT", |(_, name)| name)
    }
    /// What happens without a handler.
    pub fn default_action(self) -> Default {
        match self {
            Signal::CHLD | Signal::URG | Signal::WINCH => Default::Ignore,
            Signal::CONT => Default::Continue,
            Signal::STOP | Signal::TSTP | Signal::TTIN | Signal::TTOU => Default::Stop,
            Signal::QUIT
            | Signal::ILL
            | Signal::TRAP
            | Signal::ABRT
            | Signal::BUS
            | Signal::FPE
            | Signal::SEGV
            | Signal::XCPU
            | Signal::XFSZ
            | Signal::SYS => Default::Core,
            _ => Default::Terminate,
        }
    }
}

/// Default dispositions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Default {
    /// End the process.
    Terminate,
    /// End the process and say that it dumped core (we report it on the console instead).
    Core,
    /// Nothing.
    Ignore,
    /// Stop the process.
    Stop,
    /// Continue the process if it is stopped.
    Continue,
}

/// A set of signals: bit N-1 is signal N, as in the kernel ABI.
#[derive(Clone, Copy, PartialEq, Eq, Debug, core::default::Default)]
pub struct SigSet(pub u64);

impl SigSet {
    /// No signal.
    pub const EMPTY: SigSet = SigSet(0);
    /// Every signal.
    pub const ALL: SigSet = SigSet(u64::MAX);
    /// What no mask can block.
    pub const UNBLOCKABLE: SigSet = SigSet(bit(Signal::KILL) | bit(Signal::STOP));
    /// Signals whose default is to stop.
    pub const STOPPING: SigSet =
        SigSet(bit(Signal::STOP) | bit(Signal::TSTP) | bit(Signal::TTIN) | bit(Signal::TTOU));
    /// Signals that the CPU raises: delivered before others, so that their frame tells the truth.
    pub const SYNCHRONOUS: SigSet = SigSet(
        bit(Signal::SEGV)
            | bit(Signal::BUS)
            | bit(Signal::ILL)
            | bit(Signal::TRAP)
            | bit(Signal::FPE)
            | bit(Signal::SYS),
    );

    /// The set of one signal.
    pub const fn of(signal: Signal) -> SigSet {
        SigSet(bit(signal))
    }
    /// Whether it holds `signal`.
    pub const fn has(self, signal: Signal) -> bool {
        self.0 & bit(signal) != 0
    }
    /// Adds a signal.
    pub fn add(&mut self, signal: Signal) {
        self.0 |= bit(signal);
    }
    /// Removes a signal.
    pub fn remove(&mut self, signal: Signal) {
        self.0 &= !bit(signal);
    }
    /// What either holds.
    pub const fn or(self, other: SigSet) -> SigSet {
        SigSet(self.0 | other.0)
    }
    /// What both hold.
    pub const fn and(self, other: SigSet) -> SigSet {
        SigSet(self.0 & other.0)
    }
    /// What this holds and `other` doesn't.
    pub const fn minus(self, other: SigSet) -> SigSet {
        SigSet(self.0 & !other.0)
    }
    /// Whether it holds nothing.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// The lowest-numbered member.
    pub const fn first(self) -> Option<Signal> {
        if self.0 == 0 { None } else { Signal::new(self.0.trailing_zeros() + 1) }
    }
    /// A mask as an application may set it.
    pub const fn blockable(self) -> SigSet {
        self.minus(SigSet::UNBLOCKABLE)
    }
}

const fn bit(signal: Signal) -> u64 {
    1 << signal.index()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_bits_are_those_of_the_abi() {
        assert_eq!(SigSet::of(Signal::HUP).0, 1);
        assert_eq!(SigSet::of(Signal::new(64).unwrap()).0, 1 << 63);
        assert_eq!(SigSet::ALL.blockable().0, !(1 << 8 | 1 << 18));
        assert_eq!(SigSet(0b1100).first(), Some(Signal::QUIT));
        assert!(Signal::new(0).is_none() && Signal::new(65).is_none());
    }
}

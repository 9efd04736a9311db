//! How much may be under way: CUBIC (RFC 9438) in integers, or Reno (RFC 5681), with an initial window
//! of ten segments (RFC 6928).

/// On loopback nothing but the receiver's window limits.
const UNLIMITED: u32 = 1 << 30;
/// Segments of the initial window.
const INITIAL: u32 = 10;

/// How the window grows and shrinks (`TCP_CONGESTION`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// RFC 9438
    #[default]
    Cubic,
    /// RFC 5681
    Reno,
}

impl Algorithm {
    /// As options and settings name it.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Cubic => "cubic",
            Algorithm::Reno => "reno",
        }
    }

    /// The one with a name.
    pub fn named(name: &[u8]) -> Option<Algorithm> {
        [Algorithm::Cubic, Algorithm::Reno].into_iter().find(|it| it.name().as_bytes() == name)
    }
}

/// Congestion window of one connection, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Congestion {
    algorithm: Algorithm,
    /// Congestion window.
    pub window: u32,
    /// Above it growth is cautious.
    pub threshold: u32,
    mss: u32,
    /// Window before the last reduction.
    max: u32,
    /// What a Reno connection would have.
    reno: u32,
    /// When growth began again, in nanoseconds; 0: not yet.
    epoch: u64,
    /// Milliseconds from then to `max`.
    inflection: u32,
}

impl Congestion {
    /// A new connection's.
    pub fn new(mss: u32, loopback: bool) -> Congestion {
        let window = if loopback { UNLIMITED } else { INITIAL * mss };
        let threshold = u32::MAX;
        let algorithm = Algorithm::default();
        Congestion { algorithm, window, threshold, mss, max: 0, reno: 0, epoch: 0, inflection: 0 }
    }

    /// Goes on by another algorithm.
    pub fn set_algorithm(&mut self, algorithm: Algorithm) {
        if self.algorithm != algorithm {
            (self.algorithm, self.epoch, self.max) = (algorithm, 0, self.window);
        }
    }

    /// The path takes segments of `mss` bytes from now on.
    pub fn set_mss(&mut self, mss: u32) {
        self.mss = mss;
        self.window = self.window.max(2 * mss);
    }

    /// The window after a pause in which it said nothing about the path any more (RFC 5681, 4.1).
    pub fn restart(&mut self) {
        if self.window != UNLIMITED {
            self.window = self.window.min(INITIAL * self.mss);
            self.epoch = 0;
        }
    }

    /// `bytes` were acknowledged while the window was in use; `rtt` in nanoseconds.
    pub fn acked(&mut self, bytes: u32, rtt: u64, now: u64) {
        if self.window >= UNLIMITED {
            return;
        }
        if self.window < self.threshold {
            self.window += bytes.min(self.threshold - self.window);
            return;
        }
        let window = u64::from(self.window);
        let share = |bytes: u64| (bytes * u64::from(self.mss) / window.max(1)) as u32;
        if self.algorithm == Algorithm::Reno {
            // A segment for each window.
            let grown = share(bytes.into()).max(1);
            self.window = self.window.saturating_add(grown).min(UNLIMITED - 1);
            return;
        }
        if self.epoch == 0 {
            self.epoch = now;
            self.reno = self.window;
            // The cube root of (max - window) / 0.4 segments.
            let below = u64::from(self.max.saturating_sub(self.window));
            self.inflection = cube_root(below * 1000 / u64::from(self.mss) * 2_500_000);
        }
        // 3 * (1 - 0.7) / (1 + 0.7) of a segment for each window.
        self.reno = self.reno.saturating_add(share(u64::from(bytes) * 9 / 17));
        let elapsed = (now.saturating_sub(self.epoch) + rtt) / 1_000_000;
        let distance = i128::from(elapsed.min(1 << 20)) - i128::from(self.inflection);
        let cubic = i128::from(self.max)
            + 4 * i128::from(self.mss) * distance * distance * distance / 10_000_000_000;
        let target = cubic.clamp(0, i128::from(window * 3 / 2)) as u32;
        let grown = match target.checked_sub(self.window) {
            Some(gap) => (u64::from(gap) * u64::from(bytes) / window.max(1)) as u32,
            None => 0,
        };
        self.window = self.window.saturating_add(grown).max(self.reno).min(UNLIMITED - 1);
    }

    /// Something was lost with `flight` bytes under way.
    pub fn lost(&mut self, flight: u32) {
        if self.window >= UNLIMITED {
            self.threshold = self.window;
            return;
        }
        // Fast convergence: who loses before reaching the last maximum makes room for others.
        self.max = if self.window < self.max { self.window / 20 * 17 } else { self.window };
        let kept = match self.algorithm {
            Algorithm::Cubic => flight / 10 * 7,
            Algorithm::Reno => flight / 2,
        };
        self.threshold = kept.max(2 * self.mss);
        self.window = self.window.min(self.threshold);
        self.epoch = 0;
    }

    /// Nothing comes back any more: one segment at a time, until acknowledgements return.
    pub fn timed_out(&mut self) {
        if self.window < UNLIMITED {
            self.window = self.mss;
        }
    }
}

fn cube_root(value: u64) -> u32 {
    let mut root = 0u64;
    for bit in (0..21).rev() {
        let candidate = root | 1 << bit;
        if candidate * candidate * candidate <= value {
            root = candidate;
        }
    }
    root as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1460;
    const RTT: u64 = 50_000_000;

    /// Lets one window after the other be acknowledged for `seconds`.
    fn grow(cubic: &mut Congestion, now: &mut u64, seconds: u64) {
        let end = *now + seconds * 1_000_000_000;
        while *now < end {
            for _ in 0..cubic.window / MSS {
                cubic.acked(MSS, RTT, *now);
            }
            *now += RTT;
        }
    }

    #[test]
    fn slow_start_doubles_and_loss_takes_three_tenths() {
        let (mut cubic, mut now) = (Congestion::new(MSS, false), 1);
        assert_eq!(cubic.window, 10 * MSS);
        for _ in 0..10 {
            cubic.acked(MSS, RTT, now);
        }
        assert_eq!(cubic.window, 20 * MSS);
        cubic.window = 1000 * MSS;
        cubic.lost(1000 * MSS);
        assert_eq!(cubic.window, 700 * MSS);
        // (300 / 0.4)^(1/3) is about nine seconds until it is back.
        grow(&mut cubic, &mut now, 6);
        assert!((950 * MSS..1000 * MSS).contains(&cubic.window), "{}", cubic.window / MSS);
        grow(&mut cubic, &mut now, 3);
        assert!((995 * MSS..1010 * MSS).contains(&cubic.window), "{}", cubic.window / MSS);
        grow(&mut cubic, &mut now, 10);
        assert!(cubic.window > 1200 * MSS, "{}", cubic.window / MSS);
    }

    #[test]
    fn small_windows_grow_as_fast_as_renos() {
        let (mut cubic, mut now) = (Congestion::new(MSS, false), 1);
        cubic.window = 10 * MSS;
        cubic.lost(10 * MSS);
        grow(&mut cubic, &mut now, 5);
        assert!(cubic.window > 40 * MSS, "{}", cubic.window / MSS);
    }

    #[test]
    fn reno_loses_half_and_gains_a_segment_a_window() {
        let (mut reno, mut now) = (Congestion::new(MSS, false), 1);
        reno.set_algorithm(Algorithm::Reno);
        reno.window = 100 * MSS;
        reno.lost(100 * MSS);
        assert_eq!(reno.window, 50 * MSS);
        // Twenty windows.
        grow(&mut reno, &mut now, 1);
        assert!((68 * MSS..=70 * MSS).contains(&reno.window), "{}", reno.window / MSS);
        for name in ["cubic", "reno"] {
            assert_eq!(Algorithm::named(name.as_bytes()).unwrap().name(), name);
        }
        assert_eq!(Algorithm::named(b"bbr"), None);
    }

    #[test]
    fn roots() {
        for (value, root) in [(0, 0), (1, 1), (7, 1), (8, 2), (1_000_000_000, 1000)] {
            assert_eq!(cube_root(value), root);
        }
    }
}

//! Nice values as shares of the CPU.

/// Most favoured.
pub const NICE_MIN: i32 = -20;
/// Least favoured.
pub const NICE_MAX: i32 = 19;
/// Weight of nice 0.
pub const UNIT: u64 = 1024;

/// Weights by nice value: a step is a factor of 1.25, so that two CPU-bound tasks one step apart
/// differ by about 10 % of the CPU (sched(7)).
static WEIGHTS: [u32; 40] = {
    let mut table = [0; 40];
    let mut nice = NICE_MIN;
    while nice <= NICE_MAX {
        // Fixed point with 20 bits of fraction keeps the rounding of 20 steps below one unit.
        let mut weight: u64 = UNIT << 20;
        let mut steps = if nice < 0 { -nice } else { nice };
        while steps > 0 {
            weight = if nice < 0 { weight / 4 * 5 } else { weight / 5 * 4 };
            steps -= 1;
        }
        table[(nice - NICE_MIN) as usize] = ((weight + (1 << 19)) >> 20) as u32;
        nice += 1;
    }
    table
};

/// The weight of a nice value; values out of range count as the nearest.
pub fn of_nice(nice: i32) -> u32 {
    WEIGHTS[(nice.clamp(NICE_MIN, NICE_MAX) - NICE_MIN) as usize]
}

/// How far `ns` of real time move a task's virtual time.
pub fn virtual_ns(ns: u64, weight: u32) -> u64 {
    if u64::from(weight) == UNIT { ns } else { ns.saturating_mul(UNIT) / u64::from(weight.max(1)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_step_is_a_quarter_more() {
        assert_eq!(of_nice(0), 1024);
        assert_eq!((of_nice(-20), of_nice(19)), (88818, 15));
        for nice in -19..=0 {
            let (more, less) = (f64::from(of_nice(nice - 1)), f64::from(of_nice(nice)));
            assert!((more / less - 1.25).abs() < 0.01, "{nice}");
        }
        assert_eq!(virtual_ns(1000, 2048), 500);
    }
}

//! HEALTHCHECK.

use dock2uni_format::record::Healthcheck;

use super::{Error, docker};

const SECOND: u64 = 1_000_000_000;
/// Docker refuses anything shorter, other than zero for the default.
const SHORTEST: i64 = 1_000_000;

/// `--health-*`: what is set replaces what the image says, as in `docker run`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct HealthOverrides {
    /// `--health-cmd`, for the image's shell.
    pub command: Option<String>,
    /// Program and arguments, for no shell; of Compose files. Comes before `command`.
    pub argv: Option<Vec<String>>,
    /// `--health-interval` in nanoseconds.
    pub interval_ns: Option<i64>,
    /// `--health-timeout` in nanoseconds.
    pub timeout_ns: Option<i64>,
    /// `--health-start-period` in nanoseconds.
    pub start_period_ns: Option<i64>,
    /// `--health-start-interval` in nanoseconds.
    pub start_interval_ns: Option<i64>,
    /// `--health-retries`
    pub retries: Option<i64>,
    /// `--no-healthcheck`
    pub none: bool,
}

impl HealthOverrides {
    fn apply(&self, image: Option<&docker::Healthcheck>) -> Option<docker::Healthcheck> {
        if self.none {
            return None;
        }
        let mut check = image.cloned().unwrap_or_default();
        if let Some(argv) = &self.argv {
            check.test = std::iter::once("CMD".into()).chain(argv.iter().cloned()).collect();
        } else if let Some(command) = &self.command {
            check.test = vec!["CMD-SHELL".into(), command.clone()];
        }
        for (slot, value) in [
            (&mut check.interval, self.interval_ns),
            (&mut check.timeout, self.timeout_ns),
            (&mut check.start_period, self.start_period_ns),
            (&mut check.start_interval, self.start_interval_ns),
            (&mut check.retries, self.retries),
        ] {
            *slot = value.unwrap_or(*slot);
        }
        Some(check)
    }
}

/// Reads a duration as Go writes it (`time.ParseDuration`): `1m30s`, `1.5h`, `500ms`; nanoseconds.
///
/// # Errors
/// What a person should write instead.
pub fn duration(text: &str) -> Result<i64, String> {
    const HELP: &str = "write a number with a unit, such as 30s, 1m30s or 500ms";
    let units = [
        ("ns", 1.0),
        ("us", 1e3),
        ("µs", 1e3),
        ("ms", 1e6),
        ("s", 1e9),
        ("m", 60e9),
        ("h", 3600e9),
    ];
    let mut rest = text;
    let mut total = 0.0;
    if rest == "0" {
        return Ok(0);
    }
    while !rest.is_empty() || total == 0.0 && text.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(HELP)?;
        let (number, after) = rest.split_at(digits);
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let (_, scale) = units.iter().find(|(name, _)| *name == unit).ok_or(HELP)?;
        let number: f64 = number.parse().map_err(|_| HELP)?;
        total += number * scale;
        rest = after;
    }
    // A float of nanoseconds is exact up to 100 days, and the cast saturates.
    Ok(total.round() as i64)
}

/// Expands the health check of the image and the options; `None` if there is none or it is `NONE`.
pub fn parse(
    check: Option<&docker::Healthcheck>,
    overrides: &HealthOverrides,
    shell: &[String],
) -> Result<Option<Healthcheck>, Error> {
    let check = overrides.apply(check);
    let check = check.as_ref();
    let Some(check) = check else { return Ok(None) };
    let Some((kind, rest)) = check.test.split_first() else { return Ok(None) };
    let argv: Vec<String> = match (kind.as_str(), rest) {
        ("NONE", _) => return Ok(None),
        ("CMD", [_, ..]) => rest.to_vec(),
        ("CMD-SHELL", [command]) => {
            let default = ["/bin/sh".to_owned(), "-c".to_owned()];
            let shell = if shell.is_empty() { &default } else { shell };
            shell.iter().chain([command]).cloned().collect()
        }
        _ => return Err(Error::Healthcheck(format!("its test is {:?}", check.test))),
    };
    let duration = |name, value: i64, default: u64| match value {
        0 => Ok(default),
        // Not negative after this check, so the sign is not lost.
        value if value >= SHORTEST => Ok(value.unsigned_abs()),
        value => Err(Error::Healthcheck(format!("its {name} of {value} ns is below 1 ms"))),
    };
    let retries = match check.retries {
        0 => 3,
        count => u32::try_from(count)
            .map_err(|_| Error::Healthcheck(format!("it asks for {count} retries")))?,
    };
    Ok(Some(Healthcheck {
        argv: argv.into_iter().map(String::into_bytes).collect(),
        interval_ns: duration("interval", check.interval, 30 * SECOND)?,
        timeout_ns: duration("timeout", check.timeout, 30 * SECOND)?,
        start_period_ns: duration("start period", check.start_period, 0)?,
        start_interval_ns: duration("start interval", check.start_interval, 5 * SECOND)?,
        retries,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, ns) in [
            ("0", 0),
            ("30s", 30_000_000_000),
            ("1m30s", 90_000_000_000),
            ("500ms", 500_000_000),
            ("1.5s", 1_500_000_000),
            ("2h", 7_200_000_000_000),
            ("10us", 10_000),
        ] {
            assert_eq!(duration(text), Ok(ns), "{text}");
        }
        for text in ["", "5", "s", "1x", "1m30", "-1s", "1..5s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn options_replace_what_they_name() {
        let image = docker::Healthcheck {
            test: vec!["CMD".into(), "/check".into()],
            interval: SECOND as i64,
            ..Default::default()
        };
        let shell = ["/bin/ash".to_owned(), "-c".to_owned()];
        let plan = |overrides| parse(Some(&image), &overrides, &shell).unwrap();
        let same = plan(HealthOverrides::default()).unwrap();
        assert_eq!((same.argv, same.interval_ns), (vec![b"/check".to_vec()], SECOND));
        let other = plan(HealthOverrides {
            command: Some("test -f /ok".into()),
            retries: Some(7),
            ..Default::default()
        });
        let other = other.unwrap();
        let words: Vec<Vec<u8>> = ["/bin/ash", "-c", "test -f /ok"].map(Into::into).into();
        assert_eq!((other.argv, other.interval_ns, other.retries), (words, SECOND, 7));
        assert_eq!(plan(HealthOverrides { none: true, ..Default::default() }), None);
        // Times alone make no check.
        let times = HealthOverrides { interval_ns: Some(5), ..Default::default() };
        assert_eq!(parse(None, &times, &shell).unwrap(), None);
    }
}

//! HEALTHCHECK.

use dock2uni_format::record::Healthcheck;

use super::{Error, docker};

const SECOND: u64 = 1_000_000_000;
/// Docker refuses anything shorter, other than zero for the default.
const SHORTEST: i64 = 1_000_000;

/// Expands the image's health check; `None` if there is none or it is `NONE`.
pub fn parse(
    check: Option<&docker::Healthcheck>,
    shell: &[String],
) -> Result<Option<Healthcheck>, Error> {
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

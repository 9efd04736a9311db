//! Resource limits and settings of the guest's kernel.

use dock2uni_format::record::Limit;
use dock2uni_format::settings;

use super::Error;

/// Names of getrlimit(2)'s resources by their numbers, as `docker run --ulimit` has them.
const RESOURCES: [&str; 16] = [
    "cpu",
    "fsize",
    "data",
    "stack",
    "core",
    "rss",
    "nproc",
    "nofile",
    "memlock",
    "as",
    "locks",
    "sigpending",
    "msgqueue",
    "nice",
    "rtprio",
    "rttime",
];
/// Most open files that the kernel's tables hold (`fs.nr_open`).
const MOST_FILES: u64 = 1 << 20;
/// Settings that are made by not having the protocol at all.
const NO_V6: [&str; 3] = [
    "net.ipv6.conf.all.disable_ipv6",
    "net.ipv6.conf.default.disable_ipv6",
    "net.ipv6.conf.eth0.disable_ipv6",
];

/// Reads `NAME=SOFT[:HARD]`, where -1 and `unlimited` are no limit.
///
/// # Errors
/// If it is none, or the soft limit is above the hard one.
pub fn limit(text: &str) -> Result<Limit, Error> {
    let bad = || Error::Limit(text.to_owned());
    let (name, values) = text.split_once('=').ok_or_else(bad)?;
    let resource = RESOURCES.iter().position(|known| *known == name);
    let resource = resource.ok_or_else(|| Error::UnknownLimit(name.to_owned()))? as u8;
    let value = |text: &str| match text.trim() {
        "-1" | "unlimited" => Ok(u64::MAX),
        text => text.parse::<u64>().map_err(|_| bad()),
    };
    let (soft, hard) = match values.split_once(':') {
        Some((soft, hard)) => (value(soft)?, value(hard)?),
        None => (value(values)?, value(values)?),
    };
    let files = RESOURCES[usize::from(resource)] == "nofile";
    // As container runtimes read it: as many as there may be.
    let most = |value: u64| if files && value == u64::MAX { MOST_FILES } else { value };
    let (soft, hard) = (most(soft), most(hard));
    if soft > hard {
        return Err(bad());
    }
    if files && hard > MOST_FILES {
        return Err(Error::TooManyFiles(hard));
    }
    Ok(Limit { resource, soft, hard })
}

/// A limit as [`limit`] reads it.
pub fn limit_text(limit: &Limit) -> String {
    let value = |value: u64| match value {
        u64::MAX => "unlimited".to_owned(),
        value => value.to_string(),
    };
    let name = RESOURCES.get(usize::from(limit.resource)).unwrap_or(&"?");
    format!("{name}={}:{}", value(limit.soft), value(limit.hard))
}

/// Reads `NAME=VALUE`.
///
/// # Errors
/// If it is no such pair, or the guest's kernel has no such setting.
pub fn setting(text: &str) -> Result<(String, String), Error> {
    let (name, value) = text.split_once('=').ok_or_else(|| Error::Setting(text.to_owned()))?;
    let (name, value) = (name.trim().replace('/', "."), value.trim());
    if value.is_empty() || value.contains(['\n', '\0']) {
        return Err(Error::Setting(text.to_owned()));
    }
    let v6 = NO_V6.contains(&name.as_str()) && matches!(value, "0" | "1");
    if !v6 && !settings::is_settable(&name) {
        return Err(Error::UnknownSetting(name));
    }
    Ok((name, value.to_owned()))
}

/// What the kernel is to set, and whether there is to be no IPv6.
pub(super) fn split(settings: &[(String, String)]) -> (Vec<(String, String)>, bool) {
    let (v6, rest): (Vec<_>, Vec<_>) =
        settings.iter().cloned().partition(|(name, _)| NO_V6.contains(&name.as_str()));
    (rest, v6.iter().any(|(_, value)| value == "1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_docker_reads_them() {
        let read = |text: &str| limit(text).map(|limit| limit_text(&limit)).ok();
        assert_eq!(read("nofile=1024").as_deref(), Some("nofile=1024:1024"));
        assert_eq!(read("core=-1").as_deref(), Some("core=unlimited:unlimited"));
        assert_eq!(read("memlock=0:unlimited").as_deref(), Some("memlock=0:unlimited"));
        assert_eq!(read("nofile=-1").as_deref(), Some("nofile=1048576:1048576"));
        for text in ["nofile", "files=3", "nofile=", "nofile=2:1", "nofile=x", "nofile=1048577"] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(limit("stack=1:2").unwrap().resource, 3);
    }

    #[test]
    fn settings_are_those_that_the_kernel_has() {
        assert_eq!(
            setting("net.core.somaxconn = 9").unwrap(),
            ("net.core.somaxconn".to_owned(), "9".to_owned())
        );
        assert!(setting("net/ipv4/ip_local_port_range=1024 2048").is_ok());
        assert!(matches!(setting("kernel.ostype=x"), Err(Error::UnknownSetting(_))));
        for text in ["net.core.somaxconn", "net.core.somaxconn=", "net.core.somaxconn=1\n2"] {
            assert!(matches!(setting(text), Err(Error::Setting(_))), "{text}");
        }
        let off = setting("net.ipv6.conf.all.disable_ipv6=1").unwrap();
        assert_eq!(split(&[off]), (Vec::new(), true));
    }
}

//! Which addresses the service itself may connect to.
//!
//! References, callbacks and redirects come from others. So that nobody can make the service knock at
//! doors of its own network (server-side request forgery), only public addresses are connected to,
//! and what the configuration allows. Names are checked by the addresses they have at the moment of
//! connecting: the very ones that are checked are connected to, so a name that changes its mind (DNS
//! rebinding) gains nothing.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::source::{ForbiddenHost, Reach};

/// Addresses that are allowed though they are not public.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// Addresses that begin with the same bits: `10.0.0.0/8`.
    Prefix(IpAddr, u8),
    /// Whatever this name has for addresses: `registry.lan`.
    Host(String),
    /// Whatever names below this one have: `*.lan`.
    Below(String),
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Network, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Network::Prefix(address, if address.is_ipv4() { 32 } else { 128 }));
        }
        if let Some((address, bits)) = text.split_once('/') {
            let bad = || format!("`{text}` is no network, such as 10.0.0.0/8");
            let address: IpAddr = address.parse().map_err(|_| bad())?;
            let bits: u8 = bits.parse().map_err(|_| bad())?;
            if bits > if address.is_ipv4() { 32 } else { 128 } {
                return Err(bad());
            }
            return Ok(Network::Prefix(address, bits));
        }
        let (name, below) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        let label = |label: &str| {
            !label.is_empty()
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        if !name.split('.').all(label) {
            return Err(format!("`{text}` is neither an address, a network nor a host name"));
        }
        let name = name.to_ascii_lowercase();
        Ok(if below { Network::Below(name) } else { Network::Host(name) })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Network::Prefix(address, bits) => write!(f, "{address}/{bits}"),
            Network::Host(name) => f.write_str(name),
            Network::Below(name) => write!(f, "*.{name}"),
        }
    }
}

impl Network {
    fn has(&self, host: &str, address: IpAddr) -> bool {
        match self {
            Network::Prefix(network, bits) => {
                let (a, b, width) = match (network, address) {
                    (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits().into(), b.to_bits().into(), 32),
                    (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
                    _ => return false,
                };
                let (a, b): (u128, u128) = (a, b);
                // A shift by the whole width is no shift at all.
                (a ^ b).checked_shr(width - u32::from(*bits)).unwrap_or(0) == 0
            }
            Network::Host(name) => name.eq_ignore_ascii_case(host),
            Network::Below(name) => {
                let host = host.to_ascii_lowercase();
                host.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'))
            }
        }
    }
}

/// Decides where connections may go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    allow: Arc<[Network]>,
    /// Go through the proxies of the environment, which then decide.
    proxy: bool,
}

impl Guard {
    /// A guard that lets through what is public and what is allowed.
    pub fn new(allow: Vec<Network>, proxy: bool) -> Guard {
        Guard { allow: allow.into(), proxy }
    }

    /// What is allowed beside the public, as text.
    pub fn allowed(&self) -> Vec<String> {
        self.allow.iter().map(ToString::to_string).collect()
    }

    /// Whether proxies are used.
    pub fn proxy(&self) -> bool {
        self.proxy
    }

    /// Whether an address that `host` stands for may be connected to.
    pub fn permits(&self, host: &str, address: IpAddr) -> bool {
        let host = host.trim_end_matches('.');
        is_public(address) || self.allow.iter().any(|network| network.has(host, unmapped(address)))
    }

    /// An HTTP client for the service's own requests: it follows no redirects.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn client(&self) -> Result<reqwest::Client, String> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("dock2uni/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .http1_only()
            .connect_timeout(std::time::Duration::from_secs(10))
            .tls_backend_preconfigured(super::tls::client()?)
            .dns_resolver(Arc::new(Resolver(self.clone())));
        if !self.proxy {
            builder = builder.no_proxy();
        }
        builder.build().map_err(|error| error.to_string())
    }

    /// Checks an address that needs no looking up, which no resolver sees.
    ///
    /// # Errors
    /// Names what is refused.
    pub fn check_url(&self, url: &reqwest::Url) -> Result<(), String> {
        let host = url.host_str().unwrap_or_default();
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        match literal {
            Ok(address) if !self.permits(host, address) => Err(refused(host, address)),
            _ => Ok(()),
        }
    }
}

fn refused(host: &str, address: IpAddr) -> String {
    format!("{host} is {address}, an internal address; `[outgoing] allow` can allow it")
}

impl Reach for Guard {
    fn permits(&self, host: &str, address: IpAddr) -> bool {
        Guard::permits(self, host, address)
    }

    fn resolver(&self) -> Arc<dyn Resolve> {
        Arc::new(Resolver(self.clone()))
    }

    fn proxy(&self) -> bool {
        self.proxy
    }
}

/// Looks names up and leaves out the addresses that may not be connected to.
struct Resolver(Guard);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.0.clone();
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let looked_up = tokio::task::spawn_blocking(move || lookup(&guard, &host)).await;
            let addresses = looked_up.map_err(std::io::Error::other)??;
            if addresses.is_empty() {
                return Err(ForbiddenHost(name.as_str().to_owned()).into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// The addresses of a name that may be connected to.
fn lookup(guard: &Guard, host: &str) -> std::io::Result<Vec<SocketAddr>> {
    let found = (host, 0).to_socket_addrs()?;
    Ok(found.filter(|address| guard.permits(host, address.ip())).collect())
}

/// `::ffff:10.0.0.1` is 10.0.0.1.
fn unmapped(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        v4 => v4,
    }
}

/// Whether an address is on the public Internet (IANA's registries of special-purpose addresses).
fn is_public(address: IpAddr) -> bool {
    match unmapped(address) {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = a == 0
        || a == 10
        || a == 127
        || a >= 224
        || (a == 100 && b & 0xc0 == 64)
        || (a == 169 && b == 254)
        || (a == 172 && b & 0xf0 == 16)
        || (a == 192 && b == 168)
        || (a == 192 && b == 0 && matches!(c, 0 | 2))
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && b & 0xfe == 18)
        || (a == 198 && b == 51 && c == 100)
        || (a == 203 && b == 0 && c == 113);
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let words = address.segments();
    let embedded = |high: u16, low: u16| {
        is_public_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
    };
    match words {
        // NAT64 and 6to4 lead to an IPv4 address.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        [0x2001, 0xdb8, ..] | [0x3fff, ..] => false,
        // Teredo and other protocols' own.
        [0x2001, second, ..] if second < 0x200 => false,
        // 2000::/3 is all there is.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(text: &str) -> bool {
        is_public(text.parse().unwrap())
    }

    #[test]
    fn internal_addresses_are_known_in_all_disguises() {
        for text in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "0.0.0.0",
            "169.254.169.254",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
            "::7f00:1",
        ] {
            assert!(!public(text), "{text}");
        }
        for text in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::101:101"]
        {
            assert!(public(text), "{text}");
        }
    }

    #[test]
    fn networks_and_names_can_be_allowed() {
        let allow = ["10.0.0.0/8", "Registry.lan", "*.corp", "fd00::/8"];
        let guard = Guard::new(allow.map(|text| text.parse().unwrap()).to_vec(), false);
        let permits = |host: &str, ip: &str| guard.permits(host, ip.parse().unwrap());
        assert!(permits("x", "10.9.9.9") && permits("x", "::ffff:10.0.0.1"));
        assert!(permits("registry.lan", "192.168.0.1") && permits("registry.lan.", "127.0.0.1"));
        assert!(permits("a.b.corp", "172.16.0.1") && permits("x", "fd00::1"));
        assert!(!permits("xregistry.lan", "192.168.0.1") && !permits("corp", "172.16.0.1"));
        assert!(!permits("evilcorp", "172.16.0.1") && permits("x", "11.0.0.1"));
        for text in ["10.0.0.0/33", "x y", "", "/8", "10.0.0/8"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
        let all: Network = "0.0.0.0/0".parse().unwrap();
        assert!(all.has("x", "127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn names_are_checked_by_what_they_stand_for() {
        assert_eq!(lookup(&Guard::default(), "localhost").unwrap(), []);
        let guard = Guard::new(vec!["localhost".parse().unwrap()], false);
        assert!(!lookup(&guard, "localhost").unwrap().is_empty());
        let check = |text: &str| Guard::default().check_url(&text.parse().unwrap());
        assert!(check("http://169.254.169.254/latest/meta-data").is_err());
        assert!(check("http://[::1]:80/").is_err() && check("http://0x7f.1/").is_err());
        assert!(check("https://1.1.1.1/").is_ok());
    }
}

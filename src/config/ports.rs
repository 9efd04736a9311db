//! Exposed and published ports.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use dock2uni_format::record::{Port, Proto};
use serde::de::IgnoredAny;

use super::Error;

/// One forwarded port: `--publish [ip:][host:]guest[/proto]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Address to listen on.
    pub ip: IpAddr,
    /// Port on the host; `None` to have a free one chosen.
    pub host: Option<u16>,
    /// Port in the guest.
    pub guest: Port,
}

/// Why a `--publish` value was not understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// A part that should be a port is none.
    #[error("`{0}` is not a port or a range of ports between 1 and 65535")]
    Port(String),
    /// The address is none.
    #[error("`{0}` is not an IP address")]
    Address(String),
    /// Neither `tcp` nor `udp`.
    #[error("`{0}` cannot be forwarded: only tcp and udp can")]
    Proto(String),
    /// Host and guest range differ in length.
    #[error("the ranges `{0}` and `{1}` differ in length")]
    Ranges(String, String),
}

impl Publish {
    /// Reads Docker's syntax; a range gives one entry for each port.
    ///
    /// # Errors
    /// Names the part that is wrong.
    pub fn parse(text: &str) -> Result<Vec<Publish>, PublishError> {
        let (rest, proto) = text.rsplit_once('/').unwrap_or((text, "tcp"));
        let proto = match proto.to_ascii_lowercase().as_str() {
            "tcp" => Proto::Tcp,
            "udp" => Proto::Udp,
            other => return Err(PublishError::Proto(other.to_owned())),
        };
        let (rest, guest_text) = match rest.rsplit_once(':') {
            Some((rest, guest)) => (Some(rest), guest),
            None => (None, rest),
        };
        let guest = range(guest_text)?;
        let (ip, host_text) = match rest {
            None => (None, ""),
            // `[::1]:80` and `127.0.0.1:80`, but also `::1` in brackets without a host port.
            Some(rest) => match rest.rsplit_once(':') {
                Some((ip, host)) if !host.ends_with(']') => (Some(ip), host),
                _ if rest.contains('.') || rest.ends_with(']') => (Some(rest), ""),
                _ => (None, rest),
            },
        };
        let ip = match ip.filter(|ip| !ip.is_empty()) {
            None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Some(ip) => ip
                .strip_prefix('[')
                .and_then(|ip| ip.strip_suffix(']'))
                .unwrap_or(ip)
                .parse()
                .map_err(|_| PublishError::Address(ip.to_owned()))?,
        };
        let hosts: Vec<Option<u16>> = if host_text.is_empty() {
            guest.clone().map(|_| None).collect()
        } else {
            range(host_text)?.map(Some).collect()
        };
        if hosts.len() != guest.len() {
            return Err(PublishError::Ranges(host_text.to_owned(), guest_text.to_owned()));
        }
        let pair = |(host, port)| Publish { ip, host, guest: Port { port, proto } };
        Ok(hosts.into_iter().zip(guest).map(pair).collect())
    }
}

/// Reads the keys of ExposedPorts: `80`, `80/tcp`, `8000-8010/udp`.
pub fn exposed(keys: &BTreeMap<String, IgnoredAny>) -> Result<Vec<Port>, Error> {
    let mut ports = Vec::new();
    for key in keys.keys() {
        let bad = || Error::ExposedPort(key.clone());
        let (text, proto) = key.split_once('/').unwrap_or((key, "tcp"));
        let proto = match proto.to_ascii_lowercase().as_str() {
            "tcp" => Proto::Tcp,
            "udp" => Proto::Udp,
            "sctp" => Proto::Sctp,
            _ => return Err(bad()),
        };
        ports.extend(range(text).map_err(|_| bad())?.map(|port| Port { port, proto }));
    }
    Ok(ports)
}

/// Sorts by number and transport, and drops what is there twice.
pub fn sort(ports: &mut Vec<Port>) {
    ports.sort_by_key(|port| (port.port, port.proto as u8));
    ports.dedup();
}

fn range(text: &str) -> Result<RangeInclusive<u16>, PublishError> {
    let bad = || PublishError::Port(text.to_owned());
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(bad);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = port(first)?..=port(last)?;
    if range.is_empty() { Err(bad()) } else { Ok(range) }
}

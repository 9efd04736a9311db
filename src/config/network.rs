//! Addresses, resolvers and host names of the VM (`--ip`, `--gateway`, `--dns`, `--add-host`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use dock2uni_format::record::{Net, V4, V6};
use serde::Serialize;

use super::Error;

/// What the user asked of the network; without any of it the VM asks DHCP and routers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Network {
    /// `--network none`: nothing but loopback.
    pub none: bool,
    /// `--ip`: at most one address of each family.
    pub addresses: Vec<Interface>,
    /// `--gateway`, likewise.
    pub gateways: Vec<IpAddr>,
    /// `--dns`, in order; they go before what DHCP names.
    pub dns: Vec<IpAddr>,
    /// `--dns-search`.
    pub search: Vec<String>,
    /// `--add-host`: names and their addresses for /etc/hosts.
    pub hosts: Vec<(String, IpAddr)>,
}

/// An address with the length of its network's prefix, as `10.0.0.5/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// Address.
    pub addr: IpAddr,
    /// Prefix length in bits.
    pub prefix: u8,
}

impl FromStr for Interface {
    type Err = Error;

    fn from_str(text: &str) -> Result<Interface, Error> {
        let bad = || Error::Address(text.to_owned());
        let (addr, prefix) = text.split_once('/').ok_or_else(bad)?;
        let addr: IpAddr = addr.parse().map_err(|_| bad())?;
        let longest = if addr.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.parse().ok().filter(|prefix| (1..=longest).contains(prefix));
        let network = Interface { addr, prefix: prefix.ok_or_else(bad)? };
        if addr.is_unspecified() || addr.is_loopback() || addr.is_multicast() {
            return Err(bad());
        }
        Ok(network)
    }
}

impl Interface {
    fn contains(&self, other: IpAddr) -> bool {
        match (self.addr, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                (a.to_bits() ^ b.to_bits()).leading_zeros() >= self.prefix.into()
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                (a.to_bits() ^ b.to_bits()).leading_zeros() >= self.prefix.into()
            }
            _ => false,
        }
    }
}

/// Reads `NAME:ADDRESS` of `--add-host`; Docker takes `=` as well.
///
/// # Errors
/// If it is neither.
pub fn add_host(text: &str) -> Result<(String, IpAddr), Error> {
    let bad = || Error::AddHost(text.to_owned());
    let (name, addr) = text.split_once(['=', ':']).ok_or_else(bad)?;
    let addr = addr.trim_start_matches('[').trim_end_matches(']').parse().map_err(|_| bad())?;
    let name = super::valid_hostname(name).map_err(|_| bad())?;
    Ok((name, addr))
}

/// The network as the boot record has it.
///
/// # Errors
/// Names the option that can't be meant.
pub(super) fn plan(network: &Network) -> Result<Net, Error> {
    let (mut v4, mut v6) = if network.none { (V4::None, V6::None) } else { Default::default() };
    if network.none && !network.addresses.is_empty() {
        return Err(Error::AddressWithoutNetwork);
    }
    let mut gateways = network.gateways.clone();
    for interface in &network.addresses {
        let prefix = interface.prefix;
        // A router of IPv6 is often named by its link-local address.
        let near = |gateway: &IpAddr| {
            let link_local = matches!(gateway, IpAddr::V6(v6) if v6.is_unicast_link_local());
            link_local && interface.addr.is_ipv6() || interface.contains(*gateway)
        };
        let at = gateways.iter().position(near);
        let gateway = at.map(|at| gateways.remove(at));
        match (interface.addr, gateway) {
            (IpAddr::V4(addr), gateway) if v4 == V4::Dhcp => {
                let octets = |ip| if let IpAddr::V4(v4) = ip { Some(v4.octets()) } else { None };
                let gateway = gateway.and_then(octets);
                v4 = V4::Static { addr: addr.octets(), prefix, gateway };
            }
            (IpAddr::V6(addr), gateway) if v6 == V6::Auto => {
                let octets = |ip| if let IpAddr::V6(v6) = ip { Some(v6.octets()) } else { None };
                let gateway = gateway.and_then(octets);
                v6 = V6::Static { addr: addr.octets(), prefix, gateway };
            }
            _ => return Err(Error::SecondAddress(interface.addr)),
        }
    }
    if let Some(&gateway) = gateways.first() {
        return Err(Error::Gateway(gateway));
    }
    let search = network.search.iter().map(|name| super::valid_hostname(name));
    Ok(Net {
        v4,
        v6,
        dns: network.dns.iter().map(IpAddr::to_string).collect(),
        search: search.collect::<Result<_, _>>()?,
        hosts: network.hosts.iter().map(|(name, ip)| (name.clone(), ip.to_string())).collect(),
    })
}

/// Addresses of both families as text with their prefixes, for people and JSON.
pub fn described(net: &Net) -> (String, String) {
    let v4 = match net.v4 {
        V4::Dhcp => "dhcp".to_owned(),
        V4::Static { addr, prefix, .. } => format!("{}/{prefix}", Ipv4Addr::from(addr)),
        V4::None => "none".to_owned(),
    };
    let v6 = match net.v6 {
        V6::Auto => "auto".to_owned(),
        V6::Static { addr, prefix, .. } => format!("{}/{prefix}", Ipv6Addr::from(addr)),
        V6::None => "none".to_owned(),
    };
    (v4, v6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(ips: &[&str], gateways: &[&str]) -> Network {
        Network {
            addresses: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            gateways: gateways.iter().map(|ip| ip.parse().unwrap()).collect(),
            ..Network::default()
        }
    }

    #[test]
    fn addresses_of_both_families_find_their_gateways() {
        let net = plan(&network(&["fd00::5/64", "10.1.2.3/16"], &["10.1.0.1", "fe80::1"])).unwrap();
        let gateway = Some([10, 1, 0, 1]);
        assert_eq!(net.v4, V4::Static { addr: [10, 1, 2, 3], prefix: 16, gateway });
        let V6::Static { prefix: 64, gateway: Some(gateway), .. } = net.v6 else { panic!() };
        assert_eq!(Ipv6Addr::from(gateway).to_string(), "fe80::1");
        assert_eq!(described(&net), ("10.1.2.3/16".into(), "fd00::5/64".into()));
        let net = plan(&network(&["10.1.2.3/16"], &[])).unwrap();
        assert_eq!((described(&net).0.as_str(), net.v6), ("10.1.2.3/16", V6::Auto));
        assert_eq!(plan(&Network { none: true, ..Network::default() }).unwrap().v4, V4::None);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for text in ["10.0.0.1", "10.0.0.1/33", "10.0.0.1/0", "::1/64", "0.0.0.0/8", "x/8", "/8"] {
            assert!(matches!(text.parse::<Interface>(), Err(Error::Address(_))), "{text}");
        }
        let far = plan(&network(&["10.1.2.3/24"], &["10.9.0.1"]));
        assert!(matches!(far, Err(Error::Gateway(_))));
        assert!(matches!(plan(&network(&[], &["10.9.0.1"])), Err(Error::Gateway(_))));
        let two = plan(&network(&["10.1.2.3/24", "10.1.2.4/24"], &[]));
        assert!(matches!(two, Err(Error::SecondAddress(_))));
        let none = Network { none: true, ..network(&["10.1.2.3/24"], &[]) };
        assert!(matches!(plan(&none), Err(Error::AddressWithoutNetwork)));
    }

    #[test]
    fn hosts_are_named_as_docker_names_them() {
        let db = ("db".to_owned(), "10.0.0.7".parse().unwrap());
        assert_eq!(add_host("db:10.0.0.7").unwrap(), db);
        assert_eq!(add_host("db=10.0.0.7").unwrap(), db);
        assert_eq!(add_host("db:[fd00::7]").unwrap().1, "fd00::7".parse::<IpAddr>().unwrap());
        assert_eq!(add_host("db:fd00::7").unwrap().1, "fd00::7".parse::<IpAddr>().unwrap());
        for bad in ["db", "db:", ":10.0.0.7", "d b:10.0.0.7", "db:host-gateway"] {
            assert!(add_host(bad).is_err(), "{bad}");
        }
    }
}

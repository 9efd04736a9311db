//! QEMU's user network, shaped so that the guest's fixed address lies in it.

use std::net::{Ipv4Addr, Ipv6Addr};

use dock2uni_format::record::{Net, V4, V6};

use super::{Error, Forward};

/// Longest prefix with room for the guest, the gateway and the resolver beside network and broadcast.
const LONGEST: u8 = 29;

/// Refuses networks that QEMU can't play.
pub fn check(net: &Net, forwards: &[Forward]) -> Result<(), Error> {
    match net.v4 {
        V4::Static { prefix, .. } if prefix > LONGEST => Err(Error::NarrowNetwork(prefix)),
        V4::None if !forwards.is_empty() => Err(Error::ForwardsWithoutNetwork),
        _ => Ok(()),
    }
}

/// The value of `-netdev`.
pub fn netdev(net: &Net, forwards: &[Forward]) -> String {
    let mut netdev = "user,id=net".to_owned();
    if let V4::Static { addr, prefix, gateway } = net.v4
        && prefix <= LONGEST
    {
        let guest = Ipv4Addr::from(addr);
        let mask = u32::MAX << (32 - u32::from(prefix));
        let network = guest.to_bits() & mask;
        let free = |taken: &[Ipv4Addr]| {
            // Three candidates and two that may be taken: there is one.
            (1..4)
                .map(|host| Ipv4Addr::from_bits(network + host))
                .find(|addr| !taken.contains(addr))
                .unwrap_or(guest)
        };
        let host = gateway.map_or_else(|| free(&[guest]), Ipv4Addr::from);
        let dns = free(&[guest, host]);
        let network = Ipv4Addr::from_bits(network);
        // Ports are forwarded to the first address that DHCP would give away.
        netdev += &format!(",net={network}/{prefix},host={host},dns={dns},dhcpstart={guest}");
    }
    if let V6::Static { addr, prefix, gateway } = net.v6 {
        let network = Ipv6Addr::from_bits(
            u128::from_be_bytes(addr) & u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0),
        );
        netdev += &format!(",ipv6-net={network}/{prefix}");
        let gateway = gateway.map(Ipv6Addr::from);
        if let Some(host) = gateway.filter(|host| !host.is_unicast_link_local()) {
            netdev += &format!(",ipv6-host={host}");
        }
    }
    for Forward { ip, host, guest, udp } in forwards {
        let proto = if *udp { "udp" } else { "tcp" };
        netdev.push_str(&format!(",hostfwd={proto}:{ip}:{host}-:{guest}"));
    }
    netdev
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_address_brings_its_network() {
        let fixed = |addr: [u8; 4], prefix, gateway| Net {
            v4: V4::Static { addr, prefix, gateway },
            ..Net::default()
        };
        let forward = Forward { ip: Ipv4Addr::LOCALHOST, host: 8080, guest: 80, udp: false };
        let net = fixed([10, 1, 2, 3], 24, Some([10, 1, 2, 1]));
        assert_eq!(
            netdev(&net, &[forward]),
            "user,id=net,net=10.1.2.0/24,host=10.1.2.1,dns=10.1.2.2,dhcpstart=10.1.2.3,\
             hostfwd=tcp:127.0.0.1:8080-:80"
        );
        let net = fixed([10, 1, 2, 1], 29, None);
        assert_eq!(
            netdev(&net, &[]),
            "user,id=net,net=10.1.2.0/29,host=10.1.2.2,dns=10.1.2.3,dhcpstart=10.1.2.1"
        );
        assert!(matches!(
            check(&fixed([10, 1, 2, 1], 30, None), &[]),
            Err(Error::NarrowNetwork(30))
        ));
        let none = Net { v4: V4::None, ..Net::default() };
        assert!(matches!(check(&none, &[forward]), Err(Error::ForwardsWithoutNetwork)));
        let v6 = Net {
            v6: V6::Static {
                addr: Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 5).octets(),
                prefix: 64,
                gateway: Some(Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1).octets()),
            },
            ..Net::default()
        };
        assert_eq!(netdev(&v6, &[]), "user,id=net,ipv6-net=fd00:1::/64,ipv6-host=fd00:1::1");
    }
}

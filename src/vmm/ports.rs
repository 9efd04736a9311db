//! Chooses host ports and sees that they are free.

use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};

use dock2uni_format::record::Proto;

use super::{Error, Forward};
use crate::config::Publish;

/// Makes forwards of what the user asked for.
///
/// # Errors
/// If a port is taken, or the address cannot be forwarded from.
pub fn assign(publish: &[Publish]) -> Result<Vec<Forward>, Error> {
    // Every port is held until all are chosen, so that none is handed out twice.
    let mut held = Vec::new();
    let mut forwards = Vec::new();
    for Publish { ip, host, guest } in publish {
        let ip = match ip {
            IpAddr::V4(ip) => *ip,
            IpAddr::V6(ip) => return Err(Error::Ipv6(*ip)),
        };
        // Publish::parse makes TCP and UDP only.
        let udp = guest.proto == Proto::Udp;
        let wanted = host.unwrap_or(0);
        let (port, guard) =
            hold(ip, wanted, udp).map_err(|source| Error::Port { ip, port: wanted, source })?;
        held.push(guard);
        forwards.push(Forward { ip, host: port, guest: guest.port, udp });
    }
    Ok(forwards)
}

/// A port that is taken until this is dropped.
enum Held {
    Tcp(#[expect(dead_code, reason = "held, not used")] TcpListener),
    Udp(#[expect(dead_code, reason = "held, not used")] UdpSocket),
}

fn hold(ip: Ipv4Addr, port: u16, udp: bool) -> std::io::Result<(u16, Held)> {
    if udp {
        let socket = UdpSocket::bind((ip, port))?;
        Ok((socket.local_addr()?.port(), Held::Udp(socket)))
    } else {
        let listener = TcpListener::bind((ip, port))?;
        Ok((listener.local_addr()?.port(), Held::Tcp(listener)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_are_distinct_and_taken_ones_are_named() {
        let publish = Publish::parse("127.0.0.1::80-83").unwrap();
        let forwards = assign(&publish).unwrap();
        let mut ports: Vec<u16> = forwards.iter().map(|forward| forward.host).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 4);

        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let publish = Publish::parse(&format!("127.0.0.1:{port}:80")).unwrap();
        let error = assign(&publish).unwrap_err().to_string();
        assert_eq!(error, format!("port {port} of 127.0.0.1 cannot be listened on"));
        assert!(matches!(assign(&Publish::parse("[::1]::80").unwrap()), Err(Error::Ipv6(_))));
    }
}

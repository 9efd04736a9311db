//! Tap devices of the host: how a VM gets onto a bridge, or any other real network.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Accel, Error};

/// `IFF_TAP` of linux/if_tun.h
const IFF_TAP: u32 = 0x0002;
/// `IFF_MULTI_QUEUE` of linux/if_tun.h
const IFF_MULTI_QUEUE: u32 = 0x0100;
/// QEMU and the guest take more; what one queue can't carry is above the card.
const MAX_QUEUES: u32 = 16;

/// A tap device that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tap {
    /// Its name.
    pub name: String,
    /// The machine's Ethernet address.
    pub mac: [u8; 6],
    /// Queues of each direction.
    pub queues: u32,
    /// Frames go through the host's kernel, past QEMU.
    pub vhost: bool,
}

impl Tap {
    /// Looks at the device `name`. A machine of `cpus` processors gets as many queues, if the device
    /// can have several.
    ///
    /// # Errors
    /// [`Error::NoTap`] if there is no such device, [`Error::NotATap`] if it is something else.
    pub fn open(name: &str, mac: Option<[u8; 6]>, cpus: u32, accel: Accel) -> Result<Tap, Error> {
        let vhost = accel == Accel::Kvm
            && fs::File::options().read(true).write(true).open("/dev/vhost-net").is_ok();
        Tap::under(Path::new("/sys/class/net"), name, mac, cpus, vhost)
    }

    fn under(
        devices: &Path,
        name: &str,
        mac: Option<[u8; 6]>,
        cpus: u32,
        vhost: bool,
    ) -> Result<Tap, Error> {
        // Names of interfaces have no slash; QEMU's syntax would make something else of a comma.
        let plain = !name.is_empty() && name.len() < 16 && !name.contains(['/', ',', '.']);
        let device: PathBuf = devices.join(name);
        if !plain || !device.exists() {
            return Err(Error::NoTap(name.to_owned()));
        }
        let flags = fs::read_to_string(device.join("tun_flags")).unwrap_or_default();
        let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).unwrap_or(0);
        if flags & IFF_TAP == 0 {
            return Err(Error::NotATap(name.to_owned()));
        }
        let several = flags & IFF_MULTI_QUEUE != 0;
        let queues = if several { cpus.clamp(1, MAX_QUEUES) } else { 1 };
        let mac = match mac {
            Some(mac) => mac,
            None => random_mac().map_err(Error::io("cannot get random bytes"))?,
        };
        Ok(Tap { name: name.to_owned(), mac, queues, vhost })
    }

    /// The value of `-netdev`.
    pub(super) fn netdev(&self) -> String {
        let mut netdev = format!("tap,id=net,ifname={},script=no,downscript=no", self.name);
        if self.queues > 1 {
            netdev += &format!(",queues={}", self.queues);
        }
        if self.vhost {
            netdev += ",vhost=on";
        }
        netdev
    }
}

/// A locally administered address of one machine: two with the same one would not share a bridge.
fn random_mac() -> std::io::Result<[u8; 6]> {
    use ring::rand::{SecureRandom as _, SystemRandom};
    let mut mac = [0; 6];
    SystemRandom::new()
        .fill(&mut mac)
        .map_err(|_| std::io::Error::other("the system gives none"))?;
    mac[0] = mac[0] & 0xfc | 2;
    Ok(mac)
}

/// Reads `02:00:00:00:00:01`, the address of one machine.
///
/// # Errors
/// Says what is wrong with the text.
pub fn parse_mac(text: &str) -> Result<[u8; 6], String> {
    let bytes: Vec<u8> = text
        .split([':', '-'])
        .map(|byte| match byte.len() {
            1 | 2 => u8::from_str_radix(byte, 16),
            _ => u8::from_str_radix("", 16),
        })
        .collect::<Result<_, _>>()
        .map_err(|_| "six bytes in hexadecimal with colons between them are expected")?;
    let mac: [u8; 6] =
        bytes.try_into().map_err(|_| "an Ethernet address has six bytes".to_owned())?;
    if mac[0] & 1 != 0 || mac == [0; 6] {
        return Err("that is not the address of one machine".into());
    }
    Ok(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_looked_at_before_they_are_used() {
        let devices = tempfile::tempdir().unwrap();
        for (name, flags) in [("one", Some("0x1002\n")), ("many", Some("0x1102\n")), ("eth", None)]
        {
            fs::create_dir(devices.path().join(name)).unwrap();
            if let Some(flags) = flags {
                fs::write(devices.path().join(name).join("tun_flags"), flags).unwrap();
            }
        }
        let mac = [2, 0, 0, 0, 0, 7];
        let open = |name: &str| Tap::under(devices.path(), name, Some(mac), 4, false);
        assert_eq!(open("one").unwrap().netdev(), "tap,id=net,ifname=one,script=no,downscript=no");
        assert_eq!(
            open("many").unwrap().netdev(),
            "tap,id=net,ifname=many,script=no,downscript=no,queues=4"
        );
        assert!(matches!(open("eth"), Err(Error::NotATap(_))));
        for name in ["none", "", "..", "many,script=/x", "../many"] {
            assert!(matches!(open(name), Err(Error::NoTap(_))), "{name}");
        }
        let chosen = Tap::under(devices.path(), "one", None, 1, false).unwrap().mac;
        assert_eq!(chosen[0] & 3, 2, "{chosen:?}");
    }

    #[test]
    fn addresses_are_of_one_machine() {
        assert_eq!(parse_mac("02:00:00:00:00:0a"), Ok([2, 0, 0, 0, 0, 10]));
        assert_eq!(parse_mac("52-54-0-12-34-56"), Ok([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
        for wrong in [
            "",
            "02:00",
            "01:00:00:00:00:01",
            "00:00:00:00:00:00",
            "2:0:0:0:0:0:0",
            "+2:0:0:0:0:00a",
        ] {
            assert!(parse_mac(wrong).is_err(), "{wrong}");
        }
    }
}

//! The distribution (os-release(5)).

use crate::plan::root::Root;

/// What `/etc/os-release` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Os {
    /// `debian`, `alpine`, ...
    pub id: String,
    /// `12`, `3.20.1`, ...
    pub version: String,
    /// For people.
    pub pretty: String,
}

impl Os {
    /// Reads it; `None` if the image has none, or one without an identifier.
    pub fn read(root: &Root<'_>) -> Option<Os> {
        let text = root
            .text(b"/etc/os-release", 64 << 10)
            .or_else(|| root.text(b"/usr/lib/os-release", 64 << 10))?;
        Os::parse(&text)
    }

    fn parse(text: &str) -> Option<Os> {
        let mut os = Os::default();
        for line in text.lines() {
            let Some((key, value)) = line.split_once('=') else { continue };
            let value = value.trim().trim_matches(['"', '\'']).to_owned();
            match key.trim() {
                "ID" => os.id = value,
                "VERSION_ID" => os.version = value,
                "PRETTY_NAME" => os.pretty = value,
                _ => {}
            }
        }
        // What stands in identities of packages must be plain.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        (!os.id.is_empty() && os.id.bytes().all(plain)).then_some(os)
    }

    /// `debian-12`, as package URLs have it.
    pub fn distro(&self) -> Option<String> {
        (!self.version.is_empty()).then(|| format!("{}-{}", self.id, self.version))
    }
}

#[cfg(test)]
mod tests {
    use super::Os;

    #[test]
    fn the_distribution_is_read() {
        let text = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n";
        let os = Os::parse(text).unwrap();
        assert_eq!((os.id.as_str(), os.distro().as_deref()), ("debian", Some("debian-12")));
        assert_eq!(Os::parse("ID=\"../x y\"\n"), None);
        assert_eq!(Os::parse("VERSION_ID=1\n"), None);
    }
}

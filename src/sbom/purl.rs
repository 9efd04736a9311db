//! Package URLs (package-url/purl-spec).

use std::fmt;

/// The identity of a package, in its parts.
#[derive(Clone, Copy, Debug)]
pub struct Purl<'a> {
    /// `deb`, `npm`, ...
    pub kind: &'a str,
    /// Its segments, separated by slashes; may be empty.
    pub namespace: &'a str,
    pub name: &'a str,
    /// May be empty.
    pub version: &'a str,
    /// Names and values, sorted by name; those without a value are left out.
    pub qualifiers: [(&'a str, Option<&'a str>); 3],
}

impl<'a> Purl<'a> {
    /// An identity without qualifiers.
    pub fn plain(kind: &'a str, namespace: &'a str, name: &'a str, version: &'a str) -> Purl<'a> {
        Purl { kind, namespace, name, version, qualifiers: [("", None); 3] }
    }
}

impl fmt::Display for Purl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pkg:{}", self.kind)?;
        for part in self.namespace.split('/').filter(|part| !part.is_empty()) {
            f.write_str("/")?;
            encode(f, part)?;
        }
        f.write_str("/")?;
        encode(f, self.name)?;
        if !self.version.is_empty() {
            f.write_str("@")?;
            encode(f, self.version)?;
        }
        let mut separator = "?";
        for (name, value) in self.qualifiers {
            let Some(value) = value else { continue };
            write!(f, "{separator}{name}=")?;
            encode(f, value)?;
            separator = "&";
        }
        Ok(())
    }
}

/// Percent-encodes all but what the specification leaves as it is.
fn encode(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' | b':' => {
                write!(f, "{}", char::from(byte))?;
            }
            _ => write!(f, "%{byte:02X}")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Purl;

    #[test]
    fn identities_are_written_as_specified() {
        let mut purl = Purl::plain("deb", "debian", "libstdc++6", "1:12.2.0-14+x");
        purl.qualifiers = [("arch", Some("amd64")), ("distro", Some("debian-12")), ("epoch", None)];
        assert_eq!(
            purl.to_string(),
            "pkg:deb/debian/libstdc%2B%2B6@1:12.2.0-14%2Bx?arch=amd64&distro=debian-12"
        );
        let scoped = Purl::plain("npm", "@babel", "core", "7.0.0");
        assert_eq!(scoped.to_string(), "pkg:npm/%40babel/core@7.0.0");
        let go = Purl::plain("golang", "github.com/a", "b", "v1.0.0");
        assert_eq!(go.to_string(), "pkg:golang/github.com/a/b@v1.0.0");
    }
}

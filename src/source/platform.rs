//! Platforms and the choice among an index's entries.

use std::fmt;
use std::str::FromStr;

use oci_spec::image::{Descriptor, ImageConfiguration};

/// Operating system, architecture and optionally its variant, in Go's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, ...
    pub architecture: String,
    /// `v2`, `v8`, ...
    pub variant: Option<String>,
}

impl Default for Platform {
    /// `linux/amd64`, what the kernel runs.
    fn default() -> Self {
        Self { os: "linux".into(), architecture: "amd64".into(), variant: None }
    }
}

impl Platform {
    /// The platform a configuration says it is for.
    pub fn of_config(config: &ImageConfiguration) -> Self {
        Self {
            os: config.os().to_string(),
            architecture: config.architecture().to_string(),
            variant: config.variant().clone().filter(|v| !v.is_empty()),
        }
    }

    /// The platform an index entry says it is for.
    pub fn of_descriptor(descriptor: &Descriptor) -> Option<Self> {
        let platform = descriptor.platform().as_ref()?;
        Some(Self {
            os: platform.os().to_string(),
            architecture: platform.architecture().to_string(),
            variant: platform.variant().clone().filter(|v| !v.is_empty()),
        })
    }

    /// How well `offer` serves this platform; less is better, `None` not at all.
    ///
    /// Without a wish for a variant the one for the most machines is best: none or `v1`, then
    /// upwards. A wished variant must be met exactly, or by an offer that names none.
    pub fn rank(&self, offer: &Self) -> Option<u32> {
        if self.os != offer.os || self.architecture != offer.architecture {
            return None;
        }
        match (&self.variant, &offer.variant) {
            (_, None) => Some(1),
            (Some(wanted), Some(variant)) => (wanted == variant).then_some(0),
            (None, Some(variant)) => {
                let number = variant.strip_prefix('v').and_then(|n| n.parse::<u16>().ok());
                Some(number.map_or(u32::MAX, |n| u32::from(n).max(1)))
            }
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('/').map(str::to_string);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(os), Some(architecture), variant, None)
                if !os.is_empty() && !architecture.is_empty() && variant.as_deref() != Some("") =>
            {
                Ok(Self { os, architecture, variant })
            }
            _ => Err("a platform is written `os/architecture` or `os/architecture/variant`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variant_for_most_machines_wins() {
        let wanted = Platform::default();
        let rank = |text: &str| wanted.rank(&text.parse().unwrap());
        assert_eq!(rank("linux/arm64"), None);
        assert_eq!(rank("windows/amd64"), None);
        assert!(rank("linux/amd64") < rank("linux/amd64/v2"));
        assert!(rank("linux/amd64/v2") < rank("linux/amd64/v3"));
        assert!(rank("linux/amd64/v3") < rank("linux/amd64/odd"));
        let v3: Platform = "linux/amd64/v3".parse().unwrap();
        assert_eq!(v3.rank(&"linux/amd64/v2".parse().unwrap()), None);
        assert_eq!(v3.rank(&v3), Some(0));
    }

    #[test]
    fn malformed_platforms_are_refused() {
        for text in ["", "linux", "linux/", "/amd64", "linux/amd64/", "a/b/c/d"] {
            assert!(text.parse::<Platform>().is_err(), "{text:?}");
        }
    }
}

//! Extended attributes (`struct erofs_xattr_ibody_header`, `struct erofs_xattr_entry`).
//!
//! An inode's xattr body is a header, ids of shared entries (4 bytes each), then inline entries.
//! Shared entries lie in the shared area, by id ([`super::Superblock::shared_xattr_offset`]).
//! Every entry is padded to 4 bytes.

use super::{Error, put, u16_at, u32_at};

/// Length of the header of an xattr body in bytes.
pub const XATTR_HEADER_LEN: usize = 12;
const ENTRY_HEADER_LEN: usize = 4;

/// Namespace of an attribute, by number on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum XattrPrefix {
    /// `user.`
    User = 1,
    /// `system.posix_acl_access`: the whole name, nothing follows.
    PosixAclAccess = 2,
    /// `system.posix_acl_default`: the whole name, nothing follows.
    PosixAclDefault = 3,
    /// `trusted.`
    Trusted = 4,
    /// `security.`
    Security = 6,
}

impl XattrPrefix {
    /// All namespaces.
    pub const ALL: [XattrPrefix; 5] = [
        XattrPrefix::User,
        XattrPrefix::PosixAclAccess,
        XattrPrefix::PosixAclDefault,
        XattrPrefix::Trusted,
        XattrPrefix::Security,
    ];

    /// The text that the namespace stands for.
    pub const fn as_str(self) -> &'static str {
        match self {
            XattrPrefix::User => "user.",
            XattrPrefix::PosixAclAccess => "system.posix_acl_access",
            XattrPrefix::PosixAclDefault => "system.posix_acl_default",
            XattrPrefix::Trusted => "trusted.",
            XattrPrefix::Security => "security.",
        }
    }

    /// Splits a full attribute name; `None` if EROFS has no number for its namespace.
    pub fn split(full: &[u8]) -> Option<(XattrPrefix, &[u8])> {
        XattrPrefix::ALL.into_iter().find_map(|prefix| {
            let rest = full.strip_prefix(prefix.as_str().as_bytes())?;
            // The ACL names are whole names; the others need something after the dot.
            (rest.is_empty() != prefix.as_str().ends_with('.')).then_some((prefix, rest))
        })
    }

    fn from_disk(byte: u8) -> Option<XattrPrefix> {
        XattrPrefix::ALL.into_iter().find(|&prefix| prefix as u8 == byte)
    }
}

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XattrEntry<'a> {
    /// Namespace.
    pub prefix: XattrPrefix,
    /// Name after the namespace's text, at most 255 bytes.
    pub name: &'a [u8],
    /// Value, at most 65,535 bytes.
    pub value: &'a [u8],
}

impl<'a> XattrEntry<'a> {
    /// Reads the entry at the start of `bytes`.
    pub fn parse(bytes: &'a [u8]) -> Result<XattrEntry<'a>, Error> {
        let &[name_len, prefix, ..] = bytes else { return Err(Error::Truncated) };
        let prefix = XattrPrefix::from_disk(prefix).ok_or(Error::Xattr)?;
        let value_len = usize::from(u16_at(bytes, 2)?);
        let name_end = ENTRY_HEADER_LEN + usize::from(name_len);
        let name = bytes.get(ENTRY_HEADER_LEN..name_end).ok_or(Error::Truncated)?;
        let value = bytes.get(name_end..name_end + value_len).ok_or(Error::Truncated)?;
        Ok(XattrEntry { prefix, name, value })
    }
}

/// Length of an entry on disk with its padding, in bytes.
pub fn xattr_entry_len(name_len: usize, value_len: usize) -> usize {
    (ENTRY_HEADER_LEN + name_len + value_len).next_multiple_of(4)
}

/// Writes an entry to the start of `out`, padding included, and returns the bytes used. Name and
/// value are within their limits; `out` is long enough.
pub fn emit_xattr_entry(entry: &XattrEntry<'_>, out: &mut [u8]) -> usize {
    let len = xattr_entry_len(entry.name.len(), entry.value.len());
    out[..len].fill(0);
    out[0] = entry.name.len() as u8;
    out[1] = entry.prefix as u8;
    put(out, 2, &(entry.value.len() as u16).to_le_bytes());
    put(out, ENTRY_HEADER_LEN, entry.name);
    put(out, ENTRY_HEADER_LEN + entry.name.len(), entry.value);
    len
}

/// `i_xattr_icount` for a body with `shared` ids and `inline_len` bytes of inline entries (a
/// multiple of 4); `None` if the body is longer than an inode can say.
pub fn xattr_icount(shared: usize, inline_len: usize) -> Option<u16> {
    if shared == 0 && inline_len == 0 {
        return Some(0);
    }
    u16::try_from(1 + shared + inline_len / 4).ok()
}

/// Writes header and shared ids to the start of `out` and returns the bytes used; inline entries
/// follow. There are at most 255 ids.
pub fn emit_xattr_header(shared: &[u32], out: &mut [u8]) -> usize {
    out[..XATTR_HEADER_LEN].fill(0);
    out[4] = shared.len() as u8;
    for (index, id) in shared.iter().enumerate() {
        put(out, XATTR_HEADER_LEN + 4 * index, &id.to_le_bytes());
    }
    XATTR_HEADER_LEN + 4 * shared.len()
}

/// View of an inode's xattr body ([`super::Inode::xattr_len`] bytes).
#[derive(Clone, Copy, Debug)]
pub struct XattrBody<'a> {
    shared: &'a [u8],
    inline: &'a [u8],
}

impl<'a> XattrBody<'a> {
    /// Checks the header.
    pub fn parse(bytes: &'a [u8]) -> Result<XattrBody<'a>, Error> {
        let count = usize::from(*bytes.get(4).ok_or(Error::Truncated)?);
        let rest = bytes.get(XATTR_HEADER_LEN..).ok_or(Error::Truncated)?;
        let (shared, inline) = rest.split_at_checked(4 * count).ok_or(Error::Xattr)?;
        Ok(XattrBody { shared, inline })
    }

    /// Ids of the shared entries.
    pub fn shared(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.shared.chunks_exact(4).map(|id| u32::from_le_bytes([id[0], id[1], id[2], id[3]]))
    }

    /// The inline entries.
    pub fn inline(&self) -> XattrIter<'a> {
        XattrIter { rest: self.inline }
    }
}

/// Iterator over inline entries; ends after the first malformed one.
#[derive(Clone, Debug)]
pub struct XattrIter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for XattrIter<'a> {
    type Item = Result<XattrEntry<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        // Four zero bytes are padding: no entry has namespace 0.
        if self.rest.is_empty() || u32_at(self.rest, 0) == Ok(0) {
            return None;
        }
        match XattrEntry::parse(self.rest) {
            Ok(entry) => {
                let len = xattr_entry_len(entry.name.len(), entry.value.len());
                self.rest = self.rest.get(len..).unwrap_or_default();
                Some(Ok(entry))
            }
            Err(error) => {
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_survives_a_round_trip() {
        let capability =
            XattrEntry { prefix: XattrPrefix::Security, name: b"capability", value: &[1, 0, 10] };
        let user = XattrEntry { prefix: XattrPrefix::User, name: b"k", value: b"" };
        let mut bytes = [0xee; 128];
        let mut at = emit_xattr_header(&[7, 9], &mut bytes);
        for entry in [capability, user] {
            at += emit_xattr_entry(&entry, &mut bytes[at..]);
        }
        assert_eq!(at, 12 + 8 + 20 + 8);
        assert_eq!(xattr_icount(2, 28), Some(10));
        let body = XattrBody::parse(&bytes[..at]).unwrap();
        assert!(body.shared().eq([7, 9]));
        assert!(body.inline().map(Result::unwrap).eq([capability, user]));
    }

    #[test]
    fn lying_lengths_are_refused() {
        let mut bytes = [0; 32];
        bytes[4] = 6;
        assert!(XattrBody::parse(&bytes).is_err());
        bytes[4] = 0;
        bytes[12..16].copy_from_slice(&[200, 1, 0, 0]);
        let body = XattrBody::parse(&bytes).unwrap();
        assert_eq!(body.inline().collect::<alloc::vec::Vec<_>>(), [Err(Error::Truncated)]);
    }

    #[test]
    fn names_split_by_namespace() {
        assert_eq!(
            XattrPrefix::split(b"security.capability"),
            Some((XattrPrefix::Security, &b"capability"[..]))
        );
        assert_eq!(
            XattrPrefix::split(b"system.posix_acl_access"),
            Some((XattrPrefix::PosixAclAccess, &b""[..]))
        );
        for name in [&b"user."[..], b"system.posix_acl_accessx", b"system.nfs4_acl", b"x"] {
            assert_eq!(XattrPrefix::split(name), None);
        }
    }
}

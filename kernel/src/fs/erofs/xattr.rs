//! Extended attributes.

use super::{Image, Node, damaged};
use crate::errno::Result;
use alloc::vec::Vec;
use dock2uni_format::erofs::{XattrBody, XattrEntry};

/// Longest entry on disk: header, name, value.
const ENTRY_MAX: u64 = 4 + 255 + 65_535;

impl Image {
    /// Calls `each(full name, value)` for every attribute of an inode.
    pub fn xattrs(&self, node: &Node, each: &mut dyn FnMut(Vec<u8>, &[u8])) -> Result<()> {
        let len = node.inode.xattr_len();
        if len == 0 {
            return Ok(());
        }
        let bytes = self.bytes(node.after, len)?;
        let body = XattrBody::parse(&bytes).map_err(damaged)?;
        let mut give = |entry: &XattrEntry<'_>| {
            let mut name = Vec::from(entry.prefix.as_str().as_bytes());
            name.extend_from_slice(entry.name);
            each(name, entry.value);
        };
        for entry in body.inline() {
            give(&entry.map_err(damaged)?);
        }
        for id in body.shared() {
            let at = self.sb.shared_xattr_offset(id);
            let room = self.len().saturating_sub(at).min(ENTRY_MAX);
            let bytes = self.bytes(at, room as usize)?;
            give(&XattrEntry::parse(&bytes).map_err(damaged)?);
        }
        Ok(())
    }
}

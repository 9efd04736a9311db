//! Extended attributes of a whole tree, each stored once.

use std::hash::BuildHasher;

use dock2uni_format::erofs::{XattrEntry, XattrPrefix};
use hashbrown::{DefaultHashBuilder, HashTable};

/// The attributes of one inode, in an [`XattrTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct XattrSet(pub(crate) u32);

impl XattrSet {
    /// No attributes.
    pub const EMPTY: XattrSet = XattrSet(0);
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    prefix: XattrPrefix,
    name_len: u8,
    value_len: u16,
    at: u32,
    /// Number of inodes that carry it.
    uses: u32,
}

/// Interned attributes and sets of them.
#[derive(Debug)]
pub struct XattrTable {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// Ranges of `members`; set 0 is empty.
    sets: Vec<(u32, u32)>,
    members: Vec<u32>,
    entry_index: HashTable<u32>,
    set_index: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Default for XattrTable {
    fn default() -> XattrTable {
        XattrTable {
            bytes: Vec::new(),
            entries: Vec::new(),
            sets: vec![(0, 0)],
            members: Vec::new(),
            entry_index: HashTable::new(),
            set_index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }
}

impl XattrTable {
    /// The attributes of a set, sorted by namespace and name.
    pub fn get(&self, set: XattrSet) -> impl Iterator<Item = XattrEntry<'_>> + '_ {
        self.members(set).iter().map(|&id| self.entry(id))
    }

    /// Memory held, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.bytes.len() + self.entries.len() * 20 + self.members.len() * 4 + self.sets.len() * 12
    }

    pub(crate) fn members(&self, set: XattrSet) -> &[u32] {
        let (start, end) = self.sets[set.0 as usize];
        &self.members[start as usize..end as usize]
    }

    pub(crate) fn entry(&self, id: u32) -> XattrEntry<'_> {
        let entry = self.entries[id as usize];
        let bytes = &self.bytes[entry.at as usize..];
        let (name, rest) = bytes.split_at(usize::from(entry.name_len));
        XattrEntry { prefix: entry.prefix, name, value: &rest[..usize::from(entry.value_len)] }
    }

    pub(crate) fn uses(&self, id: u32) -> u32 {
        self.entries[id as usize].uses
    }

    /// Interns one inode's attributes. `None` if a name is above 255 or a value above 65,535
    /// bytes, or the table has outgrown 4 GiB.
    pub(crate) fn intern(
        &mut self,
        attributes: &mut Vec<(XattrPrefix, &[u8], &[u8])>,
    ) -> Option<XattrSet> {
        if attributes.is_empty() {
            return Some(XattrSet::EMPTY);
        }
        attributes.sort_unstable_by_key(|&(prefix, name, _)| (prefix, name));
        let start = self.members.len();
        for &(prefix, name, value) in attributes.iter() {
            let id = self.intern_entry(prefix, name, value)?;
            self.entries[id as usize].uses += 1;
            self.members.push(id);
        }
        let hash = self.hasher.hash_one(&self.members[start..]);
        let same = |&set: &u32| self.members(XattrSet(set)) == &self.members[start..];
        if let Some(&set) = self.set_index.find(hash, same) {
            self.members.truncate(start);
            return Some(XattrSet(set));
        }
        let set = u32::try_from(self.sets.len()).ok()?;
        self.sets.push((u32::try_from(start).ok()?, u32::try_from(self.members.len()).ok()?));
        let XattrTable { set_index, sets, members, hasher, .. } = self;
        set_index.insert_unique(hash, set, |&set| {
            let (start, end) = sets[set as usize];
            hasher.hash_one(&members[start as usize..end as usize])
        });
        Some(XattrSet(set))
    }

    fn intern_entry(&mut self, prefix: XattrPrefix, name: &[u8], value: &[u8]) -> Option<u32> {
        let wanted = XattrEntry { prefix, name, value };
        let hash = self.hasher.hash_one((prefix, name, value));
        if let Some(&id) = self.entry_index.find(hash, |&id| self.entry(id) == wanted) {
            return Some(id);
        }
        let entry = Entry {
            prefix,
            name_len: u8::try_from(name.len()).ok()?,
            value_len: u16::try_from(value.len()).ok()?,
            at: u32::try_from(self.bytes.len()).ok()?,
            uses: 0,
        };
        let id = u32::try_from(self.entries.len()).ok()?;
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.entries.push(entry);
        let XattrTable { entry_index, entries, bytes, hasher, .. } = self;
        entry_index.insert_unique(hash, id, |&id| {
            let entry = entries[id as usize];
            let (name, rest) = bytes[entry.at as usize..].split_at(usize::from(entry.name_len));
            hasher.hash_one((entry.prefix, name, &rest[..usize::from(entry.value_len)]))
        });
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sets_are_stored_once_and_uses_counted() {
        let mut table = XattrTable::default();
        let cap = (XattrPrefix::Security, &b"capability"[..], &b"\x01\n"[..]);
        let user = (XattrPrefix::User, &b"a"[..], &b""[..]);
        let first = table.intern(&mut vec![cap, user]).unwrap();
        let second = table.intern(&mut vec![user, cap]).unwrap();
        let third = table.intern(&mut vec![user]).unwrap();
        assert_eq!(first, second);
        assert_ne!(first, third);
        assert_eq!(table.uses(table.members(third)[0]), 3);
        let names: Vec<&[u8]> = table.get(first).map(|entry| entry.name).collect();
        assert_eq!(names, [&b"a"[..], b"capability"]);
        assert_eq!(table.intern(&mut vec![]), Some(XattrSet::EMPTY));
        assert_eq!(table.get(XattrSet::EMPTY).count(), 0);
    }
}

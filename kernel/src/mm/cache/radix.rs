//! Page index to slot: a radix tree with 64 slots per node.
//!
//! A one-page object needs no node at all. A slot is empty, a value (lowest bit set), or a node:
//! nodes are 512 bytes and aligned to that, so the low bits of their address count the slots in
//! use.

use crate::errno::{Errno, Result};
use core::alloc::Layout;
use core::num::NonZeroU64;

const FANOUT: usize = 64;
const BITS: u32 = 6;
/// 2^54 pages: more than any file offset reaches.
const MAX_HEIGHT: usize = 9;
const VALUE: u64 = 1;
/// One slot in use, in a node's slot word.
const ONE: u64 = 2;
const COUNT: u64 = 0xfe;
const LAYOUT: Layout = match Layout::from_size_align(FANOUT * 8, FANOUT * 8) {
    Ok(layout) => layout,
    Err(_) => panic!("512 is a power of two"),
};

type Slots = [u64; FANOUT];

/// An ordered map from page index to a 63-bit value.
pub struct Radix {
    root: u64,
    height: u8,
}

impl Radix {
    /// An empty tree.
    pub const fn new() -> Radix {
        Radix { root: 0, height: 0 }
    }

    /// The value at `index`.
    pub fn get(&self, index: u64) -> Option<u64> {
        self.slot(index).map(|slot| slot >> 1)
    }

    fn slot(&self, index: u64) -> Option<u64> {
        let mut level = self.height as u32;
        if index >> (BITS * level) != 0 {
            return None;
        }
        let mut slot = self.root;
        while level > 0 && slot != 0 {
            level -= 1;
            // SAFETY: slots above the lowest level are empty or nodes that this tree owns.
            slot = unsafe { (*node(slot))[position(index, level)] };
        }
        (slot != 0).then_some(slot)
    }

    /// Sets the value at `index`, returning the old one. ENOMEM if a node can't be allocated.
    pub fn insert(&mut self, index: u64, value: u64) -> Result<Option<u64>> {
        if index >> (BITS * MAX_HEIGHT as u32) != 0 {
            return Err(Errno::EFBIG);
        }
        while index >> (BITS * u32::from(self.height)) != 0 {
            if self.root != 0 {
                let above = new_node()?;
                // SAFETY: a fresh node.
                unsafe { (*node(above))[0] = self.root };
                self.root = above + ONE;
            }
            self.height += 1;
        }
        let mut parent: *mut u64 = core::ptr::null_mut();
        let mut at: *mut u64 = &mut self.root;
        for level in (0..u32::from(self.height)).rev() {
            // SAFETY: `at` and `parent` point at slots of this tree, which `&mut self` keeps to us;
            // a slot above the lowest level is empty or a node.
            unsafe {
                if *at == 0 {
                    *at = new_node()?;
                    if !parent.is_null() {
                        *parent += ONE;
                    }
                }
                parent = at;
                at = &raw mut (*node(*at))[position(index, level)];
            }
        }
        // SAFETY: as above.
        unsafe {
            let old = *at;
            *at = value << 1 | VALUE;
            if old == 0 && !parent.is_null() {
                *parent += ONE;
            }
            Ok((old != 0).then_some(old >> 1))
        }
    }

    /// Changes the value at `index`, if there is one.
    pub fn update(&mut self, index: u64, value: u64) {
        let mut level = u32::from(self.height);
        if index >> (BITS * level) != 0 {
            return;
        }
        let mut at: *mut u64 = &mut self.root;
        // SAFETY: `at` points at a slot of this tree; slots above the lowest level are empty or
        // nodes.
        unsafe {
            while level > 0 && *at != 0 {
                level -= 1;
                at = &raw mut (*node(*at))[position(index, level)];
            }
            if *at != 0 {
                *at = value << 1 | VALUE;
            }
        }
    }

    /// Removes and returns the value at `index`.
    pub fn remove(&mut self, index: u64) -> Option<u64> {
        let height = usize::from(self.height);
        if index >> (BITS * height as u32) != 0 {
            return None;
        }
        let mut path = [core::ptr::null_mut::<u64>(); MAX_HEIGHT + 1];
        let mut at: *mut u64 = &mut self.root;
        // SAFETY: every pointer in `path` is a slot of this tree, whose nodes live until freed
        // below, lowest first.
        unsafe {
            for (depth, entry) in path[..height].iter_mut().enumerate() {
                if *at == 0 {
                    return None;
                }
                *entry = at;
                at = &raw mut (*node(*at))[position(index, (height - 1 - depth) as u32)];
            }
            let old = *at;
            if old == 0 {
                return None;
            }
            *at = 0;
            for &parent in path[..height].iter().rev() {
                *parent -= ONE;
                if *parent & COUNT != 0 {
                    break;
                }
                free_node(*parent);
                *parent = 0;
            }
            if self.root == 0 {
                self.height = 0;
            }
            Some(old >> 1)
        }
    }

    /// Calls `f` with every value.
    pub fn visit(&self, f: &mut impl FnMut(u64)) {
        visit_below(self.root, u32::from(self.height), f);
    }

    /// Calls `f` with the values of `start..end` and their indices, in order.
    pub fn range(&self, start: u64, end: u64, f: &mut impl FnMut(u64, u64)) {
        let mut at = start;
        while at < end {
            // The lowest node that holds `at` serves up to its own end.
            let stop = ((at | (FANOUT as u64 - 1)) + 1).min(end);
            match self.lowest(at) {
                Some(Lowest::Node(slots)) => {
                    for index in at..stop {
                        // SAFETY: `lowest` gave a node of this tree, which isn't changed meanwhile.
                        let slot = unsafe { (*slots)[index as usize % FANOUT] };
                        if slot != 0 {
                            f(index, slot >> 1);
                        }
                    }
                    at = stop;
                }
                Some(Lowest::Root(slot)) => {
                    f(0, slot >> 1);
                    return;
                }
                None => match self.next(stop) {
                    Some((next, _)) => at = next,
                    None => return,
                },
            }
        }
    }

    fn lowest(&self, index: u64) -> Option<Lowest> {
        let mut level = u32::from(self.height);
        if index >> (BITS * level) != 0 || self.root == 0 {
            return None;
        }
        if level == 0 {
            return Some(Lowest::Root(self.root));
        }
        let mut slot = self.root;
        while level > 1 {
            level -= 1;
            // SAFETY: slots above the lowest level are empty or nodes that this tree owns.
            slot = unsafe { (*node(slot))[position(index, level)] };
            if slot == 0 {
                return None;
            }
        }
        Some(Lowest::Node(node(slot)))
    }

    /// The first value at `index` or later, with its index.
    pub fn next(&self, index: u64) -> Option<(u64, u64)> {
        let height = u32::from(self.height);
        if index >> (BITS * height) != 0 {
            return None;
        }
        next_below(self.root, height, 0, index)
    }
}

/// Where the values around an index are.
enum Lowest {
    Node(*const Slots),
    /// The tree is a single value, at index 0.
    Root(u64),
}

impl Default for Radix {
    fn default() -> Self {
        Radix::new()
    }
}

impl Drop for Radix {
    fn drop(&mut self) {
        free_below(self.root, u32::from(self.height));
    }
}

fn node(slot: u64) -> *mut Slots {
    (slot & !0x1ff) as usize as *mut Slots
}

fn position(index: u64, level: u32) -> usize {
    (index >> (BITS * level)) as usize % FANOUT
}

fn new_node() -> Result<u64> {
    // SAFETY: the layout has a size.
    let memory = unsafe { alloc::alloc::alloc_zeroed(LAYOUT) };
    NonZeroU64::new(memory as u64).map(NonZeroU64::get).ok_or(Errno::ENOMEM)
}

/// # Safety
/// `slot` is a node that nothing refers to any more.
unsafe fn free_node(slot: u64) {
    // SAFETY: `new_node` allocated it with this layout.
    unsafe { alloc::alloc::dealloc(node(slot).cast(), LAYOUT) };
}

fn next_below(slot: u64, level: u32, base: u64, index: u64) -> Option<(u64, u64)> {
    if slot == 0 {
        return None;
    }
    let Some(below) = level.checked_sub(1) else { return Some((base, slot >> 1)) };
    let first = if index <= base { 0 } else { position(index, below) };
    for at in first..FANOUT {
        // SAFETY: a slot above the lowest level is a node.
        let child = unsafe { (*node(slot))[at] };
        if child == 0 {
            continue;
        }
        let found = next_below(child, below, base + ((at as u64) << (BITS * below)), index);
        if found.is_some() {
            return found;
        }
    }
    None
}

fn visit_below(slot: u64, level: u32, f: &mut impl FnMut(u64)) {
    if slot == 0 {
        return;
    }
    let Some(below) = level.checked_sub(1) else { return f(slot >> 1) };
    for at in 0..FANOUT {
        // SAFETY: a slot above the lowest level is a node.
        visit_below(unsafe { (*node(slot))[at] }, below, f);
    }
}

fn free_below(slot: u64, level: u32) {
    if level == 0 || slot == 0 {
        return;
    }
    if level > 1 {
        for at in 0..FANOUT {
            // SAFETY: a slot above the lowest level is a node.
            free_below(unsafe { (*node(slot))[at] }, level - 1);
        }
    }
    // SAFETY: the tree is being dropped and the nodes below are gone.
    unsafe { free_node(slot) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn behaves_as_an_ordered_map() {
        let mut tree = Radix::new();
        let mut model = BTreeMap::new();
        let mut seed = 3u64;
        for round in 0..40_000u64 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
            let random = seed >> 20;
            let index = match random % 4 {
                0 => random >> 8 & 0xff,
                1 => random >> 8 & 0xffff,
                2 => 1 << (random >> 8 & 0x1f),
                _ => (random >> 8 & 0xff) << 30,
            };
            match random >> 4 & 7 {
                0..4 => assert_eq!(tree.insert(index, round).unwrap(), model.insert(index, round)),
                4 => {
                    tree.update(index, round);
                    model.entry(index).and_modify(|value| *value = round);
                }
                _ => assert_eq!(tree.remove(index), model.remove(&index)),
            }
            assert_eq!(tree.get(index), model.get(&index).copied());
            let next = model.range(index / 2..).next().map(|(&index, &value)| (index, value));
            assert_eq!(tree.next(index / 2), next);
            if round % 64 == 0 {
                let mut seen = Vec::new();
                tree.range(index / 2, index + 300, &mut |index, value| seen.push((index, value)));
                let want: Vec<_> = model
                    .range(index / 2..index + 300)
                    .map(|(&index, &value)| (index, value))
                    .collect();
                assert_eq!(seen, want);
            }
        }
        while let Some((index, value)) = tree.next(0) {
            assert_eq!(tree.remove(index), Some(value));
            assert_eq!(model.remove(&index), Some(value));
        }
        assert!(model.is_empty() && tree.root == 0 && tree.height == 0);
    }

    #[test]
    fn a_single_page_needs_no_node_and_huge_indices_fail() {
        let mut tree = Radix::new();
        tree.insert(0, 5).unwrap();
        assert_eq!(tree.height, 0);
        assert_eq!(tree.insert(1 << 54, 1), Err(Errno::EFBIG));
        assert_eq!(tree.get(u64::MAX), None);
        tree.insert((1 << 54) - 1, 9).unwrap();
        assert_eq!(tree.next(1), Some(((1 << 54) - 1, 9)));
        assert_eq!(tree.get(0), Some(5));
    }
}

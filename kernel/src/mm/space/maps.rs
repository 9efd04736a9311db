//! The mappings of an address space, in order: finding, cutting, joining, and finding room.

use super::vma::{Prot, VmFlags, Vma};
use crate::arch::PAGE_SIZE;
use crate::errno::{Errno, Result};
use crate::mm::commit;
use crate::setting::Setting;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Most mappings of one address space (`vm.max_map_count`).
pub static MAX_MAPS: Setting = Setting::new(65_530, 0, i32::MAX as i64);
/// Bytes kept free below a mapping that grows down.
pub const STACK_GUARD: usize = 256 * PAGE_SIZE;

/// Ordered, disjoint mappings.
pub struct Maps {
    tree: BTreeMap<usize, Vma>,
    /// Bytes mapped, those of them that count as data, and those locked.
    total: usize,
    data: usize,
    locked: usize,
    /// Bytes that count as promised.
    promised: usize,
    /// No hole of `hint_len` bytes or more lies between this address and the top of the search.
    hint: usize,
    hint_len: usize,
    pub brk_start: usize,
    pub brk: usize,
    /// `mlockall(MCL_FUTURE)`.
    pub lock_future: bool,
}

impl Maps {
    /// No mappings.
    pub const fn new() -> Maps {
        Maps {
            tree: BTreeMap::new(),
            total: 0,
            data: 0,
            locked: 0,
            promised: 0,
            hint: usize::MAX,
            hint_len: 0,
            brk_start: 0,
            brk: 0,
            lock_future: false,
        }
    }

    pub fn total(&self) -> usize {
        self.total
    }

    pub fn data(&self) -> usize {
        self.data
    }

    pub fn locked(&self) -> usize {
        self.locked
    }

    pub fn promised(&self) -> usize {
        self.promised
    }

    pub fn count(&self) -> usize {
        self.tree.len()
    }

    /// The mapping that contains `addr`.
    pub fn find(&self, addr: usize) -> Option<&Vma> {
        self.tree.range(..=addr).next_back().map(|(_, vma)| vma).filter(|vma| addr < vma.end)
    }

    /// The first mapping that starts above `addr`.
    pub fn above(&self, addr: usize) -> Option<&Vma> {
        self.tree.range(addr + 1..).next().map(|(_, vma)| vma)
    }

    /// The last mapping that ends at or below `addr`.
    pub fn below(&self, addr: usize) -> Option<&Vma> {
        self.tree.range(..addr).next_back().map(|(_, vma)| vma).filter(|vma| vma.end <= addr)
    }

    /// All mappings in order.
    pub fn iter(&self) -> impl Iterator<Item = &Vma> {
        self.tree.values()
    }

    /// The mappings that intersect `start..end`, in order.
    pub fn range(&self, start: usize, end: usize) -> impl Iterator<Item = &Vma> {
        let first = self.find(start).map_or(start, |vma| vma.start);
        self.tree.range(first..end.max(first)).map(|(_, vma)| vma)
    }

    /// Whether mappings cover all of `start..end`.
    pub fn covers(&self, start: usize, end: usize) -> bool {
        let mut at = start;
        for vma in self.range(start, end) {
            if vma.start > at {
                return false;
            }
            at = vma.end;
        }
        at >= end
    }

    /// Adds a mapping where there is none, joined with its neighbours where they are alike.
    pub fn insert(&mut self, mut vma: Vma) {
        self.account(&vma, true);
        if let Some(next) = self.tree.get(&vma.end)
            && vma.joins(next)
        {
            let next_start = vma.end;
            if let Some(next) = self.tree.remove(&next_start) {
                vma.end = next.end;
            }
        }
        if let Some((_, previous)) = self.tree.range_mut(..vma.start).next_back()
            && previous.joins(&vma)
        {
            previous.end = vma.end;
            return;
        }
        self.tree.insert(vma.start, vma);
    }

    /// Takes all mappings of `start..end` out, cutting those at the edges. ENOMEM if cutting
    /// exceeds the limit.
    pub fn remove(&mut self, start: usize, end: usize) -> Result<Vec<Vma>> {
        let (mut cuts, mut removed) = (0, Vec::new());
        let mut count = 0;
        for vma in self.range(start, end) {
            cuts += usize::from(vma.start < start && vma.end > end);
            count += 1;
        }
        if cuts > 0 && self.tree.len() >= MAX_MAPS.size() {
            return Err(Errno::ENOMEM);
        }
        removed.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
        self.cut(start);
        self.cut(end);
        while let Some((&key, _)) = self.tree.range(start..end).next() {
            if let Some(vma) = self.tree.remove(&key) {
                self.account(&vma, false);
                removed.push(vma);
            }
        }
        if end > self.hint && !removed.is_empty() {
            self.hint = usize::MAX;
            self.hint_len = 0;
        }
        Ok(removed)
    }

    /// Changes every mapping of `start..end`, cutting at the edges and joining again afterwards.
    pub fn update(&mut self, start: usize, end: usize, change: impl Fn(&mut Vma)) -> Result<()> {
        if self.tree.len() + 2 > MAX_MAPS.size() {
            return Err(Errno::ENOMEM);
        }
        if self.update_in_place(start, end, &change) {
            return Ok(());
        }
        self.cut(start);
        self.cut(end);
        let mut at = start;
        while let Some((&key, _)) = self.tree.range(at..end).next() {
            let Some(mut vma) = self.tree.remove(&key) else { break };
            self.account(&vma, false);
            change(&mut vma);
            at = vma.end;
            self.insert(vma);
        }
        // The last piece may join with what follows.
        if let Some(next) = self.tree.remove(&end) {
            self.account(&next, false);
            self.insert(next);
        }
        Ok(())
    }

    /// Changes the one mapping that is `start..end`, unless there is none or it then joins with a
    /// neighbour. Returns whether it did.
    fn update_in_place(&mut self, start: usize, end: usize, change: impl Fn(&mut Vma)) -> bool {
        let mut around = self.tree.range(..=end).rev().map(|(_, vma)| vma).peekable();
        let next = around.next_if(|vma| vma.start == end);
        let Some(old) = around.next().filter(|vma| vma.start == start && vma.end == end) else {
            return false;
        };
        let mut vma = old.clone();
        change(&mut vma);
        if next.is_some_and(|next| vma.joins(next))
            || around.next().is_some_and(|previous| previous.joins(&vma))
        {
            return false;
        }
        self.account(&vma, true);
        if let Some(slot) = self.tree.get_mut(&start) {
            let old = core::mem::replace(slot, vma);
            self.account(&old, false);
        }
        true
    }

    /// Lets a mapping that grows down start lower.
    pub fn grow_down(&mut self, start: usize, new_start: usize) {
        if let Some(mut vma) = self.tree.remove(&start) {
            self.account(&vma, false);
            vma.start = new_start;
            self.account(&vma, true);
            self.tree.insert(new_start, vma);
        }
    }

    fn cut(&mut self, at: usize) {
        if let Some((_, vma)) = self.tree.range_mut(..at).next_back()
            && vma.end > at
        {
            let upper = vma.split_off(at);
            self.tree.insert(at, upper);
        }
    }

    fn account(&mut self, vma: &Vma, add: bool) {
        let apply = |sum: &mut usize, counts: bool| {
            if counts {
                *sum = if add { *sum + vma.len() } else { *sum - vma.len() };
            }
        };
        apply(&mut self.total, true);
        apply(&mut self.data, vma.is_data());
        apply(&mut self.locked, vma.flags.contains(VmFlags::LOCKED));
        apply(&mut self.promised, vma.is_promised());
        match vma.is_promised() {
            true if add => commit::add(vma.len()),
            true => commit::remove(vma.len()),
            false => {}
        }
    }

    /// The highest hole of `len` bytes in `low..high`.
    pub fn find_room(&mut self, len: usize, low: usize, high: usize) -> Option<usize> {
        let from_hint = self.hint < high && len >= self.hint_len;
        let found = self.search(len, low, if from_hint { self.hint } else { high });
        if let Some(at) = found {
            self.hint = at;
            self.hint_len = len;
        }
        found
    }

    fn search(&self, len: usize, low: usize, high: usize) -> Option<usize> {
        let mut top = high;
        // A mapping may reach over `high` or grow down towards it.
        if let Some(vma) = self.find(high.saturating_sub(1)).or_else(|| self.above(high - 1)) {
            top = top.min(floor(vma));
        }
        for (_, vma) in self.tree.range(..high).rev() {
            if vma.end <= top && top - vma.end >= len {
                break;
            }
            top = top.min(floor(vma));
        }
        top.checked_sub(len).filter(|&at| at >= low)
    }

    /// As [`find_room`](Maps::find_room), but the lowest hole (legacy layout, `MAP_32BIT`).
    pub fn find_room_low(&self, len: usize, low: usize, high: usize) -> Option<usize> {
        let mut at = low;
        for vma in self.range(low, high) {
            if floor(vma) >= at && floor(vma) - at >= len {
                break;
            }
            at = at.max(vma.end);
        }
        let limit = self.above(at.saturating_sub(1)).map_or(high, |vma| floor(vma).min(high));
        (at <= limit && limit - at >= len).then_some(at)
    }
}

impl Drop for Maps {
    fn drop(&mut self) {
        commit::remove(self.promised);
    }
}

/// The lowest address that belongs to a mapping, with the room it may grow into.
fn floor(vma: &Vma) -> usize {
    if vma.flags.contains(VmFlags::GROWS_DOWN) && vma.prot != Prot::empty() {
        vma.start.saturating_sub(STACK_GUARD)
    } else {
        vma.start
    }
}

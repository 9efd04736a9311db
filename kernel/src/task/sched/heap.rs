//! The order of runnable tasks: a binary heap by virtual time, first come first served among
//! equals.

use alloc::vec::Vec;

struct Item<T> {
    key: u64,
    serial: u64,
    value: T,
}

/// Smallest key first.
pub struct Heap<T> {
    items: Vec<Item<T>>,
    serial: u64,
}

impl<T> Heap<T> {
    /// An empty heap.
    pub const fn new() -> Self {
        Heap { items: Vec::new(), serial: 0 }
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The smallest key.
    pub fn first_key(&self) -> Option<u64> {
        self.items.first().map(|item| item.key)
    }

    /// Adds a member.
    pub fn push(&mut self, key: u64, value: T) {
        self.serial += 1;
        self.items.push(Item { key, serial: self.serial, value });
        self.up(self.items.len() - 1);
    }

    /// Takes the member with the smallest key.
    pub fn pop(&mut self) -> Option<T> {
        (!self.items.is_empty()).then(|| self.remove_at(0))
    }

    /// Takes the smallest-keyed member among those `wanted` (a scan, for stealing).
    pub fn take_first(&mut self, wanted: impl Fn(&T) -> bool) -> Option<T> {
        let order = |at: &usize| (self.items[*at].key, self.items[*at].serial);
        let candidates = (0..self.items.len()).filter(|&at| wanted(&self.items[at].value));
        let at = candidates.min_by_key(order)?;
        Some(self.remove_at(at))
    }

    /// Whether there is a member like that (a scan).
    pub fn any(&self, wanted: impl Fn(&T) -> bool) -> bool {
        self.items.iter().any(|item| wanted(&item.value))
    }

    fn remove_at(&mut self, at: usize) -> T {
        let removed = self.items.swap_remove(at);
        if at < self.items.len() {
            self.down(at);
            self.up(at);
        }
        removed.value
    }

    fn before(&self, a: usize, b: usize) -> bool {
        let (a, b) = (&self.items[a], &self.items[b]);
        (a.key, a.serial) < (b.key, b.serial)
    }

    fn up(&mut self, mut at: usize) {
        while at > 0 && self.before(at, (at - 1) / 2) {
            self.items.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
    }

    fn down(&mut self, mut at: usize) {
        loop {
            let mut least = at;
            for child in [2 * at + 1, 2 * at + 2] {
                if child < self.items.len() && self.before(child, least) {
                    least = child;
                }
            }
            if least == at {
                return;
            }
            self.items.swap(at, least);
            at = least;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_leave_in_order_and_equals_by_age() {
        let mut heap = Heap::new();
        let mut state = 1u64;
        let mut model = Vec::new();
        for serial in 0..500u64 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let key = state >> 60;
            heap.push(key, (key, serial));
            model.push((key, serial));
            if state >> 20 & 3 == 0 {
                let (at, _) = model.iter().enumerate().min_by_key(|(_, item)| **item).unwrap();
                assert_eq!(heap.pop(), Some(model.remove(at)));
            }
            if state >> 20 & 31 == 1 {
                let odd = |item: &(u64, u64)| item.1 % 2 == 1;
                let best = model.iter().copied().filter(odd).min();
                assert_eq!(heap.take_first(odd), best);
                model.retain(|item| Some(*item) != best);
            }
        }
        model.sort_unstable();
        assert_eq!(core::iter::from_fn(|| heap.pop()).collect::<Vec<_>>(), model);
    }
}

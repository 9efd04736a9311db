//! A sorted vector, for few entries or entries that come in order.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::borrow::Borrow;

/// A map in a vector. Looking up takes logarithmic time; adding and removing move what is behind.
pub struct Sorted<K, V>(Vec<(K, V)>);

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Sorted::new()
    }
}

impl<K, V> Sorted<K, V> {
    /// An empty map.
    pub const fn new() -> Sorted<K, V> {
        Sorted(Vec::new())
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All entries in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// All keys in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> {
        self.0.iter().map(|(key, _)| key)
    }

    /// All values, by order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    /// The same, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }

    /// The values alone.
    pub fn into_values(self) -> impl Iterator<Item = V> {
        self.0.into_iter().map(|(_, value)| value)
    }

    /// The entry with the greatest key.
    pub fn last_mut(&mut self) -> Option<(&K, &mut V)> {
        self.0.last_mut().map(|(key, value)| (&*key, value))
    }

    /// Takes the entry with the greatest key out.
    pub fn pop_last(&mut self) -> Option<(K, V)> {
        self.0.pop()
    }

    /// Keeps the entries for which `keep` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        self.0.retain_mut(|(key, value)| keep(key, value));
    }

    /// Makes room for one more entry.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn try_reserve(&mut self) -> Result<(), TryReserveError> {
        self.0.try_reserve(1)
    }
}

impl<K: Ord, V> Sorted<K, V> {
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        self.0.binary_search_by(|(other, _)| other.borrow().cmp(key))
    }

    /// Whether there is an entry with this key.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.find(key).is_ok()
    }

    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        Some(&self.0.get(self.find(key).ok()?)?.1)
    }

    /// The same, to be changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let at = self.find(key).ok()?;
        Some(&mut self.0.get_mut(at)?.1)
    }

    /// The value of a key, which `make` makes if there is none.
    pub fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        let at = match self.find(&key) {
            Ok(at) => at,
            Err(at) => {
                self.0.insert(at, (key, make()));
                at
            }
        };
        &mut self.0[at].1
    }

    /// Sets the value of a key. Returns the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.find(&key) {
            Ok(at) => Some(core::mem::replace(&mut self.0[at].1, value)),
            Err(at) => {
                self.0.insert(at, (key, value));
                None
            }
        }
    }

    /// Takes an entry out.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let at = self.find(key).ok()?;
        Some(self.0.remove(at).1)
    }
}

impl<V> Sorted<i32, V> {
    /// The lowest number, from 0 on, that is no key. There are no keys below 0.
    pub fn lowest_free(&self) -> i32 {
        let (mut low, mut high) = (0, self.0.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.0[middle].0 as usize == middle {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low as i32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_in_order_whatever_order_they_came_in() {
        let mut map = Sorted::new();
        for key in [5, 1, 9, 3] {
            assert_eq!(map.insert(key, key * 10), None);
        }
        assert_eq!(map.insert(3, 33), Some(30));
        *map.get_or_insert_with(7, || 0) += 1;
        assert_eq!(*map.get_or_insert_with(7, || 100), 1);
        assert_eq!(map.keys().copied().collect::<Vec<_>>(), [1, 3, 5, 7, 9]);
        assert_eq!((map.get(&3), map.get(&4)), (Some(&33), None));
        assert_eq!((map.remove(&5), map.remove(&5)), (Some(50), None));
        map.retain(|&key, _| key != 1);
        assert_eq!(map.pop_last(), Some((9, 90)));
        assert_eq!(map.iter().map(|(&k, &v)| (k, v)).collect::<Vec<_>>(), [(3, 33), (7, 1)]);
    }

    #[test]
    fn the_lowest_free_number_is_found() {
        let mut map = Sorted::new();
        for number in 0..20 {
            assert_eq!(map.lowest_free(), number);
            map.insert(number, ());
        }
        for number in [19, 7, 3, 0] {
            map.remove(&number);
            assert_eq!(map.lowest_free(), number);
        }
    }
}

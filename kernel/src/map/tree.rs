//! One B-tree for pointers of all kinds.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;

/// A pointer that owns what it points to, in one word.
///
/// # Safety
/// Whoever implements it has the size and the alignment of `*mut ()`, and no padding.
pub unsafe trait Thin {}

// SAFETY: these three are a single pointer each, for sized types.
unsafe impl<T> Thin for Box<T> {}
// SAFETY: as above.
unsafe impl<T> Thin for Arc<T> {}
// SAFETY: as above; without a target it is a pointer that dangles.
unsafe impl<T> Thin for Weak<T> {}

/// Several things under one key: the box makes one word of a vector.
pub type Several<T> = Box<Vec<T>>;

/// What all trees are. The functions are not inlined: that is what they are for.
struct Words(BTreeMap<u128, *mut ()>);

impl Words {
    #[inline(never)]
    fn insert(&mut self, key: u128, word: *mut ()) -> Option<*mut ()> {
        self.0.insert(key, word)
    }

    #[inline(never)]
    fn remove(&mut self, key: u128) -> Option<*mut ()> {
        self.0.remove(&key)
    }

    #[inline(never)]
    fn get(&self, key: u128) -> Option<&*mut ()> {
        self.0.get(&key)
    }

    #[inline(never)]
    fn get_mut(&mut self, key: u128) -> Option<&mut *mut ()> {
        self.0.get_mut(&key)
    }

    #[inline(never)]
    fn next(&self, key: u128) -> Option<(&u128, &*mut ())> {
        self.0.range(key..).next()
    }

    #[inline(never)]
    fn first(&self) -> Option<(&u128, &*mut ())> {
        self.0.first_key_value()
    }

    #[inline(never)]
    fn pop_first(&mut self) -> Option<(u128, *mut ())> {
        self.0.pop_first()
    }
}

/// An ordered map from numbers to things behind a pointer.
pub struct Tree<P: Thin> {
    words: Words,
    owns: PhantomData<P>,
}

// SAFETY: the words are pointers of type `P`, and reached only as such.
unsafe impl<P: Thin + Send> Send for Tree<P> {}
// SAFETY: as above.
unsafe impl<P: Thin + Sync> Sync for Tree<P> {}

fn into_word<P: Thin>(pointer: P) -> *mut () {
    const { assert!(size_of::<P>() == size_of::<*mut ()>()) };
    let pointer = ManuallyDrop::new(pointer);
    // SAFETY: of one size by the assertion, initialised throughout by the trait's contract; the
    // original isn't dropped.
    unsafe { core::mem::transmute_copy::<ManuallyDrop<P>, *mut ()>(&pointer) }
}

/// # Safety
/// The word comes from [`into_word`] for the same type, and is used no more.
unsafe fn from_word<P: Thin>(word: *mut ()) -> P {
    // SAFETY: the caller's, and the bits are those of a `P`.
    unsafe { core::mem::transmute_copy::<*mut (), P>(&word) }
}

impl<P: Thin> Default for Tree<P> {
    fn default() -> Self {
        Tree::new()
    }
}

impl<P: Thin> Tree<P> {
    /// An empty map.
    pub const fn new() -> Tree<P> {
        Tree { words: Words(BTreeMap::new()), owns: PhantomData }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.words.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.words.0.is_empty()
    }

    /// Whether there is an entry with this key.
    pub fn contains_key(&self, key: u128) -> bool {
        self.words.get(key).is_some()
    }

    fn typed(word: &*mut ()) -> &P {
        // SAFETY: every word in the tree is a `P`, of the same layout, and borrowed with the tree.
        unsafe { &*core::ptr::from_ref(word).cast::<P>() }
    }

    /// The value of a key.
    pub fn get(&self, key: u128) -> Option<&P> {
        self.words.get(key).map(Self::typed)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, key: u128) -> Option<&mut P> {
        let word = self.words.get_mut(key)?;
        // SAFETY: as in `typed`; the tree is borrowed mutably, and what is put there is a `P`.
        Some(unsafe { &mut *core::ptr::from_mut(word).cast::<P>() })
    }

    /// Sets the value of a key. Returns the one before.
    pub fn insert(&mut self, key: u128, value: P) -> Option<P> {
        let old = self.words.insert(key, into_word(value));
        // SAFETY: it was in the tree and is no more.
        old.map(|word| unsafe { from_word(word) })
    }

    /// The value of a key, which `make` makes if there is none.
    pub fn get_or_insert_with(&mut self, key: u128, make: impl FnOnce() -> P) -> &mut P {
        if !self.contains_key(key) {
            self.insert(key, make());
        }
        // There, by the lines above.
        self.get_mut(key).unwrap()
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: u128) -> Option<P> {
        // SAFETY: it was in the tree and is no more.
        self.words.remove(key).map(|word| unsafe { from_word(word) })
    }

    /// The entry with the least key.
    pub fn first(&self) -> Option<(u128, &P)> {
        self.words.first().map(|(&key, word)| (key, Self::typed(word)))
    }

    /// The entry with the least key that isn't less than `key`.
    pub fn next(&self, key: u128) -> Option<(u128, &P)> {
        self.words.next(key).map(|(&key, word)| (key, Self::typed(word)))
    }

    /// Takes the entry with the least key out.
    pub fn pop_first(&mut self) -> Option<(u128, P)> {
        // SAFETY: it was in the tree and is no more.
        self.words.pop_first().map(|(key, word)| (key, unsafe { from_word(word) }))
    }

    /// All entries in order, from a key on.
    pub fn from(&self, key: u128) -> impl Iterator<Item = (u128, &P)> {
        self.words.0.range(key..).map(|(&key, word)| (key, Self::typed(word)))
    }

    /// All values, by order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &P> {
        self.words.0.values().map(Self::typed)
    }
}

impl<P: Thin> Drop for Tree<P> {
    fn drop(&mut self) {
        while self.pop_first().is_some() {}
    }
}

/// A key of two parts, ordered by the first.
pub const fn pair(high: u64, low: u64) -> u128 {
    (high as u128) << 64 | low as u128
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_in_order_and_nothing_is_dropped_twice() {
        let counted = Arc::new(());
        let mut tree = Tree::new();
        for key in [7, u128::MAX, 3, pair(1, 0)] {
            assert!(tree.insert(key, Box::new((key, counted.clone()))).is_none());
        }
        assert!(tree.insert(3, Box::new((33, counted.clone()))).is_some_and(|old| old.0 == 3));
        assert_eq!(Arc::strong_count(&counted), 5);
        let keys: Vec<u128> = tree.from(4).map(|(key, _)| key).collect();
        assert_eq!(keys, [7, pair(1, 0), u128::MAX]);
        if let Some(value) = tree.get_mut(7) {
            value.0 = 70;
        }
        assert_eq!(tree.get(7).map(|value| value.0), Some(70));
        assert!(tree.remove(7).is_some() && tree.remove(7).is_none());
        assert_eq!(tree.pop_first().map(|(key, value)| (key, value.0)), Some((3, 33)));
        assert_eq!((tree.len(), Arc::strong_count(&counted)), (2, 3));
        drop(tree);
        assert_eq!(Arc::strong_count(&counted), 1);
    }

    #[test]
    fn pointers_of_all_kinds_are_kept_whole() {
        let shared = Arc::new(5);
        let mut weak = Tree::new();
        weak.insert(1, Arc::downgrade(&shared));
        weak.insert(2, Weak::new());
        let found: Vec<_> = weak.values().map(Weak::upgrade).collect();
        assert_eq!(found, [Some(shared.clone()), None]);
        drop(weak);
        assert_eq!(Arc::weak_count(&shared), 0);
    }
}

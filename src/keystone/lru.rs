//! A map that is bounded by its number of entries and by their bytes, and drops the least recently used ones.
//!
//! Entries stand in a slab and form a list by their indices, so that a look-up that moves an entry to the front costs no
//! allocation. The crate that the server uses for its other caches bounds one weight and approximates the order; this map
//! bounds two, and its order is exact, which the property tests rely on.

use std::collections::HashMap;
use std::hash::Hash;

/// The index that stands for no entry.
const NONE: usize = usize::MAX;

/// What the map keeps for each entry beside the value's own bytes: the slot, and the key's place in the index.
const OVERHEAD_BYTES: usize = 96;

/// A bounded map in the order of use. See the module's docs.
#[derive(Debug)]
pub(super) struct Lru<K, V> {
    index: HashMap<K, usize>,
    slots: Vec<Slot<K, V>>,
    /// The slots that are not in use.
    vacant: Vec<usize>,
    newest: usize,
    oldest: usize,
    bytes: usize,
    max_entries: usize,
    max_bytes: usize,
}

#[derive(Debug)]
struct Slot<K, V> {
    key: K,
    /// `None` while the slot is vacant.
    value: Option<V>,
    bytes: usize,
    newer: usize,
    older: usize,
}

impl<K: Copy + Eq + Hash, V> Lru<K, V> {
    /// Creates an empty map. It allocates nothing until entries come.
    pub(super) fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self {
            index: HashMap::new(),
            slots: Vec::new(),
            vacant: Vec::new(),
            newest: NONE,
            oldest: NONE,
            bytes: 0,
            max_entries,
            max_bytes,
        }
    }

    /// Returns the number of entries.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Returns the bytes of all entries, the map's own included.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the value of a key and makes the entry the most recently used one.
    pub(super) fn get(&mut self, key: &K) -> Option<&V> {
        let at = *self.index.get(key)?;
        self.unlink(at);
        self.link_newest(at);
        self.slots[at].value.as_ref()
    }

    /// Returns the value of a key and leaves the order as it is.
    pub(super) fn peek(&self, key: &K) -> Option<&V> {
        let at = *self.index.get(key)?;
        self.slots[at].value.as_ref()
    }

    /// Inserts a value of `bytes` bytes, or replaces the key's value, and drops the least recently used entries until both
    /// bounds hold again. Returns how many entries it dropped, the new one included where that alone exceeds a bound.
    pub(super) fn insert(&mut self, key: K, value: V, bytes: usize) -> usize {
        self.remove(&key);
        let bytes = bytes.saturating_add(OVERHEAD_BYTES);
        if self.max_entries == 0 || bytes > self.max_bytes {
            return 1;
        }
        let mut dropped = 0;
        while self.len() >= self.max_entries || self.bytes > self.max_bytes - bytes {
            let oldest = self.slots[self.oldest].key;
            self.remove(&oldest);
            dropped += 1;
        }
        let slot = Slot {
            key,
            value: Some(value),
            bytes,
            newer: NONE,
            older: NONE,
        };
        let at = match self.vacant.pop() {
            Some(at) => {
                self.slots[at] = slot;
                at
            }
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        };
        self.index.insert(key, at);
        self.bytes += bytes;
        self.link_newest(at);
        dropped
    }

    /// Removes a key and returns its value.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.index.remove(key)?;
        self.unlink(at);
        self.vacant.push(at);
        self.bytes -= self.slots[at].bytes;
        self.slots[at].value.take()
    }

    fn unlink(&mut self, at: usize) {
        let Slot { newer, older, .. } = self.slots[at];
        match newer {
            NONE => self.newest = older,
            newer => self.slots[newer].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.slots[older].newer = newer,
        }
    }

    fn link_newest(&mut self, at: usize) {
        let before = std::mem::replace(&mut self.newest, at);
        (self.slots[at].newer, self.slots[at].older) = (NONE, before);
        match before {
            NONE => self.oldest = at,
            before => self.slots[before].newer = at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn insert_drops_the_least_recently_used_entry() {
        let mut map = Lru::new(2, usize::MAX);
        assert_eq!((map.insert(1, "a", 0), map.insert(2, "b", 0)), (0, 0));
        assert_eq!(map.get(&1), Some(&"a"));
        assert_eq!(map.peek(&2), Some(&"b"), "a peek does not count as a use");
        assert_eq!(map.insert(3, "c", 0), 1);
        assert_eq!((map.peek(&1), map.peek(&2)), (Some(&"a"), None));
        assert_eq!(map.remove(&1), Some("a"));
        assert_eq!((map.len(), map.remove(&1)), (1, None));
    }

    #[test]
    fn an_entry_above_the_bound_of_bytes_is_not_kept() {
        let mut map = Lru::new(10, 1000);
        assert_eq!(map.insert(1, (), 500), 0);
        assert_eq!(map.insert(1, (), 1000), 1);
        assert_eq!((map.len(), map.bytes()), (0, 0));
        let mut none = Lru::new(0, 1000);
        assert_eq!((none.insert(1, (), 0), none.len()), (1, 0));
    }

    /// The same map, the simple way: a list, newest first.
    struct Model(Vec<(u8, u32, usize)>, usize, usize);

    impl Model {
        fn insert(&mut self, key: u8, value: u32, bytes: usize) {
            self.0.retain(|(other, ..)| *other != key);
            self.0.insert(0, (key, value, bytes + OVERHEAD_BYTES));
            while self.0.len() > self.1 || self.bytes() > self.2 {
                self.0.pop();
            }
        }

        fn get(&mut self, key: u8) -> Option<u32> {
            let at = self.0.iter().position(|(other, ..)| *other == key)?;
            let entry = self.0.remove(at);
            self.0.insert(0, entry);
            Some(entry.1)
        }

        fn bytes(&self) -> usize {
            self.0.iter().map(|(.., bytes)| bytes).sum()
        }
    }

    #[test]
    fn random_uses_agree_with_a_list_and_never_exceed_a_bound() {
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (entries, bytes) = (random.usize(1..8), random.usize(200..2000));
            let mut map = Lru::new(entries, bytes);
            let mut model = Model(Vec::new(), entries, bytes);
            for value in 0..2000 {
                let key = random.u8(0..12);
                match random.u8(0..4) {
                    0 | 1 => {
                        let size = random.usize(0..300);
                        let fits = size + OVERHEAD_BYTES <= bytes;
                        map.insert(key, value, size);
                        match fits {
                            true => model.insert(key, value, size),
                            false => model.0.retain(|(other, ..)| *other != key),
                        }
                    }
                    2 => assert_eq!(map.get(&key).copied(), model.get(key)),
                    _ => {
                        map.remove(&key);
                        model.0.retain(|(other, ..)| *other != key);
                    }
                }
                assert_eq!((map.len(), map.bytes()), (model.0.len(), model.bytes()));
                assert!(map.len() <= entries && map.bytes() <= bytes);
                assert!(
                    map.slots.len() <= entries + 1,
                    "vacant slots are used again"
                );
            }
        }
    }
}

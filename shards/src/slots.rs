//! An arena whose keys carry a generation, so that a key kept too long finds nothing instead
//! of a stranger.
//!
//! Invariants: never more than `capacity` entries; iteration is in slot order.

use std::marker::PhantomData;
use std::ops::Range;

use crate::prefetch::prefetch;

/// Names an entry of a [`Slots`] of `T`.
pub struct Key<T> {
    slot: u32,
    generation: u32,
    of: PhantomData<fn() -> T>,
}

impl<T> Key<T> {
    /// The position, for ids that embed it.
    pub fn slot(self) -> u32 {
        self.slot
    }

    /// How often the slot was used before.
    pub fn generation(self) -> u32 {
        self.generation
    }

    /// Of no entry.
    #[cfg(test)]
    pub(crate) fn dangling() -> Self {
        Self { slot: u32::MAX, generation: 0, of: PhantomData }
    }
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Key<T> {}

impl<T> PartialEq for Key<T> {
    fn eq(&self, other: &Self) -> bool {
        self.slot == other.slot && self.generation == other.generation
    }
}

impl<T> Eq for Key<T> {}

impl<T> PartialOrd for Key<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Key<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.slot, self.generation).cmp(&(other.slot, other.generation))
    }
}

impl<T> std::fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

/// The arena.
#[derive(Debug)]
pub struct Slots<T> {
    /// By slot. Apart from the values, so that all of these stay in the cache, and a key that was
    /// kept too long is known for one without touching the value.
    generations: Vec<u32>,
    values: Vec<Option<T>>,
    free: Vec<u32>,
    capacity: usize,
}

impl<T> Slots<T> {
    /// An empty arena for at most `capacity` entries; memory grows with use.
    pub fn new(capacity: usize) -> Self {
        Self { generations: Vec::new(), values: Vec::new(), free: Vec::new(), capacity }
    }

    /// Adds what `make` builds from its own key, or `None` when the arena is full.
    pub fn insert_with(&mut self, make: impl FnOnce(Key<T>) -> T) -> Option<Key<T>> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.values.len() < self.capacity => {
                self.generations.push(0);
                self.values.push(None);
                (self.values.len() - 1) as u32
            }
            None => return None,
        };
        let generation = self.generations[slot as usize];
        let key = Key { slot, generation, of: PhantomData };
        let value = make(key);
        self.values[slot as usize] = Some(value);
        Some(key)
    }

    #[inline]
    pub fn get(&self, key: Key<T>) -> Option<&T> {
        let generation = *self.generations.get(key.slot as usize)?;
        if generation == key.generation { self.values[key.slot as usize].as_ref() } else { None }
    }

    #[inline]
    pub fn get_mut(&mut self, key: Key<T>) -> Option<&mut T> {
        let generation = *self.generations.get(key.slot as usize)?;
        if generation == key.generation { self.values[key.slot as usize].as_mut() } else { None }
    }

    /// Asks the CPU to fetch these bytes of a value, without waiting for any of it.
    #[inline]
    pub fn prefetch(&self, key: Key<T>, bytes: Range<usize>) {
        if let Some(value) = self.values.get(key.slot as usize) {
            prefetch((&raw const *value).cast(), bytes);
        }
    }

    /// The entry now in `slot`, whatever its generation; for ids that carry only the slot and
    /// are compared in full by the caller.
    pub fn at(&self, slot: u32) -> Option<(Key<T>, &T)> {
        let generation = *self.generations.get(slot as usize)?;
        let key = Key { slot, generation, of: PhantomData };
        self.values[slot as usize].as_ref().map(|value| (key, value))
    }

    pub fn remove(&mut self, key: Key<T>) -> Option<T> {
        let generation = self.generations.get_mut(key.slot as usize)?;
        if *generation != key.generation {
            return None;
        }
        let value = self.values[key.slot as usize].take()?;
        *generation = generation.wrapping_add(1);
        self.free.push(key.slot);
        Some(value)
    }

    pub fn len(&self) -> usize {
        self.values.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn keys(&self) -> impl Iterator<Item = Key<T>> + '_ {
        let taken = self.values.iter().zip(&self.generations).enumerate();
        taken.filter(|(_, (value, _))| value.is_some()).map(|(slot, (_, generation))| Key {
            slot: slot as u32,
            generation: *generation,
            of: PhantomData,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_kept_too_long_finds_nothing() {
        let mut slots = Slots::new(2);
        let first = slots.insert_with(|_| "first").unwrap();
        assert_eq!(slots.remove(first), Some("first"));
        let second = slots.insert_with(|_| "second").unwrap();
        assert_eq!(second.slot(), first.slot());
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get(second), Some(&"second"));
    }

    #[test]
    fn a_full_arena_refuses() {
        let mut slots = Slots::new(1);
        assert!(slots.insert_with(|_| 1).is_some());
        assert!(slots.insert_with(|_| 2).is_none());
        assert_eq!(slots.len(), 1);
    }
}

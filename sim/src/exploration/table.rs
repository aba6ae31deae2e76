//! Numbers for things that occur again and again: a state is a few of them, and two are equal when their numbers are.

use std::collections::HashMap;

/// Things that were met, each with a number of its own. Equal are things of the same fingerprint, which differ by chance
/// only (one in 2^64).
#[derive(Debug)]
pub(super) struct Table<T> {
    // Only looked up and never iterated, so its order decides nothing.
    numbers: HashMap<u64, u32>,
    things: Vec<T>,
}

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table {
            numbers: HashMap::new(),
            things: Vec::new(),
        }
    }
}

impl<T> Table<T> {
    /// The number of the thing with this fingerprint, which is kept when it is met for the first time.
    pub(super) fn number(&mut self, fingerprint: u64, thing: T) -> u32 {
        let next = u32::try_from(self.things.len()).expect("memory ends before the numbers do");
        let number = *self.numbers.entry(fingerprint).or_insert(next);
        if number == next {
            self.things.push(thing);
        }
        number
    }

    /// The thing with this number, which this table gave.
    pub(super) fn get(&self, number: u32) -> &T {
        &self.things[number as usize]
    }
}

/// A set of numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers(Vec<u64>);

impl Numbers {
    pub(super) fn insert(&mut self, number: u32) {
        let (word, bit) = Numbers::place(number);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= bit;
    }

    /// How many numbers are in it.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether every number of `other` is in this set.
    pub(super) fn contains_all(&self, other: &Numbers) -> bool {
        other
            .0
            .iter()
            .enumerate()
            .all(|(word, bits)| bits & !self.0.get(word).copied().unwrap_or(0) == 0)
    }

    /// Keeps those that `keep` says.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(u32) -> bool) {
        for number in self.iter().collect::<Vec<_>>() {
            if !keep(number) {
                let (word, bit) = Numbers::place(number);
                self.0[word] &= !bit;
            }
        }
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    /// The numbers, in ascending order.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        (0u32..).zip(&self.0).flat_map(|(word, bits)| {
            let mut left = *bits;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(word * 64 + bit)
            })
        })
    }

    fn place(number: u32) -> (usize, u64) {
        ((number / 64) as usize, 1 << (number % 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_equal_has_one_number() {
        let mut table = Table::default();
        assert_eq!(
            [table.number(7, "a"), table.number(9, "b"), table.number(7, "a")],
            [0, 1, 0]
        );
        assert_eq!(*table.get(1), "b");
    }

    #[test]
    fn sets_of_numbers_hold_what_was_put_in_and_know_which_holds_more() {
        let mut set = Numbers::default();
        for number in [130, 0, 64, 63, 130] {
            set.insert(number);
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 64, 130]);
        assert_eq!(set.len(), 4);
        let mut less = set.clone();
        less.retain(|number| number < 100);
        assert_eq!(less.iter().collect::<Vec<_>>(), [0, 63, 64]);
        assert!(set.contains_all(&less) && !less.contains_all(&set) && set.contains_all(&set));
        less.insert(1);
        assert!(!set.contains_all(&less));
        less.retain(|_| false);
        assert_eq!(less, Numbers::default());
    }
}

//! Which watchers hear of a key: a search tree of ranges, so that a change costs time for those who watch the key and
//! not for the others.
//!
//! The tree is a treap: ordered by where ranges begin, and a heap by priorities that a seed decides, so that nobody who
//! does not know the seed can unbalance it. Every node knows how far the ranges below it reach, so that a search leaves
//! out what ends before the key (Cormen et al., Introduction to Algorithms, "Interval trees"; Seidel and Aragon,
//! "Randomized search trees", 1996).

use std::cmp::Ordering;
use std::collections::BTreeSet;

use bytes::Bytes;

use super::super::KeyRange;
use super::WatcherId;

type Tree = Option<Box<Node>>;

/// Ranges with those who watch them.
#[derive(Clone, Debug)]
pub(super) struct RangeIndex {
    root: Tree,
    /// The state of the generator of priorities.
    random: u64,
}

/// From the first key to before the end; no end for the last key of all.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reach {
    start: Bytes,
    end: Option<Bytes>,
}

/// Invariants: `left` holds what is ordered before this reach, `right` what comes after; no priority below is higher;
/// `end_max` is the greatest end here and below; somebody watches.
#[derive(Clone, Debug)]
struct Node {
    reach: Reach,
    priority: u64,
    watchers: BTreeSet<WatcherId>,
    end_max: Option<Bytes>,
    left: Tree,
    right: Tree,
}

impl RangeIndex {
    pub(super) fn new(seed: u64) -> RangeIndex {
        RangeIndex {
            root: None,
            random: seed,
        }
    }

    /// `watcher` hears of the keys of `range` from now on.
    pub(super) fn insert(&mut self, range: &KeyRange, watcher: WatcherId) {
        let reach = Reach::of(range);
        if let Some(node) = find(&mut self.root, &reach) {
            node.watchers.insert(watcher);
            return;
        }
        let (left, right) = split(self.root.take(), &reach);
        let mut node = Box::new(Node {
            end_max: reach.end.clone(),
            reach,
            priority: self.next_priority(),
            watchers: BTreeSet::from([watcher]),
            left: None,
            right: None,
        });
        node.update();
        self.root = merge(merge(left, Some(node)), right);
    }

    /// `watcher` hears of the keys of `range` no more.
    pub(super) fn remove(&mut self, range: &KeyRange, watcher: WatcherId) {
        let reach = Reach::of(range);
        let Some(node) = find(&mut self.root, &reach) else {
            return;
        };
        node.watchers.remove(&watcher);
        if node.watchers.is_empty() {
            remove(&mut self.root, &reach);
        }
    }

    /// Calls `hear` with everyone who watches `key`.
    pub(super) fn visit(&self, key: &[u8], hear: &mut impl FnMut(WatcherId)) {
        visit(&self.root, key, hear);
    }

    /// The generator SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
    fn next_priority(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Reach {
    fn of(range: &KeyRange) -> Reach {
        let (start, end) = range.half_open();
        Reach { start, end }
    }
}

impl PartialOrd for Reach {
    fn partial_cmp(&self, other: &Reach) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Reach {
    fn cmp(&self, other: &Reach) -> Ordering {
        self.start
            .cmp(&other.start)
            .then_with(|| compare_ends(&self.end, &other.end))
    }
}

/// No end is the greatest one.
fn compare_ends(one: &Option<Bytes>, other: &Option<Bytes>) -> Ordering {
    match (one, other) {
        (Some(one), Some(other)) => one.cmp(other),
        (one, other) => one.is_none().cmp(&other.is_none()),
    }
}

impl Node {
    /// Computes again what depends on the nodes below.
    fn update(&mut self) {
        let below = [&self.left, &self.right];
        let ends = below.into_iter().flatten().map(|node| &node.end_max);
        let greatest = ends.fold(&self.reach.end, |greatest, end| {
            if compare_ends(end, greatest).is_gt() {
                end
            } else {
                greatest
            }
        });
        self.end_max = greatest.clone();
    }
}

fn find<'a>(tree: &'a mut Tree, reach: &Reach) -> Option<&'a mut Node> {
    let mut node = tree.as_deref_mut()?;
    loop {
        node = match reach.cmp(&node.reach) {
            Ordering::Less => node.left.as_deref_mut()?,
            Ordering::Greater => node.right.as_deref_mut()?,
            Ordering::Equal => return Some(node),
        };
    }
}

/// What comes before `reach`, and the rest.
fn split(tree: Tree, reach: &Reach) -> (Tree, Tree) {
    let Some(mut node) = tree else {
        return (None, None);
    };
    if node.reach < *reach {
        let (before, after) = split(node.right.take(), reach);
        node.right = before;
        node.update();
        (Some(node), after)
    } else {
        let (before, after) = split(node.left.take(), reach);
        node.left = after;
        node.update();
        (before, Some(node))
    }
}

/// Both trees in one; all of `left` comes before all of `right`.
fn merge(left: Tree, right: Tree) -> Tree {
    match (left, right) {
        (Some(mut left), Some(right)) if left.priority >= right.priority => {
            left.right = merge(left.right.take(), Some(right));
            left.update();
            Some(left)
        }
        (Some(left), Some(mut right)) => {
            right.left = merge(Some(left), right.left.take());
            right.update();
            Some(right)
        }
        (left, right) => left.or(right),
    }
}

fn remove(tree: &mut Tree, reach: &Reach) {
    let Some(node) = tree else {
        return;
    };
    match reach.cmp(&node.reach) {
        Ordering::Less => remove(&mut node.left, reach),
        Ordering::Greater => remove(&mut node.right, reach),
        Ordering::Equal => {
            let (left, right) = (node.left.take(), node.right.take());
            *tree = merge(left, right);
            return;
        }
    }
    node.update();
}

fn visit(tree: &Tree, key: &[u8], hear: &mut impl FnMut(WatcherId)) {
    let is_before = |end: &Option<Bytes>| end.as_ref().is_none_or(|end| key < &end[..]);
    let Some(node) = tree else {
        return;
    };
    if !is_before(&node.end_max) {
        return;
    }
    visit(&node.left, key, hear);
    if node.reach.start <= key {
        if is_before(&node.reach.end) {
            node.watchers.iter().copied().for_each(&mut *hear);
        }
        visit(&node.right, key, hear);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watchers_of(index: &RangeIndex, key: &[u8]) -> Vec<u64> {
        let mut found = Vec::new();
        index.visit(key, &mut |watcher| found.push(watcher.0));
        found.sort_unstable();
        found
    }

    fn check(tree: &Tree) -> usize {
        let Some(node) = tree else {
            return 0;
        };
        for below in [&node.left, &node.right].into_iter().flatten() {
            assert!(below.priority <= node.priority);
            assert!(compare_ends(&below.end_max, &node.end_max).is_le());
        }
        assert!(node.left.as_ref().is_none_or(|left| left.reach < node.reach));
        assert!(node.right.as_ref().is_none_or(|right| right.reach > node.reach));
        1 + check(&node.left).max(check(&node.right))
    }

    #[test]
    fn a_key_is_heard_of_by_exactly_those_whose_ranges_hold_it() {
        let mut random = RangeIndex::new(1);
        let mut draw = |below: u64| random.next_priority() % below;
        let mut index = RangeIndex::new(7);
        let mut naive: Vec<(KeyRange, WatcherId)> = Vec::new();
        for step in 0..4000 {
            let key = |number: u64| vec![b'a' + number as u8 / 8, b'a' + number as u8 % 8];
            let (one, other) = (key(draw(64)), key(draw(64)));
            let range = match draw(6) {
                0 => KeyRange::all(),
                1 => KeyRange::only(one.clone()),
                2 => KeyRange::prefix(one[..1].to_vec()),
                3 => KeyRange::from(one.clone()),
                4 => KeyRange::between(one.clone(), other.clone()),
                _ => KeyRange::from(one.clone()).after(other.clone()),
            };
            if draw(5) < 3 || naive.is_empty() {
                let watcher = WatcherId(step);
                index.insert(&range, watcher);
                naive.push((range, watcher));
            } else {
                let place = usize::try_from(draw(naive.len() as u64)).expect("small");
                let (range, watcher) = naive.swap_remove(place);
                index.remove(&range, watcher);
            }
            if naive.len() > 200 {
                for (range, watcher) in naive.drain(100..) {
                    index.remove(&range, watcher);
                }
            }
            check(&index.root);
            for probe in [one, other, b"c".to_vec(), Vec::new()] {
                let mut expected: Vec<u64> = naive
                    .iter()
                    .filter(|(range, _)| range.contains(&probe))
                    .map(|(_, watcher)| watcher.0)
                    .collect();
                expected.sort_unstable();
                assert_eq!(
                    watchers_of(&index, &probe),
                    expected,
                    "step {step}, key {probe:?}"
                );
            }
        }
    }

    #[test]
    fn the_tree_stays_flat_whatever_the_order() {
        let mut index = RangeIndex::new(42);
        for number in 0..10_000 {
            index.insert(&KeyRange::prefix(format!("{number:05}/")), WatcherId(number));
        }
        let depth = check(&index.root);
        assert!(depth < 60, "{depth} levels for 10,000 ranges");
        assert_eq!(watchers_of(&index, b"00042/x"), [42]);
        for number in 0..10_000 {
            index.remove(&KeyRange::prefix(format!("{number:05}/")), WatcherId(number));
        }
        assert!(index.root.is_none());
    }
}

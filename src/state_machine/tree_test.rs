//! The tree against a `BTreeMap`, with small nodes, clones that are held, and its invariants after every step.

use std::collections::BTreeMap;
use std::ops::Bound;

use proptest::prelude::*;
use raftkv_protocol::types::Index;
use triomphe::Arc;

use super::key::SmallKey;
use super::tree::{Node, Order, PLACES, Tree};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<u8>, Vec<u8>),
    Remove(Vec<u8>),
    /// The keys of this letter, in this order.
    RemoveMany(u8, Order),
    /// A snapshot is taken, and kept to the end.
    Clone,
}

/// Some are too long to be stored in place.
fn key() -> impl Strategy<Value = Vec<u8>> {
    let letters = prop::sample::select(vec![0, b'a', b'b', b'c', u8::MAX]);
    prop_oneof![
        6 => prop::collection::vec(letters.clone(), 1..5),
        1 => (20..25usize, letters).prop_map(|(len, last)| [vec![b'a'; len], vec![last]].concat()),
    ]
}

fn order() -> impl Strategy<Value = Order> {
    prop_oneof![Just(Order::Rising), Just(Order::Falling)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (key(), prop::collection::vec(any::<u8>(), 0..3)).prop_map(|(key, value)| Step::Put(key, value)),
        8 => key().prop_map(Step::Remove),
        1 => (prop::sample::select(vec![0, b'a', b'b', u8::MAX]), order()).prop_map(|(a, b)| Step::RemoveMany(a, b)),
        1 => Just(Step::Clone),
    ]
}

fn bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
    prop_oneof![key().prop_map(Bound::Included), key().prop_map(Bound::Excluded), Just(Bound::Unbounded)]
}

fn put<const N: usize>(tree: &mut Tree<N>, key: &[u8], value: &[u8]) -> Option<Vec<u8>> {
    let mut old = None;
    tree.put(key, Index(1), value, |stored| old = Some(stored.value().to_vec()));
    old
}

fn remove<const N: usize>(tree: &mut Tree<N>, model: &mut Model, key: &[u8]) {
    assert_eq!(tree.remove(key).map(|stored| stored.value().to_vec()), model.remove(key));
    assert_invariants(tree);
}

fn owned<'t, const N: usize>(
    items: impl Iterator<Item = &'t (SmallKey, super::stored::Stored)>,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    items.map(|(key, stored)| (key.as_bytes().to_vec(), stored.value().to_vec())).collect()
}

fn assert_is_model<const N: usize>(tree: &Tree<N>, model: &Model) {
    assert_eq!(tree.len(), model.len());
    let expected: Vec<_> = model.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    assert_eq!(owned::<N>(tree.iter()), expected);
    for (key, value) in model {
        assert_eq!(tree.get(key).map(|stored| stored.value()), Some(&value[..]));
    }
}

/// What the head of the module says of all trees.
fn assert_invariants<const N: usize>(tree: &Tree<N>) {
    let keys = tree.iter().count();
    assert_eq!(keys, tree.len());
    check(&tree.root, None, None);
    if let Node::Inner(row) = &*tree.root {
        assert!(row.0.len() > 1, "a root with one child is not needed");
    }
}

/// Keys of the node lie from `lower` on and below `upper`. Returns how high it is.
fn check<const N: usize>(node: &Node<N>, lower: Option<&[u8]>, upper: Option<&[u8]>) -> usize {
    let is_within = |key: &[u8]| lower.is_none_or(|lower| lower <= key) && upper.is_none_or(|upper| key < upper);
    match node {
        Node::Leaf(row) => {
            assert!(row.0.is_sorted_by(|(left, _), (right, _)| left.as_bytes() < right.as_bytes()));
            assert!(row.0.iter().all(|(key, _)| is_within(key.as_bytes())));
            1
        }
        Node::Inner(row) => {
            let key = |at: usize| row.0.get(at).map(|(key, _)| key.as_bytes());
            let mut heights = Vec::new();
            for (at, (_, child)) in row.0.iter().enumerate() {
                let child_lower = if at == 0 { lower } else { key(at) };
                assert!(at == 0 || is_within(key(at).unwrap()));
                heights.push(check(child, child_lower, key(at + 1).or(upper)));
            }
            assert!(heights.iter().all(|height| *height == heights[0]), "all leaves lie equally deep");
            let lens: Vec<usize> = row.0.iter().map(|(_, child)| len(child)).collect();
            assert!(lens.iter().all(|&len| len > 0), "no node is empty");
            assert!(lens.windows(2).all(|pair| pair[0] + pair[1] > N / 2), "neighbours of {lens:?} children");
            heights[0] + 1
        }
    }
}

fn len<const N: usize>(node: &Node<N>) -> usize {
    match node {
        Node::Leaf(row) => row.0.len(),
        Node::Inner(row) => row.0.len(),
    }
}

proptest! {
    #[test]
    fn does_what_an_ordered_map_does(
        steps in prop::collection::vec(step(), 1..400),
        bounds in prop::collection::vec((bound(), bound()), 1..10),
    ) {
        let (mut tree, mut model) = (Tree::<4>::default(), Model::new());
        let mut held = Vec::new();
        for step in steps {
            match step {
                Step::Put(key, value) => {
                    prop_assert_eq!(put(&mut tree, &key, &value), model.insert(key, value));
                    assert_invariants(&tree);
                }
                Step::Remove(key) => remove(&mut tree, &mut model, &key),
                Step::RemoveMany(letter, order) => {
                    let mut keys: Vec<_> = model.keys().filter(|key| key[0] == letter).cloned().collect();
                    if order == Order::Falling {
                        keys.reverse();
                    }
                    keys.iter().for_each(|key| remove(&mut tree, &mut model, key));
                }
                Step::Clone => held.push((tree.clone(), model.clone())),
            }
        }
        held.push((tree, model));
        for (tree, model) in &held {
            assert_invariants(tree);
            assert_is_model(tree, model);
        }
        let (tree, model) = &held[held.len() - 1];
        for (lower, upper) in &bounds {
            let mut expected: Vec<_> = model
                .iter()
                .filter(|(key, _)| match lower {
                    Bound::Included(lower) => *key >= lower,
                    Bound::Excluded(lower) => *key > lower,
                    Bound::Unbounded => true,
                })
                .filter(|(key, _)| match upper {
                    Bound::Included(upper) => *key <= upper,
                    Bound::Excluded(upper) => *key < upper,
                    Bound::Unbounded => true,
                })
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            let bounds = (lower.as_ref().map(Vec::as_slice), upper.as_ref().map(Vec::as_slice));
            prop_assert_eq!(owned::<4>(tree.range(bounds, Order::Rising)), expected.clone());
            expected.reverse();
            prop_assert_eq!(owned::<4>(tree.range(bounds, Order::Falling)), expected);
        }
    }
}

/// How many leaves the numbers take, put in this order.
fn leaves(numbers: impl IntoIterator<Item = u32>) -> usize {
    let mut tree = Tree::<32>::default();
    for number in numbers {
        put(&mut tree, &number.to_be_bytes(), b"");
    }
    assert_invariants(&tree);
    leaves_below(&tree.root)
}

fn leaves_below<const N: usize>(node: &Node<N>) -> usize {
    match node {
        Node::Leaf(_) => 1,
        Node::Inner(row) => row.0.iter().map(|(_, child)| leaves_below(child)).sum(),
    }
}

#[test]
fn keys_in_rising_order_fill_the_leaves() {
    assert_eq!(leaves(0..32_000), 1_000);
}

#[test]
fn runs_of_keys_in_order_nearly_fill_the_leaves() {
    let nearly = 1_000..1_100;
    assert!(nearly.contains(&leaves((0..32_000).rev())));
    let later_blocks_first = (0..125).rev().flat_map(|block| block * 256..(block + 1) * 256);
    assert!(nearly.contains(&leaves((7..32).chain(later_blocks_first.map(|number| number + 100)))));
    let by_prefix = (0..3_200).flat_map(|number| (0..10).map(move |prefix| prefix << 20 | number));
    assert!(nearly.contains(&leaves(by_prefix.clone())), "{}", leaves(by_prefix));
    // Up to full leaves, and then back to them from above.
    assert!(leaves((0..320).chain((400..32_400).rev())) <= 1_110);
}

#[test]
fn keys_at_random_fill_two_thirds_of_the_leaves() {
    let at_random = leaves((0..32_000u32).map(|number| xxhash_rust::xxh3::xxh3_64(&number.to_le_bytes()) as u32));
    assert!((1_000..1_500).contains(&at_random), "{at_random}");
}

#[test]
fn deleting_gives_leaves_back() {
    let mut tree = Tree::<32>::default();
    (0..32_000u32).for_each(|number| _ = put(&mut tree, &number.to_be_bytes(), b""));
    (0..32_000u32).filter(|number| number % 8 != 0).for_each(|number| _ = tree.remove(&number.to_be_bytes()));
    assert_invariants(&tree);
    assert!(leaves_below(&tree.root) <= 250, "{}", leaves_below(&tree.root));
    (0..32_000u32).for_each(|number| _ = tree.remove(&number.to_be_bytes()));
    assert!(matches!(&*tree.root, Node::Leaf(row) if row.0.is_empty()));
}

/// How many nodes of `tree` are not in `other`, of which it was a clone.
fn nodes_of_its_own<const N: usize>(tree: &Arc<Node<N>>, other: &Arc<Node<N>>) -> usize {
    if Arc::ptr_eq(tree, other) {
        return 0;
    }
    match (&**tree, &**other) {
        (Node::Inner(row), Node::Inner(other)) => {
            1 + row.0.iter().zip(&other.0).map(|((_, a), (_, b))| nodes_of_its_own(a, b)).sum::<usize>()
        }
        _ => 1,
    }
}

// rule 20
#[test]
fn a_write_copies_the_nodes_on_its_way_once_and_no_others() {
    let mut tree = Tree::<4>::default();
    (0..1_000u32).for_each(|number| _ = put(&mut tree, &number.to_be_bytes(), b"old"));
    let held = tree.clone();
    let height = check(&tree.root, None, None);
    assert_eq!(nodes_of_its_own(&tree.root, &held.root), 0, "a clone copies nothing");
    put(&mut tree, &500u32.to_be_bytes(), b"new");
    assert_eq!(nodes_of_its_own(&tree.root, &held.root), height);
    let root = Arc::as_ptr(&tree.root);
    put(&mut tree, &500u32.to_be_bytes(), b"newer");
    assert_eq!(Arc::as_ptr(&tree.root), root);
    assert_eq!(held.get(&500u32.to_be_bytes()).unwrap().value(), b"old");
}

/// So a snapshot of any number of keys holds up whoever takes it, and the writes beside it, by no more than this.
#[test]
fn of_200_000_keys_a_clone_copies_none_and_a_write_beside_it_four_nodes() {
    let mut tree = Tree::<PLACES>::default();
    let key = |number: u32| xxhash_rust::xxh3::xxh3_64(&number.to_le_bytes()).to_be_bytes();
    (0..200_000).for_each(|number| _ = put(&mut tree, &key(number), b"old"));
    let held = tree.clone();
    assert!(Arc::ptr_eq(&tree.root, &held.root));
    for writes in 1..=100 {
        put(&mut tree, &key(writes * 1_999), b"new");
        let copied = nodes_of_its_own(&tree.root, &held.root);
        assert!(copied <= 4 * writes as usize, "{copied} nodes of at most {PLACES} places after {writes} writes");
    }
}

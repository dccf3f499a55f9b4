//! Blocks against one piece.

use proptest::prelude::*;

use super::blocks::Blocks;

const BLOCK: usize = 256;

#[derive(Clone, Debug)]
enum Op {
    Push(usize),
    Truncate(usize),
    DropFirst(usize),
}

/// Lengths about the ends of blocks, and others.
fn any_length() -> impl Strategy<Value = usize> {
    prop_oneof![
        (0..4_usize, 0..5_usize).prop_map(|(blocks, more)| (blocks * BLOCK + more).saturating_sub(2)),
        0..3 * BLOCK,
    ]
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => any_length().prop_map(Op::Push),
        1 => any_length().prop_map(Op::Truncate),
        2 => any_length().prop_map(Op::DropFirst),
    ]
}

fn agree(blocks: &Blocks<u32, BLOCK>, plain: &[u32]) {
    assert_eq!(blocks.len(), plain.len());
    let last = plain.len().saturating_sub(1);
    for skip in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, last / 2, last, plain.len(), plain.len() + 1, plain.len() + BLOCK] {
        assert_eq!(blocks.get(skip), plain.get(skip));
        assert!(blocks.behind(skip).eq(&plain[skip.min(plain.len())..]), "behind {skip} of {}", plain.len());
    }
}

/// What is taken out, in the order of the numbers.
fn sorted(mut taken: Vec<u32>) -> Vec<u32> {
    taken.sort_unstable();
    taken
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn they_are_the_queue_that_one_piece_would_be(ops in proptest::collection::vec(any_op(), 1..24)) {
        let (mut blocks, mut plain, mut next) = (Blocks::default(), Vec::new(), 0);
        for op in ops {
            let mut taken = Vec::new();
            let gone: Vec<u32> = match op {
                Op::Push(count) => {
                    for _ in 0..count {
                        next += 1;
                        blocks.push(next);
                        plain.push(next);
                    }
                    Vec::new()
                }
                Op::Truncate(count) => {
                    blocks.truncate(count, |gone| taken.extend(gone));
                    plain.split_off(count.min(plain.len()))
                }
                Op::DropFirst(count) => {
                    blocks.drop_first(count, |gone| taken.extend(gone));
                    plain.drain(..count.min(plain.len())).collect()
                }
            };
            prop_assert_eq!(sorted(taken), gone);
            agree(&blocks, &plain);
        }
    }
}

//! Sizes in blocks against a plain vector.

use proptest::prelude::*;

use super::sizes::{BLOCK, Sizes};

#[derive(Clone, Debug)]
enum Op {
    Push(usize),
    Truncate(usize),
    DropFirst(usize),
}

/// Lengths about the ends of blocks.
fn any_length() -> impl Strategy<Value = usize> {
    (0..4_usize, 0..5_usize).prop_map(|(blocks, more)| (blocks * BLOCK + more).saturating_sub(2))
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => any_length().prop_map(Op::Push),
        1 => any_length().prop_map(Op::Truncate),
        2 => any_length().prop_map(Op::DropFirst),
    ]
}

fn agree(sizes: &Sizes, plain: &[u32]) {
    assert_eq!(sizes.len(), plain.len());
    for skip in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, plain.len().saturating_sub(1), plain.len(), plain.len() + BLOCK] {
        let behind: Vec<u32> = sizes.behind(skip).collect();
        assert!(behind == plain[skip.min(plain.len())..], "behind {skip} of {}", plain.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn they_are_those_of_a_vector(ops in proptest::collection::vec(any_op(), 1..12)) {
        let (mut sizes, mut plain, mut next) = (Sizes::default(), Vec::new(), 0);
        for op in ops {
            match op {
                Op::Push(count) => {
                    for _ in 0..count {
                        next += 1;
                        sizes.push(next);
                        plain.push(next);
                    }
                }
                Op::Truncate(count) => {
                    sizes.truncate(count);
                    plain.truncate(count);
                }
                Op::DropFirst(count) => {
                    sizes.drop_first(count);
                    drop(plain.drain(..count.min(plain.len())));
                }
            }
            agree(&sizes, &plain);
        }
    }
}

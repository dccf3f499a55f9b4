use std::collections::VecDeque;

use super::blocks::{BLOCK, Blocks};
use super::simulated_disk::Random;

/// What is taken out, in the order in which it was there.
fn taken(take: impl FnOnce(&mut dyn FnMut(u64))) -> Vec<u64> {
    let mut items = Vec::new();
    take(&mut |item| items.push(item));
    items.sort_unstable();
    items
}

#[test]
fn blocks_are_the_queue_that_one_piece_would_be() {
    let mut random = Random(7);
    let (mut blocks, mut queue, mut next) = (Blocks::default(), VecDeque::new(), 0);
    for _ in 0..3_000 {
        let count = random.below(3 * BLOCK as u64) as usize;
        match random.below(5) {
            0 => {
                let gone: Vec<u64> = queue.drain(..count.min(queue.len())).collect();
                assert_eq!(taken(|each| blocks.drop_first(count, each)), gone);
            }
            1 => {
                let gone: Vec<u64> = queue.drain(queue.len() - (count / 2).min(queue.len())..).collect();
                assert_eq!(taken(|each| blocks.truncate(queue.len(), each)), gone);
            }
            _ => {
                (next..next + count as u64 / 2).for_each(|item| blocks.push(item));
                queue.extend(next..next + count as u64 / 2);
                next += count as u64 / 2;
            }
        }
        assert_eq!(blocks.len(), queue.len());
        let skip = random.below(queue.len() as u64 + 2) as usize;
        assert_eq!(blocks.get(skip), queue.get(skip));
        assert!(blocks.behind(skip).eq(queue.iter().skip(skip)));
    }
}

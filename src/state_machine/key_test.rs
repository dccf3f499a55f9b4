use proptest::prelude::*;

use super::key::{INLINE_BYTES_MAX, SmallKey};

#[test]
fn keeps_the_bytes_around_the_inline_limit() {
    for len in [0, 1, INLINE_BYTES_MAX - 1, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, 4 << 10, 1 << 20] {
        let bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
        assert_eq!(SmallKey::from(&bytes[..]).as_bytes(), bytes, "{len} bytes");
    }
}

#[test]
fn zero_bytes_at_the_end_count() {
    let [short, long] = [&b"a"[..], &b"a\0"[..]].map(SmallKey::from);
    assert_ne!(short, long);
    assert!(short < long);
}

proptest! {
    #[test]
    fn orders_as_slices_do(
        left in prop::collection::vec(0..3u8, 0..30),
        right in prop::collection::vec(0..3u8, 0..30),
    ) {
        let [small_left, small_right] = [&left, &right].map(|bytes| SmallKey::from(&bytes[..]));
        prop_assert_eq!(small_left.cmp(&small_right), left.cmp(&right));
        prop_assert_eq!(small_left == small_right, left == right);
    }
}

use std::cmp::Ordering;

use proptest::prelude::*;

use super::key::{INLINE_BYTES_MAX, Probe, SmallKey};

#[test]
fn keeps_the_bytes_around_the_inline_limit() {
    for len in [0, 1, INLINE_BYTES_MAX - 1, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, 4 << 10, 1 << 20] {
        let bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
        assert_eq!(SmallKey::from(&bytes[..]).as_bytes(), bytes, "{len} bytes");
    }
}

#[test]
fn zero_bytes_at_the_end_count() {
    assert_eq!(Probe::new(b"a\0").order_of(&SmallKey::from(&b"a"[..])), Ordering::Less);
    assert_eq!(Probe::new(b"a").order_of(&SmallKey::from(&b"a\0"[..])), Ordering::Greater);
}

proptest! {
    #[test]
    fn orders_as_slices_do(
        left in prop::collection::vec(0..3u8, 0..30),
        right in prop::collection::vec(0..3u8, 0..30),
    ) {
        prop_assert_eq!(Probe::new(&right).order_of(&SmallKey::from(&left[..])), left.cmp(&right));
    }
}

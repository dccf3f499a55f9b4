use std::time::Duration;

use super::deadline::parse;

#[test]
fn timeouts_are_a_number_and_a_unit() {
    for (text, expected) in [
        ("0n", Duration::ZERO),
        ("1n", Duration::from_nanos(1)),
        ("20u", Duration::from_micros(20)),
        ("250m", Duration::from_millis(250)),
        ("3S", Duration::from_secs(3)),
        ("2M", Duration::from_secs(120)),
        ("99999999H", Duration::from_secs(99_999_999 * 3_600)),
    ] {
        assert_eq!(parse(text), Some(expected), "{text}");
    }
    for text in ["", "S", "1", "1s", "1.5S", "-1S", "+1S", " 1S", "1S ", "100000000n", "1é", "é"] {
        assert_eq!(parse(text), None, "{text}");
    }
}

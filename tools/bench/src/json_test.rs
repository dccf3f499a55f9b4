use crate::json::{Object, list, optional, quoted, rounded};

#[test]
fn an_object_is_its_fields_in_order() {
    let mut json = Object::default();
    assert_eq!(json.finish(), "{}");
    json.field("name", quoted("x")).field("of", list([1, 2])).field("none", optional(None::<u64>));
    json.field("ratio", rounded(1.0 / 3.0));
    assert_eq!(json.finish(), r#"{"name": "x", "of": [1, 2], "none": null, "ratio": 0.333}"#);
}

#[test]
fn what_json_cannot_say_is_zero() {
    assert_eq!((rounded(f64::INFINITY), rounded(f64::NAN)), (0.0, 0.0));
}

//! One line with one JSON object, field by field.

use std::fmt::{Display, Write};

/// An object that is being written.
#[derive(Clone, Debug, Default)]
pub struct Object(String);

impl Object {
    /// Adds a field whose value is JSON already: a number, a quoted text, another object.
    pub fn field(&mut self, name: &str, value: impl Display) -> &mut Object {
        let comma = if self.0.is_empty() { "" } else { ", " };
        write!(self.0, "{comma}\"{name}\": {value}").expect("a string takes everything");
        self
    }

    /// The whole of it.
    pub fn finish(&self) -> String {
        format!("{{{}}}", self.0)
    }
}

/// A list of JSON values.
pub fn list(values: impl IntoIterator<Item = impl Display>) -> String {
    let values: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
    format!("[{}]", values.join(", "))
}

/// A text without anything that would have to be escaped.
pub fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

/// `null` for nothing.
pub fn optional(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "null".into(), |value| value.to_string())
}

/// To three decimals, which JSON can express (it knows no infinity).
pub fn rounded(value: f64) -> f64 {
    if value.is_finite() { (value * 1_000.0).round() / 1_000.0 } else { 0.0 }
}

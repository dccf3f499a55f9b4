//! The page of metrics: families with their series, for either format.

use std::borrow::Cow;
use std::fmt;

use prometheus_client::encoding::{
    CounterValueEncoder, DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, GaugeValueEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::metrics::histogram::Shape;

/// What all series of a family have in common.
#[derive(Debug)]
pub struct About {
    /// The name without its unit, and without the `_total` of a counter.
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
}

impl About {
    /// A family of plain numbers.
    pub const fn new(name: &'static str, help: &'static str) -> About {
        About { name, help, unit: None }
    }

    /// A family of seconds.
    pub const fn seconds(name: &'static str, help: &'static str) -> About {
        About { name, help, unit: Some(Unit::Seconds) }
    }

    /// A family of bytes.
    pub const fn bytes(name: &'static str, help: &'static str) -> About {
        About { name, help, unit: Some(Unit::Bytes) }
    }
}

/// The labels of a series.
pub type Labels = Vec<(&'static str, Cow<'static, str>)>;

/// One label.
pub fn label(name: &'static str, value: impl ToString) -> Labels {
    vec![(name, value.to_string().into())]
}

/// The value of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    Whole(u64),
    Real(f64),
}

impl From<u64> for Value {
    fn from(whole: u64) -> Value {
        Value::Whole(whole)
    }
}

impl From<bool> for Value {
    fn from(is: bool) -> Value {
        Value::Whole(u64::from(is))
    }
}

impl From<f64> for Value {
    fn from(real: f64) -> Value {
        Value::Real(real)
    }
}

impl EncodeCounterValue for Value {
    fn encode(&self, encoder: &mut CounterValueEncoder<'_>) -> fmt::Result {
        match self {
            Value::Whole(whole) => EncodeCounterValue::encode(whole, encoder),
            Value::Real(real) => EncodeCounterValue::encode(real, encoder),
        }
    }
}

impl EncodeGaugeValue for Value {
    fn encode(&self, encoder: &mut GaugeValueEncoder<'_>) -> fmt::Result {
        match self {
            Value::Whole(whole) => EncodeGaugeValue::encode(whole, encoder),
            Value::Real(real) => EncodeGaugeValue::encode(real, encoder),
        }
    }
}

/// Millionths of a second.
pub const MICROS: f64 = 1e6;

/// So many parts of which `parts` are one. Dividing gives the nearest number there is, so that bounds read well.
fn scaled(value: u64, parts: f64) -> f64 {
    value as f64 / parts
}

/// The page as far as it is written.
#[derive(Debug)]
pub struct Page<'a>(DescriptorEncoder<'a>);

impl<'a> Page<'a> {
    /// An empty one.
    pub fn new(encoder: DescriptorEncoder<'a>) -> Page<'a> {
        Page(encoder)
    }

    /// A family of what only grows. It is named even while it has no series.
    pub fn counter<V: Into<Value>>(
        &mut self,
        about: &About,
        series: impl IntoIterator<Item = (Labels, V)>,
    ) -> fmt::Result {
        let About { name, help, unit } = about;
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
        for (labels, value) in series {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, Value, f64>(&value.into(), None)?;
        }
        Ok(())
    }

    /// A family of what goes up and down.
    pub fn gauge<V: Into<Value>>(
        &mut self,
        about: &About,
        series: impl IntoIterator<Item = (Labels, V)>,
    ) -> fmt::Result {
        let About { name, help, unit } = about;
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        for (labels, value) in series {
            family.encode_family(&labels)?.encode_gauge(&value.into())?;
        }
        Ok(())
    }

    /// A family of histograms, whose values are so many parts of its unit.
    pub fn histogram(
        &mut self,
        about: &About,
        parts: f64,
        series: impl IntoIterator<Item = (Labels, Shape)>,
    ) -> fmt::Result {
        let About { name, help, unit } = about;
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Histogram)?;
        for (labels, shape) in series {
            let count = shape.count();
            let Shape { buckets, above, sum } = shape;
            let mut counts: Vec<(f64, u64)> =
                buckets.into_iter().map(|(bound, count)| (scaled(bound, parts), count)).collect();
            counts.push((f64::INFINITY, above));
            family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(scaled(sum, parts), count, &counts, None)?;
        }
        Ok(())
    }

    /// What does not change while the process runs, as labels.
    pub fn info(&mut self, about: &About, labels: &Labels) -> fmt::Result {
        let mut family = self.0.encode_descriptor(about.name, about.help, None, MetricType::Info)?;
        family.encode_info(labels)
    }
}

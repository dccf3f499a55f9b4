//! Pages of metrics, read by the rules of the two text formats: whatever breaks one fails the test that reads it.

use std::collections::{BTreeMap, BTreeSet};

use super::cluster::Cluster;
use super::http::http;

/// Which rules a page keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus's text format, version 0.0.4.
    Prometheus,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

/// The labels of a series.
pub type Labels = BTreeMap<String, String>;

/// One metric with all its series.
#[derive(Clone, Debug, Default)]
pub struct Family {
    /// As in `counter`.
    pub kind: String,
    /// What it is, for people.
    pub help: String,
    /// The values by the names and labels of the series.
    pub series: BTreeMap<(String, Labels), f64>,
}

/// The names of the labels of a series, but for what tells apart the buckets of a histogram.
pub fn labels_of((name, labels): &(String, Labels)) -> BTreeSet<&str> {
    labels.keys().map(String::as_str).filter(|label| *label != "le" || !name.ends_with("_bucket")).collect()
}

/// A page of metrics: the families by their names.
#[derive(Clone, Debug)]
pub struct Page(pub BTreeMap<String, Family>);

impl Page {
    /// Scrapes a node.
    pub fn of(cluster: &Cluster, node: u64) -> Page {
        let mut http = http(cluster, node);
        let response = http.ask("GET", "/metrics", &[], b"");
        assert_eq!(response.status, 200, "{response:?}");
        Page::read(response.text(), Format::Prometheus)
    }

    /// Reads a page.
    pub fn read(text: &str, format: Format) -> Page {
        let text = match format {
            Format::Prometheus => text,
            Format::OpenMetrics => text.strip_suffix("# EOF\n").expect("an end"),
        };
        assert!(text.ends_with('\n'), "the last line ends");
        let (mut families, mut current) = (BTreeMap::new(), (String::new(), Family::default()));
        for line in text.lines() {
            match line.strip_prefix("# HELP ").map(|rest| rest.split_once(' ').expect("a name and its help")) {
                Some((name, help)) => {
                    add(&mut families, &mut current);
                    assert!(is_name(name), "{line}");
                    current = (name.to_owned(), Family { help: help.to_owned(), ..Family::default() });
                }
                None => read_line(&current.0.clone(), &mut current.1, line, format),
            }
        }
        add(&mut families, &mut current);
        Page(families)
    }

    /// The sum of the values of all series with this name and these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has =
            |found: &Labels| labels.iter().all(|(name, value)| found.get(*name).is_some_and(|found| found == value));
        let series = self.0.values().flat_map(|family| &family.series);
        series.filter(|((found, with), _)| found == name && has(with)).map(|(_, value)| value).sum()
    }
}

fn add(families: &mut BTreeMap<String, Family>, (name, family): &mut (String, Family)) {
    if name.is_empty() {
        return;
    }
    assert!(!family.kind.is_empty(), "{name} has no type");
    if family.kind == "histogram" {
        check_histogram(name, family);
    }
    assert!(families.insert(std::mem::take(name), std::mem::take(family)).is_none(), "a metric stands twice");
}

fn read_line(name: &str, family: &mut Family, line: &str, format: Format) {
    if let Some(kind) = line.strip_prefix(&format!("# TYPE {name} ")) {
        assert!(["counter", "gauge", "histogram", "info"].contains(&kind), "{line}");
        assert!(format == Format::OpenMetrics || (kind == "counter") == name.ends_with("_total"), "{line}");
        family.kind = kind.to_owned();
        return;
    }
    if let Some(unit) = line.strip_prefix(&format!("# UNIT {name} ")) {
        assert!(format == Format::OpenMetrics && name.ends_with(&format!("_{unit}")), "{line}");
        return;
    }
    assert!(!line.starts_with('#'), "not of {name}: {line}");
    let (series, value) = line.rsplit_once(' ').expect("a series and its value");
    let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
    let (found, labels) = match series.split_once('{') {
        Some((found, labels)) => (found, read_labels(labels.strip_suffix('}').expect("the labels end"))),
        None => (series, Labels::new()),
    };
    let suffixes: &[&str] = match (family.kind.as_str(), format) {
        ("histogram", _) => &["_bucket", "_sum", "_count"],
        ("counter", Format::OpenMetrics) => &["_total"],
        ("info", _) => &["_info"],
        _ => &[""],
    };
    assert!(suffixes.iter().any(|suffix| found == format!("{name}{suffix}")), "not of {name}: {line}");
    assert!(family.kind == "gauge" || value >= 0.0, "{line}");
    assert!(family.series.insert((found.to_owned(), labels), value).is_none(), "a series stands twice: {line}");
}

fn read_labels(mut text: &str) -> Labels {
    let mut labels = Labels::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"").expect("a name and a value in quotes");
        let end = rest.find('"').expect("the value ends");
        assert!(is_name(name) && !rest[..end].contains('\\'), "{text}");
        let mut value = rest[..end].to_owned();
        if name == "le" {
            // The formats write numbers in different ways.
            value = value.parse::<f64>().expect("a bound is a number").to_string();
        }
        assert!(labels.insert(name.to_owned(), value).is_none(), "a label stands twice: {text}");
        text = &rest[end + 1..];
        text = text.strip_prefix(',').unwrap_or(text);
    }
    labels
}

fn is_name(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    !name.starts_with(|first: char| first.is_ascii_digit()) && !name.is_empty() && name.bytes().all(is_part)
}

/// Each bucket holds what the one before it does, and the last one holds all.
fn check_histogram(name: &str, family: &Family) {
    let mut buckets: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    for ((found, labels), value) in &family.series {
        let mut labels = labels.clone();
        if found.ends_with("_bucket") {
            let bound = labels.remove("le").expect("a bucket has a bound");
            buckets.entry(labels).or_default().push((bound.parse().expect("a number"), *value));
        } else {
            assert!(!labels.contains_key("le"), "{name} {found}");
            buckets.entry(labels).or_default();
        }
    }
    for (labels, mut buckets) in buckets {
        let of = |suffix: &str| family.series.get(&(format!("{name}{suffix}"), labels.clone()));
        let (count, sum) = (of("_count").expect("a count"), of("_sum").expect("a sum"));
        buckets.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        assert!(buckets.is_sorted_by(|(_, less), (_, more)| less <= more), "{name} {labels:?} {buckets:?}");
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, *count)), "{name} {labels:?}");
        assert!(*count > 0.0 || *sum == 0.0, "{name} {labels:?}");
    }
}

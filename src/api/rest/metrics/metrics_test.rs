use std::sync::Arc;

use hyper::HeaderMap;
use hyper::header::{ACCEPT, HeaderValue};

use super::{Format, OPEN_METRICS_TYPE, Shown};
use crate::metrics::Counters;
use crate::metrics::figures::{Figures, ProcessFigures, Texts};

/// Counters that show by core, or in histograms, and not among those that are added up.
const ELSEWHERE: [&str; 6] = ["turns", "turn_us_max", "events", "log_syncs", "log_sync_us_total", "snapshot_us_last"];

fn written(counters: Counters, format: Format) -> String {
    let (status, requests) = (Box::default(), Box::default());
    let figures = Arc::new(Figures { status, counters, requests, cores: Vec::new(), texts: Texts::default() });
    format.write(Shown { figures, process: ProcessFigures::default() }).expect("written")
}

#[test]
fn every_counter_shows_once() {
    let names = Counters::default().named().into_iter().map(|(name, _)| name);
    for name in names.filter(|name| !ELSEWHERE.contains(&name.as_str())) {
        let mut counters = Counters::default();
        counters.set(&name, 7_777_000_000);
        let text = written(counters, Format::Prometheus);
        let showing = text.lines().filter(|line| line.ends_with(" 7777000000") || line.ends_with(" 7777.0"));
        assert_eq!(showing.count(), 1, "{name} in {text}");
    }
}

#[test]
fn open_metrics_is_for_whoever_names_it() {
    let format = |accept: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        Format::accepted(&headers)
    };
    assert_eq!(Format::accepted(&HeaderMap::new()), Format::Prometheus);
    assert_eq!(format("text/plain;version=0.0.4;q=0.5, */*;q=0.1"), Format::Prometheus);
    let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;q=0.4";
    assert_eq!(format(prometheus_3), Format::OpenMetrics);
    assert_eq!(format("text/html, Application/OpenMetrics-Text"), Format::OpenMetrics);
}

#[test]
fn the_two_formats_differ_where_they_must() {
    let (classic, open) = (Format::Prometheus, Format::OpenMetrics);
    assert!(written(Counters::default(), classic).contains("# TYPE raftkv_log_written_bytes_total counter\n"));
    let text = written(Counters::default(), open);
    assert!(text.contains("# TYPE raftkv_log_written_bytes counter\n# UNIT raftkv_log_written_bytes bytes\n"));
    assert!(text.contains("\nraftkv_log_written_bytes_total 0\n"));
    assert!(text.ends_with("# EOF\n"));
    assert_eq!(open.content_type(), OPEN_METRICS_TYPE);
}

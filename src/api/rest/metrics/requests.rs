//! Requests by operation, face and result, and how long they took.

use std::fmt;

use super::page::{About, Labels, MICROS, Page, label};
use crate::metrics::requests::{Face, Requests, Task};

/// Writes them. Results that were not seen have no series, nor have kinds of requests that nobody waits for as for data.
pub fn write(requests: &Requests, page: &mut Page<'_>) -> fmt::Result {
    let kinds = || requests.kinds().filter(|(_, task, results)| task.is_data() || results.counts().any(|(_, n)| n > 0));
    let counts = kinds().flat_map(|(face, task, results)| {
        results.counts().map(move |(result, count)| {
            let mut labels = labels(face, task);
            labels.push(("result", result.into()));
            (labels, count)
        })
    });
    page.counter(
        &About::new(
            "raftkv_requests",
            "Requests answered, by operation, face and result: ok, or the code of the refusal",
        ),
        counts,
    )?;
    page.histogram(
        &About::seconds("raftkv_request", "Time from when a request was there as a whole until its answer was ready"),
        MICROS,
        kinds().map(|(face, task, results)| (labels(face, task), results.times.shape())),
    )
}

fn labels(face: Face, task: Task) -> Labels {
    let mut labels = label("operation", task.name());
    labels.push(("face", face.name().into()));
    labels
}

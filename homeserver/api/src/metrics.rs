//! Request counters and a latency histogram per route, in the text form of Prometheus.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::Method;
use parking_lot::RwLock;

/// Upper bounds of the histogram, ms.
const BOUNDS_MS: [u64; 10] = [1, 5, 10, 25, 50, 100, 250, 1_000, 5_000, 30_000];

/// Bounded by the number of routes and methods that exist.
static ROUTES: LazyLock<RwLock<BTreeMap<String, Arc<[RouteMetrics; 5]>>>> = LazyLock::new(RwLock::default);

#[derive(Debug, Default)]
struct RouteMetrics {
    classes: [AtomicU64; 5],
    buckets: [AtomicU64; BOUNDS_MS.len()],
    count: AtomicU64,
    sum_us: AtomicU64,
}

const METHODS: [&str; 5] = ["GET", "PUT", "POST", "DELETE", "OTHER"];

fn method_index(method: &Method) -> usize {
    METHODS.iter().position(|name| *name == method.as_str()).unwrap_or(4)
}

/// Counts one answered request.
pub(crate) fn record(route: &str, method: &Method, status: u16, elapsed: Duration) {
    let known = ROUTES.read().get(route).cloned();
    let metrics = known.unwrap_or_else(|| Arc::clone(ROUTES.write().entry(route.to_owned()).or_default()));
    let Some(metrics) = metrics.get(method_index(method)) else { return };
    if let Some(class) = metrics.classes.get(usize::from(status / 100).saturating_sub(1).min(4)) {
        class.fetch_add(1, Ordering::Relaxed);
    }
    let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    for (bound, bucket) in BOUNDS_MS.iter().zip(&metrics.buckets) {
        if ms <= *bound {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }
    metrics.count.fetch_add(1, Ordering::Relaxed);
    metrics.sum_us.fetch_add(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// All request metrics of this process, in the text form of Prometheus.
#[must_use]
pub fn render() -> String {
    let mut text = String::new();
    let routes = ROUTES.read();
    text.push_str("# HELP matron_http_requests_total Answered requests by route, method and class of status.\n");
    text.push_str("# TYPE matron_http_requests_total counter\n");
    for (route, method, metrics) in each(&routes) {
        for (class, counter) in (1..).zip(&metrics.classes) {
            let value = counter.load(Ordering::Relaxed);
            if value > 0 {
                let _ = writeln!(
                    text,
                    "matron_http_requests_total{{method=\"{method}\",route=\"{route}\",status=\"{class}xx\"}} {value}"
                );
            }
        }
    }
    text.push_str("# HELP matron_http_request_duration_seconds Time to the answer's head by route and method.\n");
    text.push_str("# TYPE matron_http_request_duration_seconds histogram\n");
    for (route, method, metrics) in each(&routes) {
        render_histogram(&mut text, route, method, metrics);
    }
    text
}

fn each(
    routes: &BTreeMap<String, Arc<[RouteMetrics; 5]>>,
) -> impl Iterator<Item = (&str, &'static str, &RouteMetrics)> {
    routes.iter().flat_map(|(route, methods)| {
        METHODS
            .into_iter()
            .zip(methods.iter())
            .filter(|(_, metrics)| metrics.count.load(Ordering::Relaxed) > 0)
            .map(move |(method, metrics)| (route.as_str(), method, metrics))
    })
}

fn render_histogram(text: &mut String, route: &str, method: &str, metrics: &RouteMetrics) {
    let labels = format!("method=\"{method}\",route=\"{route}\"");
    for (bound, bucket) in BOUNDS_MS.iter().zip(&metrics.buckets) {
        let value = bucket.load(Ordering::Relaxed);
        let _ = writeln!(
            text,
            "matron_http_request_duration_seconds_bucket{{{labels},le=\"{}.{:03}\"}} {value}",
            bound / 1000,
            bound % 1000
        );
    }
    let count = metrics.count.load(Ordering::Relaxed);
    let sum_us = metrics.sum_us.load(Ordering::Relaxed);
    let _ = writeln!(text, "matron_http_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} {count}");
    let _ = writeln!(
        text,
        "matron_http_request_duration_seconds_sum{{{labels}}} {}.{:06}",
        sum_us / 1_000_000,
        sum_us % 1_000_000
    );
    let _ = writeln!(text, "matron_http_request_duration_seconds_count{{{labels}}} {count}");
}

//! Figures from many readings: percentiles, means and spreads. Pure.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Milliseconds since `began`.
pub(crate) fn ms_since(began: Instant) -> f64 {
    milliseconds(began.elapsed())
}

/// A duration in milliseconds.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Three decimals: below that a figure says nothing.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// How many a second.
pub(crate) fn per_second(count: usize, seconds: f64) -> f64 {
    rounded(count as f64 / seconds.max(1e-9))
}

/// The percentiles, the largest and the mean of latencies in milliseconds; null where there are none.
pub(crate) fn latencies(readings_ms: &[f64]) -> Value {
    let sorted = sorted(readings_ms);
    let Some(max) = sorted.last() else {
        return Value::Null;
    };
    json!({
        "n": sorted.len(),
        "p50_ms": rounded(percentile(&sorted, 50)),
        "p95_ms": rounded(percentile(&sorted, 95)),
        "p99_ms": rounded(percentile(&sorted, 99)),
        "max_ms": rounded(*max),
        "mean_ms": rounded(mean(&sorted)),
    })
}

/// The mean of repeated readings of the same thing, and how far they lie apart; null where there are none.
///
/// `stdev` is that of a sample (divided by one less than their number), and 0 for a single reading.
pub(crate) fn spread(readings: &[f64]) -> Value {
    let sorted = sorted(readings);
    let (Some(min), Some(max)) = (sorted.first(), sorted.last()) else {
        return Value::Null;
    };
    let mean = mean(&sorted);
    let squares: f64 = sorted.iter().map(|reading| (reading - mean).powi(2)).sum();
    let stdev = (squares / sorted.len().saturating_sub(1).max(1) as f64).sqrt();
    json!({
        "n": sorted.len(), "mean": rounded(mean), "stdev": rounded(stdev), "min": rounded(*min), "max": rounded(*max),
    })
}

/// The lower of the two middle readings, or 0 where there are none.
pub(crate) fn median(readings: &[f64]) -> f64 {
    percentile(&sorted(readings), 50)
}

/// The mean, or 0 where there are no readings.
pub(crate) fn mean(readings: &[f64]) -> f64 {
    readings.iter().sum::<f64>() / readings.len().max(1) as f64
}

/// The readings, smallest first.
pub(crate) fn sorted(readings: &[f64]) -> Vec<f64> {
    let mut sorted = readings.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The smallest reading that at least `percent` of all do not exceed (nearest rank).
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_readings_by_nearest_rank() {
        let readings: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        let figures = latencies(&readings);
        assert_eq!(figures["n"], 200);
        assert_eq!(figures["p50_ms"], 100.0);
        assert_eq!(figures["p95_ms"], 190.0);
        assert_eq!(figures["p99_ms"], 198.0);
        assert_eq!(figures["max_ms"], 200.0);
        assert_eq!(figures["mean_ms"], 100.5);
    }

    #[test]
    fn one_reading_is_every_percentile() {
        let figures = latencies(&[7.00049]);
        for figure in ["p50_ms", "p95_ms", "p99_ms", "max_ms", "mean_ms"] {
            assert_eq!(figures[figure], 7.0, "{figure}");
        }
        assert_eq!(spread(&[7.0])["stdev"], 0.0);
    }

    #[test]
    fn nothing_was_read_from_no_readings() {
        assert!(latencies(&[]).is_null());
        assert!(spread(&[]).is_null());
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn a_spread_is_that_of_a_sample() {
        let figures = spread(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]);
        assert_eq!(figures["mean"], 5.0);
        assert_eq!(figures["stdev"], 2.138);
        assert_eq!((&figures["min"], &figures["max"]), (&json!(2.0), &json!(9.0)));
    }

    #[test]
    fn the_median_of_an_even_number_is_the_lower_middle_one() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 3.0]), 3.0);
    }
}

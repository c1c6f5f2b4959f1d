//! A closed loop: workers that each begin the next request when their last one is answered.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use futures_util::future::join_all;
use serde_json::Value;

use crate::client::RequestError;
use crate::error::LoadError;
use crate::figures::{latencies, ms_since, per_second};

/// What came of a closed loop.
pub(crate) struct Outcome<T> {
    /// What the requests that succeeded gave, in the order in which they ended.
    pub(crate) values: Vec<T>,
    /// How long each of these took, in milliseconds.
    pub(crate) latencies_ms: Vec<f64>,
    /// When each of these ended, in seconds since the loop began.
    pub(crate) ended_s: Vec<f64>,
    pub(crate) errors: usize,
    pub(crate) first_error: Option<RequestError>,
    /// How long it all took, in seconds.
    pub(crate) wall_s: f64,
}

/// `workers` take the numbers from 0 to `count` in turn and await `work(worker, number)` for each.
pub(crate) async fn drive<T, F, W>(workers: usize, count: usize, work: W) -> Outcome<T>
where
    W: Fn(usize, usize) -> F,
    F: Future<Output = Result<T, RequestError>>,
{
    let next = Cell::new(0);
    let outcome = RefCell::new(Outcome::default());
    let began = Instant::now();
    let worker = async |worker: usize| {
        while next.get() < count {
            let number = next.replace(next.get() + 1);
            let asked = Instant::now();
            let answer = work(worker, number).await;
            let latency_ms = ms_since(asked);
            let mut outcome = outcome.borrow_mut();
            match answer {
                Ok(value) => {
                    outcome.values.push(value);
                    outcome.latencies_ms.push(latency_ms);
                    outcome.ended_s.push(began.elapsed().as_secs_f64());
                }
                Err(error) => outcome.failed(error),
            }
        }
    };
    join_all((0..workers.max(1)).map(worker)).await;
    let mut outcome = outcome.into_inner();
    outcome.wall_s = began.elapsed().as_secs_f64();
    outcome
}

impl<T> Default for Outcome<T> {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            latencies_ms: Vec::new(),
            ended_s: Vec::new(),
            errors: 0,
            first_error: None,
            wall_s: 0.0,
        }
    }
}

impl<T> Outcome<T> {
    /// Counts a request that failed.
    pub(crate) fn failed(&mut self, error: RequestError) {
        self.errors += 1;
        self.first_error.get_or_insert(error);
    }

    /// What all requests gave, in the order in which they ended.
    ///
    /// # Errors
    ///
    /// [`LoadError::Preparation`] if one of them failed.
    pub(crate) fn all(self, what: &'static str) -> Result<Self, LoadError> {
        let of = self.values.len() + self.errors;
        match self.first_error {
            Some(first) => Err(LoadError::Preparation { what, errors: self.errors, of, first }),
            None => Ok(self),
        }
    }

    /// The outcome, if anything at all succeeded.
    ///
    /// # Errors
    ///
    /// [`LoadError::Preparation`] if everything failed.
    pub(crate) fn any(self, what: &'static str) -> Result<Self, LoadError> {
        if self.succeeded() == 0 { self.all(what) } else { Ok(self) }
    }

    /// How many requests succeeded.
    pub(crate) fn succeeded(&self) -> usize {
        self.latencies_ms.len()
    }

    /// How many succeeded a second.
    pub(crate) fn per_second(&self) -> f64 {
        per_second(self.succeeded(), self.wall_s)
    }

    /// The percentiles of how long they took.
    pub(crate) fn latency(&self) -> Value {
        latencies(&self.latencies_ms)
    }

    /// Why the first that failed did.
    pub(crate) fn first_error(&self) -> Option<String> {
        self.first_error.as_ref().map(RequestError::with_causes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_number_is_taken_once_and_no_worker_waits_for_another() {
        let outcome = drive(3, 10, async |worker, number| {
            tokio::task::yield_now().await;
            Ok((worker, number))
        })
        .await;
        let mut numbers: Vec<_> = outcome.values.iter().map(|(_, number)| *number).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..10).collect::<Vec<_>>());
        for worker in 0..3 {
            assert!(outcome.values.iter().any(|(taken_by, _)| *taken_by == worker), "{worker}");
        }
        assert_eq!((outcome.latencies_ms.len(), outcome.errors), (10, 0));
    }

    #[tokio::test]
    async fn failures_are_counted_and_fatal_to_a_preparation() {
        let outcome = drive(
            2,
            5,
            async |_, number| {
                if number % 2 == 0 { Err(RequestError::missing("room_id")) } else { Ok(number) }
            },
        )
        .await;
        assert_eq!((outcome.succeeded(), outcome.values.len(), outcome.errors), (2, 2, 3));
        let outcome = outcome.any("rooms").ok().unwrap();
        let error = outcome.all("rooms").err().unwrap();
        assert!(error.to_string().contains("3 of 5"), "{error}");
    }

    #[tokio::test]
    async fn where_everything_failed_there_is_nothing_to_go_on_with() {
        let outcome = drive(2, 3, async |_, _| Err::<(), _>(RequestError::missing("user"))).await;
        let error = outcome.any("registrations").err().unwrap();
        assert!(error.to_string().contains("registrations: 3 of 3"), "{error}");
    }
}

//! How the story is told: one step at a time, each with its evidence.

use std::{io::Write as _, time::Instant};

/// The step that did not hold, and why.
#[derive(Debug, thiserror::Error)]
#[error("step {number} ({title}) did not hold: {why}")]
pub struct DemoError {
    /// Which step.
    pub number: u32,
    /// Its title.
    pub title: String,
    /// Why.
    pub why: String,
}

/// Why a step did not hold; any error's sentence will do.
#[derive(Debug)]
pub(crate) struct Why(pub String);

impl<E: std::fmt::Display> From<E> for Why {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// What a step gives.
pub(crate) type Step<T = ()> = Result<T, Why>;

/// A step fails with this sentence.
pub(crate) fn fail<T>(sentence: impl Into<String>) -> Step<T> {
    Err(Why(sentence.into()))
}

/// The teller.
#[derive(Debug)]
pub(crate) struct Story {
    began: Instant,
    number: u32,
    title: String,
}

impl Story {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), number: 0, title: String::new() }
    }

    /// A new step begins.
    pub(crate) fn step(&mut self, title: &str) {
        self.number += 1;
        title.clone_into(&mut self.title);
        line(&format!("\n{:>2}. {title}", self.number));
    }

    /// What shows that it holds.
    pub(crate) fn evidence(&self, text: impl AsRef<str>) {
        line(&format!("    ✓ {}  [{:.1} s]", text.as_ref(), self.began.elapsed().as_secs_f32()));
    }

    /// Plain words.
    pub(crate) fn tell(&self, text: impl AsRef<str>) {
        line(&format!("    {}", text.as_ref()));
    }

    /// The step's outcome, named if it failed.
    pub(crate) fn held<T>(&self, outcome: Step<T>) -> Result<T, DemoError> {
        outcome.map_err(|why| {
            line(&format!("    ✗ {}", why.0));
            DemoError { number: self.number, title: self.title.clone(), why: why.0 }
        })
    }
}

/// A line on standard output; a reader that left early is no error.
pub(crate) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

//! The threads that hash passwords: few and always the same, since the allocator keeps what a thread once had, and a
//! hash takes 19 MiB.

use std::{
    sync::{Arc, OnceLock, mpsc},
    thread,
};

use parking_lot::Mutex;

/// Work for a hashing thread.
type Job = Box<dyn FnOnce() + Send>;

/// The threads, started with the first password.
#[derive(Debug)]
pub(super) struct Hashers {
    count: usize,
    jobs: OnceLock<mpsc::SyncSender<Job>>,
}

impl Hashers {
    /// So many threads, once they are needed.
    pub(super) fn new(count: usize) -> Self {
        Self { count, jobs: OnceLock::new() }
    }

    /// What the work gives; `None` if it panicked or no thread can be had.
    pub(super) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (give, take) = tokio::sync::oneshot::channel();
        let jobs = self.jobs.get_or_init(|| start(self.count)).clone();
        // INVARIANT: no more callers than threads at a time, so that this never waits for a place.
        jobs.try_send(Box::new(move || drop(give.send(work())))).ok()?;
        take.await.ok()
    }
}

fn start(count: usize) -> mpsc::SyncSender<Job> {
    let (sender, receiver) = mpsc::sync_channel::<Job>(count.saturating_mul(2));
    let receiver = Arc::new(Mutex::new(receiver));
    for _ in 0..count {
        let receiver = Arc::clone(&receiver);
        let started = thread::Builder::new().name("matron-hash".to_owned()).spawn(move || {
            loop {
                let job = receiver.lock().recv();
                let Ok(job) = job else { return };
                // A panic is the caller's to report: its answer never comes.
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            }
        });
        if let Err(error) = started {
            tracing::error!(%error, "a hashing thread did not start");
        }
    }
    sender
}

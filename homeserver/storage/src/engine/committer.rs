//! The one thread that writes: it merges all batches that wait into one transaction and one flush.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use futures_channel::oneshot;
use parking_lot::Mutex;

use super::marks::{Marks, Touched};
use crate::{Batch, CommitError, Committed, Mark, Op, Pending, StoreError, StreamPos, Table};

/// How many batches may wait; whoever submits one more waits for room.
const QUEUE: usize = 1024;
/// How many batches one transaction takes.
const GROUP_BATCHES: usize = 512;
/// How many bytes of keys and values one transaction takes before it stops to draw further batches.
const GROUP_BYTES: usize = 8 * 1024 * 1024;

type Answer = Result<Committed, CommitError>;

/// What a group came to.
pub(crate) struct Outcome {
    /// One answer for each batch, in order.
    pub(crate) answers: Vec<Answer>,
    /// The position after the group.
    pub(crate) position: StreamPos,
    /// How many flushes it took.
    pub(crate) flushes: u64,
}

/// The writing half of an engine, owned by the committer's thread.
pub(crate) trait Writer: Send + 'static {
    /// The batches are applied in their order and durable, or refused one by one; `from` is the position before them.
    fn commit(&mut self, batches: Vec<Batch>, from: StreamPos) -> Outcome;

    /// Nobody waits: time for what is better not done while somebody does.
    fn rest(&mut self) {}
}

type Task<W> = Box<dyn FnOnce(&mut W) + Send>;

enum Job<W> {
    Commit(Batch, oneshot::Sender<Answer>),
    Task(Task<W>),
    Stop,
}

/// The handle through which everyone reaches the committer's thread.
pub(crate) struct Committer<W> {
    sender: SyncSender<Job<W>>,
    position: Arc<AtomicU64>,
    flushes: Arc<AtomicU64>,
    marks: Arc<Marks>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<W> fmt::Debug for Committer<W> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Committer").field("position", &self.position).finish_non_exhaustive()
    }
}

impl<W: Writer> Committer<W> {
    /// A thread that owns `writer` runs and waits for batches.
    pub(crate) fn start(writer: W, position: StreamPos) -> Result<Self, StoreError> {
        let (sender, receiver) = sync_channel(QUEUE);
        let marks = Arc::new(Marks::new(position));
        let position = Arc::new(AtomicU64::new(position.0));
        let flushes = Arc::new(AtomicU64::new(0));
        let work = Work {
            writer,
            receiver,
            position: Arc::clone(&position),
            flushes: Arc::clone(&flushes),
            marks: Arc::clone(&marks),
        };
        let thread = std::thread::Builder::new().name("matron-commit".to_owned()).spawn(move || {
            // INVARIANT: the receiver dies with `work`, so after a panic every waiting and later batch is
            // answered with `Closed`; nobody waits for a thread that is gone.
            if catch_unwind(AssertUnwindSafe(move || work.run())).is_err() {
                tracing::error!("the committer panicked; the store accepts no further writes");
            }
        })?;
        Ok(Self { sender, position, flushes, marks, thread: Mutex::new(Some(thread)) })
    }

    /// Hands over a batch; waits while the queue is full.
    pub(crate) fn submit(&self, batch: Batch) -> Pending {
        let (answer, pending) = Pending::channel();
        if let Err(refused) = self.sender.send(Job::Commit(batch, answer)) {
            // Dropping the answer resolves the pending batch with `Closed`.
            drop(refused);
        }
        pending
    }

    /// What `task` made of the writer, between two groups.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        task: impl FnOnce(&mut W) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, receiver) = sync_channel(1);
        let task: Task<W> = Box::new(move |writer| drop(sender.send(task(writer))));
        self.sender.send(Job::Task(task)).map_err(|_| StoreError::Closed)?;
        receiver.recv().map_err(|_| StoreError::Closed)?
    }

    /// The position up to which everything is durable and visible.
    pub(crate) fn position(&self) -> StreamPos {
        StreamPos(self.position.load(Ordering::Acquire))
    }

    /// When something under `prefix` last changed.
    pub(crate) fn mark(&self, table: Table, prefix: &[u8]) -> Mark {
        self.marks.read(table, prefix)
    }

    /// How many flushes there were since the store was opened.
    pub(crate) fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    /// The thread has ended; what was submitted before is durable.
    pub(crate) fn stop(&self) {
        // A second caller waits here for the first.
        let mut thread = self.thread.lock();
        if let Some(handle) = thread.take() {
            // The thread may have ended by itself; then there is no one to tell.
            drop(self.sender.send(Job::Stop));
            if handle.join().is_err() {
                tracing::error!("the committer ended badly");
            }
        }
    }
}

struct Work<W> {
    writer: W,
    receiver: Receiver<Job<W>>,
    position: Arc<AtomicU64>,
    flushes: Arc<AtomicU64>,
    marks: Arc<Marks>,
}

impl<W: Writer> Work<W> {
    fn run(mut self) {
        let mut carried = None;
        while let Some(job) = carried.take().or_else(|| self.next()) {
            match job {
                Job::Commit(batch, answer) => carried = self.commit_group(batch, answer),
                Job::Task(task) => task(&mut self.writer),
                Job::Stop => return,
            }
        }
    }

    /// The next job. If there is none yet, the writer has time until one comes.
    fn next(&mut self) -> Option<Job<W>> {
        if let Ok(job) = self.receiver.try_recv() {
            return Some(job);
        }
        self.writer.rest();
        self.receiver.recv().ok()
    }

    /// Commits this batch and those that wait behind it; gives back the job that ended the drawing, if any.
    fn commit_group(&mut self, batch: Batch, answer: oneshot::Sender<Answer>) -> Option<Job<W>> {
        let mut bytes = size_bytes(&batch);
        let mut batches = vec![batch];
        let mut senders = vec![answer];
        let mut carried = None;
        while batches.len() < GROUP_BATCHES && bytes < GROUP_BYTES {
            match self.receiver.try_recv() {
                Ok(Job::Commit(batch, answer)) => {
                    bytes = bytes.saturating_add(size_bytes(&batch));
                    batches.push(batch);
                    senders.push(answer);
                }
                Ok(other) => {
                    carried = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        let from = StreamPos(self.position.load(Ordering::Acquire));
        let mut touched = Touched::default();
        for batch in &batches {
            touched.add(batch);
        }
        let outcome = self.writer.commit(batches, from);
        self.flushes.fetch_add(outcome.flushes, Ordering::Relaxed);
        // INVARIANT: marked after it is visible and before the position moves.
        self.marks.touch(&touched, outcome.position);
        // INVARIANT: the position moves after durability and before any acknowledgement.
        self.position.store(outcome.position.0, Ordering::Release);
        for (sender, answer) in senders.into_iter().zip(outcome.answers) {
            // Whoever stopped waiting does not need the answer.
            drop(sender.send(answer));
        }
        carried
    }
}

fn size_bytes(batch: &Batch) -> usize {
    batch
        .ops
        .iter()
        .map(|op| match op {
            Op::Put { key, value, .. } => key.len().saturating_add(value.len()),
            Op::Delete { key, .. } => key.len(),
            Op::DeleteRange { range, .. } => range.start.len(),
        })
        .fold(0, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fragile;

    impl Writer for Fragile {
        fn commit(&mut self, batches: Vec<Batch>, from: StreamPos) -> Outcome {
            assert!(batches.iter().all(|batch| batch.positions < 9), "told to panic");
            let answers = batches.iter().map(|_| Ok(Committed { first: from, count: 0 })).collect();
            Outcome { answers, position: from, flushes: 1 }
        }
    }

    fn closed(answer: Answer) -> bool {
        matches!(answer, Err(CommitError::Store(StoreError::Closed)))
    }

    #[test]
    fn panic_in_the_committer_refuses_its_batch_and_every_later_one() {
        let committer = Committer::start(Fragile, StreamPos(0)).unwrap();
        assert!(committer.submit(Batch::new()).wait().is_ok());
        assert!(closed(committer.submit(Batch { positions: 9, ..Batch::new() }).wait()));
        assert!(closed(committer.submit(Batch::new()).wait()));
        assert!(matches!(committer.run(|_| Ok(())), Err(StoreError::Closed)));
        committer.stop();
    }

    #[test]
    fn batches_that_wait_are_committed_as_one_group() {
        let committer = Committer::start(Fragile, StreamPos(0)).unwrap();
        let (open_gate, gate) = sync_channel::<()>(1);
        let (started, wait_started) = sync_channel::<()>(1);
        let held = std::thread::scope(|scope| {
            let blocked = scope.spawn(|| {
                committer.run(move |_| {
                    started.send(()).unwrap();
                    gate.recv().unwrap();
                    Ok(())
                })
            });
            wait_started.recv().unwrap();
            let pending: Vec<_> = (0..100).map(|_| committer.submit(Batch::new())).collect();
            open_gate.send(()).unwrap();
            blocked.join().unwrap().unwrap();
            pending
        });
        for pending in held {
            pending.wait().unwrap();
        }
        assert_eq!(committer.flushes(), 1);
        committer.stop();
        assert!(closed(committer.submit(Batch::new()).wait()));
    }
}

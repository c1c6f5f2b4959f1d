//! The conditional atomic batch, the only way to write.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use futures_channel::oneshot;

use crate::{KeyRange, StoreError, StreamPos, Table};

/// How a position is written into a key or a value, always eight bytes, big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotForm {
    /// The position itself.
    Plain,
    /// `2^63 + position`: the later half of a room's timeline.
    Timeline,
    /// `2^63 - position`: history fetched after the fact, before everything that came by itself.
    Backfill,
}

/// A place in a key or a value that the committer overwrites with a position when it commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Where the eight bytes begin.
    pub offset: usize,
    /// Which of the batch's positions, from 0 to [`Batch::positions`] exclusive.
    pub index: u32,
    /// How it is written.
    pub form: SlotForm,
}

/// What must hold for a batch to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key has no value.
    Absent { table: Table, key: Vec<u8> },
    /// The key has this value.
    Equals { table: Table, key: Vec<u8>, value: Vec<u8> },
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets a value; `key_slot` and `value_slot` are filled with positions at commit.
    Put { table: Table, key: Vec<u8>, value: Vec<u8>, key_slot: Option<Slot>, value_slot: Option<Slot> },
    /// Removes a key; nothing happens if it is absent.
    Delete { table: Table, key: Vec<u8> },
    /// Removes every key of a range.
    DeleteRange { table: Table, range: KeyRange },
}

impl Op {
    /// The same with the indexes of its positions moved.
    fn moved(self, by: u32) -> Self {
        let slot = |slot: Slot| Slot { index: slot.index.saturating_add(by), ..slot };
        match self {
            Self::Put { table, key, value, key_slot, value_slot } => {
                Self::Put { table, key, value, key_slot: key_slot.map(slot), value_slot: value_slot.map(slot) }
            }
            unmoved @ (Self::Delete { .. } | Self::DeleteRange { .. }) => unmoved,
        }
    }
}

/// A batch expects what the one before it in the same commit undoes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("two batches of one commit contradict each other")]
pub struct Clash;

/// Changes that become visible and durable together, or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Checked inside the transaction, before the changes.
    pub expect: Vec<Expect>,
    /// Applied in order.
    pub ops: Vec<Op>,
    /// How many stream positions the committer assigns to this batch, consecutive.
    pub positions: u32,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reserves one more stream position and returns its index in this batch.
    pub fn reserve_position(&mut self) -> u32 {
        let index = self.positions;
        self.positions = self.positions.saturating_add(1);
        index
    }

    /// Sets a value.
    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> &mut Self {
        self.ops.push(Op::Put { table, key: key.into(), value: value.into(), key_slot: None, value_slot: None });
        self
    }

    /// Sets a value whose key or value carries a position; see [`Key::position`](crate::Key::position).
    pub fn put_at(
        &mut self,
        table: Table,
        key: impl Into<Vec<u8>>,
        key_slot: Option<Slot>,
        value: impl Into<Vec<u8>>,
        value_slot: Option<Slot>,
    ) -> &mut Self {
        self.ops.push(Op::Put { table, key: key.into(), value: value.into(), key_slot, value_slot });
        self
    }

    /// Removes a key.
    pub fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) -> &mut Self {
        self.ops.push(Op::Delete { table, key: key.into() });
        self
    }

    /// Removes every key of a range.
    pub fn delete_range(&mut self, table: Table, range: KeyRange) -> &mut Self {
        self.ops.push(Op::DeleteRange { table, range });
        self
    }

    /// Demands that a key has no value, or the batch is refused with [`CommitError::Conflict`].
    pub fn expect_absent(&mut self, table: Table, key: impl Into<Vec<u8>>) -> &mut Self {
        self.expect.push(Expect::Absent { table, key: key.into() });
        self
    }

    /// Demands that a key has this value, or the batch is refused with [`CommitError::Conflict`].
    pub fn expect_equals(&mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> &mut Self {
        self.expect.push(Expect::Equals { table, key: key.into(), value: value.into() });
        self
    }

    /// `next` is applied after this batch and in the same commit; by how much the indexes of its positions moved.
    ///
    /// What `next` expects of keys that this batch writes is answered here; the rest is checked at the commit.
    ///
    /// # Errors
    /// [`Clash`]; the batch is spoilt then.
    pub fn then(&mut self, next: Self) -> Result<u32, Clash> {
        let Self { expect, ops, positions } = next;
        for expected in expect {
            let (table, key, wanted) = match &expected {
                Expect::Absent { table, key } => (*table, key, None),
                Expect::Equals { table, key, value } => (*table, key, Some(value)),
            };
            match self.written(table, key)? {
                None => self.expect.push(expected),
                Some(written) if written == wanted => {}
                Some(_) => return Err(Clash),
            }
        }
        let moved = self.positions;
        self.ops.extend(ops.into_iter().map(|op| op.moved(moved)));
        self.positions = self.positions.saturating_add(positions);
        Ok(moved)
    }

    /// What the key holds after this batch: `None` if it is not touched, `Some(None)` if it is removed.
    fn written(&self, table: Table, key: &[u8]) -> Result<Option<Option<&Vec<u8>>>, Clash> {
        for op in self.ops.iter().rev() {
            match op {
                Op::Put { table: t, key: k, value, key_slot: None, value_slot }
                    if (*t, k.as_slice()) == (table, key) =>
                {
                    // A value that carries a position is not known before the commit.
                    return if value_slot.is_some() { Err(Clash) } else { Ok(Some(Some(value))) };
                }
                Op::Delete { table: t, key: k } if (*t, k.as_slice()) == (table, key) => return Ok(Some(None)),
                Op::DeleteRange { table: t, range } if *t == table && range.contains(key) => return Ok(Some(None)),
                Op::Put { .. } | Op::Delete { .. } | Op::DeleteRange { .. } => {}
            }
        }
        Ok(None)
    }

    /// Whether committing it would change nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.expect.is_empty() && self.positions == 0
    }
}

/// What a durable batch was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The first of its positions; equal to the store's position if it asked for none.
    pub first: StreamPos,
    /// How many positions it was given.
    pub count: u32,
}

impl Committed {
    /// The position with this index in the batch.
    #[must_use]
    pub fn position(&self, index: u32) -> StreamPos {
        StreamPos(self.first.0.saturating_add(u64::from(index)))
    }

    /// The last position given, or `first` if none was.
    #[must_use]
    pub fn last(&self) -> StreamPos {
        StreamPos(self.first.0.saturating_add(u64::from(self.count.saturating_sub(1))))
    }
}

/// Why a batch was not applied. Nothing of it is visible.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The expectation with this index did not hold.
    #[error("expectation {0} of the batch did not hold")]
    Conflict(usize),
    /// The engine failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The answer to [`Store::submit`](crate::Store::submit): a future, or [`Pending::wait`] without a runtime.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Result<Committed, CommitError>>);

impl Pending {
    /// A pending answer and the end through which the committer gives it.
    #[must_use]
    pub fn channel() -> (oneshot::Sender<Result<Committed, CommitError>>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(receiver))
    }

    /// Blocks until the batch is durable, or was refused.
    ///
    /// # Errors
    /// [`CommitError`].
    pub fn wait(self) -> Result<Committed, CommitError> {
        // A thread that parks is all that this needs; pure callers have no runtime.
        struct Unpark(std::thread::Thread);
        impl std::task::Wake for Unpark {
            fn wake(self: std::sync::Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = std::task::Waker::from(std::sync::Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        let mut this = std::pin::pin!(self);
        loop {
            match this.as_mut().poll(&mut context) {
                Poll::Ready(result) => return result,
                Poll::Pending => std::thread::park(),
            }
        }
    }
}

impl Future for Pending {
    type Output = Result<Committed, CommitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or(Err(CommitError::Store(StoreError::Closed))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_follows_in_the_same_commit_builds_on_the_first() {
        let mut first = Batch::new();
        let index = first.reserve_position();
        let slot = Slot { offset: 0, index, form: SlotForm::Plain };
        first.put(Table::Misc, "head", "1").put_at(Table::Misc, "row", None, vec![0; 8], Some(slot));
        let mut second = Batch::new();
        let index = second.reserve_position();
        let slot = Slot { offset: 0, index, form: SlotForm::Plain };
        second.expect_equals(Table::Misc, "head", "1").expect_absent(Table::Misc, "elsewhere");
        second.put(Table::Misc, "head", "2").put_at(Table::Misc, "next", None, vec![0; 8], Some(slot));
        assert_eq!(first.then(second), Ok(1));
        assert_eq!(first.positions, 2);
        assert_eq!(first.expect, [Expect::Absent { table: Table::Misc, key: b"elsewhere".to_vec() }]);
        assert!(matches!(first.ops.last(), Some(Op::Put { value_slot: Some(Slot { index: 1, .. }), .. })));
    }

    #[test]
    fn batches_that_contradict_each_other_do_not_go_together() {
        let mut first = Batch::new();
        first.put(Table::Misc, "head", "1");
        let mut second = Batch::new();
        second.expect_equals(Table::Misc, "head", "2");
        assert_eq!(first.clone().then(second), Err(Clash));
        let mut second = Batch::new();
        second.expect_absent(Table::Misc, "head");
        assert_eq!(first.clone().then(second.clone()), Err(Clash));
        first.delete(Table::Misc, "head");
        assert_eq!(first.then(second), Ok(0));
    }
}

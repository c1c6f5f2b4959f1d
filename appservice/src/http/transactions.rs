//! `PUT /_matrix/app/v1/transactions/{txnId}`

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{ApiError, AppState};

/// How many transaction ids are remembered; a homeserver repeats only its last one.
const REMEMBERED: usize = 1024;
/// How long a transaction may wait for room in the queue.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the homeserver pushed.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Transaction {
    /// Room events, in order.
    #[serde(default)]
    pub events: Vec<Value>,
}

/// Takes each transaction once and hands it on.
#[derive(Debug)]
pub struct Transactions {
    queue: mpsc::Sender<Transaction>,
    seen: Mutex<Seen>,
    /// One transaction at a time: a repeat must not overtake its first copy.
    turn: tokio::sync::Semaphore,
}

#[derive(Debug, Default)]
struct Seen {
    order: VecDeque<String>,
    ids: HashSet<String>,
}

impl Transactions {
    /// Hands transactions to `queue`.
    #[must_use]
    pub fn new(queue: mpsc::Sender<Transaction>) -> Self {
        Self { queue, seen: Mutex::default(), turn: tokio::sync::Semaphore::new(1) }
    }

    fn is_seen(&self, txn_id: &str) -> bool {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).ids.contains(txn_id)
    }

    fn remember(&self, txn_id: String) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.ids.insert(txn_id.clone()) {
            seen.order.push_back(txn_id);
        }
        while seen.order.len() > REMEMBERED {
            if let Some(oldest) = seen.order.pop_front() {
                seen.ids.remove(&oldest);
            }
        }
    }

    /// The transaction is queued once afterwards, however often it is offered.
    ///
    /// # Errors
    /// [`ApiError::Busy`] when the queue stays full; nothing is remembered then.
    pub async fn accept(&self, txn_id: String, transaction: Transaction) -> Result<(), ApiError> {
        let _turn = self.turn.acquire().await.map_err(|_closed| ApiError::Busy)?;
        if self.is_seen(&txn_id) {
            return Ok(());
        }
        match tokio::time::timeout(PATIENCE, self.queue.send(transaction)).await {
            Ok(Ok(())) => {
                self.remember(txn_id);
                Ok(())
            }
            _ => Err(ApiError::Busy),
        }
    }
}

/// 200 `{}` once the events are queued.
pub(super) async fn put(
    State(state): State<AppState>,
    Path(txn_id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    if txn_id.len() > 255 {
        return Err(ApiError::Invalid("A transaction id has at most 255 bytes."));
    }
    let transaction = serde_json::from_slice(&body?).map_err(|_invalid| ApiError::BadJson)?;
    state.transactions.accept(txn_id, transaction).await?;
    Ok(Json(json!({})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_repeated_transaction_is_handed_on_once() {
        let (queue, mut events) = mpsc::channel(8);
        let transactions = Transactions::new(queue);
        for id in ["1", "1", "2", "1"] {
            transactions.accept(id.to_owned(), Transaction::default()).await.unwrap();
        }
        assert!(events.try_recv().is_ok());
        assert!(events.try_recv().is_ok());
        assert!(events.try_recv().is_err());
    }

    #[tokio::test]
    async fn memory_of_transactions_is_bounded() {
        let (queue, mut events) = mpsc::channel(8);
        let transactions = Transactions::new(queue);
        for id in 0..REMEMBERED + 10 {
            transactions.accept(id.to_string(), Transaction::default()).await.unwrap();
            events.try_recv().unwrap();
        }
        let seen = transactions.seen.lock().unwrap();
        assert_eq!(seen.order.len(), REMEMBERED);
        assert_eq!(seen.ids.len(), REMEMBERED);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_answers_busy_and_forgets() {
        let (queue, mut events) = mpsc::channel(1);
        let transactions = Transactions::new(queue);
        transactions.accept("1".to_owned(), Transaction::default()).await.unwrap();
        let refused = transactions.accept("2".to_owned(), Transaction::default()).await;
        assert!(matches!(refused, Err(ApiError::Busy)));
        events.recv().await.unwrap();
        transactions.accept("2".to_owned(), Transaction::default()).await.unwrap();
        assert!(events.try_recv().is_ok());
    }
}

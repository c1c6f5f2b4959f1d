//! The worker that hands destinations to senders.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use matron_storage::{Key, KeyRange, KeyReader, Order, Table};
use ruma::{OwnedServerName, ServerName};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};

use super::{Waiting, peer::Backoff, sender::FRONT};
use crate::{Core, Error, house::stopped};

/// How many destinations are sent to at once.
const SENDERS: usize = 64;
/// How many of those that failed the last time are tried at once: who may never answer takes no place of the living.
const TRIALS: usize = 16;
/// After so many failures in a row the queue is looked at, and again after as many more.
const TRIM_AFTER: u32 = 16;

/// Places for senders.
#[derive(Clone)]
struct Places {
    well: Arc<Semaphore>,
    failing: Arc<Semaphore>,
}

impl Core {
    /// Sends what is queued until `stop` turns true; what is under way then is sent again after the next start.
    pub async fn run_outbox(self: &Arc<Self>, mut stop: watch::Receiver<bool>) {
        if !self.settings.federation {
            return stopped(&mut stop).await;
        }
        if let Err(error) = self.resume_outbox() {
            tracing::error!(%error, "the outbox cannot be read; it resumes with the next event for each server");
        }
        let places = Places { well: Arc::new(Semaphore::new(SENDERS)), failing: Arc::new(Semaphore::new(TRIALS)) };
        let mut senders = JoinSet::new();
        loop {
            let next_try = self.start_senders(&places, &mut senders);
            tokio::select! {
                () = stopped(&mut stop) => break,
                () = self.outbox.wake.notified() => {}
                _ = senders.join_next(), if !senders.is_empty() => {}
                () = tokio::time::sleep(next_try) => {}
            }
        }
        senders.shutdown().await;
    }

    /// Starts a sender for every destination that is awake and not waited for; gives when to look again.
    fn start_senders(self: &Arc<Self>, places: &Places, senders: &mut JoinSet<()>) -> Duration {
        let now_ms = self.now_ms();
        {
            let mut waiting = self.outbox.waiting.lock();
            let over: Vec<OwnedServerName> =
                waiting.iter().filter(|(_, wait)| wait.until_ms <= now_ms).map(|(server, _)| server.clone()).collect();
            for server in over {
                waiting.remove(&server);
                self.outbox.awake.lock().insert(server);
            }
        }
        let awake: BTreeSet<OwnedServerName> = std::mem::take(&mut *self.outbox.awake.lock());
        for server in awake {
            if self.outbox.waiting.lock().contains_key(&server) {
                continue;
            }
            {
                let mut busy = self.outbox.busy.lock();
                if let Some(more) = busy.get_mut(&server) {
                    *more = true;
                    continue;
                }
                busy.insert(server.clone(), false);
            }
            let core = Arc::clone(self);
            let failed = self.load_backoff(&server).is_ok_and(|backoff| backoff.failures > 0);
            let places = Arc::clone(if failed { &places.failing } else { &places.well });
            senders.spawn(async move {
                let Ok(_place) = places.acquire_owned().await else { return };
                core.send_all_to(&server).await;
            });
        }
        let next = self.outbox.waiting.lock().values().map(|wait| wait.until_ms).min();
        next.map_or(Duration::from_secs(60), |until| {
            Duration::from_millis(until.saturating_sub(now_ms).clamp(10, 60_000))
        })
    }

    /// Sends until nothing is left or the peer fails.
    async fn send_all_to(self: &Arc<Self>, server: &ServerName) {
        loop {
            let failed = match self.send_queue(server).await {
                Ok(true) => continue,
                Ok(false) => false,
                Err(error) => {
                    self.note_failure(server, &error).await;
                    true
                }
            };
            let mut busy = self.outbox.busy.lock();
            // Whatever came while this looked is seen by one more look.
            if !failed && busy.insert(server.to_owned(), false) == Some(true) {
                continue;
            }
            busy.remove(server);
            return;
        }
    }

    /// The next transaction was taken, or, after an outage, all that was missed; `false` if there was nothing to send.
    async fn send_queue(&self, server: &ServerName) -> Result<bool, Error> {
        let prefix = Key::new().text(server).prefix();
        let front = self.store.scan(Table::OutboxRow, &prefix, Order::Ascending, FRONT)?;
        let more = front.len() >= FRONT;
        let Some(mut plan) = (if more { self.plan_catch_up(server)? } else { None }) else {
            return self.send_rows(server, &front).await;
        };
        loop {
            let rows = plan.next_rows();
            if rows.is_empty() {
                return Ok(true);
            }
            self.send_rows(server, &rows).await?;
        }
    }

    async fn note_failure(&self, server: &ServerName, error: &Error) {
        let now_ms = self.now_ms();
        let before = self.load_backoff(server).unwrap_or_default();
        let backoff = before.after_failure(now_ms, &error.to_string());
        tracing::info!(peer.name = %server, %error, failures = backoff.failures, "a peer cannot be reached; its queue waits");
        let wait = Waiting { since_ms: now_ms, until_ms: backoff.until_ms };
        self.outbox.waiting.lock().insert(server.to_owned(), wait);
        self.outbox.passing.lock().drop_all(server);
        if let Err(error) = self.keep_backoff(server, &backoff).await {
            tracing::warn!(peer.name = %server, %error, "a peer's backoff is not kept over a restart");
        }
        if backoff.failures.is_multiple_of(TRIM_AFTER)
            && let Err(error) = self.trim_queue(server).await
        {
            tracing::warn!(peer.name = %server, %error, "a peer's queue could not be looked at");
        }
    }

    /// Every destination with rows is awake, or waited for as before the restart.
    fn resume_outbox(&self) -> Result<(), Error> {
        self.resume_table(Table::OutboxRow)?;
        self.resume_table(Table::OutboxReceipt)
    }

    fn resume_table(&self, table: Table) -> Result<(), Error> {
        let now_ms = self.now_ms();
        let mut range = KeyRange::all();
        loop {
            let page = self.store.scan(table, &range, Order::Ascending, 1)?;
            let Some((key, _)) = page.first() else { return Ok(()) };
            let Some(name) = KeyReader::new(key).text() else { return Ok(()) };
            let prefix = Key::new().text(&name).prefix();
            if let Ok(server) = OwnedServerName::try_from(name) {
                let backoff: Backoff = self.load_backoff(&server)?;
                if backoff.until_ms > now_ms {
                    let wait = Waiting { since_ms: now_ms, until_ms: backoff.until_ms };
                    self.outbox.waiting.lock().insert(server, wait);
                } else {
                    self.outbox.awake.lock().insert(server);
                }
            }
            let Some(end) = prefix.end else { return Ok(()) };
            range.start = end;
        }
    }
}

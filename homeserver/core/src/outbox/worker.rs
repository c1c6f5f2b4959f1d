//! The worker that gives each destination in its turn to a sender.

use std::{sync::Arc, time::Duration};

use matron_storage::{Key, KeyRange, KeyReader, Order, Table};
use ruma::{OwnedServerName, ServerName};
use tokio::{sync::watch, task::JoinSet};

use super::{
    sender::FRONT,
    standing::{Past, Standing},
};
use crate::{Core, Error, federation::plain_status, house::stopped};

/// After so many failures in a row the queue is looked at, and again after as many more.
const TRIM_AFTER: u32 = 16;

/// A sender's place: free again when this is dropped, however the sender ends.
struct AtWork {
    core: Arc<Core>,
    server: OwnedServerName,
    has_left: bool,
}

impl AtWork {
    /// Whether nothing came while the sender was at work; then its place is free.
    fn is_done(&mut self) -> bool {
        self.has_left = self.core.outbox.schedule.lock().is_done(&self.server);
        self.has_left
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        if !self.has_left {
            self.core.outbox.schedule.lock().leave(&self.server);
        }
    }
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
        let mut senders = JoinSet::new();
        loop {
            let next_try = self.start_senders(&mut senders);
            tokio::select! {
                () = stopped(&mut stop) => break,
                () = self.outbox.wake.notified() => {}
                _ = senders.join_next(), if !senders.is_empty() => {}
                () = tokio::time::sleep(next_try) => {}
            }
        }
        senders.shutdown().await;
    }

    /// Starts a sender for every destination for which there is a place; gives when to look again.
    fn start_senders(self: &Arc<Self>, senders: &mut JoinSet<()>) -> Duration {
        let now_ms = self.now_ms();
        let awake = self.outbox.schedule.lock().take_awake(now_ms);
        for server in awake {
            let past =
                self.load_backoff(&server).map_or_else(|_unreadable| Past::default(), |backoff| Past::from(&backoff));
            self.outbox.schedule.lock().line_up(&server, past);
        }
        loop {
            let next = self.outbox.schedule.lock().next();
            let Some((server, standing)) = next else { break };
            let at_work = AtWork { core: Arc::clone(self), server, has_left: false };
            let core = Arc::clone(self);
            senders.spawn(async move { core.send_all_to(at_work, standing).await });
        }
        let next = self.outbox.schedule.lock().next_end_ms();
        next.map_or(Duration::from_secs(60), |until| {
            Duration::from_millis(until.saturating_sub(now_ms).clamp(10, 60_000))
        })
    }

    /// Sends until nothing is left or the peer fails. Whoever was not well, or whose place another waits for, gives it back
    /// after a success: a peer that never stops must not keep out the others.
    async fn send_all_to(self: &Arc<Self>, mut at_work: AtWork, standing: Standing) {
        let server = at_work.server.clone();
        let on_trial = standing != Standing::Well;
        loop {
            match self.send_queue(&server, on_trial).await {
                Ok(true) if on_trial || self.outbox.schedule.lock().is_awaited(standing) => {
                    drop(at_work);
                    let mut schedule = self.outbox.schedule.lock();
                    schedule.succeeded(&server);
                    schedule.wake(&server);
                    return;
                }
                Ok(true) => {}
                Ok(false) if at_work.is_done() => return,
                // Whatever came while this looked is seen by one more look.
                Ok(false) => {}
                Err(error) => return self.note_failure(&server, &error).await,
            }
        }
    }

    /// The next transaction was taken, or, after an outage, all that was missed, of which a trial sends one transaction;
    /// `false` if there was nothing to send.
    async fn send_queue(&self, server: &ServerName, on_trial: bool) -> Result<bool, Error> {
        let prefix = Key::new().text(server).prefix();
        let front = self.store.scan(Table::OutboxRow, &prefix, Order::Ascending, FRONT)?;
        let more = front.len() >= FRONT;
        let Some(mut plan) = (if more { self.plan_catch_up(server)? } else { None }) else {
            return self.send_rows(server, &front).await;
        };
        while let Some(rows) = self.next_rows(&mut plan)? {
            self.send_rows(server, &rows).await?;
            if on_trial {
                break;
            }
        }
        Ok(true)
    }

    async fn note_failure(&self, server: &ServerName, error: &Error) {
        let now_ms = self.now_ms();
        let before = self.load_backoff(server).unwrap_or_default();
        let backoff = before.after_failure(now_ms, &reason_of(error));
        tracing::info!(peer.name = %server, %error, failures = backoff.failures, "a peer cannot be reached; its queue waits");
        self.outbox.schedule.lock().failed(server, now_ms, backoff.until_ms);
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
                let until_ms = self.load_backoff(&server)?.until_ms;
                let mut schedule = self.outbox.schedule.lock();
                if until_ms > now_ms {
                    schedule.leave_alone(&server, now_ms, until_ms);
                } else {
                    schedule.wake(&server);
                }
            }
            let Some(end) = prefix.end else { return Ok(()) };
            range.start = end;
        }
    }
}

/// Why sending failed, for an operator.
fn reason_of(error: &Error) -> String {
    match error {
        Error::PeerAnswer { status, body } => plain_status(*status, body),
        other => other.to_string(),
    }
}

//! Transactions: one at a time per application service, again and again until it answers.
//!
//! SPEC: v1.19 Application Service API, "Pushing events".

use std::{sync::Arc, time::Duration};

use matron_room::{Unsigned, client_event};
use matron_storage::{Batch, Key, StreamPos, Table};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::{sync::watch, task::JoinSet};

use super::{Appservice, outside::Outside, queue::MAX_EVENTS};
use crate::{
    Core, Error,
    house::to_json,
    ports::{OutboundRequest, http_method::Method},
    rooms::EventRef,
};

/// How long an application service may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The largest answer that is read, bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// The longest pause between two tries.
const MAX_PAUSE: Duration = Duration::from_secs(300);

/// The first pause between two tries.
const MIN_PAUSE: Duration = Duration::from_secs(1);

/// Up to where a service has received everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Cursor {
    /// The number of the next transaction.
    next_txn: u64,
    /// Everything up to this position is received.
    position: u64,
    /// The transaction under way covers everything up to this position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    under_way: Option<u64>,
}

impl Core {
    /// Sends transactions until `stop` turns true.
    pub async fn run_appservices(self: &Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut running = JoinSet::new();
        for (index, service) in self.appservices.services.iter().enumerate() {
            if let Some(url) = service.registration.url.clone() {
                let (core, service) = (Arc::clone(self), Arc::clone(service));
                running.spawn(async move { core.serve_appservice(index, &service, &url).await });
            }
        }
        crate::house::stopped(&mut stop).await;
        // Whatever is under way is tried again after the next start, under the same number.
        running.shutdown().await;
    }

    async fn serve_appservice(self: Arc<Self>, index: usize, service: &Appservice, url: &str) {
        let mut pause = MIN_PAUSE;
        self.begin_serving(index, service);
        loop {
            match self.serve_once(index, service, url).await {
                Ok(true) => pause = MIN_PAUSE,
                Ok(false) => {
                    if let Some(queue) = self.appservices.queues.get(index) {
                        queue.wake.notified().await;
                    }
                }
                Err(error) => {
                    // What was taken from the queue is read from the timelines again.
                    if let Some(queue) = self.appservices.queues.get(index) {
                        queue.fall_behind();
                    }
                    self.begin_serving(index, service);
                    tracing::warn!(%error, appservice = %service.registration.id, "a transaction could not be made");
                    tokio::time::sleep(pause).await;
                    pause = pause.saturating_mul(2).min(MAX_PAUSE);
                }
            }
        }
    }

    /// Finds what waits from before.
    fn begin_serving(&self, index: usize, service: &Appservice) {
        if let (true, Some(queue)) = (service.registration.receive_ephemeral, self.appservices.queues.get(index))
            && let Err(error) = self.find_inboxes(service, queue)
        {
            tracing::warn!(%error, appservice = %service.registration.id, "inboxes could not be looked through");
        }
    }

    /// Sends the next transaction until it is received; `false` when there is nothing to send.
    async fn serve_once(self: &Arc<Self>, index: usize, service: &Appservice, url: &str) -> Result<bool, Error> {
        let Some(queue) = self.appservices.queues.get(index) else { return Ok(false) };
        let mut cursor = self.cursor_of(service).await?;
        let (events, upto) = match queue.next_events() {
            Some(events) => {
                let upto = events.last().map_or(StreamPos(cursor.position), |(position, _)| *position);
                (events, upto)
            }
            None => {
                // New events are queued from here on; what was committed before is at or below the position read next.
                queue.catch_up();
                let page = self.read_for_service(index, StreamPos(cursor.position), MAX_EVENTS)?;
                queue.scanned_to(page.upto);
                if !page.whole {
                    queue.fall_behind();
                }
                (page.events, page.upto)
            }
        };
        let events: Vec<EventRef> =
            events.into_iter().map(|(_, event)| event).filter(|event| event.is_shown(self.now_ms())).collect();
        let ephemeral = queue.next_ephemeral();
        let (to_device, read) = self.read_inboxes(&queue.next_inboxes())?;
        let outside = if queue.takes_outside() { self.read_outside(service)? } else { Outside::default() };
        if events.is_empty() && outside.events.is_empty() && ephemeral.is_empty() && to_device.is_empty() {
            self.acknowledge_outside(queue, outside).await?;
            let moved = upto.0 > cursor.position;
            if moved {
                cursor.position = upto.0;
                self.write_cursor(service, &cursor).await?;
            }
            return Ok(moved);
        }
        cursor.under_way = Some(upto.0);
        self.write_cursor(service, &cursor).await?;
        let body = transaction_body(service, &outside.events, &events, &ephemeral, &to_device);
        let mut pause = MIN_PAUSE;
        while !self.push_transaction(service, url, cursor.next_txn, &body).await {
            tracing::debug!(appservice = %service.registration.id, "an application service did not take a transaction");
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(MAX_PAUSE);
        }
        let next = Cursor {
            next_txn: cursor.next_txn.saturating_add(1),
            position: upto.0.max(cursor.position),
            under_way: None,
        };
        self.write_cursor(service, &next).await?;
        self.acknowledge_inboxes(queue, read).await?;
        self.acknowledge_outside(queue, outside).await?;
        Ok(true)
    }

    async fn push_transaction(&self, service: &Appservice, url: &str, txn: u64, body: &Value) -> bool {
        let request = OutboundRequest {
            trusted: true,
            method: Method::Put,
            url: format!("{}/_matrix/app/v1/transactions/{txn}", url.trim_end_matches('/')),
            bearer: Some(service.registration.hs_token.clone()),
            body: Some(body.clone()),
            timeout: TIMEOUT,
            max_bytes: MAX_ANSWER_BYTES,
        };
        self.federation.outbound(request).await.is_ok()
    }

    /// The service's cursor; one that was never served begins where this process did.
    async fn cursor_of(&self, service: &Appservice) -> Result<Cursor, Error> {
        let key = Key::new().text(&service.registration.id);
        if let Some(mut cursor) = self.load::<Cursor>(Table::AppserviceTxn, &key)? {
            // A transaction that was under way when the process ended may have arrived: its number is not used for
            // other content. What it held is sent again.
            if cursor.under_way.take().is_some() {
                cursor.next_txn = cursor.next_txn.saturating_add(1);
            }
            return Ok(cursor);
        }
        let cursor = Cursor { next_txn: 1, position: self.appservices.began.0, under_way: None };
        self.write_cursor(service, &cursor).await?;
        Ok(cursor)
    }

    async fn write_cursor(&self, service: &Appservice, cursor: &Cursor) -> Result<(), Error> {
        let mut batch = Batch::new();
        batch.put(Table::AppserviceTxn, Key::new().text(&service.registration.id), to_json(cursor)?);
        self.commit(batch).await.map(drop)
    }
}

fn transaction_body(
    service: &Appservice,
    outside: &[Value],
    events: &[EventRef],
    ephemeral: &[Value],
    to_device: &[Value],
) -> Value {
    let events = events.iter().map(|event| json!(client_event(&event.pdu, &Unsigned::default())));
    let mut body = Map::new();
    body.insert("events".to_owned(), outside.iter().cloned().chain(events).collect());
    if service.registration.receive_ephemeral {
        body.insert("ephemeral".to_owned(), json!(ephemeral));
        // MSC: 2409 before version 1.13.
        body.insert("de.sorunome.msc2409.ephemeral".to_owned(), json!(ephemeral));
        if !to_device.is_empty() {
            body.insert("to_device".to_owned(), json!(to_device));
            body.insert("de.sorunome.msc2409.to_device".to_owned(), json!(to_device));
        }
    }
    Value::Object(body)
}

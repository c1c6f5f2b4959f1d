//! One phase of deliveries: messages are sent, and everybody who waits in `/sync` must hear each of them.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use crate::client::{Event, Homeserver, Page, RequestError, SyncRequest, User};
use crate::drive::{Outcome, drive};
use crate::error::LoadError;
use crate::figures::{latencies, milliseconds, per_second, rounded};
use crate::stage::Stage;

/// How long a server may hold a sync that waits, in milliseconds.
const POLL_MS: u32 = 5_000;
/// How many pages back a receiver follows a gap in its timeline, and their size.
const MAX_PAGES: usize = 30;
const PAGE_EVENTS: usize = 100;
/// How long all receivers get to be in their long poll before the first message.
const LEAD: Duration = Duration::from_secs(1);
/// The pause of a receiver after an error.
const PAUSE: Duration = Duration::from_millis(200);

/// Who sends what to whom.
pub(super) struct Phase<'a> {
    pub(super) name: &'static str,
    pub(super) messages: usize,
    /// Messages a second whatever the server does (an open loop), sent by the first sender; or each sender sends its next
    /// message when its last one is answered.
    pub(super) rate: Option<f64>,
    pub(super) room: &'a str,
    pub(super) senders: &'a [User],
    pub(super) receivers: &'a [User],
    /// The receivers are users of the second server.
    pub(super) federated: bool,
    /// How long receivers wait after the last message was sent.
    pub(super) patience: Duration,
}

/// What was seen so far, by all together.
struct Seen {
    began: Instant,
    /// When the request that sent each message began.
    sent: RefCell<Vec<Duration>>,
    arrivals: RefCell<Vec<Arrival>>,
    answers: Cell<usize>,
    limited: Cell<usize>,
    gap_filled: Cell<usize>,
    /// When receivers give up.
    deadline: Cell<Option<Instant>>,
}

/// A message reached a receiver.
struct Arrival {
    message: usize,
    latency_ms: f64,
    at: Duration,
}

/// One who waits.
struct Receiver<'a> {
    server: &'a Homeserver,
    user: &'a User,
    room: &'a str,
    request: SyncRequest,
    prefix: &'a str,
    heard: Vec<bool>,
    missing: usize,
    error: Option<RequestError>,
}

/// Sends the phase's messages and waits until every receiver has heard them, or long enough. Each receiver begins at its
/// token in `since`, which is then the one at which it ended.
pub(super) async fn deliver(stage: &Stage<'_>, phase: &Phase<'_>, since: &mut [String]) -> Result<Value, LoadError> {
    let server = if phase.federated { stage.b()? } else { &stage.a };
    let prefix = stage.prefix(phase.name);
    let request = SyncRequest { timeout_ms: POLL_MS, ..stage.sync_of_messages() };
    let meter = if phase.federated { stage.meter_both() } else { stage.meter() };
    let seen = Seen::new(phase.messages);
    let receivers = phase.receivers.iter().zip(since).map(async |(user, since)| {
        let mut receiver = Receiver {
            server,
            user,
            room: phase.room,
            request: request.clone(),
            prefix: &prefix,
            heard: vec![false; phase.messages],
            missing: phase.messages,
            error: None,
        };
        receiver.listen(since, &seen).await;
        receiver
    });
    let sending = async {
        sleep(LEAD).await;
        let first = seen.began.elapsed();
        let sent = send(stage, phase, &seen).await;
        seen.deadline.set(Some(Instant::now() + phase.patience));
        (first, seen.began.elapsed(), sent)
    };
    let (receivers, (first, last_sent, sent)) = join(join_all(receivers), sending).await;

    let arrivals = seen.arrivals.take();
    let cost = meter.stop(arrivals.len(), stage.options.tail()).await;
    let all_heard = arrivals.iter().map(|arrival| arrival.at).fold(first, Duration::max);
    let (sending_s, hearing_s) = ((last_sent - first).as_secs_f64(), (all_heard - first).as_secs_f64());
    let heard = heard(phase.messages, &arrivals);
    let slowest_ms: Vec<f64> = heard.iter().filter_map(|heard| heard.slowest_ms).collect();
    let visible = heard.iter().filter(|heard| heard.receivers == phase.receivers.len()).count();
    let delivery_ms: Vec<f64> = arrivals.iter().map(|arrival| arrival.latency_ms).collect();
    let errors = receivers.iter().filter_map(|receiver| receiver.error.as_ref());
    let first_error = sent.first_error.iter().chain(errors).next().map(RequestError::with_causes);
    Ok(json!({
        "delivery": latencies(&delivery_ms),
        "last_receiver": latencies(&slowest_ms),
        "send_request": sent.latency(),
        "sends_per_s": per_second(sent.succeeded(), sending_s),
        "delivered_per_s": per_second(arrivals.len(), hearing_s),
        "messages_visible_per_s": per_second(visible, hearing_s),
        "all_visible_s": rounded(hearing_s),
        "deliveries": arrivals.len(),
        "missing": receivers.iter().map(|receiver| receiver.missing).sum::<usize>(),
        "sync_answers": seen.answers,
        "limited_timelines": seen.limited,
        "gap_filled": seen.gap_filled,
        "cpu_ms_per_message": cost.get("server_cpu_s").and_then(|cpu_s| each_ms(cpu_s, sent.succeeded())),
        "cpu": cost.json(),
        "send_errors": sent.errors,
        "first_error": first_error,
    }))
}

/// How far one message came.
#[derive(Debug, Clone, Default, PartialEq)]
struct Heard {
    receivers: usize,
    /// How long it took to the last of these; none where nobody heard it, which is no time at all.
    slowest_ms: Option<f64>,
}

/// For each message how far it came.
fn heard(messages: usize, arrivals: &[Arrival]) -> Vec<Heard> {
    let mut heard = vec![Heard::default(); messages];
    for arrival in arrivals {
        if let Some(heard) = heard.get_mut(arrival.message) {
            heard.receivers += 1;
            heard.slowest_ms = Some(heard.slowest_ms.map_or(arrival.latency_ms, |ms| ms.max(arrival.latency_ms)));
        }
    }
    heard
}

/// CPU time for each of so many in milliseconds; none for none.
fn each_ms(cpu_s: f64, count: usize) -> Option<f64> {
    (count > 0).then(|| rounded(cpu_s * 1000.0 / count as f64))
}

/// Sends every message of the phase.
async fn send(stage: &Stage<'_>, phase: &Phase<'_>, seen: &Seen) -> Outcome<()> {
    let send = async |sender: usize, number: usize| {
        let user = phase.senders.get(sender).ok_or_else(|| RequestError::missing("sender"))?;
        seen.sends(number);
        let transaction = stage.unique(phase.name, number);
        stage.a.send(user, phase.room, &transaction, &stage.text(phase.name, number)).await
    };
    let Some(rate) = phase.rate else {
        return drive(phase.senders.len(), phase.messages, send).await;
    };
    let began = Instant::now();
    let paced = (0..phase.messages).map(async |number| {
        // Each message waits for its own time and for nothing else.
        sleep_until(began + Duration::from_secs_f64(number as f64 / rate)).await;
        let asked = Instant::now();
        send(0, number).await.map(|()| milliseconds(asked.elapsed()))
    });
    let mut outcome = Outcome::default();
    for answer in join_all(paced).await {
        match answer {
            Ok(latency_ms) => outcome.latencies_ms.push(latency_ms),
            Err(error) => outcome.failed(error),
        }
    }
    outcome
}

impl Seen {
    fn new(messages: usize) -> Self {
        Self {
            began: Instant::now(),
            sent: RefCell::new(vec![Duration::ZERO; messages]),
            arrivals: RefCell::default(),
            answers: Cell::default(),
            limited: Cell::default(),
            gap_filled: Cell::default(),
            deadline: Cell::default(),
        }
    }

    /// The request that sends this message begins now.
    fn sends(&self, message: usize) {
        if let Some(sent) = self.sent.borrow_mut().get_mut(message) {
            *sent = self.began.elapsed();
        }
    }

    fn over(&self) -> bool {
        self.deadline.get().is_some_and(|deadline| Instant::now() > deadline)
    }
}

fn count(counter: &Cell<usize>, more: usize) {
    counter.set(counter.get() + more);
}

impl Receiver<'_> {
    /// Syncs until every message was heard, or until it is over.
    async fn listen(&mut self, since: &mut String, seen: &Seen) {
        while self.missing > 0 && !seen.over() {
            let mut answer = match self.server.sync(self.user, &self.request, Some(since)).await {
                Ok(answer) => answer,
                Err(error) => {
                    self.error = Some(error);
                    sleep(PAUSE).await;
                    continue;
                }
            };
            let at = seen.began.elapsed();
            count(&seen.answers, 1);
            *since = answer.next_batch;
            let Some(room) = answer.rooms.join.remove(self.room) else { continue };
            self.hear(&room.timeline.events, at, seen);
            if room.timeline.limited {
                count(&seen.limited, 1);
                self.fill_gap(room.timeline.prev_batch, seen).await;
            }
        }
    }

    /// Pages back for what the timeline left out, as a client would.
    async fn fill_gap(&mut self, mut from: Option<String>, seen: &Seen) {
        for _ in 0..MAX_PAGES {
            let Some(token) = from else { break };
            let page: Result<(Page<Event>, _), _> =
                self.server.page_back(self.user, self.room, Some(&token), PAGE_EVENTS).await;
            match page {
                Ok((page, _)) => {
                    let (fresh, known) = self.hear(&page.chunk, seen.began.elapsed(), seen);
                    count(&seen.gap_filled, fresh);
                    // What was heard before is where the gap began.
                    from = page.end.filter(|_| fresh > 0 && known == 0);
                }
                Err(error) => {
                    self.error = Some(error);
                    break;
                }
            }
        }
    }

    /// Notes the phase's messages among `events`; how many are new, and how many were heard before.
    fn hear(&mut self, events: &[Event], at: Duration, seen: &Seen) -> (usize, usize) {
        let (mut fresh, mut known) = (0, 0);
        let sent = seen.sent.borrow();
        let mut arrivals = seen.arrivals.borrow_mut();
        for message in events.iter().filter_map(|event| number_of(event.text()?, self.prefix)) {
            let (Some(heard), Some(sent)) = (self.heard.get_mut(message), sent.get(message)) else { continue };
            if std::mem::replace(heard, true) {
                known += 1;
                continue;
            }
            fresh += 1;
            arrivals.push(Arrival { message, latency_ms: milliseconds(at.saturating_sub(*sent)), at });
        }
        self.missing -= fresh;
        (fresh, known)
    }
}

/// The number of a message whose text begins with the phase's prefix.
fn number_of(text: &str, prefix: &str) -> Option<usize> {
    text.strip_prefix(prefix)?.split(':').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_nobody_heard_took_no_time() {
        let arrival = |message, latency_ms| Arrival { message, latency_ms, at: Duration::ZERO };
        let heard = heard(3, &[arrival(0, 5.0), arrival(2, 0.0), arrival(0, 3.0)]);
        let expected = [(2, Some(5.0)), (0, None), (1, Some(0.0))];
        assert_eq!(heard, expected.map(|(receivers, slowest_ms)| Heard { receivers, slowest_ms }));
    }

    #[test]
    fn the_cost_is_divided_by_what_was_sent() {
        assert_eq!(each_ms(0.01, 4), Some(2.5));
        assert_eq!(each_ms(0.01, 0), None);
    }

    #[test]
    fn a_message_is_known_by_its_call_its_phase_and_its_number() {
        assert_eq!(number_of("load:ab:paced:17: ward round", "load:ab:paced:"), Some(17));
        for other in ["load:ab:burst:17: x", "load:cd:paced:17: x", "load:ab:paced:x: y", "hello"] {
            assert_eq!(number_of(other, "load:ab:paced:"), None, "{other}");
        }
    }
}

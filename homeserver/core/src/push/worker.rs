//! Sends notifications: in order per pusher, a slow gateway delays nobody else, and no queue grows without bound.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use ruma::OwnedUserId;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};

use super::{evaluate::Actions, gateway::Delivery, invite::Invite, pusher::PusherId};
use crate::{Core, rooms::record::EventRef};

/// How many notifications wait for one pusher; the oldest are dropped first.
const MAX_WAITING: usize = 50;

/// How many pushers may have notifications waiting.
const MAX_QUEUES: usize = 20_000;

/// How many gateways are told at one time.
const MAX_CONCURRENT: usize = 64;

/// How often a notification is tried.
const MAX_TRIES: u32 = 8;

/// What a pusher is told.
#[derive(Clone, Debug)]
pub(super) enum News {
    /// An event.
    Event(EventRef, Arc<Actions>),
    /// An invitation to a room that this server is not in.
    Invite(Arc<Invite>, Arc<Actions>),
    /// How much is unread, because some of it was read.
    Badge,
}

/// News for one pusher.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) user: OwnedUserId,
    pub(super) pusher: PusherId,
    pub(super) news: News,
}

type QueueId = (OwnedUserId, PusherId);

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Job>,
    running: bool,
}

/// The queues, by pusher.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    queues: Mutex<BTreeMap<QueueId, Queue>>,
    ready: Mutex<VecDeque<QueueId>>,
    wake: Notify,
}

impl Jobs {
    /// Queues a notification.
    pub(super) fn add(&self, job: Job) {
        let id = (job.user.clone(), job.pusher.clone());
        let mut queues = self.queues.lock();
        if queues.len() >= MAX_QUEUES && !queues.contains_key(&id) {
            return;
        }
        let queue = queues.entry(id.clone()).or_default();
        if matches!(job.news, News::Badge) {
            queue.waiting.retain(|waiting| !matches!(waiting.news, News::Badge));
        }
        queue.waiting.push_back(job);
        if queue.waiting.len() > MAX_WAITING {
            queue.waiting.pop_front();
        }
        if !queue.running {
            queue.running = true;
            self.ready.lock().push_back(id);
            self.wake.notify_one();
        }
    }

    fn next_of(&self, id: &QueueId) -> Option<Job> {
        let mut queues = self.queues.lock();
        let job = queues.get_mut(id).and_then(|queue| queue.waiting.pop_front());
        if job.is_none() {
            queues.remove(id);
        }
        job
    }
}

impl Core {
    /// Tells push gateways until `stop` turns true.
    pub async fn run_push(self: &Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut running = JoinSet::new();
        loop {
            while running.len() < MAX_CONCURRENT {
                let Some(id) = self.push.jobs.ready.lock().pop_front() else { break };
                let core = Arc::clone(self);
                running.spawn(async move { core.work_off(&id).await });
            }
            tokio::select! {
                () = crate::house::stopped(&mut stop) => return,
                () = self.push.jobs.wake.notified(), if running.len() < MAX_CONCURRENT => {}
                Some(_) = running.join_next() => {}
            }
        }
    }

    async fn work_off(&self, id: &QueueId) {
        while let Some(job) = self.push.jobs.next_of(id) {
            let mut pause = Duration::from_secs(1);
            for _ in 0..MAX_TRIES {
                match self.deliver(&job).await {
                    Ok(Delivery::Done | Delivery::Rejected) => break,
                    Ok(Delivery::Failed) => {}
                    Err(error) => tracing::warn!(%error, "a notification could not be made"),
                }
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2);
            }
        }
    }
}

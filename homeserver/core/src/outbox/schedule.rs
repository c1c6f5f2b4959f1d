//! Who is sent to, and when; told of what happens and of the time, it does nothing itself.
//!
//! A destination with something to send stands in line, or has a sender at work, or is left alone because it failed. In the
//! line each [`Standing`] has places of its own: who never answers takes no place of who does.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    num::NonZeroUsize,
};

use lru::LruCache;
use ruma::{OwnedServerName, ServerName};

use super::standing::{Heard, Past, Standing};

/// How many destinations that were heard from are remembered.
const MAX_HEARD: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);

/// A place in the line, which nobody else has: the least is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    standing: Standing,
    rank: u32,
    arrival: u64,
}

/// A destination that is left alone.
#[derive(Clone, Copy, Debug)]
struct Wait {
    /// Since when, ms.
    since_ms: u64,
    /// Until when, ms.
    until_ms: u64,
}

/// A sender at work.
#[derive(Clone, Copy, Debug)]
struct Busy {
    standing: Standing,
    /// More came since it looked.
    more: bool,
    /// The destination was heard from since it began.
    heard: bool,
}

/// All destinations with something to send, each in one state.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Something came: where they belong is not looked up yet.
    awake: BTreeSet<OwnedServerName>,
    waits: HashMap<OwnedServerName, Wait>,
    /// The same waits by their ends.
    ends: BTreeSet<(u64, OwnedServerName)>,
    line: HashMap<OwnedServerName, (Past, Turn)>,
    /// The same line in its order.
    order: BTreeMap<Turn, OwnedServerName>,
    busy: HashMap<OwnedServerName, Busy>,
    heard: LruCache<OwnedServerName, Heard>,
    arrivals: u64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            awake: BTreeSet::new(),
            waits: HashMap::new(),
            ends: BTreeSet::new(),
            line: HashMap::new(),
            order: BTreeMap::new(),
            busy: HashMap::new(),
            heard: LruCache::new(MAX_HEARD),
            arrivals: 0,
        }
    }
}

impl Schedule {
    /// Something is queued for the destination.
    pub(super) fn wake(&mut self, server: &ServerName) {
        self.awake.insert(server.to_owned());
    }

    /// Destinations with something to send that have no place yet: for each of them [`Schedule::line_up`] is to be called.
    pub(super) fn take_awake(&mut self, now_ms: u64) -> Vec<OwnedServerName> {
        while self.ends.first().is_some_and(|(until_ms, _)| *until_ms <= now_ms)
            && let Some((_, server)) = self.ends.pop_first()
        {
            self.waits.remove(&server);
            self.awake.insert(server);
        }
        let mut free = Vec::new();
        for server in std::mem::take(&mut self.awake) {
            if let Some(busy) = self.busy.get_mut(&server) {
                busy.more = true;
            } else if !self.waits.contains_key(&server) && !self.line.contains_key(&server) {
                free.push(server);
            }
        }
        free
    }

    /// The destination stands in line.
    pub(super) fn line_up(&mut self, server: &ServerName, past: Past) {
        if self.busy.contains_key(server) || self.line.contains_key(server) {
            return self.wake(server);
        }
        self.arrivals = self.arrivals.saturating_add(1);
        self.put_in_line(server, past, self.arrivals);
    }

    fn put_in_line(&mut self, server: &ServerName, past: Past, arrival: u64) {
        let (standing, rank) = past.standing(self.heard.peek(server).copied().unwrap_or_default());
        let turn = Turn { standing, rank, arrival };
        if let Some((_, before)) = self.line.insert(server.to_owned(), (past, turn)) {
            self.order.remove(&before);
        }
        self.order.insert(turn, server.to_owned());
    }

    /// The next destination for which there is a place; it is busy now.
    pub(super) fn next(&mut self) -> Option<(OwnedServerName, Standing)> {
        let free = |standing: &Standing| {
            let taken = self.busy.values().filter(|busy| busy.standing == *standing).count();
            taken < standing.places()
        };
        let turn = Standing::ALL.into_iter().filter(free).find_map(|standing| self.first_of(standing))?;
        let server = self.order.remove(&turn)?;
        self.line.remove(&server);
        self.busy.insert(server.clone(), Busy { standing: turn.standing, more: false, heard: false });
        Some((server, turn.standing))
    }

    /// Whether another destination of the kind waits for a place.
    pub(super) fn is_awaited(&self, standing: Standing) -> bool {
        self.first_of(standing).is_some()
    }

    fn first_of(&self, standing: Standing) -> Option<Turn> {
        let from = Turn { standing, rank: 0, arrival: 0 };
        let (turn, _) = self.order.range(from..).next()?;
        (turn.standing == standing).then_some(*turn)
    }

    /// The sender is done unless more came while it was at work.
    pub(super) fn is_done(&mut self, server: &ServerName) -> bool {
        match self.busy.get_mut(server) {
            Some(busy) if busy.more => {
                busy.more = false;
                false
            }
            _ => {
                self.busy.remove(server);
                true
            }
        }
    }

    /// The sender is gone, and its place free.
    pub(super) fn leave(&mut self, server: &ServerName) {
        // What came meanwhile is not lost; if the destination is left alone now, the end of that wakes it.
        if self.busy.remove(server).is_some_and(|busy| busy.more) {
            self.wake(server);
        }
    }

    /// The destination took a transaction.
    pub(super) fn succeeded(&mut self, server: &ServerName) {
        self.heard.pop(server);
    }

    /// The destination failed: it is left alone until then, or for a moment only if it was heard from meanwhile.
    pub(super) fn failed(&mut self, server: &ServerName, now_ms: u64, until_ms: u64) {
        let meanwhile = self.busy.get(server).is_some_and(|busy| busy.heard);
        let mut pace_ms = None;
        if let Some(heard) = self.heard.get_mut(server) {
            heard.spend(meanwhile);
            pace_ms = meanwhile.then(|| heard.pace_ms());
        }
        let until_ms = pace_ms.map_or(until_ms, |pace_ms| until_ms.min(now_ms.saturating_add(pace_ms)));
        self.leave_alone(server, now_ms, until_ms);
    }

    /// The destination is left alone until then.
    pub(super) fn leave_alone(&mut self, server: &ServerName, now_ms: u64, until_ms: u64) {
        self.end_wait(server);
        self.waits.insert(server.to_owned(), Wait { since_ms: now_ms, until_ms });
        self.ends.insert((until_ms, server.to_owned()));
    }

    fn end_wait(&mut self, server: &ServerName) -> Option<Wait> {
        let wait = self.waits.remove(server)?;
        self.ends.remove(&(wait.until_ms, server.to_owned()));
        Some(wait)
    }

    /// The destination lives. `true` if that changes when it is sent to.
    ///
    /// Who speaks but cannot be reached is not tried with each word: [`Heard::pace_ms`] after the failure at the earliest.
    pub(super) fn heard_from(&mut self, server: &ServerName, now_ms: u64) -> bool {
        let heard = self.heard.get_or_insert_mut_ref(server, Heard::default);
        let is_new = !heard.lately;
        heard.lately = true;
        let pace_ms = heard.pace_ms();
        if let Some(busy) = self.busy.get_mut(server) {
            busy.heard = true;
        }
        if let Some(wait) = self.waits.get(server).copied() {
            let until_ms = wait.until_ms.min(wait.since_ms.saturating_add(pace_ms));
            self.leave_alone(server, wait.since_ms, until_ms);
            return until_ms < wait.until_ms || until_ms <= now_ms;
        }
        match self.line.get(server).copied() {
            Some((past, turn)) if is_new => {
                self.put_in_line(server, past, turn.arrival);
                true
            }
            _ => false,
        }
    }

    /// An operator wants the destination to be sent to now, whatever it did before.
    pub(super) fn prefer(&mut self, server: &ServerName) {
        self.heard.put(server.to_owned(), Heard { lately: true, spent: 0 });
        self.end_wait(server);
        if let Some((past, turn)) = self.line.get(server).copied() {
            self.put_in_line(server, past, turn.arrival);
        }
        self.wake(server);
    }

    /// Until when the destination is left alone, ms.
    pub(super) fn waits_until_ms(&self, server: &ServerName) -> Option<u64> {
        self.waits.get(server).map(|wait| wait.until_ms)
    }

    /// Whether what is worth telling only now would come too late: the destination is left alone or waits among those that failed.
    pub(super) fn is_doubtful(&self, server: &ServerName) -> bool {
        self.waits.contains_key(server)
            || self.line.get(server).is_some_and(|(_, turn)| !matches!(turn.standing, Standing::Well | Standing::Heard))
    }

    /// How many destinations are left alone.
    pub(super) fn waiting_count(&self) -> usize {
        self.waits.len()
    }

    /// When the next wait ends, ms.
    pub(super) fn next_end_ms(&self) -> Option<u64> {
        self.ends.first().map(|(until_ms, _)| *until_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: Past = Past { failures: 0, was_reached: true };
    const LAPSED: Past = Past { failures: 2, was_reached: true };
    const NEW: Past = Past { failures: 0, was_reached: false };
    const SILENT: Past = Past { failures: 1, was_reached: false };

    fn server(name: &str) -> OwnedServerName {
        name.try_into().unwrap()
    }

    /// Names of those that get a place, in their turn.
    fn started(schedule: &mut Schedule) -> Vec<String> {
        std::iter::from_fn(|| schedule.next()).map(|(server, _)| server.to_string()).collect()
    }

    #[test]
    fn each_kind_goes_in_its_turn_and_takes_no_place_of_another() {
        let mut schedule = Schedule::default();
        for number in 0..100 {
            schedule.line_up(&server(&format!("new{number}.example")), NEW);
        }
        schedule.line_up(&server("tried.example"), SILENT);
        assert_eq!(started(&mut schedule).len(), Standing::New.places() + 1);
        for number in 0..100 {
            schedule.line_up(&server(&format!("silent{number}.example")), SILENT);
        }
        assert_eq!(started(&mut schedule).len(), Standing::Silent.places() - 1);
        schedule.line_up(&server("lapsed.example"), LAPSED);
        schedule.line_up(&server("well.example"), WELL);
        assert_eq!(started(&mut schedule), ["well.example", "lapsed.example"]);
        assert!(schedule.heard_from(&server("silent99.example"), 0));
        assert!(!schedule.heard_from(&server("silent99.example"), 0), "once is enough");
        assert_eq!(started(&mut schedule), ["silent99.example"]);
        schedule.leave(&server("new0.example"));
        assert_eq!(started(&mut schedule).len(), 1);
    }

    #[test]
    fn the_fewer_failures_the_earlier() {
        let mut schedule = Schedule::default();
        for (name, failures) in [("a.example", 9), ("b.example", 1), ("c.example", 40), ("d.example", 20)] {
            schedule.line_up(&server(name), Past { failures, was_reached: true });
        }
        // From some number on all are alike, or the oldest would wait for ever.
        assert_eq!(started(&mut schedule), ["b.example", "a.example", "c.example", "d.example"]);
    }

    #[test]
    fn what_comes_while_a_sender_is_at_work_is_seen_by_it() {
        let mut schedule = Schedule::default();
        let them = server("them.example");
        schedule.wake(&them);
        assert_eq!(schedule.take_awake(0), std::slice::from_ref(&them));
        schedule.line_up(&them, WELL);
        assert!(schedule.next().is_some());
        schedule.wake(&them);
        assert!(schedule.take_awake(0).is_empty());
        assert!(!schedule.is_done(&them));
        assert!(schedule.is_done(&them));
        schedule.wake(&them);
        assert_eq!(schedule.take_awake(0), [them]);
    }

    #[test]
    fn whoever_speaks_and_cannot_be_reached_is_tried_less_and_less() {
        let mut schedule = Schedule::default();
        let them = server("them.example");
        let mut now_ms = 1_000;
        let mut waits = Vec::new();
        for _ in 0..10 {
            schedule.failed(&them, now_ms, now_ms + 900_000);
            schedule.heard_from(&them, now_ms);
            waits.push(schedule.waits_until_ms(&them).unwrap() - now_ms);
            now_ms += waits.last().unwrap();
            assert_eq!(schedule.take_awake(now_ms), std::slice::from_ref(&them));
        }
        assert_eq!(waits, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000, 60_000]);
        schedule.succeeded(&them);
        schedule.failed(&them, now_ms, now_ms + 900_000);
        schedule.heard_from(&them, now_ms);
        assert_eq!(schedule.waits_until_ms(&them), Some(now_ms + 1_000));
    }

    #[test]
    fn whoever_speaks_while_a_try_fails_is_tried_again_soon() {
        let mut schedule = Schedule::default();
        let them = server("them.example");
        schedule.line_up(&them, LAPSED);
        assert!(schedule.next().is_some());
        schedule.heard_from(&them, 0);
        schedule.failed(&them, 10_000, 900_000);
        schedule.leave(&them);
        let until_ms = schedule.waits_until_ms(&them).unwrap();
        assert!(until_ms <= 12_000, "{until_ms}");
        assert_eq!(schedule.next_end_ms(), Some(until_ms));
        assert!(schedule.is_doubtful(&them));
    }

    #[test]
    fn an_operators_wish_ends_a_wait() {
        let mut schedule = Schedule::default();
        let them = server("them.example");
        schedule.failed(&them, 0, 900_000);
        schedule.prefer(&them);
        assert_eq!((schedule.take_awake(1), schedule.next_end_ms()), (vec![them.clone()], None));
        schedule.line_up(&them, NEW);
        assert_eq!(schedule.next(), Some((them, Standing::Heard)));
    }

    #[test]
    fn what_comes_while_a_failure_is_written_down_is_not_lost() {
        let mut schedule = Schedule::default();
        let slow = server("slow.example");
        schedule.line_up(&slow, WELL);
        assert!(schedule.next().is_some());
        schedule.failed(&slow, 0, 1_000);
        schedule.wake(&slow);
        // The wait is over before the sender is gone.
        assert!(schedule.take_awake(1_000).is_empty());
        schedule.leave(&slow);
        assert_eq!(schedule.take_awake(1_000), [slow]);
    }
}

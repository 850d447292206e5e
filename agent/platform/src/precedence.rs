//! Long work that gives way to short work beside it: a first copy of a large disk, and the deltas of all others.

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// How long work gives way in one go. What has gone on for longer is not short, and nobody gives way to it any more. However much
/// short work there is, half of the time is the long work's own: what it gives, it must have had before.
const TURN: Duration = Duration::from_secs(1);

/// Who goes first within a process. Clones share it.
#[derive(Clone, Debug)]
pub struct Precedence(Arc<watch::Sender<State>>);

#[derive(Debug)]
struct State {
    /// Short works under way.
    short: usize,
    /// When the newest of them began.
    newest: Instant,
    /// When there last began to be any, or to be none.
    since: Instant,
    /// For how long from then on long work gives way.
    credit: Duration,
}

impl State {
    /// What the long work has had for itself since `since` is what it can give.
    fn earn(&mut self, now: Instant) {
        let own = now - self.since;
        self.credit = match self.short {
            0 => (self.credit + own).min(TURN),
            _ if own < self.credit => self.credit - own,
            _ => (own - self.credit).min(TURN),
        };
        self.since = now;
    }
}

/// Short work under way; it has ended when this is dropped.
#[derive(Debug)]
pub struct Short(Precedence);

impl Default for Precedence {
    fn default() -> Self {
        let now = Instant::now();
        Self(Arc::new(watch::Sender::new(State { short: 0, newest: now, since: now, credit: TURN })))
    }
}

impl Precedence {
    /// Short work begins.
    #[must_use]
    pub fn short(&self) -> Short {
        self.0.send_modify(|state| {
            state.newest = Instant::now();
            if state.short == 0 {
                state.earn(state.newest);
            }
            state.short += 1;
        });
        Short(self.clone())
    }

    /// To be waited for before each step of long work: returns once no short work is under way, or the long has given way
    /// for long enough.
    pub async fn give_way(&self) {
        let Some(end) = self.turn() else { return };
        // The sender is never dropped before `self`.
        let _ = timeout_at(end, self.0.subscribe().wait_for(|state| state.short == 0)).await;
    }

    /// Until when long work gives way now, if it does.
    fn turn(&self) -> Option<Instant> {
        let (now, mut end) = (Instant::now(), None);
        self.0.send_if_modified(|state| {
            if state.short > 0 {
                if now >= state.since + state.credit + TURN {
                    state.earn(now);
                }
                end = Some((state.since + state.credit).min(state.newest + TURN)).filter(|end| now < *end);
            }
            false
        });
        end
    }
}

impl Drop for Short {
    fn drop(&mut self) {
        self.0.0.send_modify(|state| {
            if state.short == 1 {
                state.earn(Instant::now());
            }
            state.short -= 1;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::yield_now;

    const STEP: Duration = Duration::from_millis(10);

    /// How much of twenty turns long work has for itself, while `beside` does something before each of its steps.
    async fn own_time(precedence: &Precedence, mut beside: impl FnMut()) -> Duration {
        let (begun, mut own) = (Instant::now(), Duration::ZERO);
        while begun.elapsed() < TURN * 20 {
            beside();
            precedence.give_way().await;
            // sleep: a step of simulated time.
            tokio::time::sleep(STEP).await;
            own += STEP;
        }
        own
    }

    #[tokio::test(start_paused = true)]
    async fn long_work_waits_for_short_work_to_end() {
        let (precedence, begun) = (Precedence::default(), Instant::now());
        precedence.give_way().await;
        let (one, two) = (precedence.short(), precedence.short());
        let long = tokio::spawn({
            let precedence = precedence.clone();
            async move { precedence.give_way().await }
        });
        yield_now().await;
        drop(one);
        yield_now().await;
        assert!(!long.is_finished());
        drop(two);
        long.await.expect("it goes on");
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn half_of_the_time_is_the_long_works_own() {
        let precedence = Precedence::default();
        let mut short = Vec::new();
        let own = own_time(&precedence, || {
            short.push(precedence.short());
            // Never without one.
            short.drain(..short.len() - 1);
        });
        let own = own.await;
        assert!(own >= TURN * 10 - STEP && own <= TURN * 11, "{own:?} of twenty turns");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_gives_way_for_long_to_what_does_not_end() {
        let precedence = Precedence::default();
        let _forever = precedence.short();
        let own = own_time(&precedence, || {}).await;
        assert!(own >= TURN * 19, "{own:?} of twenty turns");
    }

    #[tokio::test(start_paused = true)]
    async fn short_work_that_comes_seldom_is_always_given_way_to() {
        let precedence = Precedence::default();
        for _ in 0..20 {
            let (begun, short) = (Instant::now(), precedence.short());
            let end = async {
                // sleep: simulated time.
                tokio::time::sleep(TURN / 4).await;
                drop(short);
            };
            tokio::join!(precedence.give_way(), end);
            assert_eq!(begun.elapsed(), TURN / 4);
            // sleep: simulated time.
            tokio::time::sleep(TURN / 4).await;
        }
    }
}

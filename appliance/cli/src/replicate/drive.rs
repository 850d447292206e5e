//! The run: what happens is told, and what it means for the run is decided.

use super::Args;
use super::parts::Parts;
use super::show::{Running, Screen};
use super::turnstile::Event;
use crate::outcome::{Outcome, Refusal};
use crate::progress;
use crate::report::CycleReport;
use crate::signals::Signals;
use sluice_agent::disk::DiskError;
use sluice_client::OperatorApi;
use sluice_proto::CycleNo;
use sluice_proto::cycle::{FailReason, State, TrackerKind};
use sluice_proto::wire::CycleView;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// How long a cycle may take to end once the run is to end.
const GRACE: Duration = Duration::from_secs(15);
/// Failures in a row after which a run without `--follow` ends.
const FAILURES_MAX: u32 = 3;
/// Tries of one step of the hydrator, some 15 seconds, after which a run without `--follow` ends.
const TRIES_MAX: u32 = 6;
/// How long a run without `--follow` waits for room: what is stored is applied meanwhile, and makes some.
const ROOM_TIME: Duration = Duration::from_secs(20);
/// How far back a cycle's record is looked for.
const CYCLES: u32 = 16;

struct Run<'a> {
    args: &'a Args,
    parts: Parts,
    running: Option<Running>,
    /// The newest cycle that began in this run.
    begun: Option<CycleNo>,
    failures: u32,
    /// How the run ends, and the cycle whose verdict the agent has to note before that.
    end: Option<(Outcome, CycleNo)>,
    /// Set by the first signal.
    ending: Option<Instant>,
    /// Since when there is no room, and what was said of it.
    full: Option<(Instant, String)>,
}

/// Why a run is over.
pub enum Ended {
    /// For good.
    Done(Outcome),
    /// The source has grown: everything is to be put together anew, for its new size.
    Grown,
}

/// Runs until it is done or told to end.
pub async fn drive(args: &Args, parts: Parts) -> Result<Ended, Refusal> {
    let mut signals = Signals::new()?;
    let mut run = Run { args, parts, running: None, begun: None, failures: 0, end: None, ending: None, full: None };
    let result = run.go(&mut signals).await;
    let tracker = run.parts.tracker;
    run.parts.end().await;
    if tracker == TrackerKind::Ebpf && matches!(result, Ok(Ended::Done(_))) {
        let source = args.source.display();
        progress::say(format!(
            "writes to {source} are noted in the kernel from here on: the next run ships what changed"
        ));
    }
    result
}

impl Run<'_> {
    async fn go(&mut self, signals: &mut Signals) -> Result<Ended, Refusal> {
        let mut screen = Screen::new(self.args.limit.as_deref(), self.args.cache.is_none());
        let mut tick = interval(Duration::from_millis(if progress::is_shown() { 100 } else { 5000 }));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut troubles = self.parts.progress.troubles();
        loop {
            let ending = self.ending;
            let room_until = self.full.as_ref().filter(|_| !self.args.follow).map(|(since, _)| *since + ROOM_TIME);
            tokio::select! {
                biased;
                () = signals.next() => {
                    if self.told_to_end() {
                        return Ok(Ended::Done(self.interrupted()));
                    }
                }
                ended = &mut self.parts.agent => {
                    return Err(match ended {
                        Ok(Err(DiskError::Grown { detail, .. })) if ending.is_none() => {
                            progress::say(detail);
                            return Ok(Ended::Grown);
                        }
                        // The next run begins with that.
                        Ok(Err(DiskError::Grown { .. })) => return Ok(Ended::Done(self.interrupted())),
                        Ok(Err(error)) => Refusal::at(format_args!("source {}", self.args.source.display()), error),
                        Ok(Ok(())) => Refusal::new("the agent ended by itself"),
                        Err(error) => Refusal::at("the agent ended by itself", error),
                    });
                }
                Some(event) = self.parts.events.recv() => {
                    if let Some(outcome) = self.on(event).await? {
                        return Ok(Ended::Done(outcome));
                    }
                }
                Ok(trouble) = troubles.wait_for(|disks| disks.values().any(|t| t.tries >= TRIES_MAX)), if !self.args.follow => {
                    let why = trouble.values().next().map(|trouble| trouble.why.clone()).unwrap_or_default();
                    progress::say(format!("{why}\nmend this and run it again: it goes on where it was"));
                    return Ok(Ended::Done(Outcome::Bad));
                }
                () = sleep_until(ending.unwrap_or_else(Instant::now)), if ending.is_some() => {
                    return Ok(Ended::Done(self.interrupted()));
                }
                () = sleep_until(room_until.unwrap_or_else(Instant::now)), if room_until.is_some() => {
                    let text = self.full.take().map(|(_, text)| text).unwrap_or_default();
                    progress::say(format!("{text}\nmake room there and run this again: it goes on where it was"));
                    return Ok(Ended::Done(Outcome::Bad));
                }
                _ = tick.tick() => screen.draw(&self.parts, self.running),
            }
        }
    }

    /// True where there is nothing to wait for.
    fn told_to_end(&mut self) -> bool {
        self.parts.turnstile.close();
        let Some(running) = self.running.filter(|_| self.ending.is_none()) else { return true };
        self.ending = Some(Instant::now() + GRACE);
        let cycle = running.cycle;
        progress::say(format!("ending after cycle {cycle}, or in {} s; once more ends at once", GRACE.as_secs()));
        false
    }

    fn interrupted(&self) -> Outcome {
        if let Some(running) = self.running {
            progress::say(format!("cycle {} is not finished; the next run takes it up", running.cycle));
        }
        if self.args.follow { Outcome::Good } else { Outcome::Interrupted }
    }

    /// Takes note of an event; gives the outcome once the run is over.
    async fn on(&mut self, event: Event) -> Result<Option<Outcome>, Refusal> {
        match event {
            Event::Registered if self.begun.is_none() => {
                self.parts.operator.sync_now(self.parts.disk).await.map_err(Refusal::of)?;
            }
            Event::Registered => {}
            Event::Begun(cycle) => {
                self.begun = Some(cycle);
                self.running = Some(Running { cycle, kind: None, committed: false });
            }
            Event::Opened(cycle, kind) => {
                let committed = self.running.is_some_and(|r| r.cycle == cycle && r.committed);
                self.running = Some(Running { cycle, kind: Some(kind), committed });
            }
            Event::Committed(cycle) => {
                self.running = self.running.filter(|r| r.cycle == cycle).map(|r| Running { committed: true, ..r });
            }
            Event::Ended(cycle, bytes_read) => self.ended(cycle, bytes_read).await?,
            Event::Settled(cycle) => return Ok(self.over(cycle)),
            Event::NoRoom(text) => {
                if self.full.is_none() {
                    progress::say(format!("{text}; waiting for room"));
                }
                let since = self.full.take().map_or_else(Instant::now, |(since, _)| since);
                self.full = Some((since, text));
            }
            Event::Room => self.full = None,
        }
        Ok(None)
    }

    /// A verdict counts once the agent has safely noted it: the next run begins behind it then.
    fn over(&self, settled: CycleNo) -> Option<Outcome> {
        let idle = self.ending.is_some() && self.running.is_none();
        match self.end {
            Some((outcome, cycle)) => (settled >= cycle).then_some(outcome),
            None => idle.then(|| self.interrupted()),
        }
    }

    async fn ended(&mut self, cycle: CycleNo, bytes_read: u64) -> Result<(), Refusal> {
        self.running = self.running.filter(|r| r.cycle != cycle);
        let Some(view) = self.view(cycle).await? else { return Ok(()) };
        let report = CycleReport::new(&view, bytes_read);
        tell(&report, &view, self.args.json);
        self.failures = if report.verified { 0 } else { self.failures + 1 };
        if self.args.follow {
            return Ok(());
        }
        let of_this_run = self.begun == Some(cycle);
        if report.verified && of_this_run {
            self.end = Some((Outcome::Good, cycle));
        } else if !report.verified {
            match self.failures < FAILURES_MAX && view.reason.is_some_and(may_help) {
                true if of_this_run => self.parts.turnstile.permit(),
                true => {}
                false => self.end = Some((Outcome::Bad, cycle)),
            }
        }
        if self.end.is_some() {
            self.parts.turnstile.close();
        }
        Ok(())
    }

    async fn view(&self, cycle: CycleNo) -> Result<Option<CycleView>, Refusal> {
        let cycles = self.parts.operator.cycles(self.parts.disk, CYCLES).await.map_err(Refusal::of)?;
        Ok(cycles.into_iter().find(|view| view.cycle == cycle))
    }
}

/// Whether another cycle may succeed with nobody having done anything.
fn may_help(reason: FailReason) -> bool {
    reason.is_doubt()
        || matches!(reason, FailReason::SegmentCorrupt | FailReason::ManifestCorrupt | FailReason::Abandoned)
}

fn tell(report: &CycleReport, view: &CycleView, json: bool) {
    if let (State::Verified, Some(detail)) = (view.state, &view.detail) {
        progress::say(format!("cycle {}: source and target were compared: {detail}", view.cycle));
    }
    progress::say(report.line());
    if json {
        print_line!("{}", report.json());
    }
}

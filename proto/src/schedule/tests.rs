use super::*;
use crate::DiskId;
use proptest::prelude::*;
use std::num::NonZeroUsize;
use std::sync::Arc;

const HOUR: u64 = 3_600_000;

fn verified(kind: CycleKind, started_ms: u64, ended_ms: u64) -> Previous {
    Previous::Verified { kind, started_ms, ended_ms }
}

#[test]
fn the_first_delta_follows_the_initial_at_once() {
    let policy = Policy::default();
    assert_eq!(next_start(&Previous::None, &policy), Some(0));
    assert_eq!(next_start(&verified(CycleKind::Initial, 5, 9 * HOUR), &policy), Some(9 * HOUR));
    assert_eq!(next_start(&verified(CycleKind::Final, 5, 9), &policy), None);
}

#[test]
fn later_ones_wait_half_the_cycle_within_floor_and_ceiling() {
    let policy = Policy::default();
    let pause =
        |duration| next_start(&verified(CycleKind::Delta, 100, 100 + duration), &policy).map(|at| at - 100 - duration);
    assert_eq!(pause(10), Some(HOUR));
    assert_eq!(pause(2 * HOUR), Some(HOUR));
    assert_eq!(pause(5 * HOUR), Some(5 * HOUR / 2));
    assert_eq!(pause(24 * HOUR), Some(12 * HOUR));
    assert_eq!(pause(100 * HOUR), Some(12 * HOUR));
    assert_eq!(next_start(&verified(CycleKind::Resync, 0, 6 * HOUR), &policy), Some(9 * HOUR));
    // The clock was put back during the cycle.
    assert_eq!(next_start(&verified(CycleKind::Delta, 900, 100), &policy), Some(100 + HOUR));
}

#[test]
fn a_failure_is_tried_again_ever_more_slowly() {
    let pauses = |policy: Policy| {
        let at = |failures| next_start(&Previous::Failed { ended_ms: 7, failures }, &policy).unwrap() - 7;
        [0, 1, 2, 3, 4, 6, 7, 8, 1000, u32::MAX].map(at)
    };
    let usual = [1000, 1000, 2000, 4000, 8000, 32_000, 60_000, 60_000, 60_000, 60_000];
    assert_eq!(pauses(Policy::default()), usual);
    // Never later than after a success.
    let quick = Policy::new(3000, 10_000).unwrap();
    assert_eq!(pauses(quick), [1000, 1000, 2000, 3000, 3000, 3000, 3000, 3000, 3000, 3000]);
}

#[test]
fn a_policy_is_checked_wherever_it_comes_from() {
    assert_eq!(Policy::new(999, 5000), Err(BadPolicy::TooShort(999)));
    assert_eq!(Policy::new(5000, 4999), Err(BadPolicy::Crossed { min_ms: 5000, max_ms: 4999 }));
    let second = Policy::new(1000, 1000).unwrap();
    let text = serde_json::to_string(&second).unwrap();
    assert_eq!(serde_json::from_str::<Policy>(&text).unwrap(), second);
    let bad = serde_json::from_str::<Policy>(r#"{"min_interval_ms":1,"max_interval_ms":2}"#).unwrap_err();
    assert!(bad.to_string().contains("one second at least"), "{bad}");
}

#[test]
fn final_goes_before_initial_before_delta() {
    assert!(Priority::Final > Priority::Initial && Priority::Initial > Priority::Delta);
    assert_eq!(Priority::from(CycleKind::Resync), Priority::Initial);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_start_is_within_the_policy(min in 1000..HOUR, more in 0..HOUR, start in any::<u64>(), took in any::<u64>()) {
        let policy = Policy::new(min, min + more).unwrap();
        let end = start.saturating_add(took);
        let at = next_start(&verified(CycleKind::Delta, start, end), &policy).unwrap();
        prop_assert!(at >= end.saturating_add(min) && at <= end.saturating_add(min + more));
        let retry = next_start(&Previous::Failed { ended_ms: end, failures: took as u32 }, &policy).unwrap();
        prop_assert!(retry <= at && retry >= end);
    }
}

fn disk(no: u8) -> DiskId {
    DiskId([no; 16])
}

fn slots(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap()
}

/// Disks below 100 are of one owner, those above of another.
fn owner(no: u8) -> Arc<str> {
    Arc::from(if no < 100 { "web-1" } else { "web-2" })
}

fn enqueue(queue: &mut Admission, no: u8, priority: Priority) {
    queue.enqueue(disk(no), &owner(no), priority);
}

fn admit_all(queue: &mut Admission) -> Vec<u8> {
    queue.admit_all().iter().map(|disk| disk.0[0]).collect()
}

#[test]
fn by_priority_then_by_arrival_with_a_slot_kept_for_the_small() {
    let mut queue = Admission::new(slots(3));
    for (no, priority) in [
        (1, Priority::Delta),
        (2, Priority::Initial),
        (3, Priority::Initial),
        (4, Priority::Initial),
        (5, Priority::Delta),
        (6, Priority::Final),
    ] {
        enqueue(&mut queue, no, priority);
    }
    assert_eq!(admit_all(&mut queue), [6, 2, 3]);
    assert!(queue.finish(disk(6)));
    // Initial cycle 4 may not take the last slot.
    assert_eq!(admit_all(&mut queue), [1]);
    assert!(queue.finish(disk(2)));
    assert_eq!(admit_all(&mut queue), [4]);
    assert!(queue.finish(disk(1)) && !queue.finish(disk(1)));
    assert_eq!(admit_all(&mut queue), [5]);
}

#[test]
fn a_single_slot_serves_all() {
    let mut queue = Admission::new(slots(1));
    enqueue(&mut queue, 1, Priority::Delta);
    enqueue(&mut queue, 2, Priority::Initial);
    assert_eq!(admit_all(&mut queue), [2]);
    queue.finish(disk(2));
    assert_eq!(admit_all(&mut queue), [1]);
}

#[test]
fn a_disk_runs_one_cycle_at_a_time_and_may_wait_for_its_next() {
    let mut queue = Admission::new(slots(4));
    enqueue(&mut queue, 1, Priority::Delta);
    assert_eq!(admit_all(&mut queue), [1]);
    enqueue(&mut queue, 1, Priority::Final);
    assert_eq!(admit_all(&mut queue), [0; 0]);
    assert!(queue.is_admitted(disk(1)) && queue.is_waiting(disk(1)));
    queue.finish(disk(1));
    assert_eq!(admit_all(&mut queue), [1]);
    // What ran before a restart counts, and fewer slots stop nothing that runs.
    queue.resume(disk(2), &owner(2), Priority::Initial);
    queue.set_slots(slots(1));
    enqueue(&mut queue, 3, Priority::Final);
    assert_eq!((admit_all(&mut queue), queue.running(), queue.waiting()), (vec![], 2, 1));
}

#[test]
fn who_holds_fewest_goes_first_and_leaves_two_slots_to_others() {
    let mut queue = Admission::new(slots(8));
    (1..=20).for_each(|no| enqueue(&mut queue, no, Priority::Initial));
    (21..=40).for_each(|no| enqueue(&mut queue, no, Priority::Delta));
    // Five initials and a delta: none of them ever ends.
    assert_eq!(admit_all(&mut queue), [1, 2, 3, 4, 5, 21]);
    (101..=103).for_each(|no| enqueue(&mut queue, no, Priority::Initial));
    enqueue(&mut queue, 111, Priority::Delta);
    enqueue(&mut queue, 112, Priority::Delta);
    assert_eq!(admit_all(&mut queue), [101, 102]);
    assert!(queue.finish(disk(102)));
    // Seven initials are not reached, so that another may start; the deltas of the other have the last slot.
    assert_eq!(admit_all(&mut queue), [103]);
    assert!(queue.finish(disk(101)) && queue.finish(disk(103)));
    assert_eq!(admit_all(&mut queue), [111, 112]);
    // A slot that is free goes to the one who has fewer, whoever came first.
    (1..=5).chain([111]).for_each(|no| assert!(queue.finish(disk(no))));
    enqueue(&mut queue, 104, Priority::Initial);
    enqueue(&mut queue, 105, Priority::Initial);
    assert_eq!(admit_all(&mut queue)[..2], [6, 104]);
}

#[test]
fn what_was_suspended_and_goes_on_takes_nothing_from_other_owners() {
    let mut queue = Admission::new(slots(8));
    (1..=12).for_each(|no| enqueue(&mut queue, no, Priority::Delta));
    assert_eq!(admit_all(&mut queue), [1, 2, 3, 4, 5, 6]);
    (1..=6).for_each(|no| assert!(queue.suspend(disk(no))));
    assert_eq!(admit_all(&mut queue), [7, 8, 9, 10, 11, 12]);
    (1..=6).for_each(|no| queue.go_on(disk(no)));
    enqueue(&mut queue, 13, Priority::Final);
    enqueue(&mut queue, 101, Priority::Initial);
    enqueue(&mut queue, 102, Priority::Delta);
    assert_eq!(admit_all(&mut queue), [101, 102]);
}

#[test]
fn a_long_cycle_does_not_hold_up_its_owner_s_deltas() {
    let mut queue = Admission::new(slots(2));
    enqueue(&mut queue, 1, Priority::Initial);
    assert_eq!(admit_all(&mut queue), [1]);
    enqueue(&mut queue, 2, Priority::Delta);
    enqueue(&mut queue, 101, Priority::Delta);
    assert_eq!(admit_all(&mut queue), [2], "it came first");
}

#[test]
fn deltas_that_turn_out_to_be_comparisons_leave_a_slot_to_deltas() {
    let mut queue = Admission::new(slots(4));
    (1..=4).for_each(|no| enqueue(&mut queue, no, Priority::Delta));
    assert_eq!(admit_all(&mut queue), [1, 2, 3, 4]);
    (1..=4).for_each(|no| queue.reclassify(disk(no), Priority::Initial));
    enqueue(&mut queue, 5, Priority::Initial);
    enqueue(&mut queue, 6, Priority::Delta);
    enqueue(&mut queue, 7, Priority::Delta);
    assert_eq!(admit_all(&mut queue), [6]);
    assert!(queue.finish(disk(6)));
    assert_eq!(admit_all(&mut queue), [7]);
}

#[test]
fn what_does_not_go_on_holds_no_slot_and_what_is_not_due_does_not_wait() {
    let mut queue = Admission::new(slots(1));
    (1..=3).for_each(|no| enqueue(&mut queue, no, Priority::Delta));
    assert_eq!(admit_all(&mut queue), [1]);
    assert!(queue.suspend(disk(1)) && !queue.suspend(disk(1)));
    assert!(queue.withdraw(disk(2)) && !queue.withdraw(disk(2)));
    assert_eq!(admit_all(&mut queue), [3]);
    // The first goes on beside it, and is admitted once only.
    queue.go_on(disk(1));
    enqueue(&mut queue, 1, Priority::Delta);
    assert_eq!((admit_all(&mut queue), queue.running()), (vec![], 2));
    assert!(queue.finish(disk(3)) && queue.suspend(disk(1)));
    assert_eq!(admit_all(&mut queue), [0; 0], "its cycle has not ended");
    assert!(queue.finish(disk(1)) && !queue.finish(disk(1)));
    assert_eq!(admit_all(&mut queue), [1]);
}

#[derive(Debug, Clone)]
enum Step {
    Enqueue(u8, Priority),
    Admit,
    Finish(u8),
    Withdraw(u8),
    Suspend(u8),
    GoOn(u8),
    Reclassify(u8, Priority),
    Slots(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let priority = || prop_oneof![Just(Priority::Delta), Just(Priority::Initial), Just(Priority::Final)];
    let no = || prop_oneof![2 => 0..10_u8, 1 => 100..105_u8];
    let step = prop_oneof![
        6 => (no(), priority()).prop_map(|(no, priority)| Step::Enqueue(no, priority)),
        6 => Just(Step::Admit),
        3 => no().prop_map(Step::Finish),
        1 => no().prop_map(Step::Withdraw),
        1 => no().prop_map(Step::Suspend),
        1 => no().prop_map(Step::GoOn),
        1 => (no(), priority()).prop_map(|(no, priority)| Step::Reclassify(no, priority)),
        1 => (1..9_usize).prop_map(Step::Slots),
    ];
    proptest::collection::vec(step, 0..80)
}

/// The oracle: a list in order of arrival, searched by hand.
#[derive(Default)]
struct Naive {
    slots: usize,
    waiting: Vec<(u8, Priority)>,
    running: Vec<(u8, Priority)>,
    suspended: Vec<(u8, Priority)>,
}

impl Naive {
    /// Whether one more fits among those that run, all of them or those of one owner.
    fn fits(&self, owners: &[Arc<str>], share: usize, slots: usize, priority: Priority) -> bool {
        let (mut initials, mut others) = (0, 0);
        for one in owners {
            let mine = self.running.iter().filter(|(no, _)| owner(*no) == *one);
            let long = mine.clone().filter(|(_, p)| *p == Priority::Initial).count();
            let counted = long.min(if share == 1 { 1 } else { share - 1 });
            initials += counted;
            others += (mine.count() - long).min(share - counted);
        }
        let most = if slots == 1 { 1 } else { slots - 1 };
        let full = initials.min(most) + others >= slots;
        !full && (priority != Priority::Initial || initials < most)
    }

    fn admit(&mut self) -> Option<u8> {
        let share = if self.slots >= 6 { self.slots - 2 } else { self.slots };
        for priority in [Priority::Final, Priority::Initial, Priority::Delta] {
            let may = |no: u8| {
                !self.running.iter().chain(&self.suspended).any(|(other, _)| *other == no)
                    && self.fits(&[owner(0), owner(100)], share, self.slots, priority)
                    && self.fits(&[owner(no)], self.running.len().max(share), share, priority)
            };
            let long = |priority| priority == Priority::Initial;
            let has = |no: u8| {
                let mine = self.running.iter().filter(|(other, _)| owner(*other) == owner(no));
                mine.filter(|(_, p)| long(*p) == long(priority)).count()
            };
            let mut best: Option<usize> = None;
            for (at, (no, p)) in self.waiting.iter().enumerate() {
                if *p == priority && may(*no) && best.is_none_or(|best| has(*no) < has(self.waiting[best].0)) {
                    best = Some(at);
                }
            }
            if let Some(best) = best {
                let first = self.waiting.remove(best);
                self.running.push(first);
                return Some(first.0);
            }
        }
        None
    }

    fn shift(from: &mut Vec<(u8, Priority)>, to: &mut Vec<(u8, Priority)>, no: u8) {
        to.extend(from.extract_if(.., |(other, _)| *other == no));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_queue_does_what_the_oracle_does(steps in steps()) {
        let mut queue = Admission::new(slots(2));
        let mut naive = Naive { slots: 2, ..Naive::default() };
        for step in steps {
            match step {
                Step::Enqueue(no, priority) => {
                    enqueue(&mut queue, no, priority);
                    match naive.waiting.iter_mut().find(|(other, _)| *other == no) {
                        Some(waiting) => waiting.1 = priority,
                        None => naive.waiting.push((no, priority)),
                    }
                }
                Step::Admit => prop_assert_eq!(queue.admit().map(|d| d.0[0]), naive.admit()),
                Step::Finish(no) => {
                    let was = naive.running.iter().chain(&naive.suspended).any(|(other, _)| *other == no);
                    prop_assert_eq!(queue.finish(disk(no)), was);
                    naive.running.retain(|(other, _)| *other != no);
                    naive.suspended.retain(|(other, _)| *other != no);
                }
                Step::Withdraw(no) => {
                    queue.withdraw(disk(no));
                    naive.waiting.retain(|(other, _)| *other != no);
                }
                Step::Suspend(no) => {
                    queue.suspend(disk(no));
                    Naive::shift(&mut naive.running, &mut naive.suspended, no);
                }
                Step::GoOn(no) => {
                    queue.go_on(disk(no));
                    Naive::shift(&mut naive.suspended, &mut naive.running, no);
                }
                Step::Reclassify(no, priority) => {
                    queue.reclassify(disk(no), priority);
                    let admitted = naive.running.iter_mut().chain(&mut naive.suspended);
                    admitted.filter(|(other, _)| *other == no).for_each(|entry| entry.1 = priority);
                }
                Step::Slots(count) => {
                    queue.set_slots(slots(count));
                    naive.slots = count;
                }
            }
            prop_assert_eq!((queue.running(), queue.waiting()), (naive.running.len(), naive.waiting.len()));
        }
    }

    /// However many initial cycles wait, and though none of them ever ends, every delta gets its turn.
    #[test]
    fn no_delta_starves(count in 2..9_usize, initials in 0..40_u8, deltas in 1..40_u8) {
        let mut queue = Admission::new(slots(count));
        (0..initials).for_each(|no| enqueue(&mut queue, no, Priority::Initial));
        (100..100 + deltas).for_each(|no| enqueue(&mut queue, no, Priority::Delta));
        let mut served = Vec::new();
        for _ in 0..deltas {
            let admitted = admit_all(&mut queue);
            prop_assert!(queue.running() <= count);
            for no in admitted.into_iter().filter(|no| *no >= 100) {
                served.push(no);
                queue.finish(disk(no));
            }
        }
        prop_assert_eq!(served, (100..100 + deltas).collect::<Vec<_>>());
    }
}

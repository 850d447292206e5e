//! The token bucket and who drinks from it next: pure, so that its promises can be tested to the bit.
//!
//! Promises: what is granted in any stretch of time is at most rate times time plus the burst; disks that wait share
//! evenly, however many requests each has open; within a disk, first come, first served.
//!
//! Requests are granted piece by piece. A large one therefore never runs the bucket into debt, which would exceed the rate
//! for those who look closely and punish whoever comes next.
//!
//! Whose turn it is goes by what each disk has been served, least first, not by going round: a disk with one connection
//! asks again only when it has been served, and would miss every other round of one with eight.

use super::{Limit, Rate};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// What a disk may take ahead of the others before they come first, in bytes.
pub const QUANTUM_BYTES: u64 = 64 << 10;
/// What a disk may catch up of the time when it asked for nothing, in bytes, or what the rate gives in [`PIECE_TIME`] where
/// that is more: enough for the moment between two requests, too little to be felt by the others.
const LAG_BYTES_MIN: u64 = 4 * QUANTUM_BYTES;
/// The bucket holds what the rate gives in this time, so that a task which is woken late loses nothing.
const BURST_TIME: Duration = Duration::from_millis(100);
/// ... but at least this many bytes, so that the slowest rate still moves.
const BURST_BYTES_MIN: u64 = 4 << 10;
/// Nobody is woken more often than this, ...
const WAKE_MIN: Duration = Duration::from_millis(2);
/// ... and those who wait look at least this often, because a window may have begun or the wall clock been set.
pub(super) const WAKE_MAX: Duration = Duration::from_secs(1);

/// Five times [`WAKE_MIN`]: those who wait are still waiting when credit is shared out.
const PIECE_TIME: Duration = Duration::from_millis(10);
/// Bounds of a piece, in bytes.
const PIECE_BYTES_MIN: u64 = 16 << 10;
const PIECE_BYTES_MAX: u64 = 1 << 20;

/// Parts of a bit that are counted: a rate of one bit per second gains one unit each nanosecond.
const UNITS_PER_BIT: u128 = 1_000_000_000;
const UNITS_PER_BYTE: u128 = 8 * UNITS_PER_BIT;

/// Names a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// A token bucket shared between `D`s (disks). Time is any that does not run backwards.
#[derive(Debug)]
pub struct Scheduler<D> {
    limit: Limit,
    now: Duration,
    /// What may be granted at once, in units. At most the burst.
    credit: u128,
    /// What the disk had been served that was chosen last: those who ask now are compared with it.
    reached: u64,
    /// The disks that wait, and those whose share is still remembered.
    disks: BTreeMap<D, Queue>,
    /// The disks that wait, with what they have been served; the first is next.
    line: BTreeSet<(u64, D)>,
    next_ticket: u64,
}

#[derive(Debug, Default)]
struct Queue {
    /// Bytes; only its difference to that of others means something.
    served: u64,
    requests: VecDeque<Request>,
}

#[derive(Debug)]
struct Request {
    ticket: Ticket,
    bytes: u64,
    left: u64,
}

impl<D: Ord + Clone> Scheduler<D> {
    /// An idle one with a full bucket.
    pub fn new(limit: Limit, now: Duration) -> Self {
        let (disks, line) = (BTreeMap::new(), BTreeSet::new());
        Self { limit, now, credit: burst(limit), reached: 0, disks, line, next_ticket: 0 }
    }

    /// Asks for `bytes`; [`Scheduler::advance`] tells when they are granted.
    pub fn submit(&mut self, disk: D, bytes: u64) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let queue = self.disks.entry(disk.clone()).or_default();
        if queue.requests.is_empty() {
            queue.served = queue.served.max(self.reached.saturating_sub(lag_bytes(self.limit)));
            self.line.insert((queue.served, disk));
        }
        queue.requests.push_back(Request { ticket, bytes, left: bytes });
        ticket
    }

    /// Takes a request back. What it was granted already and has not used goes back into the bucket.
    pub fn cancel(&mut self, ticket: Ticket) {
        let position = |queue: &Queue| queue.requests.iter().position(|request| request.ticket == ticket);
        let found = self.disks.iter_mut().find_map(|(disk, queue)| Some((disk, position(queue)?, queue)));
        let Some((disk, position, queue)) = found else { return };
        self.line.remove(&(queue.served, disk.clone()));
        if let Some(request) = queue.requests.remove(position) {
            let granted = request.bytes - request.left;
            queue.served = queue.served.saturating_sub(granted);
            self.credit = (self.credit + u128::from(granted) * UNITS_PER_BYTE).min(burst(self.limit));
        }
        if !queue.requests.is_empty() {
            self.line.insert((queue.served, disk.clone()));
        }
    }

    /// Goes on to `now`, from where on `limit` holds; adds the tickets of requests that are granted whole to `granted`.
    pub fn advance(&mut self, now: Duration, limit: Limit, granted: &mut Vec<Ticket>) {
        let passed = now.saturating_sub(self.now);
        self.now = self.now.max(now);
        if let Limit::Rate(rate) = self.limit {
            // The limit may have changed anywhere in between, so the stretch counts by the slower of both.
            let slower = match limit {
                Limit::Rate(new) => rate.min(new),
                Limit::Unlimited => rate,
            };
            self.credit += u128::from(slower.bits()) * passed.as_nanos();
        }
        self.limit = limit;
        self.credit = self.credit.min(burst(limit));
        self.grant(granted);
    }

    /// How long nothing will happen unless something is asked; `None` while nobody waits.
    pub fn idle_time(&self) -> Option<Duration> {
        let (_, disk) = self.line.first()?;
        let Limit::Rate(rate) = self.limit else { return Some(Duration::ZERO) };
        if rate.bits() == 0 {
            return Some(WAKE_MAX);
        }
        let head = self.disks.get(disk)?.requests.front()?;
        let wanted = u128::from(head.left.min(QUANTUM_BYTES)) * UNITS_PER_BYTE;
        let missing = wanted.min(burst(self.limit)).saturating_sub(self.credit);
        let nanos = missing.div_ceil(u128::from(rate.bits())).min(WAKE_MAX.as_nanos());
        Some(Duration::from_nanos(nanos as u64).clamp(WAKE_MIN, WAKE_MAX))
    }

    fn grant(&mut self, granted: &mut Vec<Ticket>) {
        while let Some((served, disk)) = self.line.pop_first() {
            self.reached = self.reached.max(served);
            let ahead = self.line.first().map_or(u64::MAX, |(next, _)| next - served + QUANTUM_BYTES);
            let affordable = match self.limit {
                Limit::Unlimited => u64::MAX,
                Limit::Rate(_) => (self.credit / UNITS_PER_BYTE).min(u128::from(ahead)) as u64,
            };
            let Some(queue) = self.disks.get_mut(&disk) else { continue };
            let taken = queue.take(affordable, granted);
            if self.limit != Limit::Unlimited {
                self.credit -= u128::from(taken) * UNITS_PER_BYTE;
            }
            if !queue.requests.is_empty() {
                self.line.insert((queue.served, disk));
                if taken == 0 {
                    break;
                }
            }
        }
        if self.line.is_empty() {
            // Those further back would be treated like new ones.
            let remembered = self.reached.saturating_sub(lag_bytes(self.limit));
            self.disks.retain(|_, queue| queue.served > remembered);
        }
    }
}

impl Queue {
    /// Grants up to `affordable` bytes in order; gives how many were.
    fn take(&mut self, affordable: u64, granted: &mut Vec<Ticket>) -> u64 {
        let mut taken = 0;
        while let Some(head) = self.requests.front_mut() {
            let piece = head.left.min(affordable - taken);
            head.left -= piece;
            taken += piece;
            if head.left > 0 {
                break;
            }
            granted.push(head.ticket);
            self.requests.pop_front();
        }
        self.served = self.served.saturating_add(taken);
        taken
    }
}

/// How much is best asked for at once: what the limit gives in [`PIECE_TIME`]. Less, and a disk with one connection has
/// nothing in the queue whenever credit is shared out; more, and a slow line stands still for long at a time.
pub(super) fn piece_bytes(limit: Limit) -> u64 {
    match limit {
        Limit::Unlimited => PIECE_BYTES_MAX,
        Limit::Rate(rate) => bytes_in_piece_time(rate).clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX),
    }
}

fn lag_bytes(limit: Limit) -> u64 {
    match limit {
        Limit::Unlimited => LAG_BYTES_MIN,
        Limit::Rate(rate) => bytes_in_piece_time(rate).max(LAG_BYTES_MIN),
    }
}

fn bytes_in_piece_time(rate: Rate) -> u64 {
    (u128::from(rate.bits()) * PIECE_TIME.as_nanos() / (8 * 1_000_000_000)) as u64
}

/// What the bucket holds at most, in units. None for a pause: whoever pauses wants nothing to move.
fn burst(limit: Limit) -> u128 {
    match limit {
        Limit::Unlimited => 0,
        Limit::Rate(rate) if rate.bits() == 0 => 0,
        Limit::Rate(rate) => {
            let by_time = u128::from(rate.bits()) * BURST_TIME.as_nanos();
            by_time.max(u128::from(BURST_BYTES_MIN) * UNITS_PER_BYTE)
        }
    }
}

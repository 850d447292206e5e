//! Threads that computations wait for, by their places.

use super::Place;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One computation in so many goes to whoever has waited longest, whatever its place: so nobody waits for ever.
const OLDEST_EVERY: u64 = 4;

/// A computation that tells whoever waits for it what it came to.
pub(super) type Job = Box<dyn FnOnce() + Send>;

/// So many at once; of those that wait, the first by place, and among equals the one that came first.
///
/// What waits is the computation itself, not the task that wants it: a thread that was handed to a task which is just not polled,
/// as it waits for the network, would lie idle, and where that task waits for another computation first, for ever.
pub(super) struct Slots(Mutex<Queue>);

struct Queue {
    free: usize,
    waiting: BTreeMap<(Place, u64), Job>,
    /// The number of the next arrival.
    arrivals: u64,
    /// How many of those that waited have been served.
    served: u64,
}

impl Slots {
    pub fn new(count: usize) -> Self {
        Self(Mutex::new(Queue { free: count, waiting: BTreeMap::new(), arrivals: 0, served: 0 }))
    }

    /// Runs `job` on a thread of the runtime's blocking pool, now or once it is its turn. It must not panic.
    pub fn run(self: Arc<Self>, place: Place, job: Job) {
        let Some(first) = self.0.lock().begin(place, job) else { return };
        tokio::task::spawn_blocking(move || {
            let mut next = Some(first);
            while let Some(job) = next {
                job();
                next = self.0.lock().next();
            }
        });
    }
}

impl Queue {
    /// The job, where there is a thread for it; else it waits.
    fn begin(&mut self, place: Place, job: Job) -> Option<Job> {
        if self.free > 0 {
            self.free -= 1;
            return Some(job);
        }
        self.waiting.insert((place, self.arrivals), job);
        self.arrivals += 1;
        None
    }

    /// What a thread that has become free does next; where nothing waits, it is free.
    fn next(&mut self) -> Option<Job> {
        self.served += 1;
        let oldest = || self.waiting.keys().min_by_key(|(_, arrival)| *arrival).copied();
        let place = match self.served.is_multiple_of(OLDEST_EVERY) {
            true => oldest(),
            false => self.waiting.keys().next().copied(),
        };
        let job = place.and_then(|place| self.waiting.remove(&place));
        self.free += usize::from(job.is_none());
        job
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn place(number: u64) -> Place {
        Place { bytes: 100, number }
    }

    /// The order in which jobs of these places are served, given that all wait for one thread.
    fn served(places: &[Place]) -> Vec<usize> {
        let mut queue = Queue { free: 0, waiting: BTreeMap::new(), arrivals: 0, served: 0 };
        let (sender, order) = mpsc::channel();
        for (i, place) in places.iter().enumerate() {
            let sender = sender.clone();
            assert!(queue.begin(*place, Box::new(move || sender.send(i).expect("it is read"))).is_none());
        }
        while let Some(job) = queue.next() {
            job();
        }
        assert_eq!((queue.free, queue.waiting.len()), (1, 0));
        order.try_iter().collect()
    }

    #[test]
    fn the_first_by_place_is_served_next() {
        let small = Place { bytes: 99, number: 9 };
        assert_eq!(served(&[place(9), place(2), Place::FIRST, small]), [2, 3, 1, 0]);
        assert_eq!(served(&[place(2), Place::FIRST, place(2)]), [1, 0, 2]);
    }

    #[test]
    fn who_has_waited_longest_is_served_in_the_end() {
        let mut places = vec![place(u64::MAX)];
        places.resize(100, Place::FIRST);
        assert_eq!(served(&places).iter().position(|i| *i == 0), Some(OLDEST_EVERY as usize - 1));
    }

    #[tokio::test]
    async fn what_nobody_polls_holds_up_nobody() {
        let workers = crate::Workers::threads(1);
        let (go, gate) = mpsc::channel::<()>();
        let busy = tokio::spawn(workers.run(Place::FIRST, move || gate.recv().is_ok()));
        // Begun, and from then on not polled: as a stream of blocks while its segments are on their way.
        let mut parked = workers.run(place(1), || 7);
        let mut given_up = workers.run(place(1), || 8);
        for waiting in [&mut parked, &mut given_up] {
            assert!(futures_util::poll!(waiting).is_pending());
        }
        drop(given_up);
        let behind = tokio::spawn(workers.run(place(2), || 9));
        go.send(()).expect("the first runs");
        assert_eq!((behind.await.expect("it runs"), busy.await.expect("it ran")), (9, true));
        assert_eq!(parked.await, 7);
    }

    #[tokio::test]
    async fn a_panic_goes_on_in_the_task_that_waits() {
        let workers = crate::Workers::threads(1);
        let ended = tokio::spawn(workers.run(Place::FIRST, || -> u64 { panic!("as a test") })).await;
        assert!(ended.is_err_and(|error| error.is_panic()));
        assert_eq!(workers.run(Place::FIRST, || 1).await, 1);
    }
}

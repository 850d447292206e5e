//! Threads that computations wait for, by their places.

use super::Place;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::oneshot;

/// So many at once; of those that wait, the first by place, and among equals the one that came first.
pub(super) struct Slots(Mutex<Queue>);

struct Queue {
    free: usize,
    waiting: BTreeMap<(Place, u64), oneshot::Sender<Slot>>,
    /// The number of the next arrival.
    arrivals: u64,
}

/// One of the slots; the next has it when this is dropped.
pub(super) struct Slot(Arc<Slots>);

impl Slots {
    pub fn new(count: usize) -> Self {
        Self(Mutex::new(Queue { free: count, waiting: BTreeMap::new(), arrivals: 0 }))
    }

    /// Waits for a slot.
    pub async fn take(self: Arc<Self>, place: Place) -> Slot {
        match self.ask(place) {
            Ok(slot) => slot,
            // Whoever has a slot hands it on, and one waits only while all are had.
            Err(handed) => handed.await.expect("a slot is handed on"),
        }
    }

    fn ask(self: &Arc<Self>, place: Place) -> Result<Slot, oneshot::Receiver<Slot>> {
        let mut queue = self.0.lock();
        if queue.free > 0 {
            queue.free -= 1;
            return Ok(Slot(self.clone()));
        }
        let (sender, handed) = oneshot::channel();
        let arrival = queue.arrivals;
        queue.arrivals += 1;
        queue.waiting.insert((place, arrival), sender);
        Err(handed)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let next = {
            let mut queue = self.0.0.lock();
            match queue.waiting.pop_first() {
                Some((_, next)) => next,
                None => {
                    queue.free += 1;
                    return;
                }
            }
        };
        // Where that one has given up, the slot comes back, is dropped, and goes to the one behind.
        drop(next.send(Self(self.0.clone())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn place(number: u64) -> Place {
        Place { bytes: 100, number }
    }

    #[test]
    fn the_first_by_place_has_the_next_slot() {
        let slots = Arc::new(Slots::new(1));
        let held = slots.clone().take(place(7)).now_or_never().expect("a free slot");
        let small = Place { bytes: 99, number: 9 };
        let places = [place(9), place(2), Place::FIRST, place(2), small];
        let mut waiting: Vec<_> = places.map(|place| Some(Box::pin(slots.clone().take(place)))).into();
        let mut poll = || {
            let all = waiting.iter_mut().enumerate();
            let served = all.filter_map(|(i, one)| Some((i, one.as_mut()?.as_mut().now_or_never()?))).next();
            let (i, slot) = served?;
            waiting[i] = None;
            Some((i, slot))
        };
        assert!(poll().is_none());
        drop(held);
        let mut served = Vec::new();
        while let Some((i, slot)) = poll() {
            served.push(i);
            drop(slot);
        }
        assert_eq!(served, [2, 4, 1, 3, 0]);
    }

    #[test]
    fn who_gives_up_takes_no_slot_along() {
        let slots = Arc::new(Slots::new(2));
        let held = [(); 2].map(|()| slots.clone().take(Place::FIRST).now_or_never().expect("a free slot"));
        let mut given_up = Box::pin(slots.clone().take(Place::FIRST));
        let mut waits = Box::pin(slots.clone().take(place(1)));
        assert!(given_up.as_mut().now_or_never().is_none() && waits.as_mut().now_or_never().is_none());
        drop(given_up);
        drop(held);
        assert!(waits.as_mut().now_or_never().is_some());
        let all = [(); 2].map(|()| slots.clone().take(place(3)).now_or_never());
        assert!(all.iter().all(Option::is_some) && slots.clone().take(Place::FIRST).now_or_never().is_none());
    }

    #[test]
    fn a_slot_that_was_handed_to_one_that_gives_up_is_not_lost() {
        let slots = Arc::new(Slots::new(1));
        let held = slots.clone().take(Place::FIRST).now_or_never().expect("a free slot");
        let mut handed = Box::pin(slots.clone().take(Place::FIRST));
        assert!(handed.as_mut().now_or_never().is_none());
        drop(held);
        drop(handed);
        assert!(slots.take(Place::FIRST).now_or_never().is_some());
    }
}

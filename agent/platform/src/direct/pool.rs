//! Threads that make blocking calls: the whole engine where io_uring is refused, and a helper beside the ring for the
//! few calls that a ring can't make.

use super::files::{Call, Files};
use super::handle::{Event, Wake};
use crossbeam_channel::Sender;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

pub(super) struct Pool {
    calls: Option<Sender<(usize, Call)>>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    pub fn start(threads: usize, files: &Arc<Files>, wake: &Arc<Wake>) -> io::Result<Self> {
        let (calls, inbox) = crossbeam_channel::unbounded::<(usize, Call)>();
        let mut pool = Self { calls: Some(calls), threads: Vec::new() };
        for _ in 0..threads.max(1) {
            let (inbox, files, wake) = (inbox.clone(), files.clone(), wake.clone());
            let work = move || {
                for (slot, call) in inbox {
                    let result = files.make(call);
                    wake.send(Event::Done(slot, result));
                }
            };
            pool.threads.push(std::thread::Builder::new().name("sluice-io-call".into()).spawn(work)?);
        }
        Ok(pool)
    }

    /// Queues a call; its end arrives as an event.
    pub fn push(&self, slot: usize, call: Call) {
        let sent = self.calls.as_ref().map(|calls| calls.send((slot, call)));
        debug_assert!(matches!(sent, Some(Ok(()))), "the pool's threads live as long as the pool");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Closing the channel ends the threads, after what is still queued.
        self.calls = None;
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

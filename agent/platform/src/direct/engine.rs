//! The thread that owns a disk's I/O: it takes requests, keeps writes to one place in their order, and answers.
//!
//! The thread owns every buffer from the moment a request is sent until its answer, so a caller that stops waiting
//! leaves nothing behind that the kernel could write into.

use super::error::IoError;
use super::files::{Call, Files};
use super::handle::{Event, Wake};
use super::job::{Answer, Ask, Job, Next};
use super::pool::Pool;
use super::ring::{Completion, Ring};
use super::scatter::{self, Scatter};
use crate::buf::AlignedBuf;
use crossbeam_channel::Receiver;
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use tokio::sync::oneshot;

/// The most threads that stand in for a ring.
const POOL_THREADS_MAX: u32 = 16;

/// How a disk's calls are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// By an io_uring.
    Ring,
    /// By threads that block, since io_uring is refused here.
    Threads,
}

/// Which engine is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EngineChoice {
    /// A ring where the kernel lets us, else threads.
    #[default]
    Auto,
    /// A ring, or an error.
    Ring,
    /// Threads.
    Threads,
}

/// A call in the kernel.
enum Running {
    Job(Job, Option<Range<u64>>),
    Part(scatter::Running),
}

/// A request that waits.
enum Waiting {
    Job(Job),
    Scatter(Scatter),
}

impl Waiting {
    /// Nobody waits for it, and it has not begun.
    fn is_given_up(&self) -> bool {
        match self {
            Self::Job(job) => job.reply.is_closed(),
            Self::Scatter(scatter) => scatter.reply.is_closed(),
        }
    }

    fn writes(&self, files: &Files) -> Option<Range<u64>> {
        match self {
            Self::Job(job) => job.writes(files),
            Self::Scatter(scatter) => scatter.writes(),
        }
    }
}

pub(super) struct Engine {
    files: Arc<Files>,
    wake: Arc<Wake>,
    inbox: Receiver<Event>,
    ring: Option<Ring>,
    pool: Option<Pool>,
    /// Requests that wait for a slot, or for an earlier write to the same place; oldest first.
    waiting: VecDeque<Waiting>,
    /// Calls in the kernel; the index goes along with the call.
    slots: Vec<Option<Running>>,
    /// Requests for many places that have begun, with what they write.
    scatters: Vec<Option<(Scatter, Option<Range<u64>>)>>,
    /// Those of them that have parts which are not begun; oldest first.
    feeding: VecDeque<usize>,
    running: usize,
    stopping: bool,
}

impl Engine {
    pub fn new(
        files: Arc<Files>,
        choice: EngineChoice,
        depth: u32,
        wake: Arc<Wake>,
        inbox: Receiver<Event>,
    ) -> io::Result<Self> {
        let ring = match choice {
            EngineChoice::Threads => None,
            EngineChoice::Ring => Some(Ring::new(depth, &files, wake.descriptor.as_fd().as_raw_fd())?),
            EngineChoice::Auto => Ring::new(depth, &files, wake.descriptor.as_fd().as_raw_fd())
                .inspect_err(|error| tracing::debug!(disk = %files.name, %error, "no io_uring, threads instead"))
                .ok(),
        };
        let pool = match ring {
            Some(_) => None,
            None => Some(Pool::start(depth.min(POOL_THREADS_MAX) as usize, &files, &wake)?),
        };
        let slots = (0..depth).map(|_| None).collect();
        let (waiting, scatters, feeding) = (VecDeque::new(), Vec::new(), VecDeque::new());
        Ok(Self { files, wake, inbox, ring, pool, waiting, slots, scatters, feeding, running: 0, stopping: false })
    }

    pub fn kind(&self) -> EngineKind {
        if self.ring.is_some() { EngineKind::Ring } else { EngineKind::Threads }
    }

    pub fn run(&mut self) {
        while !self.stopping || self.running > 0 {
            while let Ok(event) = self.inbox.try_recv() {
                self.take(event);
            }
            self.feed();
            self.admit();
            if self.stopping && self.running == 0 {
                break;
            }
            if let Err(error) = self.sleep() {
                return self.fail(&error);
            }
        }
    }

    /// Waits for a completion or an event.
    fn sleep(&mut self) -> io::Result<()> {
        let Some(ring) = &mut self.ring else {
            // `self.wake` holds a sender, so the channel is never closed.
            let event = self.inbox.recv().map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            self.take(event);
            return Ok(());
        };
        self.wake.sleeping.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let result = ring.submit(self.inbox.is_empty());
        self.wake.sleeping.store(false, Ordering::SeqCst);
        result?;
        while let Some(completion) = self.ring.as_mut().and_then(Ring::completion) {
            match completion {
                Completion::Woken => {
                    // Empties it; that it was empty already does no harm.
                    let _ = self.wake.descriptor.read();
                }
                Completion::Done(slot, result) => self.completed(slot, result),
            }
        }
        Ok(())
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Request(ask, buf, reply) => self.waiting.push_back(Waiting::Job(Job::new(ask, buf, reply))),
            Event::Scatter(scatter) => self.waiting.push_back(Waiting::Scatter(scatter)),
            Event::Done(slot, result) => self.completed(slot, result),
            Event::Stop => {
                self.stopping = true;
                self.waiting.clear();
                self.feeding.clear();
            }
        }
    }

    /// Starts waiting requests, oldest first, as far as slots go. One that writes where an earlier one writes waits
    /// for it, so that writes to one place happen in the order in which they were asked for.
    fn admit(&mut self) {
        let mut held_back: Vec<Range<u64>> = Vec::new();
        let mut index = 0;
        while index < self.waiting.len() && self.running < self.slots.len() {
            let request = &self.waiting[index];
            if request.is_given_up() {
                self.waiting.remove(index);
                continue;
            }
            let writes = request.writes(&self.files);
            if let Some(range) = &writes {
                let running = self.slots.iter().flatten().filter_map(|running| match running {
                    Running::Job(_, writes) => writes.as_ref(),
                    Running::Part(_) => None,
                });
                let scattered = self.scatters.iter().flatten().filter_map(|(_, writes)| writes.as_ref());
                if running.chain(scattered).chain(&held_back).any(|other| overlap(other, range)) {
                    held_back.push(range.clone());
                    index += 1;
                    continue;
                }
            }
            match self.waiting.remove(index) {
                None => break,
                Some(Waiting::Job(job)) => self.start(job, writes),
                Some(Waiting::Scatter(scatter)) => self.start_scatter(scatter, writes),
            }
        }
    }

    fn start_scatter(&mut self, scatter: Scatter, writes: Option<Range<u64>>) {
        let free = self.scatters.iter().position(Option::is_none).unwrap_or(self.scatters.len());
        match self.scatters.get_mut(free) {
            Some(place) => *place = Some((scatter, writes)),
            None => self.scatters.push(Some((scatter, writes))),
        }
        self.feeding.push_back(free);
        self.feed();
    }

    /// Begins parts of requests for many places, the oldest request's first, as far as slots go.
    fn feed(&mut self) {
        while self.running < self.slots.len()
            && let Some(at) = self.feeding.front().copied()
        {
            let Some(slot) = self.slots.iter().position(Option::is_none) else { return };
            let scatter = self.scatters.get_mut(at).and_then(Option::as_mut);
            let (begun, more) = scatter.map_or((None, false), |(scatter, _)| (scatter.begin(at), scatter.has_more()));
            if begun.is_none() || !more {
                self.feeding.pop_front();
            }
            match begun {
                Some(part) => {
                    self.running += 1;
                    self.proceed_part(slot, part);
                }
                None => self.end_scatter(at),
            }
        }
    }

    fn proceed_part(&mut self, slot: usize, part: scatter::Running) {
        let Some(Some((scatter, _))) = self.scatters.get_mut(part.scatter) else { return };
        let call = scatter.call(&part);
        self.slots[slot] = Some(Running::Part(part));
        if let Err(error) = self.push(slot, call) {
            self.completed(slot, Err(error));
        }
    }

    /// Answers a request for many places once nothing of it is under way or to be begun.
    fn end_scatter(&mut self, at: usize) {
        let under_way = self.scatters[at].as_ref().is_some_and(|(scatter, _)| scatter.is_under_way());
        if !under_way && let Some((scatter, _)) = self.scatters[at].take() {
            scatter.finish(&self.files);
        }
    }

    fn start(&mut self, mut job: Job, writes: Option<Range<u64>>) {
        // A flush waits for the writes before it; those behind it needn't wait for the flush.
        let writes = writes.filter(|_| job.ask != Ask::Sync);
        let Some(slot) = self.slots.iter().position(Option::is_none) else {
            return self.waiting.push_front(Waiting::Job(job));
        };
        if let Err(error) = job.plan(&self.files) {
            return job.finish(&self.files, Err(error));
        }
        self.running += 1;
        self.proceed(slot, job, writes);
    }

    /// Makes a job's next call, or answers it.
    fn proceed(&mut self, slot: usize, mut job: Job, writes: Option<Range<u64>>) {
        match job.next() {
            Next::Finished(result) => {
                self.running -= 1;
                job.finish(&self.files, result);
            }
            Next::Call(call) => {
                self.slots[slot] = Some(Running::Job(job, writes));
                if let Err(error) = self.push(slot, call) {
                    self.completed(slot, Err(error));
                }
            }
        }
    }

    fn push(&mut self, slot: usize, call: Call) -> io::Result<()> {
        if let Some(ring) = &mut self.ring {
            // SAFETY: the call's memory belongs to the job in `slots[slot]`, or to the request in `scatters` that the part
            // there names. Either stays, neither moved out nor dropped, until `completed` for this slot; `fail` and `drop`
            // leak it instead.
            if unsafe { ring.push(slot, call) } {
                return Ok(());
            }
        }
        if self.pool.is_none() {
            self.pool = Some(Pool::start(1, &self.files, &self.wake)?);
        }
        if let Some(pool) = &self.pool {
            pool.push(slot, call);
        }
        Ok(())
    }

    fn completed(&mut self, slot: usize, result: io::Result<u64>) {
        let Some(running) = self.slots.get_mut(slot).and_then(Option::take) else { return };
        match running {
            Running::Job(mut job, writes) => match job.completed(&self.files, result) {
                Ok(()) => self.proceed(slot, job, writes),
                Err(error) => {
                    self.running -= 1;
                    job.finish(&self.files, Err(error));
                }
            },
            Running::Part(part) => self.completed_part(slot, part, result),
        }
    }

    fn completed_part(&mut self, slot: usize, mut part: scatter::Running, result: io::Result<u64>) {
        let at = part.scatter;
        let Some(Some((scatter, _))) = self.scatters.get_mut(at) else { return };
        if scatter.completed(&self.files, &mut part, result) {
            return self.proceed_part(slot, part);
        }
        self.running -= 1;
        if !self.feeding.contains(&at) {
            self.end_scatter(at);
        }
    }

    /// The kernel no longer takes our calls: every request is answered with its error from here on.
    fn fail(&mut self, error: &io::Error) {
        tracing::error!(disk = %self.files.name, %error, "the disk's I/O thread can't go on; restart the program");
        let refuse = |ask: Ask, buf, reply: oneshot::Sender<Answer>| {
            let error: IoError = ask.error(&self.files, io::Error::new(io::ErrorKind::BrokenPipe, error.to_string()));
            drop(reply.send(Answer { buf, result: Err(error) }));
        };
        let refuse_scatter = |scatter: Scatter| {
            let error = scatter.refused(&self.files, io::Error::new(io::ErrorKind::BrokenPipe, error.to_string()));
            scatter.give_up(error);
        };
        for running in self.slots.iter_mut().filter_map(Option::take) {
            if let Running::Job(job, _) = running {
                let (ask, reply) = job.leak();
                refuse(ask, AlignedBuf::new(0), reply);
            }
        }
        self.scatters.drain(..).flatten().for_each(|(scatter, _)| refuse_scatter(scatter));
        for waiting in self.waiting.drain(..) {
            match waiting {
                Waiting::Job(job) => refuse(job.ask, job.user, job.reply),
                Waiting::Scatter(scatter) => refuse_scatter(scatter),
            }
        }
        for event in &self.inbox {
            match event {
                Event::Request(ask, buf, reply) => refuse(ask, buf, reply),
                Event::Scatter(scatter) => refuse_scatter(scatter),
                Event::Done(..) => {}
                Event::Stop => return,
            }
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Only after a panic is anything left in the kernel here. It may still use its memory.
        for running in self.slots.iter_mut().filter_map(Option::take) {
            if let Running::Job(job, _) = running {
                drop(job.leak());
            }
        }
        for (scatter, _) in self.scatters.drain(..).flatten() {
            let error = scatter.refused(&self.files, io::ErrorKind::BrokenPipe.into());
            scatter.give_up(error);
        }
    }
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

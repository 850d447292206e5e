//! The way to the thread that owns a disk's I/O: its start, what it is sent, and its end.

use super::engine::{Engine, EngineChoice, EngineKind};
use super::files::Files;
use super::job::{Answer, Ask};
use super::scatter::Scatter;
use crate::buf::AlignedBuf;
use crossbeam_channel::Sender;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

pub(super) enum Event {
    Request(Ask, AlignedBuf, oneshot::Sender<Answer>),
    Scatter(Scatter),
    Done(usize, io::Result<u64>),
    Stop,
}

/// The way to the engine's thread: a channel, and a descriptor that ends its sleep in the kernel.
pub(super) struct Wake {
    events: Sender<Event>,
    pub descriptor: EventFd,
    pub sleeping: AtomicBool,
}

impl Wake {
    pub fn send(&self, event: Event) {
        // The receiver lives as long as the thread. After that an answer's sender is dropped, which its waiter sees.
        drop(self.events.send(event));
        // Pairs with the fence in `Engine::sleep`: either it sees the event, or this sees that it sleeps.
        fence(Ordering::SeqCst);
        if self.sleeping.swap(false, Ordering::SeqCst) {
            // It can only fail by being full, and then the thread is woken anyway.
            let _ = self.descriptor.write(1);
        }
    }
}

/// A running engine. Dropping it waits for the calls under way and ends the thread.
pub(super) struct Handle {
    pub wake: Arc<Wake>,
    pub kind: EngineKind,
    thread: Option<JoinHandle<()>>,
}

impl Handle {
    /// Starts the thread; it makes its ring itself, as a ring for a single issuer demands.
    pub fn start(files: Arc<Files>, choice: EngineChoice, depth: u32) -> io::Result<Self> {
        let (events, inbox) = crossbeam_channel::unbounded();
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let descriptor = EventFd::from_value_and_flags(0, flags)?;
        let wake = Arc::new(Wake { events, descriptor, sleeping: AtomicBool::new(false) });
        let (started, start) = crossbeam_channel::bounded(1);
        let shared = wake.clone();
        let run = move || match Engine::new(files, choice, depth, shared, inbox) {
            Ok(mut engine) => {
                drop(started.send(Ok(engine.kind())));
                engine.run();
            }
            Err(error) => drop(started.send(Err(error))),
        };
        let thread = std::thread::Builder::new().name("sluice-io".into()).spawn(run)?;
        let kind = start.recv().map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))??;
        Ok(Self { wake, kind, thread: Some(thread) })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.wake.send(Event::Stop);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

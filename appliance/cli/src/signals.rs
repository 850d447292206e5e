//! SIGTERM and SIGINT.

use crate::outcome::Refusal;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals by which a person or an init system ends a program.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on they don't kill this process.
    pub fn new() -> Result<Self, Refusal> {
        let listen = |kind| signal(kind).map_err(|e| Refusal::at("signals can't be handled", e));
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// The next of either.
    pub async fn next(&mut self) {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

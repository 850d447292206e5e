//! Where work for the processor is done.

use crate::apply::Stop;

/// Decoding and hashing go to threads of their own, so that they do not hold up timers and sockets; in a simulation
/// they are done in place, so that one thread does all in an order that repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Compute {
    /// On tokio's threads for blocking work.
    #[default]
    Threads,
    /// Here and now.
    Inline,
}

impl Compute {
    /// Does the work and gives its result.
    pub async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Stop> {
        match self {
            Self::Inline => Ok(work()),
            // It fails only where the work panicked or the runtime ends; either way the cycle is taken up again.
            Self::Threads => {
                tokio::task::spawn_blocking(work).await.map_err(|e| Stop::Later(format!("a worker thread ended: {e}")))
            }
        }
    }
}

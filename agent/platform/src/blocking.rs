//! Waits for a future on the thread that asks: for tools and tests that have no runtime, and for the few bytes of
//! metadata that a synchronous reader wants in the middle of asynchronous work.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future to its end on the calling thread. Only for futures that need no runtime (no timers, no sockets).
pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    // Unconstrained, as this may be called from a runtime's task: one that has used up its budget is told "pending",
    // and its wake-up waits until the task yields, which it can't while it stands here.
    let mut future = pin!(tokio::task::unconstrained(future));
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            // A wake-up that came before makes this return at once; one too many only polls again.
            Poll::Pending => std::thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::wait;
    use std::time::Duration;

    #[test]
    fn a_task_that_has_used_up_its_budget_goes_on() {
        let (done, ended) = std::sync::mpsc::channel();
        // Of its own and detached, so that a task that hangs fails the test and doesn't hold it up.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(async {
                // The runtime grants a task 128 operations in one go; a channel's answer is one.
                for number in 0..1000_u32 {
                    let (answer, question) = tokio::sync::oneshot::channel();
                    answer.send(number).expect("somebody listens");
                    assert_eq!(wait(question), Ok(number));
                }
            });
            done.send(()).expect("the test waits");
        });
        ended.recv_timeout(Duration::from_secs(60)).expect("a thousand answers that were there already");
    }
}

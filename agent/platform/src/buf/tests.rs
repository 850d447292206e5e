use super::*;
use std::task::{Context, Poll, Waker};

#[test]
fn aligned_and_zeroed() {
    for capacity in [0, 1, 511, 4096, 4097, 1 << 20] {
        let mut buf = AlignedBuf::new(capacity);
        assert_eq!(buf.start() as usize % ALIGN, 0);
        assert!(buf.capacity() >= capacity && buf.capacity().is_multiple_of(ALIGN));
        assert!(buf.is_empty());
        buf.set_len(buf.capacity());
        assert!(buf.iter().all(|b| *b == 0));
    }
}

#[test]
fn append_and_spare() {
    let mut buf = AlignedBuf::new(4096);
    buf.extend_from_slice(b"abc");
    buf.extend_from_slice(b"def");
    assert_eq!((&buf[..], buf.spare()), (&b"abcdef"[..], 4090));
    buf.clear();
    assert_eq!(buf.len(), 0);
}

#[test]
#[should_panic(expected = "can't hold")]
fn never_longer_than_its_capacity() {
    AlignedBuf::new(4096).set_len(4097);
}

#[test]
fn pool_bounds_its_memory_and_takes_back() {
    let pool = BufPool::new(3, 10_000);
    assert_eq!(pool.total_bytes(), 3 * 12_288);
    let mut held: Vec<_> = (0..3).map(|_| pool.try_take().expect("three fit")).collect();
    assert!(pool.try_take().is_none());
    let address = held[0].start();
    drop(held.remove(0));
    let mut again = pool.try_take().expect("one came back");
    assert_eq!(again.start(), address, "the same memory is used again");
    assert_eq!(again.len(), 0);
}

#[test]
fn siblings_have_their_own_bounds_and_one_memory() {
    let pool = BufPool::new(1, 4096);
    let sibling = pool.sibling(2);
    let mut held = pool.try_take().expect("one fits");
    let others = [sibling.try_take(), sibling.try_take()].map(|buf| buf.expect("the sibling waits for nobody"));
    assert!(pool.try_take().is_none() && sibling.try_take().is_none());
    let address = held.start();
    drop(held);
    assert!(sibling.try_take().is_none(), "what another has given back does not raise the bound");
    drop(others);
    let mut again = [sibling.try_take(), sibling.try_take()].map(|buf| buf.expect("both came back"));
    assert!(pool.inner.stock.free.lock().len() == 1 && pool.available() == 1);
    drop(pool);
    let last = sibling.sibling(1).try_take().expect("the memory outlives the pool that it was made for").start();
    assert!(again.iter_mut().any(|buf| buf.start() == address) || last == address, "it is used again");
}

#[test]
fn pool_serves_waiters_in_order_and_survives_cancellation() {
    let pool = BufPool::new(1, 4096);
    let held = pool.try_take().expect("one fits");
    let mut first = Box::pin(pool.take());
    let mut second = Box::pin(pool.take());
    let mut context = Context::from_waker(Waker::noop());
    assert!(first.as_mut().poll(&mut context).is_pending());
    assert!(second.as_mut().poll(&mut context).is_pending());
    drop(held);
    assert!(second.as_mut().poll(&mut context).is_pending(), "the first in line comes first");
    drop(first);
    let Poll::Ready(buf) = second.as_mut().poll(&mut context) else { panic!("the cancelled waiter's turn passes on") };
    drop(buf);
    assert_eq!(pool.available(), 1);
}

#[test]
fn pool_wakes_a_blocked_thread() {
    let pool = BufPool::new(1, 4096);
    let held = pool.take_blocking();
    let waiter = std::thread::spawn({
        let pool = pool.clone();
        move || pool.take_blocking().capacity()
    });
    drop(held);
    assert_eq!(waiter.join().expect("no panic"), 4096);
}

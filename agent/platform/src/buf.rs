//! Memory that direct I/O accepts, and the pool that bounds how much of it there is.

use parking_lot::Mutex;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The alignment of every buffer, in bytes: a page, which suits every device's DMA.
pub const ALIGN: usize = 4096;

/// Where a buffer without memory points: nowhere, but aligned.
const NOWHERE: NonNull<u8> = NonNull::without_provenance(NonZeroUsize::new(ALIGN).expect("not zero"));

/// Memory on the heap, aligned to 4 KiB, of a capacity fixed at birth and a length that varies.
///
/// It is zeroed when made, so any length up to the capacity is readable. One that came from a [`BufPool`] goes back to
/// it when dropped.
pub struct AlignedBuf {
    memory: Memory,
    len: usize,
    home: Option<Home>,
}

/// What ties a buffer to its pool: the memory goes back first, then the permit lets the next one in.
struct Home {
    pool: Arc<PoolInner>,
    _permit: OwnedSemaphorePermit,
}

struct Memory {
    start: NonNull<u8>,
    capacity: usize,
}

// SAFETY: `Memory` owns its allocation alone; it is plain bytes, with no interior mutability and no tie to a thread.
unsafe impl Send for Memory {}
// SAFETY: shared access only ever reads the bytes.
unsafe impl Sync for Memory {}

impl Memory {
    fn layout(capacity: usize) -> Layout {
        // `capacity` is a multiple of ALIGN and bounded by `isize`, as checked in `new`.
        Layout::from_size_align(capacity, ALIGN).expect("a buffer's size fits the address space")
    }

    fn new(capacity: usize) -> Self {
        let capacity = capacity.checked_next_multiple_of(ALIGN).expect("a buffer's size fits the address space");
        if capacity == 0 {
            return Self { start: NOWHERE, capacity };
        }
        let layout = Self::layout(capacity);
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Self { start, capacity }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.capacity > 0 {
            // SAFETY: allocated in `new` with this same layout, and freed only here.
            unsafe { dealloc(self.start.as_ptr(), Self::layout(self.capacity)) }
        }
    }
}

impl AlignedBuf {
    /// A buffer of at least `capacity` bytes (rounded up to 4 KiB), zeroed, of length 0.
    pub fn new(capacity: usize) -> Self {
        Self { memory: Memory::new(capacity), len: 0, home: None }
    }

    /// A buffer that holds `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        let mut buf = Self::new(len);
        buf.set_len(len);
        buf
    }

    /// A copy of `bytes`.
    pub fn from_slice(bytes: &[u8]) -> Self {
        let mut buf = Self::new(bytes.len());
        buf.extend_from_slice(bytes);
        buf
    }

    /// How many bytes it can hold; a multiple of 4 KiB.
    pub fn capacity(&self) -> usize {
        self.memory.capacity
    }

    /// Changes the length in bytes. What it uncovers is whatever was there before: zeros, or old contents.
    ///
    /// # Panics
    /// Where `len` is more than the capacity: that is a caller's mistake, never input's.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity(), "a buffer of {} bytes can't hold {len}", self.capacity());
        self.len = len;
    }

    /// Makes it empty; the capacity stays.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Appends a copy of `bytes`.
    ///
    /// # Panics
    /// Where they don't fit the capacity: that is a caller's mistake, never input's.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        let old = self.len;
        self.set_len(old + bytes.len());
        self[old..].copy_from_slice(bytes);
    }

    /// How many bytes can still be appended.
    pub fn spare(&self) -> usize {
        self.capacity() - self.len
    }

    /// The first byte's address, for the kernel.
    pub(crate) fn start(&mut self) -> *mut u8 {
        self.memory.start.as_ptr()
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `len <= capacity`, all of which is initialised (zeroed in `new`); `&self` keeps writers away.
        unsafe { std::slice::from_raw_parts(self.memory.start.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.memory.start.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for AlignedBuf {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the contents: they are an operator's data.
        write!(f, "AlignedBuf({} of {} bytes)", self.len, self.capacity())
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            let memory = std::mem::replace(&mut self.memory, Memory::new(0));
            home.pool.stock.free.lock().push(memory);
        }
    }
}

/// A bounded set of equal buffers: whoever wants one more than there are waits until one is dropped.
///
/// This is how a component bounds its memory and how a slow consumer slows its producer down. Buffers are made when
/// first needed and kept until the pool, its [siblings](BufPool::sibling) and all their buffers are gone. Cloning shares
/// the pool.
#[derive(Clone)]
pub struct BufPool {
    inner: Arc<PoolInner>,
}

struct PoolInner {
    /// Waiters are served in the order in which they came.
    permits: Arc<Semaphore>,
    stock: Arc<Stock>,
    count: usize,
}

/// Memory that no buffer uses.
struct Stock {
    free: Mutex<Vec<Memory>>,
    capacity: usize,
}

impl BufPool {
    /// A pool of `count` buffers of `capacity` bytes each (rounded up to 4 KiB). At least one.
    pub fn new(count: usize, capacity: usize) -> Self {
        let capacity = capacity.next_multiple_of(ALIGN).max(ALIGN);
        Self::on(Arc::new(Stock { free: Mutex::default(), capacity }), count)
    }

    /// A pool with a bound of its own, `count` buffers, whose memory is this one's: what either has no use for, the other
    /// takes before it makes more. Neither waits for the other.
    #[must_use]
    pub fn sibling(&self, count: usize) -> Self {
        Self::on(self.inner.stock.clone(), count)
    }

    fn on(stock: Arc<Stock>, count: usize) -> Self {
        let count = count.clamp(1, Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(count));
        Self { inner: Arc::new(PoolInner { permits, stock, count }) }
    }

    /// An empty buffer; waits while all are in use. Cancelling is safe.
    pub async fn take(&self) -> AlignedBuf {
        // The semaphore is never closed, so this can't fail.
        let permit = self.inner.permits.clone().acquire_owned().await.expect("the pool's semaphore stays open");
        self.hand_out(permit)
    }

    /// As [`BufPool::take`], on a thread that may block.
    pub fn take_blocking(&self) -> AlignedBuf {
        crate::blocking::wait(self.take())
    }

    /// An empty buffer if one is to be had right now.
    pub fn try_take(&self) -> Option<AlignedBuf> {
        self.inner.permits.clone().try_acquire_owned().ok().map(|permit| self.hand_out(permit))
    }

    fn hand_out(&self, permit: OwnedSemaphorePermit) -> AlignedBuf {
        let free = self.inner.stock.free.lock().pop();
        let memory = free.unwrap_or_else(|| Memory::new(self.buf_capacity()));
        AlignedBuf { memory, len: 0, home: Some(Home { pool: self.inner.clone(), _permit: permit }) }
    }

    /// The capacity of each buffer in bytes.
    pub fn buf_capacity(&self) -> usize {
        self.inner.stock.capacity
    }

    /// The most memory that the pool's buffers ever take, in bytes.
    pub fn total_bytes(&self) -> usize {
        self.buf_capacity() * self.inner.count
    }

    /// How many buffers could be taken without waiting.
    pub fn available(&self) -> usize {
        self.inner.permits.available_permits()
    }
}

impl fmt::Debug for BufPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BufPool({} of {} x {} bytes free)", self.available(), self.inner.count, self.buf_capacity())
    }
}

#[cfg(test)]
mod tests;

//! An appliance that hands out the work a test gives it and remembers what it is told.

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use sluice_client::{ApiError, ApiResult, HydratorApi};
use sluice_proto::wire::{
    AppliedRequest, ClaimReply, ErrorCode, Lease, VerdictRequest, WireError, Work, WorkReply, WorkRequest,
};
use sluice_proto::{CycleNo, DiskId, Generation};
use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use tokio::sync::Notify;

#[derive(Default)]
struct Inner {
    revision: u64,
    work: BTreeMap<DiskId, Work>,
    leases: BTreeMap<DiskId, u64>,
    verdicts: Vec<(DiskId, CycleNo, VerdictRequest)>,
    digests: BTreeMap<(DiskId, CycleNo, u64), Bytes>,
    applied: Vec<(DiskId, CycleNo, AppliedRequest)>,
    /// Verdicts whose answer is lost after they were noted.
    lost_answers: u32,
    /// A verdict was answered.
    answered: bool,
    /// Requests that find nobody.
    unreachable: u32,
    /// How often a lease is still the newest before another hydrator claims the disk, one time after the other.
    claimed_by_another: VecDeque<u32>,
    /// Words of applied segments for which the appliance's state has no room.
    no_room: u32,
}

#[derive(Default)]
pub(crate) struct FakeApi {
    inner: Mutex<Inner>,
    changed: Notify,
}

impl FakeApi {
    pub fn give(&self, work: Work) {
        let mut inner = self.inner.lock();
        inner.revision += 1;
        inner.work.insert(work.disk, work);
        self.changed.notify_waiters();
    }
    pub fn lose_answers(&self, count: u32) {
        self.inner.lock().lost_answers = count;
    }
    pub fn be_unreachable(&self, count: u32) {
        self.inner.lock().unreachable = count;
    }
    /// Another hydrator claims the disk right before the lease is asked after for the `nth` time from now on, or from the last such
    /// time on.
    pub fn be_claimed_by_another(&self, nth: u32) {
        self.inner.lock().claimed_by_another.push_back(nth);
    }
    /// The appliance is put back to before the disk was ever claimed.
    pub fn be_put_back(&self) {
        self.inner.lock().leases.clear();
    }
    pub fn have_no_room(&self, count: u32) {
        self.inner.lock().no_room = count;
    }
    pub fn verdicts(&self) -> Vec<(DiskId, CycleNo, VerdictRequest)> {
        self.inner.lock().verdicts.clone()
    }

    /// What was told of segments that are applied.
    pub fn applied(&self) -> Vec<(DiskId, CycleNo, AppliedRequest)> {
        self.inner.lock().applied.clone()
    }

    pub fn forget_applied(&self) {
        self.inner.lock().applied.clear();
    }

    /// Waits until so many segments were told of; their names.
    pub async fn told(&self, count: usize) -> Vec<String> {
        loop {
            let changed = self.changed.notified();
            let names: Vec<String> = self.applied().into_iter().flat_map(|(_, _, request)| request.names).collect();
            if names.len() >= count {
                return names;
            }
            changed.await;
        }
    }

    /// Waits for a part of the digests.
    pub async fn part_of(&self, disk: DiskId, cycle: CycleNo, part: u64) -> Bytes {
        loop {
            let changed = self.changed.notified();
            if let Some(found) = self.inner.lock().digests.get(&(disk, cycle, part)).cloned() {
                return found;
            }
            changed.await;
        }
    }

    /// Waits until every answer that was to be lost was lost.
    pub async fn answered(&self) {
        loop {
            let changed = self.changed.notified();
            if self.inner.lock().answered {
                return;
            }
            changed.await;
        }
    }

    /// Waits for the disk's verdict on a cycle.
    pub async fn verdict_of(&self, disk: DiskId, cycle: CycleNo) -> VerdictRequest {
        loop {
            let changed = self.changed.notified();
            if let Some(found) = self.verdicts().into_iter().find(|v| (v.0, v.1) == (disk, cycle)) {
                return found.2;
            }
            changed.await;
        }
    }

    fn reach(&self) -> ApiResult<()> {
        let mut inner = self.inner.lock();
        match inner.unreachable.checked_sub(1) {
            None => Ok(()),
            Some(left) => {
                inner.unreachable = left;
                Err(ApiError::Unreachable { appliance: "test".into(), detail: "nobody there".into() })
            }
        }
    }
}

#[async_trait]
impl HydratorApi for FakeApi {
    async fn work(&self, request: WorkRequest) -> ApiResult<WorkReply> {
        self.reach()?;
        loop {
            let changed = self.changed.notified();
            {
                let inner = self.inner.lock();
                if inner.revision != request.seen {
                    return Ok(WorkReply { revision: inner.revision, work: inner.work.values().cloned().collect() });
                }
            }
            changed.await;
        }
    }

    async fn claim(&self, disk: DiskId, _: CycleNo, _: Generation) -> ApiResult<ClaimReply> {
        self.reach()?;
        let mut inner = self.inner.lock();
        let lease = inner.leases.entry(disk).or_default();
        *lease += 1;
        Ok(ClaimReply { lease: Lease(*lease) })
    }

    async fn check_lease(&self, disk: DiskId, _: CycleNo, _: Generation, lease: Lease) -> ApiResult<()> {
        self.reach()?;
        let mut inner = self.inner.lock();
        if let Some(left) = inner.claimed_by_another.front_mut() {
            *left -= 1;
            if *left == 0 {
                inner.claimed_by_another.pop_front();
                *inner.leases.entry(disk).or_default() += 1;
            }
        }
        let code = match inner.leases.get(&disk).copied().unwrap_or_default().cmp(&lease.0) {
            Ordering::Equal => return Ok(()),
            Ordering::Greater => ErrorCode::LeaseLost,
            Ordering::Less => ErrorCode::BadRequest,
        };
        Err(WireError::new(code, "another hydrator has it, or nobody").into())
    }

    async fn applied(&self, disk: DiskId, cycle: CycleNo, request: AppliedRequest) -> ApiResult<()> {
        self.reach()?;
        let mut inner = self.inner.lock();
        if let Some(left) = inner.no_room.checked_sub(1) {
            inner.no_room = left;
            return Err(WireError::new(ErrorCode::NoRoom, "the state has no room").into());
        }
        inner.applied.push((disk, cycle, request));
        self.changed.notify_waiters();
        Ok(())
    }

    async fn verdict(&self, disk: DiskId, cycle: CycleNo, request: VerdictRequest) -> ApiResult<()> {
        self.reach()?;
        let mut inner = self.inner.lock();
        if inner.leases.get(&disk).copied().unwrap_or_default() != request.lease.0 {
            return Err(WireError::new(ErrorCode::LeaseLost, "another hydrator has it").into());
        }
        let known = inner.verdicts.iter().any(|v| *v == (disk, cycle, request.clone()));
        if !known {
            inner.verdicts.push((disk, cycle, request));
        }
        if let Some(left) = inner.lost_answers.checked_sub(1) {
            inner.lost_answers = left;
            return Err(ApiError::Unreachable { appliance: "test".into(), detail: "the answer was lost".into() });
        }
        inner.answered = true;
        self.changed.notify_waiters();
        Ok(())
    }

    async fn put_digests(&self, disk: DiskId, cycle: CycleNo, _: Generation, part: u64, bytes: Bytes) -> ApiResult<()> {
        self.reach()?;
        self.inner.lock().digests.insert((disk, cycle, part), bytes);
        self.changed.notify_waiters();
        Ok(())
    }
}

//! What operators ask: views, the policy, and orders.

use super::access::{impossible, need, refuse, repository_failed};
use super::cell::{Cell, DiskState};
use super::finish::{Ending, request_final};
use super::views::{cycle_view, disk_view};
use super::{Inner, Reply, Service};
use crate::identity::{Identity, Role};
use crate::throttle::Limits;
use jiff::tz::TimeZone;
use sluice_proto::DiskId;
use sluice_proto::cycle::{CycleKind, FailReason, State as CycleState};
use sluice_proto::disk::{Event as DiskEvent, State as DiskPhase};
use sluice_proto::schedule::Policy;
use sluice_proto::wire::{CycleView, DiskView, ErrorCode, PolicyView};

/// The most cycles that are told in one reply.
const CYCLES_MAX: u32 = 10_000;

impl Service {
    /// All disks.
    ///
    /// # Errors
    /// `Forbidden`.
    pub async fn disks(&self, who: &Identity) -> Reply<Vec<DiskView>> {
        need(who, Role::Operator)?;
        let mut views = Vec::new();
        for cell in self.inner.all_cells() {
            let state = cell.lock().await;
            views.push(disk_view(&state, self.inner.due_unix_ms(&state)));
        }
        Ok(views)
    }

    /// The newest cycles of a disk, newest first.
    ///
    /// # Errors
    /// `Forbidden`, `NoSuchDisk`.
    pub async fn cycles(&self, who: &Identity, disk: DiskId, limit: u32) -> Reply<Vec<CycleView>> {
        need(who, Role::Operator)?;
        self.inner.cell(disk)?;
        let cycles = self.inner.ports.repository.cycles(disk, limit.min(CYCLES_MAX)).await;
        Ok(cycles.map_err(repository_failed)?.iter().map(cycle_view).collect())
    }

    /// Orders the final cycle; with `false`, takes the order back. Taken back after the cut-over, the disk is protected
    /// again, beginning with a comparison.
    ///
    /// # Errors
    /// `Forbidden`, `NoSuchDisk`, `WrongState` where the final cycle can't be stopped any more.
    pub async fn order_final(&self, who: &Identity, disk: DiskId, wanted: bool) -> Reply<()> {
        need(who, Role::Operator)?;
        let cell = self.inner.cell(disk)?;
        let mut state = cell.lock().await;
        match wanted {
            true => self.inner.want_final(&mut state).await?,
            false => self.inner.withdraw_final(&cell, &mut state).await?,
        }
        drop(state);
        cell.ring();
        self.inner.work_changed();
        let what = if wanted { "final_ordered" } else { "final_withdrawn" };
        self.inner.audit(&who.to_string(), Some(disk), what, String::new()).await;
        Ok(())
    }

    /// Begins the next cycle as soon as none is open and a slot is free.
    ///
    /// # Errors
    /// `Forbidden`, `NoSuchDisk`, `WrongState` where there is no next cycle.
    pub async fn sync_now(&self, who: &Identity, disk: DiskId) -> Reply<()> {
        need(who, Role::Operator)?;
        let cell = self.inner.cell(disk)?;
        let mut state = cell.lock().await;
        if state.record.phase == DiskPhase::CutOver {
            let message = format!("{disk} was cut over: withdraw the final cycle to protect it again");
            return refuse(ErrorCode::WrongState, message);
        }
        state.sync_wanted = true;
        cell.ring();
        Ok(())
    }

    /// The policy in force.
    ///
    /// # Errors
    /// `Forbidden`.
    pub async fn policy(&self, who: &Identity) -> Reply<PolicyView> {
        need(who, Role::Operator)?;
        Ok(self.inner.policy.lock().clone())
    }

    /// Puts another policy in force, at once, for cycles that run too.
    ///
    /// # Errors
    /// `Forbidden`; `BadRequest`, with what is wrong with it.
    pub async fn set_policy(&self, who: &Identity, policy: PolicyView) -> Reply<()> {
        need(who, Role::Operator)?;
        let inner = &self.inner;
        let _one = inner.setting_policy.lock().await;
        let limits = match check_policy(&policy, inner.ports.throttle.limits().zone) {
            Ok(limits) => limits,
            Err(wrong) => return refuse(ErrorCode::BadRequest, wrong),
        };
        inner.ports.repository.set_policy(&policy).await.map_err(repository_failed)?;
        inner.ports.throttle.set_limits(limits);
        *inner.policy.lock() = policy.clone();
        inner.all_cells().iter().for_each(|cell| cell.ring());
        let detail = serde_json::to_string(&policy).unwrap_or_default();
        inner.audit(&who.to_string(), None, "policy_set", detail).await;
        Ok(())
    }
}

/// Checks a policy; gives its limits.
pub(super) fn check_policy(policy: &PolicyView, zone: TimeZone) -> Result<Limits, String> {
    Policy::new(policy.min_interval_ms, policy.max_interval_ms).map_err(|wrong| wrong.to_string())?;
    if policy.scrub_rate == Some(0) {
        return Err("a scrub at 0 bytes a second never ends; leave the rate out for no limit".into());
    }
    if policy.scrub_interval_ms.is_some_and(|interval| interval < policy.min_interval_ms) {
        return Err("the interval of scrubs is shorter than the shortest pause between two cycles".into());
    }
    let windows = policy.windows.iter().map(|window| (window.when.as_str(), window.limit.as_str()));
    Limits::parse(policy.limit.as_deref(), windows, zone).map_err(|wrong| wrong.to_string())
}

impl Inner {
    async fn want_final(&self, state: &mut DiskState) -> Reply<()> {
        if state.record.phase == DiskPhase::CutOver {
            return Ok(());
        }
        let mut record = state.record.clone();
        record.final_wanted = true;
        // A delta that runs goes on; the final cycle follows it.
        request_final(&mut record).map_err(impossible)?;
        self.ports.repository.save(&record, None).await.map_err(repository_failed)?;
        state.record = record;
        Ok(())
    }

    async fn withdraw_final(&self, cell: &Cell, state: &mut DiskState) -> Reply<()> {
        if let Some(open) = state.open.as_ref().filter(|open| open.record.kind == CycleKind::Final) {
            if matches!(open.record.state, CycleState::Committed | CycleState::Applying) {
                let message = format!("the final cycle of {} is committed; its verdict will come", cell.disk);
                return refuse(ErrorCode::WrongState, message);
            }
            self.end(cell, state, Ending::failed(FailReason::Abandoned, "the final cycle was withdrawn")).await?;
        }
        let mut record = state.record.clone();
        record.final_wanted = false;
        record.phase = match record.phase {
            DiskPhase::Finalising => record.phase.on(DiskEvent::FinalWithdrawn),
            DiskPhase::CutOver => record.phase.on(DiskEvent::Reprotect),
            phase => Ok(phase),
        }
        .map_err(impossible)?;
        self.ports.repository.save(&record, None).await.map_err(repository_failed)?;
        state.record = record;
        Ok(())
    }

    fn due_unix_ms(&self, state: &DiskState) -> Option<u64> {
        if state.open.is_some() {
            return None;
        }
        let due = self.due(state)?;
        Some(self.now_ms().saturating_add(due.tick.saturating_sub(self.tick())))
    }
}

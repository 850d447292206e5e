//! What befalls the machines, and how often what goes wrong.

use super::{POLICY, World};
use crate::life::Life;
use crate::machine::{Files, Odds, SimRecords, flip};
use crate::rng::Rng;
use futures_util::FutureExt;
use sluice_agent::journal::Journal;
use sluice_agent::tracker::Doubt;
use sluice_appliance::repository::Repository;
use sluice_cache_store::{CacheStore, StoreError};
use sluice_client::OperatorApi;
use sluice_hydrator::ledger::{LEDGER_NAME, Ledger, State};
use sluice_proto::Generation;
use sluice_proto::env::Entropy;
use sluice_proto::keys::{DataKey, KeyEnvelope, SigningKey};
use sluice_proto::manifest::MANIFEST_NAME;
use sluice_proto::wire::{PolicyView, WindowView};
use std::time::Duration;
use tokio::time::Instant;

impl World {
    /// What befalls the machines beside the deaths of processes.
    pub(super) async fn storm(&self, length: Duration) {
        tokio::join!(
            self.befall(length),
            self.grow_now_and_then(),
            self.take_snapshots(length),
            self.cut_comparisons_off(length)
        );
    }

    /// Kills the hydrator, and often its machine, soon after a comparison, before the cycle that is planned by it has flushed anything:
    /// what was compared must be there for good.
    async fn cut_comparisons_off(&self, length: Duration) {
        let (end, mut seen) = (Instant::now() + length, None);
        while Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(50) + self.rng.pause(400)).await;
            let compared = ledger_of(&self.hydrator_files).and_then(|ledger| ledger.compared);
            if compared != seen && compared.is_some() && self.rng.once_in(2) {
                self.checker.note("killed behind a comparison");
                self.hydrators_life.lock().iter().for_each(Life::kill);
            }
            seen = compared;
        }
    }

    async fn befall(&self, length: Duration) {
        let end = Instant::now() + length;
        while Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(500) + self.rng.pause(8_000)).await;
            match self.rng.below(8) {
                0 => {
                    self.checker.note("clock jumps");
                    *self.clock.jump_ms.lock() = self.rng.below(7_200_000) as i64 - 3_600_000;
                }
                1 => {
                    self.checker.note("other faults");
                    *self.odds.lock() = odds(&self.rng, self.twins_files.is_some() && self.medium.is_shared());
                }
                3 => self.change_policy().await,
                2 if self.rng.once_in(3) && self.target_rests() && !self.medium.is_device() => {
                    self.checker.note("target tampered with");
                    self.medium.tamper(&self.rng);
                }
                4 => self.harm_an_object(),
                _ => {}
            }
        }
    }

    /// An object of the cache store rots or is gone, as often as not a manifest.
    fn harm_an_object(&self) {
        // A store in memory never waits.
        if let Some(Err(error)) = self.harm().now_or_never() {
            self.checker.violation(format!("an object could not be harmed: {error}"));
        }
    }

    async fn harm(&self) -> Result<(), StoreError> {
        let keys: Vec<String> = self.objects.list("").await?.into_iter().map(|listed| listed.key).collect();
        let manifests: Vec<String> = keys.iter().filter(|key| key.ends_with(MANIFEST_NAME)).cloned().collect();
        let keys = if manifests.is_empty() || self.rng.once_in(2) { keys } else { manifests };
        if keys.is_empty() {
            return Ok(());
        }
        let key = &keys[self.rng.below(keys.len() as u64) as usize];
        let rots = self.rng.once_in(2);
        match rots {
            true => self.objects.put(key, flip(&self.objects.get(key, u64::MAX).await?, &self.rng)).await?,
            false => self.objects.delete(key).await?,
        }
        self.checker.note(&format!("{key} {}", if rots { "rots" } else { "is gone" }));
        self.checker.store_forgets();
        Ok(())
    }

    /// True while no hydrator is about to write and the one holds a fingerprint of the target. Who changes a target in the
    /// very moment in which it is written is found by a scrub, not by the next cycle. What is verified is believed: what befalls
    /// the target between the proof and the telling is found by the next cycle, and the checker would look at it now.
    fn target_rests(&self) -> bool {
        let believed = |l: &Ledger| l.verified.is_none_or(|v| self.checker.has_believed(v.cycle.manifest));
        let rests = |l: &Ledger| l.state == State::Idle && l.fingerprint.is_some() && believed(l);
        let twin = self.twins_files.as_ref().and_then(ledger_of);
        ledger_of(&self.hydrator_files).as_ref().is_some_and(rests) && twin.as_ref().is_none_or(rests)
    }

    /// What a process's death may take with it.
    pub(super) fn aftermath(&self, name: &str) {
        match name {
            "appliance" => {
                *self.agents_way.lock() = None;
                *self.hydrators_way.lock() = None;
                *self.operators_way.lock() = None;
                self.cut_the_appliances_power();
                self.put_appliance_back();
            }
            "hydrator" | "twin" => {
                if self.rng.once_in(2) {
                    self.medium.crash(&self.rng);
                    self.checker.nothing_is_lost("after a crash of the target's machine");
                }
                if *self.stormy.lock() && self.rng.once_in(4) {
                    // So that a cycle that was cut short is not gone on with, and what was written of it and not flushed stays.
                    self.harm_an_object();
                    // And is compared: somebody sends a command past the block layer, which changes nothing.
                    self.blind.iter().for_each(|_| self.disk.doubt(Doubt::Passthrough));
                }
            }
            "agent" if *self.stormy.lock() => match self.rng.below(12) {
                0 => {
                    self.checker.note("source machine reboots");
                    self.disk.reboot();
                    self.agent_files.power_cut(&self.rng);
                    self.checker.agent_is_changed();
                }
                1 if self.newest.lock().is_none() => self.rotate_key(),
                2..=4 => self.restore_backup(),
                _ => {}
            },
            _ => {}
        }
    }

    /// The admin puts an old copy of the agent's state in the place of the newest, while the kernel's tracking goes on.
    fn restore_backup(&self) {
        let Some(backup) = self.backup.lock().take() else { return };
        let (Some(old), Some(new)) = (envelope_of(&backup), envelope_of(&self.agent_files)) else { return };
        if old.generation != new.generation && self.appliances_generation() != Some(new.generation) {
            // Both put back to before a generation: only the hydrator knows, and refuses it until somebody decides.
            return;
        }
        let mut newest = self.newest.lock();
        // A disk that grows gets a new generation each time it is found to have: two states may have one of the same number.
        if old != new && (newest.is_none() || self.checker.is_registered(&new)) {
            *newest = Some(self.agent_files.snapshot());
        }
        self.checker.note("the agent's state is put back to an older one");
        self.agent_files.restore(&backup);
        self.checker.agent_is_changed();
        if let Some(made) = backup.made {
            self.disk.forget_swaps_since(made);
        }
    }

    /// Whoever operates the appliance's machine makes a snapshot of it, now and then and only in seeds that have such.
    async fn take_snapshots(&self, length: Duration) {
        let Some(chance) = &self.put_back else { return };
        let end = Instant::now() + length;
        while Instant::now() < end {
            tokio::time::sleep(chance.pause(15_000)).await;
            *self.appliances_backup.lock() = Some(self.repository.snapshot());
        }
    }

    /// The appliance's machine loses its power, as often as not: the newest of what was not flushed is gone, any part of it.
    fn cut_the_appliances_power(&self) {
        let mut unflushed = self.unflushed.lock();
        if self.rng.once_in(2) && !unflushed.is_empty() {
            let kept = self.rng.below(unflushed.len() as u64) as usize;
            for write in unflushed.drain(kept..).rev() {
                let undone = write.undo(&self.repository).now_or_never();
                self.checker.note(&undone.unwrap_or_default());
            }
            self.checker.store_forgets();
        }
        unflushed.clear();
    }

    /// The appliance's machine is put back to its newest snapshot; the cache store is somewhere else and stays as it is.
    fn put_appliance_back(&self) {
        let Some(chance) = self.put_back.as_ref().filter(|_| *self.stormy.lock()) else { return };
        // See `restore_backup`.
        let agent_is_of_old = self.newest.lock().is_some();
        if chance.once_in(3)
            && !agent_is_of_old
            && let Some(snapshot) = &*self.appliances_backup.lock()
        {
            self.checker.appliance_forgets();
            self.repository.put_back(snapshot);
        }
    }

    /// The generation that the appliance knows of.
    fn appliances_generation(&self) -> Option<Generation> {
        let disks = self.repository.disks().now_or_never()?.ok()?;
        disks.first().map(|disk| disk.generation)
    }

    /// The policy of the appliance's configuration.
    pub(super) fn first_policy(&self) -> PolicyView {
        self.limited(POLICY)
    }

    /// `policy` with limits, in seeds that have such.
    fn limited(&self, policy: PolicyView) -> PolicyView {
        let Some(chance) = &self.limits else { return policy };
        let rate = || match chance.below(8) {
            0 => "0".to_owned(),
            1 => "unlimited".to_owned(),
            // From 400 kbit/s on, by which a full copy takes longer than a storm lasts, to what is hardly felt.
            _ => format!("{}kbit/s", 400 + chance.below(20_000)),
        };
        // The simulated clock begins at 08:00 and jumps by an hour at most.
        let window = || {
            let from = 7 * 60 + chance.below(120);
            let time = |minute: u64| format!("{:02}:{:02}", minute / 60, minute % 60);
            WindowView { when: format!("{}-{}", time(from), time(from + 1 + chance.below(3))), limit: rate() }
        };
        PolicyView {
            limit: (!chance.once_in(4)).then(rate),
            windows: (0..chance.below(20)).map(|_| window()).collect(),
            scrub_rate: chance.once_in(2).then(|| 100_000 + chance.below(5_000_000)),
            ..policy
        }
    }

    /// The operator sets other intervals, limits in some seeds, or scrubs. It may be cut off, or nobody may hear it.
    async fn change_policy(&self) {
        let Some((operator, life)) = self.operators_way.lock().clone() else { return };
        let min_interval_ms = 1_000 + self.rng.below(4_000);
        let policy = PolicyView {
            min_interval_ms,
            max_interval_ms: min_interval_ms + self.rng.below(4_000),
            scrub_interval_ms: self.rng.once_in(2).then(|| min_interval_ms + self.rng.below(9_000)),
            ..POLICY
        };
        let policy = self.limited(policy);
        let set = life.lives_through(operator.set_policy(policy)).await;
        self.checker.note(&format!("policy changes: {}", set.is_some_and(|set| set.is_ok())));
    }

    /// The admin rotates the disk's data key while the agent is down.
    fn rotate_key(&self) {
        let life = Life::new(self.rng.once_in(4).then(|| self.rng.below(8)), Rng::new(self.rng.next(), 9));
        let checker = Some(self.checker.clone());
        let records = Box::new(SimRecords { files: self.agent_files.clone(), life, snapshots: None, checker });
        let Ok(Ok(mut journal)) = Journal::open(records) else { return };
        let Ok((key, envelope)) = self.next_key(&journal) else { return };
        let generation = envelope.generation;
        // It may be cut off, like any other process.
        let done = journal.rotate(&key, envelope).is_ok();
        self.checker.agent_is_changed();
        self.checker.note(&format!("key rotation to {generation:?}: {done}"));
    }

    /// A data key for the generation that follows the journal's, which the checker gets to know.
    pub(super) fn next_key(&self, journal: &Journal) -> Result<(DataKey, KeyEnvelope), String> {
        let mut bytes = [0; 32];
        self.entropy.fill(&mut bytes);
        let (key, generation) = (DataKey::new(bytes), journal.identity().generation.next());
        let signer = SigningKey::from_seed(&[3; 32]);
        let public = self.hydrator_key.public();
        let envelope = KeyEnvelope::wrap(&key, journal.identity().disk, generation, public, &signer);
        self.checker.new_key(key.clone());
        Ok((key, envelope.map_err(|e| e.to_string())?))
    }

    /// The admin enlarges the source's disk, at most twice and only in seeds that have such.
    async fn grow_now_and_then(&self) {
        let Some(chance) = &self.growth else { return };
        for _ in 0..1 + chance.below(2) {
            tokio::time::sleep(chance.pause(40_000)).await;
            let by = 1 + chance.below(4_000);
            self.checker.note(&format!("the source grows by {by} sectors"));
            self.disk.grow(by, chance.once_in(2));
        }
    }
}

/// A hydrator's ledger; `None` where it has none yet.
pub(super) fn ledger_of(files: &Files) -> Option<Ledger> {
    let record = files.records.lock().get(LEDGER_NAME).cloned()?;
    Ledger::decode(&record).ok()
}

/// The wrapped key of the generation that an agent's state is of; `None` where it has none yet.
fn envelope_of(files: &Files) -> Option<KeyEnvelope> {
    let record = files.records.lock().get("disk.json").cloned()?;
    let mut record = serde_json::from_slice::<serde_json::Value>(&record).ok()?;
    serde_json::from_value(record.get_mut("envelope")?.take()).ok()
}

/// How a seed's faults are spread: some seeds are rough in one way only, some in all.
/// Machines stand still where two of them have the target.
pub(super) fn odds(rng: &Rng, two_have_it: bool) -> Odds {
    let some = |range: u64| match rng.below(3) {
        0 => 0,
        1 => range,
        _ => range * 5,
    };
    Odds {
        store_refuses: some(20),
        store_answer_lost: some(20),
        store_full: some(60),
        store_stalls: some(120),
        read_flips: some(60),
        rot: some(80),
        request_lost: some(15),
        cut: some(15),
        answer_lost: some(15),
        doubled: some(10),
        late: some(25),
        source_errors: some(200),
        target_errors: some(400),
        target_flips: some(600),
        target_lies: some(150),
        target_sync_errors: some(150),
        target_read_errors: some(900),
        target_look_errors: some(300),
        stands_still: if two_have_it { 3 } else { 0 },
        store_fails: some(120),
    }
}

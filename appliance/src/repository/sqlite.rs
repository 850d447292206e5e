//! The repository in a SQLite file.
//!
//! Write-ahead log with `synchronous = FULL`: a write that has answered survives a power cut; but for what may be done lazily,
//! which survives a crash alone until the next other write. One connection writes, each time in a transaction that takes the
//! write lock at once, so a reader never turns into a writer and meets another.

mod convert;
#[cfg(test)]
mod tests;

use super::{
    CycleRecord, DiskRecord, LogEntry, Repository, RepositoryError, RepositoryErrorKind as Kind, RepositoryResult,
};
use async_trait::async_trait;
use convert::{Sql, failed, from_json, number, to_json};
use sluice_proto::wire::{PolicyView, StoredSegment};
use sluice_proto::{BlockNo, ByteCount, CycleNo, Digest, DiskId, Generation};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, Row, Sqlite, Transaction};
use std::path::Path;
use std::time::Duration;

/// Readers at once. Each is a thread and a file handle or three.
const READERS: u32 = 4;
/// The longest wait for another process that holds the lock, such as a backup.
const BUSY_TIME: Duration = Duration::from_secs(10);

/// A [`Repository`] in a file.
#[derive(Clone, Debug)]
pub struct SqliteRepository {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl SqliteRepository {
    /// Opens the file, which is made where it is missing (its folder must be there), and brings its tables up to date. A
    /// file that a newer appliance wrote is refused; a damaged one too.
    pub async fn open(file: &Path) -> RepositoryResult<Self> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIME);
        let opening = || format!("opening {}", file.display());
        let writer = SqlitePoolOptions::new().max_connections(1).after_release(|connection, _| {
            Box::pin(async move {
                // Waits for a rollback that is under way. SQLite rolls back by itself where a disk is full; sqlx counts
                // a transaction then that there is no more, and such a connection would never begin another.
                connection.ping().await?;
                Ok(!connection.is_in_transaction())
            })
        });
        let writer = writer.connect_with(options.clone()).await;
        let writer = writer.map_err(|e| failed(e, opening()))?;
        let check: String =
            sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&writer).await.map_err(|e| failed(e, opening()))?;
        if check != "ok" {
            return Err(RepositoryError::new(Kind::Corrupt, opening()).with_source(check));
        }
        sqlx::migrate!("./migrations").run(&writer).await.map_err(|e| convert::migration_failed(e, opening()))?;
        let readers = SqlitePoolOptions::new().max_connections(READERS);
        let readers = readers.connect_lazy_with(options.create_if_missing(false).pragma("query_only", "ON"));
        Ok(Self { writer, readers })
    }

    /// Ends all connections, so that the file is whole by itself, without its log.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Begins a transaction that survives a power cut once it is committed.
    async fn begin(&self, doing: &str) -> RepositoryResult<Transaction<'static, Sqlite>> {
        self.begin_as("PRAGMA synchronous = FULL; BEGIN IMMEDIATE", doing).await
    }

    /// Begins one that survives a crash, and a power cut only once a later one has been flushed. Every transaction says how it
    /// is to be, so that none goes by what another has set.
    async fn begin_lazy(&self, doing: &str) -> RepositoryResult<Transaction<'static, Sqlite>> {
        self.begin_as("PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE", doing).await
    }

    async fn begin_as(&self, how: &'static str, doing: &str) -> RepositoryResult<Transaction<'static, Sqlite>> {
        self.writer.begin_with(how).await.map_err(|e| failed(e, doing))
    }
}

async fn disk_in(
    tx: &mut Transaction<'static, Sqlite>,
    disk: DiskId,
    doing: &str,
) -> RepositoryResult<Option<DiskRecord>> {
    let found: Option<String> = sqlx::query_scalar("SELECT record FROM disks WHERE disk = ?")
        .bind(&disk.0[..])
        .fetch_optional(&mut **tx)
        .await
        .map_err(|e| failed(e, doing))?;
    found.map(|record| from_json(&record, doing)).transpose()
}

fn check_generation(known: &DiskRecord, generation: Generation, doing: &str) -> RepositoryResult<()> {
    if known.generation > generation {
        let context = format!("{doing} in {generation:?}, which is in {:?}", known.generation);
        return Err(RepositoryError::new(Kind::OldGeneration, context));
    }
    Ok(())
}

async fn put_cycle(tx: &mut Transaction<'static, Sqlite>, cycle: &CycleRecord, doing: &str) -> RepositoryResult<()> {
    sqlx::query(
        "INSERT INTO cycles (disk, cycle, ended, record) VALUES (?, ?, ?, ?)
         ON CONFLICT (disk, cycle) DO UPDATE SET ended = excluded.ended, record = excluded.record",
    )
    .bind(&cycle.disk.0[..])
    .bind(number(cycle.cycle.0, doing)?)
    .bind(cycle.state.is_end())
    .bind(to_json(cycle, doing)?)
    .execute(&mut **tx)
    .await
    .map_err(|e| failed(e, doing))?;
    Ok(())
}

#[async_trait]
impl Repository for SqliteRepository {
    async fn disks(&self) -> RepositoryResult<Vec<DiskRecord>> {
        let doing = "reading the disks";
        let query = sqlx::query_scalar::<_, String>("SELECT record FROM disks ORDER BY disk");
        let records = query.fetch_all(&self.readers).await.map_err(|e| failed(e, doing))?;
        records.iter().map(|record| from_json(record, doing)).collect()
    }

    async fn save(&self, disk: &DiskRecord, cycle: Option<&CycleRecord>) -> RepositoryResult<()> {
        let doing = &format!("saving {:?}", disk.disk);
        if let Some(cycle) = cycle.filter(|cycle| cycle.disk != disk.disk) {
            let context = format!("{doing} with a cycle of {:?}", cycle.disk);
            return Err(RepositoryError::new(Kind::Other, context));
        }
        let mut tx = self.begin(doing).await?;
        if let Some(known) = disk_in(&mut tx, disk.disk, doing).await? {
            check_generation(&known, disk.generation, doing)?;
        }
        sqlx::query(
            "INSERT INTO disks (disk, record) VALUES (?, ?)
             ON CONFLICT (disk) DO UPDATE SET record = excluded.record",
        )
        .bind(&disk.disk.0[..])
        .bind(to_json(disk, doing)?)
        .execute(&mut *tx)
        .await
        .map_err(|e| failed(e, doing))?;
        if let Some(cycle) = cycle {
            put_cycle(&mut tx, cycle, doing).await?;
        }
        tx.commit().await.map_err(|e| failed(e, doing))
    }

    async fn cycle(&self, disk: DiskId, cycle: CycleNo) -> RepositoryResult<Option<CycleRecord>> {
        let doing = &format!("reading {cycle:?} of {disk:?}");
        let query = sqlx::query_scalar::<_, String>("SELECT record FROM cycles WHERE disk = ? AND cycle = ?");
        let query = query.bind(&disk.0[..]).bind(cycle.sql());
        let record = query.fetch_optional(&self.readers).await.map_err(|e| failed(e, doing))?;
        record.map(|record| from_json(&record, doing)).transpose()
    }

    async fn cycles(&self, disk: DiskId, limit: u32) -> RepositoryResult<Vec<CycleRecord>> {
        let doing = &format!("reading the cycles of {disk:?}");
        let query =
            sqlx::query_scalar::<_, String>("SELECT record FROM cycles WHERE disk = ? ORDER BY cycle DESC LIMIT ?");
        let query = query.bind(&disk.0[..]).bind(limit);
        let records = query.fetch_all(&self.readers).await.map_err(|e| failed(e, doing))?;
        records.iter().map(|record| from_json(record, doing)).collect()
    }

    async fn first_ended(&self, disk: DiskId, after: CycleNo) -> RepositoryResult<Option<CycleRecord>> {
        let doing = &format!("reading the cycles of {disk:?}");
        let query = sqlx::query_scalar::<_, String>(
            "SELECT record FROM cycles WHERE disk = ? AND cycle > ? AND ended = 1 ORDER BY cycle LIMIT 1",
        );
        let query = query.bind(&disk.0[..]).bind(after.sql());
        let record = query.fetch_optional(&self.readers).await.map_err(|e| failed(e, doing))?;
        record.map(|record| from_json(&record, doing)).transpose()
    }

    async fn prune_cycles(&self, disk: DiskId, keep: u32) -> RepositoryResult<()> {
        let doing = &format!("forgetting old cycles of {disk:?}");
        let mut tx = self.begin(doing).await?;
        // Segments go with their cycle, by the foreign key.
        sqlx::query(
            "DELETE FROM cycles WHERE disk = ?1 AND ended = 1 AND cycle NOT IN
             (SELECT cycle FROM cycles WHERE disk = ?1 ORDER BY cycle DESC LIMIT ?2)",
        )
        .bind(&disk.0[..])
        .bind(keep)
        .execute(&mut *tx)
        .await
        .map_err(|e| failed(e, doing))?;
        tx.commit().await.map_err(|e| failed(e, doing))
    }

    async fn segments(&self, disk: DiskId, cycle: CycleNo) -> RepositoryResult<Vec<StoredSegment>> {
        let doing = &format!("reading the segments of {cycle:?} of {disk:?}");
        let query = sqlx::query(
            "SELECT name, first_block, blocks, len, hash FROM segments WHERE disk = ? AND cycle = ? ORDER BY name",
        );
        let query = query.bind(&disk.0[..]).bind(cycle.sql());
        let rows = query.fetch_all(&self.readers).await.map_err(|e| failed(e, doing))?;
        let segment = |row: sqlx::sqlite::SqliteRow| {
            Ok(StoredSegment {
                name: row.try_get(0)?,
                first: BlockNo(row.try_get::<i64, _>(1)?.unsigned_abs()),
                blocks: row.try_get::<i64, _>(2)?.unsigned_abs(),
                len: ByteCount(row.try_get::<i64, _>(3)?.unsigned_abs()),
                hash: Digest(convert::bytes(row.try_get(4)?)?),
            })
        };
        rows.into_iter().map(|row| segment(row).map_err(|e| failed(e, doing))).collect()
    }

    async fn add_segment(&self, cycle: &CycleRecord, segment: &StoredSegment) -> RepositoryResult<()> {
        let doing = &format!("recording a segment of {:?} of {:?}", cycle.cycle, cycle.disk);
        let mut tx = self.begin_lazy(doing).await?;
        let known = disk_in(&mut tx, cycle.disk, doing).await?;
        let known = known.ok_or_else(|| RepositoryError::new(Kind::NoSuchDisk, doing))?;
        check_generation(&known, cycle.generation, doing)?;
        put_cycle(&mut tx, cycle, doing).await?;
        sqlx::query(
            "INSERT OR REPLACE INTO segments (disk, cycle, name, first_block, blocks, len, hash)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&cycle.disk.0[..])
        .bind(cycle.cycle.sql())
        .bind(&segment.name)
        .bind(number(segment.first.0, doing)?)
        .bind(number(segment.blocks, doing)?)
        .bind(number(segment.len.0, doing)?)
        .bind(&segment.hash.0[..])
        .execute(&mut *tx)
        .await
        .map_err(|e| failed(e, doing))?;
        tx.commit().await.map_err(|e| failed(e, doing))
    }

    async fn forget_segments(&self, disk: DiskId, cycle: CycleNo, names: Option<&[String]>) -> RepositoryResult<()> {
        let doing = &format!("forgetting segments of {cycle:?} of {disk:?}");
        let mut tx = self.begin_lazy(doing).await?;
        match names {
            None => {
                let query = sqlx::query("DELETE FROM segments WHERE disk = ? AND cycle = ?");
                let query = query.bind(&disk.0[..]).bind(cycle.sql());
                query.execute(&mut *tx).await.map_err(|e| failed(e, doing))?;
            }
            Some(names) => {
                for name in names {
                    let query = sqlx::query("DELETE FROM segments WHERE disk = ? AND cycle = ? AND name = ?");
                    let query = query.bind(&disk.0[..]).bind(cycle.sql()).bind(name);
                    query.execute(&mut *tx).await.map_err(|e| failed(e, doing))?;
                }
            }
        }
        tx.commit().await.map_err(|e| failed(e, doing))
    }

    async fn policy(&self) -> RepositoryResult<Option<PolicyView>> {
        let doing = "reading the policy";
        let query = sqlx::query_scalar::<_, String>("SELECT record FROM policy");
        let record = query.fetch_optional(&self.readers).await.map_err(|e| failed(e, doing))?;
        record.map(|record| from_json(&record, doing)).transpose()
    }

    async fn set_policy(&self, policy: &PolicyView) -> RepositoryResult<()> {
        let doing = "saving the policy";
        let query = sqlx::query("INSERT OR REPLACE INTO policy (id, record) VALUES (1, ?)");
        let query = query.bind(to_json(policy, doing)?);
        let mut tx = self.begin(doing).await?;
        query.execute(&mut *tx).await.map_err(|e| failed(e, doing))?;
        tx.commit().await.map_err(|e| failed(e, doing))
    }

    async fn log(&self, entry: &LogEntry) -> RepositoryResult<()> {
        let doing = "adding to the audit log";
        let mut tx = match entry.who == LogEntry::APPLIANCE {
            true => self.begin_lazy(doing).await?,
            false => self.begin(doing).await?,
        };
        sqlx::query("INSERT INTO log (at_ms, who, disk, what, detail) VALUES (?, ?, ?, ?, ?)")
            .bind(number(entry.at_ms, doing)?)
            .bind(&entry.who)
            .bind(entry.disk.as_ref().map(|disk| &disk.0[..]))
            .bind(&entry.what)
            .bind(&entry.detail)
            .execute(&mut *tx)
            .await
            .map_err(|e| failed(e, doing))?;
        tx.commit().await.map_err(|e| failed(e, doing))
    }

    async fn log_entries(&self, disk: Option<DiskId>, limit: u32) -> RepositoryResult<Vec<LogEntry>> {
        let doing = "reading the audit log";
        let query = match &disk {
            None => sqlx::query("SELECT at_ms, who, disk, what, detail FROM log ORDER BY seq DESC LIMIT ?"),
            Some(disk) => {
                sqlx::query("SELECT at_ms, who, disk, what, detail FROM log WHERE disk = ? ORDER BY seq DESC LIMIT ?")
                    .bind(&disk.0[..])
            }
        };
        let rows = query.bind(limit).fetch_all(&self.readers).await.map_err(|e| failed(e, doing))?;
        let entry = |row: sqlx::sqlite::SqliteRow| {
            Ok(LogEntry {
                at_ms: row.try_get::<i64, _>(0)?.unsigned_abs(),
                who: row.try_get(1)?,
                disk: row.try_get::<Option<&[u8]>, _>(2)?.map(convert::bytes).transpose()?.map(DiskId),
                what: row.try_get(3)?,
                detail: row.try_get(4)?,
            })
        };
        rows.into_iter().map(|row| entry(row).map_err(|e| failed(e, doing))).collect()
    }
}

use super::super::contract::{self, DISK, cycle_record, disk_record};
use super::*;
use sluice_proto::SectorCount;

async fn open(dir: &Path) -> SqliteRepository {
    SqliteRepository::open(&dir.join("appliance.db")).await.unwrap()
}

#[tokio::test]
async fn sqlite_repository_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    contract::run(&open(dir.path()).await).await;
}

#[tokio::test]
async fn what_was_written_is_there_after_a_kill_and_after_an_orderly_end() {
    let dir = tempfile::tempdir().unwrap();
    let killed = tempfile::tempdir().unwrap();
    let repository = open(dir.path()).await;
    let (disk, cycle) = (disk_record(DISK, Generation(2)), cycle_record(DISK, 8));
    repository.save(&disk, Some(&cycle)).await.unwrap();
    // What a killed process leaves: the file and its log as they are now.
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), killed.path().join(entry.file_name())).unwrap();
    }
    repository.close().await;
    for dir in [dir, killed] {
        let repository = open(dir.path()).await;
        assert_eq!(repository.disks().await.unwrap(), std::slice::from_ref(&disk));
        assert_eq!(repository.cycle(DISK, cycle.cycle).await.unwrap(), Some(cycle.clone()));
    }
}

#[tokio::test]
async fn writes_are_flushed_and_references_kept() {
    let dir = tempfile::tempdir().unwrap();
    let repository = open(dir.path()).await;
    let pragma = async |name: &'static str| -> String {
        let row =
            sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA {name}"))).fetch_one(&repository.writer).await.unwrap();
        row.try_get::<String, _>(0).or_else(|_| row.try_get::<i64, _>(0).map(|n| n.to_string())).unwrap()
    };
    assert_eq!(pragma("journal_mode").await, "wal");
    assert_eq!(pragma("synchronous").await, "2", "FULL");
    assert_eq!(pragma("foreign_keys").await, "1");
    let written = sqlx::query("DELETE FROM log").execute(&repository.readers).await;
    assert!(written.unwrap_err().to_string().contains("readonly"));
}

#[tokio::test]
async fn many_writers_and_readers_never_meet_a_lock() {
    let dir = tempfile::tempdir().unwrap();
    let repository = open(dir.path()).await;
    repository.save(&disk_record(DISK, Generation(2)), None).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..8 {
        let repository = repository.clone();
        tasks.spawn(async move {
            for n in 0..20u64 {
                let mut cycle = cycle_record(DISK, 10 + i);
                cycle.sectors = SectorCount(n);
                let segment = StoredSegment {
                    name: format!("s{n}"),
                    first: BlockNo(n),
                    blocks: 1,
                    len: ByteCount(1),
                    hash: Digest([0; 32]),
                };
                repository.add_segment(&cycle, &segment).await.unwrap();
                let there = repository.segments(DISK, cycle.cycle).await.unwrap();
                assert_eq!(there.len() as u64, n + 1);
            }
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap();
    }
    assert_eq!(repository.cycles(DISK, 100).await.unwrap().len(), 8);
}

#[tokio::test]
async fn a_call_that_is_dropped_leaves_nothing_half_and_no_lock() {
    let dir = tempfile::tempdir().unwrap();
    let repository = open(dir.path()).await;
    let disk = disk_record(DISK, Generation(2));
    repository.save(&disk, None).await.unwrap();
    for polls in 0..40 {
        let cycle = cycle_record(DISK, 100 + polls);
        let mut save = Box::pin(repository.save(&disk, Some(&cycle)));
        for _ in 0..=polls {
            if futures_util::poll!(&mut save).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    let last = cycle_record(DISK, 1000);
    repository.save(&disk, Some(&last)).await.unwrap();
    assert_eq!(repository.cycle(DISK, last.cycle).await.unwrap(), Some(last));
}

#[tokio::test]
async fn a_newer_a_damaged_and_a_foreign_file_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("appliance.db");
    let repository = open(dir.path()).await;
    sqlx::query("INSERT INTO _sqlx_migrations VALUES (999, 'later', 0, TRUE, x'00', 0)")
        .execute(&repository.writer)
        .await
        .unwrap();
    repository.close().await;
    let newer = SqliteRepository::open(&file).await.unwrap_err();
    assert_eq!(newer.kind(), Kind::Newer, "{newer:?}");
    assert!(newer.to_string().contains("update this one"));

    std::fs::write(&file, vec![7; 8192]).unwrap();
    let damaged = SqliteRepository::open(&file).await.unwrap_err();
    assert_eq!(damaged.kind(), Kind::Corrupt, "{damaged:?}");
    assert!(damaged.to_string().contains("appliance.db"), "{damaged}");

    let nowhere = SqliteRepository::open(&dir.path().join("no/folder.db")).await.unwrap_err();
    assert!(nowhere.to_string().contains("no/folder.db"), "{nowhere}");
}

#[tokio::test]
async fn a_full_file_system_says_so_and_what_was_there_stays() {
    let Some(fs) = sluice_test_support::SmallFs::mount(1 << 20) else {
        eprintln!("not root: a small file system can't be mounted, nothing was tested");
        return;
    };
    let repository = open(fs.path()).await;
    let disk = disk_record(DISK, Generation(2));
    repository.save(&disk, None).await.unwrap();
    let mut entry =
        LogEntry { at_ms: 1, who: "test".into(), disk: None, what: "filled".into(), detail: "x".repeat(20_000) };
    let error = loop {
        entry.at_ms += 1;
        if let Err(error) = repository.log(&entry).await {
            break error;
        }
        assert!(entry.at_ms < 1000, "the file system does not fill up");
    };
    assert_eq!(error.kind(), Kind::Full, "{error:?}");
    assert_eq!(repository.disks().await.unwrap(), [disk]);
    let newest = repository.log_entries(None, 1).await.unwrap();
    assert_eq!(newest[0].at_ms, entry.at_ms - 1, "what was confirmed must be there, what was refused must not");
}

#[tokio::test]
async fn with_room_again_it_goes_on() {
    let Some(fs) = sluice_test_support::SmallFs::mount(1 << 20) else {
        eprintln!("not root: a small file system can't be mounted, nothing was tested");
        return;
    };
    let repository = open(fs.path()).await;
    let mut disk = disk_record(DISK, Generation(1));
    repository.save(&disk, None).await.unwrap();
    let filler = fs.path().join("filler");
    // Writes all that fits and fails then.
    std::fs::write(&filler, vec![1; 1 << 20]).unwrap_err();
    disk.name = "x".repeat(100_000);
    for _ in 0..2 {
        let error = repository.save(&disk, None).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Full, "{error:?}");
    }
    std::fs::remove_file(&filler).unwrap();
    repository.save(&disk, None).await.unwrap();
    assert_eq!(repository.disks().await.unwrap(), [disk]);
}

//! Told to stop, the agent stops at once, and the next goes on where it was.

use super::*;

/// Runs the agent, says stop after `pause`, and tells how long it took from there.
async fn stop_after(world: &mut World, pause: Duration) -> Duration {
    let (word, stop) = watch::channel(false);
    world.stop = stop;
    let agent = world.agent(None).unwrap();
    let run = tokio::spawn(agent.run());
    tokio::time::sleep(pause).await;
    let begun = Instant::now();
    word.send_replace(true);
    run.await.unwrap().unwrap();
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn in_the_middle_of_uploads() {
    let mut world = World::new(&[Initial]);
    world.disk.set_read_delay(Duration::from_secs(10));
    world.api.inner.lock().put_delay = Duration::from_secs(1);
    // The first segment is stored, more is on its way.
    assert_eq!(stop_after(&mut world, Duration::from_secs(14)).await, Duration::ZERO);
    assert!(world.kinds().is_empty());
    let journal = testing::journal(&world.records, &world.disk).unwrap();
    let stored = journal.stored().blocks();
    assert!(stored > 0, "what was stored is noted");
    world.disk.take_reads();
    world.go_on(&[]).await.unwrap();
    let read: u64 = world.disk.take_reads().iter().map(|e| e.len.0).sum();
    assert_eq!(read, world.disk.sectors().0 - stored * 2048, "and not read again");
    assert_eq!(world.kinds(), [Initial]);
    world.go_on(&[Delta, Final]).await.unwrap();
    world.check_equal();
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_is_told_in_parts() {
    let mut world = World::new(&[Initial]);
    world.segment_bytes = 1;
    world.disk.set_read_delay(Duration::from_secs(10));
    world.api.inner.lock().told_max = 1;
    // Six blocks are read at once, and the seventh is not there yet.
    stop_after(&mut world, Duration::from_secs(14)).await;
    let stored = testing::journal(&world.records, &world.disk).unwrap().stored().clone();
    assert!(stored.len() > 2, "{stored:?}");
    world.disk.take_reads();
    world.go_on(&[]).await.unwrap();
    let read: u64 = world.disk.take_reads().iter().map(|e| e.len.0).sum();
    assert_eq!(read, world.disk.sectors().0 - stored.blocks() * 2048, "all of it was asked for");
    assert_eq!(world.kinds(), [Initial]);
    world.go_on(&[Delta, Final]).await.unwrap();
    world.check_equal();
}

#[tokio::test(start_paused = true)]
async fn in_the_middle_of_a_slow_comparison() {
    let mut world = World::new(&[Initial]);
    world.run().await.unwrap();
    world.order(&[Resync]);
    world.api.inner.lock().read_rate = Some(1 << 10);
    assert_eq!(stop_after(&mut world, Duration::from_secs(1000)).await, Duration::ZERO);
    world.check_nothing_is_lost("stopped in a comparison");
    world.api.inner.lock().read_rate = None;
    world.go_on(&[Final]).await.unwrap();
    assert_eq!(world.kinds(), [Initial, Resync, Final]);
    world.check_equal();
}

#[tokio::test(start_paused = true)]
async fn while_it_waits_for_orders_or_the_appliance() {
    let mut world = World::new(&[]);
    assert_eq!(stop_after(&mut world, Duration::from_secs(7)).await, Duration::ZERO);
    let mut world = World::new(&[Initial]);
    world.api.inner.lock().faults = (1..100).map(|call| (call, crate::testing::Fault::LostRequest)).collect();
    assert_eq!(stop_after(&mut world, Duration::from_secs(100)).await, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn before_it_has_begun() {
    let mut world = World::new(&[Initial]);
    let (_word, stop) = watch::channel(true);
    world.stop = stop;
    world.run().await.unwrap();
    assert_eq!(world.api.inner.lock().calls, 0);
}

#[tokio::test(start_paused = true)]
async fn a_word_that_nobody_can_give_any_more_is_none() {
    let mut world = World::new(&[Initial]);
    let (word, stop) = watch::channel(false);
    drop(word);
    world.stop = stop;
    let agent = world.agent(None).unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(60), agent.run()).await.is_err());
    assert_eq!(world.kinds(), [Initial], "it went on");
}

//! A disk that is given to another hydrator, or whose claim nobody knows any more.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_first_copy_goes_on_where_the_appliance_forgets_the_claim() {
    let mut bench = Bench::new(3 * 8192, 90);
    let api = Arc::new(FakeApi::default());
    let plan = bench.source.full();
    let first = bench.source.ship(CycleKind::Initial, 1, plan, None).await;
    let all = first.ahead();
    let segments = all.stored.len();
    let running = Running::start(bench.environment(), &api);
    api.give(Work { stored: all.stored[..1].to_vec(), ..all.clone() });
    api.told(1).await;
    // Put back to before it; nothing is committed before there is room for the rest.
    api.be_put_back();
    api.give(all);
    let told = tokio::time::timeout(Duration::from_secs(600), api.told(segments)).await.expect("it goes on");
    assert!(segments > 1 && told.len() == segments, "{told:?}");
    running.end().await;
}

/// Each that came back after a minute would end what the other has begun, for ever.
#[tokio::test(start_paused = true)]
async fn a_disk_that_is_lost_again_in_one_cycle_is_left_alone_for_longer() {
    let mut bench = Bench::new(12 * 8192, 91);
    let api = Arc::new(FakeApi::default());
    let running = Running::start(bench.environment(), &api);
    let plan = bench.source.full();
    let first = bench.source.ship(CycleKind::Initial, 1, plan.clone(), None).await;
    let last = verified(&api, &first).await;
    bench.source.scribble(&[Extent::new(0, 12 * 8192)]);
    let delta = bench.source.ship(CycleKind::Delta, 2, plan, Some(last)).await;
    api.be_claimed_by_another(2);
    api.be_claimed_by_another(2);
    let begun = Instant::now();
    verified(&api, &delta).await;
    assert!(begun.elapsed() >= Duration::from_secs(60 + 120), "{:?}", begun.elapsed());
    assert!(bench.target.contents() == bench.source.padded());
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_read_back_ahead_is_read_again_only_where_the_disk_was_another_s_since() {
    let mut operations = Vec::new();
    for lost in [false, true] {
        let mut bench = Bench::new(3 * 8192, 92);
        let api = Arc::new(FakeApi::default());
        let plan = bench.source.full();
        let first = bench.source.ship(CycleKind::Initial, 1, plan, None).await;
        // Troubles on the way change nothing.
        api.have_no_room(2);
        let running = Running::start(bench.environment(), &api);
        api.give(first.ahead());
        api.told(first.manifest.segments.len()).await;
        if lost {
            api.be_claimed_by_another(1);
        } else {
            api.be_unreachable(2);
        }
        bench.faults.set(0, Then::Nothing);
        verified(&api, &first).await;
        operations.push(bench.faults.done());
        assert!(bench.target.contents() == bench.source.padded());
        running.end().await;
    }
    assert!(operations[0] < 4 && operations[1] > 6, "{operations:?}: flushes, or flushes and reads");
}

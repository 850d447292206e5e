//! An agent whose program is replaced and that is started again, while a mounted file system is written to.

use sluice_e2e::{Format, assert_equal};
use sluice_machine::{End, Installed, Written, assert_delta};
use sluice_test_support::command::is_root;
use sluice_test_support::devices::Loop;
use sluice_test_support::load::{Intensity, Load};
use sluice_test_support::mounts::{FileSystem, Mount};

#[test]
fn an_agent_is_upgraded_in_place() {
    if !is_root("an_agent_is_upgraded_in_place") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Loop::new(folder.path(), "disk", 160 << 20, 512);
    let mount = Mount::format(disk.path(), FileSystem::Ext4);
    let (cluster, mut agent, id, mut last) = Installed::in_step(disk.path(), folder.path());
    let operator = cluster.operator();
    let load = Load::start(mount.path(), Intensity::default());
    let written = Written::to(disk.path());
    for end in [End::Asked, End::Killed] {
        // From before the swap of one cycle to after the swap of the next.
        let before = written.sectors();
        operator.sync_now(id);
        last = operator.wait_verified(id, last).cycle.0;
        load.wait_rounds(2);
        agent.replace();
        agent.end(end);
        load.wait_rounds(2);
        agent.resume();
        operator.sync_now(id);
        let next = operator.wait_verified(id, last);
        assert_delta(&next, written.sectors() - before);
        last = next.cycle.0;
    }
    load.stop();
    mount.unmount();
    operator.sync_now(id);
    operator.wait_verified(id, last);
    assert_equal(disk.path(), &cluster.target(id), Format::Vhd);
}

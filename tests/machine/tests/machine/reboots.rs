//! A guest with an agent installed, protected by an appliance and a hydrator on this machine: its disks are plugged in,
//! grown and pulled out, and it is rebooted, once by a crash and once in good order.

use sluice_e2e::{Format, NEVER_MS, assert_equal};
use sluice_machine::{Guest, HOST, assert_delta, assert_resync};
use sluice_proto::DiskId;
use sluice_proto::cycle::{FailReason, State};
use sluice_proto::wire::CycleView;
use sluice_test_support::cluster::{Cluster, Part, Setup};
use sluice_test_support::command::is_root;
use sluice_test_support::devices::text;
use sluice_test_support::program::Sluice;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const SIZE: u64 = 32 << 20;
/// By how much a disk grows.
const GROWTH: u64 = 1 << 20;
/// How the guest's system starts the agent.
const UNIT: &str = "[Unit]\nAfter=network.target\n[Service]\nExecStart=/usr/local/bin/sluice agent run --config \
    /etc/sluice/agent.toml\nRestart=always\n[Install]\nWantedBy=multi-user.target\n";
const INSTALL: &str = "mkdir -p /etc/sluice && cp /mnt/sluice /usr/local/bin/ && cp /mnt/*.pem /mnt/agent.toml /etc/sluice/ \
    && cp /mnt/sluice-agent.service /etc/systemd/system/ && sync && systemctl enable --now sluice-agent";

/// The guest's machine and what protects it.
struct Scene {
    cluster: Cluster,
    system: PathBuf,
    luggage: PathBuf,
    data: PathBuf,
    late: PathBuf,
    _folder: TempDir,
}

impl Scene {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let disk = |name: &str| {
            let path = folder.path().join(name);
            let noise = sluice_crash::Noise::seeded(name.len() as u64).bytes(SIZE as usize / 2);
            let made = fs::write(&path, noise).and_then(|()| File::options().write(true).open(&path)?.set_len(SIZE));
            made.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            path
        };
        let (data, late) = (disk("data"), disk("late"));
        let by_id = |name: &str| PathBuf::from(format!("/dev/disk/by-id/virtio-{name}"));
        let sources = vec![(by_id("data"), "ebpf"), (by_id("late"), "ebpf")];
        let mut cluster = Cluster::prepare(Setup { sources, ..Setup::of(&data) });
        let appliance = cluster.folder().join("appliance");
        Sluice::must(&["appliance", "renew", "--dir", text(&appliance), "--name", "127.0.0.1", "--name", HOST]);
        cluster.start_part(Part::Appliance);
        cluster.operator().wait_ready();
        cluster.operator().set_policy(NEVER_MS, None);
        cluster.start_part(Part::Hydrator);
        let carried = folder.path().join("carried");
        pack(&cluster, &carried);
        let (system, luggage) = (Guest::system(folder.path()), Guest::luggage(&carried));
        Self { cluster, system, luggage, data, late, _folder: folder }
    }

    fn boot(&self) -> Guest {
        let data = format!("file={},format=raw,if=none,id=data", text(&self.data));
        Guest::boot(
            Some(&self.system),
            &self.luggage,
            &["-drive", &data, "-device", "virtio-blk-pci,drive=data,serial=data"],
        )
    }

    /// Orders a cycle and waits for its end, whichever it is.
    fn cycle(&self, disk: DiskId) -> CycleView {
        let operator = self.cluster.operator();
        let last = operator.wait_cycle(disk, "there is a cycle", |view| Some(view.cycle.0));
        operator.sync_now(disk);
        operator.wait_cycle(disk, "an ordered cycle ends", |view| {
            (view.cycle.0 > last && view.state.is_end()).then(|| view.clone())
        })
    }

    fn assert_equal(&self, source: &Path, disk: DiskId) {
        assert_equal(source, &self.cluster.target(disk), Format::Vhd);
    }
}

/// The agent's configuration, as for a machine of its own, and its certificate.
fn pack(cluster: &Cluster, carried: &Path) {
    fs::create_dir(carried).expect("a folder");
    let text = fs::read_to_string(cluster.config(Part::Agent)).expect("the agent's configuration");
    let lines = text.lines().map(|line| match line.split_once(" = ") {
        Some(("state", _)) => "state = \"/var/lib/sluice\"".to_owned(),
        Some(("endpoint", _)) => line.replace("127.0.0.1", HOST),
        Some((word @ ("ca" | "cert" | "key"), path)) => {
            let path = Path::new(path.trim_matches('"'));
            let name = path.file_name().expect("a file's name").to_string_lossy();
            fs::copy(path, carried.join(&*name)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            format!("{word} = \"{name}\"")
        }
        _ => line.to_owned(),
    });
    let config: Vec<String> = lines.collect();
    fs::write(carried.join("agent.toml"), config.join("\n")).expect("a configuration");
    fs::write(carried.join("sluice-agent.service"), UNIT).expect("a unit");
}

/// What was written, in sectors: those themselves, which a delta may ship, and those of all the grains of 64 KiB that they
/// are in, which is what a comparison finds to differ.
struct Sectors {
    exact: u64,
    of_grains: u64,
}

/// Writes so many KiB at so many KiB in the guest; they are on the disk when this returns.
fn write(guest: &mut Guest, disk: &str, at: u64, kib: u64) -> Sectors {
    guest.must(&format!(
        "dd if=/dev/urandom of=/dev/disk/by-id/virtio-{disk} bs=1k seek={at} count={kib} oflag=direct conv=notrunc,nocreat,fsync status=none"
    ));
    Sectors { exact: kib * 2, of_grains: ((at + kib - 1) / 64 - at / 64 + 1) * 128 }
}

#[test]
fn disks_come_and_go_and_the_machine_reboots() {
    let test = "disks_come_and_go_and_the_machine_reboots";
    if !is_root(test) || !Guest::can_boot(test) {
        return;
    }
    let scene = Scene::new();
    let mut guest = scene.boot();
    guest.must(INSTALL);
    let data = scene.cluster.operator().only_disk();
    scene.cluster.operator().wait_verified(data, 1);
    let written = write(&mut guest, "data", 100, 300);
    assert_delta(&scene.cycle(data), written.exact);
    come_and_go(&scene, &mut guest, data);

    // Crashed: nothing is synced, nobody is told.
    let written = write(&mut guest, "data", 20_000, 1_000);
    guest.reboot("echo b > /proc/sysrq-trigger");
    let mut guest = scene.boot();
    assert_resync(&scene.cycle(data), written.of_grains);
    scene.assert_equal(&scene.data, data);
    let written = write(&mut guest, "data", 9_000, 64);
    assert_delta(&scene.cycle(data), written.exact);

    // In good order, with writes that no cycle has seen.
    let written = write(&mut guest, "data", 5_000, 200);
    guest.reboot("systemctl reboot");
    let mut guest = scene.boot();
    assert_resync(&scene.cycle(data), written.of_grains);
    scene.assert_equal(&scene.data, data);
    let written = write(&mut guest, "data", 1_000, 10);
    assert_delta(&scene.cycle(data), written.exact);
    scene.assert_equal(&scene.data, data);
}

/// Gives the disk another size and waits until the guest has seen that.
fn resize(guest: &mut Guest, size: u64) {
    guest.monitor.resize("late", size);
    guest
        .must(&format!("until [ $(blockdev --getsize64 /dev/disk/by-id/virtio-late) -eq {size} ]; do sleep 0.1; done"));
}

/// A disk that the agent waits for is plugged in, grown, made smaller and what it was, pulled out and plugged in again.
fn come_and_go(scene: &Scene, guest: &mut Guest, data: DiskId) {
    guest.monitor.plug("late", &scene.late);
    let views = scene.cluster.operator().wait_disks(2);
    let late = views.iter().find(|view| view.disk != data).expect("another disk").disk;
    scene.cluster.operator().wait_verified(late, 1);
    let written = write(guest, "late", 40, 40);
    assert_delta(&scene.cycle(late), written.exact);

    let written = write(guest, "late", 400, 50);
    resize(guest, SIZE + GROWTH);
    let tail = write(guest, "late", SIZE / 1024 + 10, 20);
    let grown = scene.cycle(late);
    assert_eq!((grown.state, grown.reason), (State::Failed, Some(FailReason::SourceChangedSize)), "{grown:?}");
    // Nobody does anything: it is compared in its new size, and goes on.
    let compared = scene.cluster.operator().wait_verified(late, grown.cycle.0);
    assert_resync(&compared, written.of_grains + tail.of_grains);
    scene.assert_equal(&scene.late, late);
    let written = write(guest, "late", SIZE / 1024 + 500, 30);
    assert_delta(&scene.cycle(late), written.exact);

    // It never shrinks with it, but waits.
    resize(guest, SIZE);
    let shrunk = scene.cycle(late);
    assert_eq!((shrunk.state, shrunk.reason), (State::Failed, Some(FailReason::SourceChangedSize)), "{shrunk:?}");
    assert!(shrunk.detail.as_deref().is_some_and(|words| words.contains("never shrinks")), "{shrunk:?}");
    resize(guest, SIZE + GROWTH);
    // What lay in the end that was cut off is gone.
    let again = scene.cluster.operator().wait_verified_at_last(late, shrunk.cycle.0);
    assert_resync(&again, tail.of_grains + written.of_grains);
    scene.assert_equal(&scene.late, late);

    guest.monitor.unplug("late");
    let gone = scene.cycle(late);
    assert_eq!((gone.state, gone.reason), (State::Failed, Some(FailReason::SourceRead)), "{gone:?}");
    // The other disk does not notice.
    let written = write(guest, "data", 700, 20);
    assert_delta(&scene.cycle(data), written.exact);
    // Somebody writes to it elsewhere.
    let file = File::options().write(true).open(&scene.late).expect("the disk");
    file.write_all_at(&[7; 5_000], 3 << 20).expect("5,000 bytes");
    guest.monitor.plug("late", &scene.late);
    guest.must("until [ -b /dev/disk/by-id/virtio-late ]; do sleep 0.1; done");
    let again = scene.cycle(late);
    assert_resync(&again, 128);
    scene.assert_equal(&scene.late, late);
}

//! Loading the programs for a disk, pinning them, and finding them again.
//!
//! A disk's pins are one folder on bpffs: `area`, and `prog_X` and `link_X` for each program. The folder is made under
//! another name and renamed when all is attached, so a folder by its own name is whole or not ours.

use super::device::Facts;
use super::flight;
use super::geometry::Geometry;
use super::header::Identity;
use super::kernel::{self, Area};
use super::types::KernelTypes;
use aya::Btf;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{BtfTracePoint, ProgramError, ProgramInfo};
use std::error::Error;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The programs, built from agent/bpf/track.bpf.c.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../bpf/track.bpf.o");

/// How often a program's loading is tried, while the kernel asks for it.
const LOAD_TRIES: u32 = 50;

pub(super) type Failure = Box<dyn Error + Send + Sync>;

/// A program and the tracepoint it is attached to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Program {
    pub name: &'static str,
    tracepoint: &'static str,
}

/// Where a kind's program for ends and its program for starts stand. Ends are attached first: what is remembered at its
/// start is then always forgotten at its end.
pub(super) const END: usize = 0;
pub(super) const START: usize = 1;

const REQUEST: [Program; 2] = [
    Program { name: "rq_complete", tracepoint: "block_rq_complete" },
    Program { name: "rq_issue", tracepoint: "block_rq_issue" },
];
const BIO: [Program; 2] = [
    Program { name: "bio_complete", tracepoint: "block_bio_complete" },
    Program { name: "bio_queue", tracepoint: "block_bio_queue" },
];

/// The programs for a kind of disk.
pub(super) fn programs(facts: &Facts) -> &'static [Program; 2] {
    if facts.requests { &REQUEST } else { &BIO }
}

/// What tracking holds on to.
#[derive(Debug)]
pub(super) struct Held {
    pub identity: Identity,
    pub geometry: Geometry,
    pub area: Area,
    /// What has started and not ended.
    pub flight: Area,
    /// In the order of [`programs`].
    pub programs: Vec<OwnedFd>,
    /// What keeps them attached, in the same order.
    pub links: Vec<Attachment>,
}

/// A program's place on its tracepoint. Held open, so that who removes the pins takes nothing off while the agent lives.
#[derive(Debug)]
pub(super) struct Attachment {
    link: FdLink,
    program_id: u32,
}

impl Attachment {
    /// Takes the link of the program with this id; `None` where it is another's.
    fn new(link: FdLink, program_id: u32) -> Option<Self> {
        let attachment = Self { link, program_id };
        attachment.is_there().then_some(attachment)
    }

    /// True where the kernel still knows the link, and by it the program.
    pub fn is_there(&self) -> bool {
        self.link.info().is_ok_and(|info| info.program_id() == self.program_id)
    }
}

/// Why pins were not taken over.
pub(super) enum Unusable {
    /// There are none.
    Absent,
    /// They are not ours or not whole.
    Foreign(String),
}

/// Opens what is pinned in `folder`, if it is all there and fits together.
pub(super) fn open(folder: &Path) -> Result<Held, Unusable> {
    if !folder.exists() {
        return Err(Unusable::Absent);
    }
    open_all(folder).map_err(|e| Unusable::Foreign(e.to_string()))
}

fn open_all(folder: &Path) -> Result<Held, Failure> {
    let (area_id, area) = open_map(&folder.join("area"), 8)?;
    let (_, flight) = open_map(&folder.join("flight"), flight::BUCKET_WORDS * 8)?;
    let identity = Identity::read(&area)?;
    let geometry = geometry_of(&identity);
    let opened = programs(&identity.facts).iter().map(|program| open_program(folder, program, area_id));
    let (programs, links) = opened.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
    Ok(Held { identity, geometry, area, flight, programs, links })
}

/// Opens and maps an array with values of `value_bytes`; its id and its memory.
fn open_map(path: &Path, value_bytes: u64) -> Result<(u32, Area), Failure> {
    let map = aya::maps::MapData::from_pin(path)?;
    let info = map.info()?;
    let is_array = info.map_type()? == aya::maps::MapType::Array;
    if !is_array || (info.key_size(), u64::from(info.value_size())) != (4, value_bytes) {
        return Err("a table has another shape".into());
    }
    let words = u64::from(info.max_entries()) * value_bytes / 8;
    Ok((info.id(), Area::new(map.fd().as_fd().try_clone_to_owned()?, words)?))
}

/// Opens a program that is attached, by a link that is pinned too, and marks in the map `area_id`.
fn open_program(folder: &Path, program: &Program, area_id: u32) -> Result<(OwnedFd, Attachment), Failure> {
    let path = folder.join(format!("prog_{}", program.name));
    let info = ProgramInfo::from_pin(&path)?;
    if !info.map_ids()?.is_some_and(|ids| ids.contains(&area_id)) {
        return Err(format!("{} does not use the table", program.name).into());
    }
    let link = PinnedLink::from_pin(folder.join(format!("link_{}", program.name)))?.into();
    let attachment = Attachment::new(link, info.id()).ok_or_else(|| format!("{} is not attached", program.name))?;
    Ok((kernel::open_pin(&path)?, attachment))
}

fn geometry_of(identity: &Identity) -> Geometry {
    Geometry::new(sluice_proto::units::SectorCount(identity.facts.sectors), identity.leaf_bits)
}

/// Makes new tables and programs for a disk, attaches them and pins them in `folder`, in place of what is there.
#[expect(clippy::disallowed_methods, reason = "nothing on bpffs outlives the kernel that holds it")]
pub(super) fn create(folder: &Path, identity: Identity) -> Result<Held, Failure> {
    let new = unfinished(folder).ok_or("the folder for pins has no parent, or a dot in its name")?;
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    remove(&new)?;
    fs::create_dir(&new)?;
    let held = create_in(&new, identity).inspect_err(|_| {
        KernelTypes::forget();
        drop(remove(&new));
    })?;
    remove(folder)?;
    fs::rename(&new, folder)?;
    Ok(held)
}

fn create_in(folder: &Path, identity: Identity) -> Result<Held, Failure> {
    let geometry = geometry_of(&identity);
    let words = geometry.area_words();
    let keeper = KernelTypes::keep();
    let types = keeper.get()?;
    let facts = &identity.facts;
    let constants: [(&'static str, u64); 13] = [
        ("disk_seq", facts.disk_seq),
        ("first", facts.first),
        ("sectors", facts.sectors),
        ("zone_sectors", facts.zone_sectors),
        ("buffer_words", geometry.buffer_words),
        ("leaf_sum_at", geometry.leaf_sum_at),
        ("coarse_sum_at", geometry.coarse_sum_at),
        ("coarse_at", geometry.coarse_at),
        ("keys_at", geometry.keys_at),
        ("leaves_at", geometry.leaves_at),
        ("hash_bits", u64::from(geometry.hash_bits)),
        ("coarse_shift", u64::from(geometry.coarse_shift)),
        ("flight_mask", flight::BUCKETS - 1),
    ];
    let tables = [("area", u32::try_from(words)?), ("flight", u32::try_from(flight::BUCKETS)?)];
    let mut ebpf = types.load(OBJECT, &constants, &tables)?;

    let area = map_and_pin(&ebpf, "area", words, folder)?;
    let flight = map_and_pin(&ebpf, "flight", flight::BUCKETS * flight::BUCKET_WORDS, folder)?;
    identity.write(&area);
    super::header::set_unsettled(&area, true);

    let (mut fds, mut links) = (Vec::new(), Vec::new());
    for program in programs(facts) {
        let loaded: &mut BtfTracePoint =
            ebpf.program_mut(program.name).ok_or("the object lacks a program")?.try_into()?;
        load(loaded, program, types.btf())?;
        loaded.pin(folder.join(format!("prog_{}", program.name)))?;
        let link = loaded.attach()?;
        let link: FdLink = loaded.take_link(link)?.into();
        let link = link.pin(folder.join(format!("link_{}", program.name)))?.into();
        links.push(Attachment::new(link, loaded.info()?.id()).ok_or("the kernel attached another program")?);
        fds.push(loaded.fd()?.as_fd().try_clone_to_owned()?);
    }
    Ok(Held { identity, geometry, area, flight, programs: fds, links })
}

/// Loads a program. The kernel's verifier gives up with EAGAIN when the thread has anything else to attend to, as a
/// timer's signal, and expects to be asked again.
fn load(loaded: &mut BtfTracePoint, program: &Program, btf: &Btf) -> Result<(), ProgramError> {
    for _ in 1..LOAD_TRIES {
        match loaded.load(program.tracepoint, btf) {
            Err(ProgramError::LoadError { io_error, .. }) if io_error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done,
        }
    }
    loaded.load(program.tracepoint, btf)
}

fn map_and_pin(ebpf: &aya::Ebpf, name: &str, words: u64, folder: &Path) -> Result<Area, Failure> {
    let table = ebpf.map(name).ok_or("the object lacks a table")?;
    let aya::maps::Map::Array(data) = table else {
        return Err("a table of the object has another shape".into());
    };
    let area = Area::new(data.fd().as_fd().try_clone_to_owned()?, words)?;
    table.pin(folder.join(name))?;
    Ok(area)
}

/// The folder by another name in which new pins are made. Bpffs allows no dot in a name.
fn unfinished(folder: &Path) -> Option<PathBuf> {
    let name = folder.file_name()?.to_str().filter(|name| !name.contains('.'))?;
    Some(folder.parent()?.join(format!("new-{name}")))
}

/// Takes away what a process left that died while it made new pins: it would go on running.
pub(super) fn sweep(folder: &Path) -> io::Result<()> {
    unfinished(folder).map_or(Ok(()), |new| remove(&new))
}

/// Takes a folder of pins away, with what is in it. The kernel ends the tracking as the last pin goes, or, where an agent
/// still holds the links, when that ends.
pub(super) fn remove(folder: &Path) -> Result<(), io::Error> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Where pins go unless the operator says otherwise: a folder for each disk under this one.
pub fn default_folder() -> PathBuf {
    PathBuf::from("/sys/fs/bpf/sluice")
}

//! Requests for a disk that is somebody else's: of every path that names one.

use super::world::*;
use crate::http::router::routes;
use crate::identity::Role;
use crate::pki::Pair;
use crate::repository::Repository;
use crate::service::tests::fixture::*;
use serde::Serialize;
use sluice_client::HydratorApi;
use sluice_proto::cycle::FailReason;
use sluice_proto::wire::{AppliedRequest, ErrorCode, FinalOrder, GiveUp, Lease, WireError};
use sluice_proto::{BlockNo, Generation};
use std::collections::BTreeSet;

/// A request that is right in all but who makes it.
struct Asking {
    method: &'static str,
    /// The path as the router has it.
    path: &'static str,
    /// Whom it is for.
    role: Role,
    /// What stands behind the question mark, with it.
    query: &'static str,
    body: Vec<u8>,
}

/// One for each thing that can be asked of a disk: that of a shipment, which `lease` was claimed for.
fn askings(shipment: &Shipment, lease: Lease) -> Vec<Asking> {
    use Role::{Agent, Hydrator, Operator};
    fn json(message: impl Serialize) -> Vec<u8> {
        serde_json::to_vec(&message).unwrap()
    }
    let asking = |method, path, role, query, body| Asking { method, path, role, query, body };
    let generation = Generation(1);
    let give_up = GiveUp { generation, reason: FailReason::SourceRead, detail: "gone".into() };
    let applied = AppliedRequest { generation, lease, end: BlockNo(0), names: Vec::new() };
    let digests = crate::service::tests::digests_part(shipment.cycle, 0).to_vec();
    let (segment, manifest) = (shipment.segments[0].1.to_vec(), shipment.manifest.to_vec());
    let of = "?generation=1";
    vec![
        asking("POST", "/v1/disks/{disk}/register", Agent, "", json(registration(DISK, generation))),
        asking("POST", "/v1/disks/{disk}/next", Agent, "", json(asks(0, None, 0))),
        asking("POST", "/v1/disks/{disk}/cycles/{cycle}/open", Agent, "", json(&shipment.open)),
        asking("PUT", "/v1/disks/{disk}/cycles/{cycle}/segments/{name}", Agent, of, segment),
        asking("GET", "/v1/disks/{disk}/cycles/{cycle}/digests/{part}", Agent, of, Vec::new()),
        asking("PUT", "/v1/disks/{disk}/cycles/{cycle}/digests/{part}", Hydrator, of, digests),
        asking("POST", "/v1/disks/{disk}/cycles/{cycle}/claim", Hydrator, of, Vec::new()),
        asking("GET", "/v1/disks/{disk}/cycles/{cycle}/lease/{lease}", Hydrator, of, Vec::new()),
        asking("POST", "/v1/disks/{disk}/cycles/{cycle}/applied", Hydrator, "", json(applied)),
        asking("PUT", "/v1/disks/{disk}/cycles/{cycle}/manifest", Agent, of, manifest),
        asking("POST", "/v1/disks/{disk}/cycles/{cycle}/verdict", Hydrator, "", json(shipment.verified(lease))),
        asking("POST", "/v1/disks/{disk}/cycles/{cycle}/give-up", Agent, "", json(give_up)),
        asking("GET", "/v1/disks/{disk}/cycles", Operator, "?limit=9", Vec::new()),
        asking("POST", "/v1/disks/{disk}/final", Operator, "", json(FinalOrder { wanted: true })),
        asking("POST", "/v1/disks/{disk}/sync", Operator, "", Vec::new()),
    ]
}

/// A disk that is web-1's and main's, with a cycle that is being shipped.
struct Theirs {
    site: Site,
    shipment: Shipment,
    lease: Lease,
}

impl Theirs {
    async fn new() -> Self {
        let site = Site::new().await;
        let (start, shipment) = opened(&site.agent()).await;
        let lease = site.hydrator().claim(DISK, start.cycle, Generation(1)).await.unwrap().lease;
        Self { site, shipment, lease }
    }

    /// Asks over a connection of its own.
    async fn ask(&self, who: &Pair, method: &str, path: &str, query: &str, body: &[u8]) -> Result<(), WireError> {
        let place = [
            ("{disk}", DISK.to_string()),
            ("{cycle}", self.shipment.cycle.to_string()),
            ("{name}", self.shipment.segments[0].0.name.clone()),
            ("{part}", "0".to_owned()),
            ("{lease}", self.lease.0.to_string()),
        ];
        let path = place.iter().fold(path.to_owned(), |path, (name, value)| path.replace(name, value));
        assert!(!path.contains('{'), "{path}: say what stands there");
        let len = body.len().to_string();
        let headers = [("content-length", len.as_str()), ("connection", "close")];
        let request = [head(&format!("{method} {path}{query}"), &headers).as_bytes(), body].concat();
        let said = talk(&mut self.site.raw(who).await, &request).await;
        if said.starts_with("HTTP/1.1 2") {
            return Ok(());
        }
        let (_, refusal) = said.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{method} {path}: {said:?}"));
        Err(serde_json::from_str(refusal).unwrap_or_else(|e| panic!("{method} {path}: {e}: {said:?}")))
    }

    /// All that is known and stored.
    async fn facts(&self) -> String {
        let repository = &self.site.service.repository;
        let (disks, cycles) = (repository.disks().await.unwrap(), repository.cycles(DISK, 9).await.unwrap());
        format!("{disks:?} {cycles:?} {:?}", self.site.service.objects().await)
    }
}

/// The port itself is asked what it knows, so that nothing can be forgotten here.
#[tokio::test]
async fn whatever_can_be_asked_of_a_disk_is_asked_here() {
    let theirs = Theirs::new().await;
    let other = theirs.site.issue(Role::Agent, "web-2");
    let mut known = BTreeSet::new();
    for (path, _) in routes().into_iter().filter(|(path, _)| path.contains("{disk}")) {
        for method in ["GET", "PUT", "POST", "PATCH", "DELETE"] {
            let refusal = theirs.ask(&other, method, path, "", b"").await.expect_err("it is a stranger");
            if !refusal.message.contains("this appliance knows no ") {
                known.insert((method, path));
            }
        }
    }
    let asked = askings(&theirs.shipment, theirs.lease);
    assert_eq!(asked.iter().map(|asking| (asking.method, asking.path)).collect::<BTreeSet<_>>(), known);
}

#[tokio::test]
async fn to_strangers_a_disk_does_not_exist_whatever_they_ask() {
    let theirs = Theirs::new().await;
    let before = theirs.facts().await;
    // Each owner's name is also that of a stranger: names are of one role.
    let strangers =
        [(Role::Agent, "web-2"), (Role::Agent, "main"), (Role::Hydrator, "other"), (Role::Hydrator, "web-1")];
    for (role, name) in strangers {
        let stranger = theirs.site.issue(role, name);
        for Asking { method, path, role: whose, query, body } in askings(&theirs.shipment, theirs.lease) {
            let refusal = theirs.ask(&stranger, method, path, query, &body).await.map_err(|refusal| refusal.code);
            let due = if whose == role { ErrorCode::NoSuchDisk } else { ErrorCode::Forbidden };
            assert_eq!(refusal, Err(due), "{role} {name}: {method} {path}");
        }
    }
    assert_eq!(theirs.facts().await, before, "a refused request changed something");
    // From those whose disk it is, the same requests are refused for nothing of the kind, and most are not at all.
    let owners = [(Role::Agent, "web-1"), (Role::Hydrator, "main"), (Role::Operator, "anna")];
    let owners = owners.map(|(role, name)| (role, theirs.site.issue(role, name)));
    for Asking { method, path, role: whose, query, body } in askings(&theirs.shipment, theirs.lease) {
        let (_, owner) = owners.iter().find(|(role, _)| *role == whose).unwrap();
        let code = theirs.ask(owner, method, path, query, &body).await.map_err(|refusal| refusal.code);
        assert!(
            !matches!(code, Err(ErrorCode::NoSuchDisk | ErrorCode::Forbidden | ErrorCode::BadRequest)),
            "{method} {path}: {code:?}"
        );
    }
    assert_ne!(theirs.facts().await, before, "what changes nothing proves nothing");
}

//! Who may have a connection.

use super::HttpLimits;
use crate::identity::{Identity, PeerName, Role};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Counts connections. Clones share the count.
#[derive(Clone)]
pub(super) struct Gate {
    state: Arc<Mutex<State>>,
    handshakes_max: usize,
    connections_max: usize,
    per_peer_max: usize,
}

#[derive(Default)]
struct State {
    /// Those in a handshake, the oldest first.
    shaking: BTreeMap<u64, Shaking>,
    next: u64,
    /// How many each address has in a handshake.
    addresses: BTreeMap<IpAddr, usize>,
    /// How many each peer has behind it.
    peers: BTreeMap<(Role, PeerName), usize>,
    seated: usize,
}

struct Shaking {
    from: IpAddr,
    /// Dropped to send the connection away.
    _stay: oneshot::Sender<()>,
}

impl State {
    fn leave(&mut self, number: u64) {
        let Some(shaking) = self.shaking.remove(&number) else { return };
        if let Some(count) = self.addresses.get_mut(&shaking.from) {
            *count -= 1;
            if *count == 0 {
                self.addresses.remove(&shaking.from);
            }
        }
    }

    /// Of the addresses that have most connections, sends the oldest connection away: where each has one, nobody's goes
    /// before its time because of what its address is.
    fn evict(&mut self) {
        let most = self.addresses.values().max();
        let oldest = self.shaking.iter().find(|(_, shaking)| self.addresses.get(&shaking.from) == most);
        if let Some(number) = oldest.map(|(number, _)| *number) {
            self.leave(number);
        }
    }
}

/// A connection in its handshake.
pub(super) struct Handshake {
    gate: Gate,
    number: u64,
    sent_away: Option<oneshot::Receiver<()>>,
}

impl Handshake {
    /// Ends when the connection must make room.
    pub(super) async fn sent_away(&mut self) {
        match self.sent_away.take() {
            // Nothing is ever sent: the sender is dropped.
            Some(sent_away) => drop(sent_away.await),
            None => std::future::pending().await,
        }
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.gate.state.lock().leave(self.number);
    }
}

/// A peer's connection.
pub(super) struct Seat {
    gate: Gate,
    peer: (Role, PeerName),
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.gate.state.lock();
        state.seated -= 1;
        if let Some(count) = state.peers.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                state.peers.remove(&self.peer);
            }
        }
    }
}

impl Gate {
    pub(super) fn new(limits: &HttpLimits) -> Self {
        Self {
            state: Arc::default(),
            handshakes_max: limits.handshakes_max.max(1),
            connections_max: limits.connections_max.max(1),
            per_peer_max: limits.connections_per_peer_max.max(1),
        }
    }

    /// Lets a connection begin its handshake, if need be in the place of another.
    pub(super) fn enter(&self, from: IpAddr) -> Handshake {
        let mut state = self.state.lock();
        if state.shaking.len() >= self.handshakes_max {
            state.evict();
        }
        let (stay, sent_away) = oneshot::channel();
        let number = state.next;
        state.next += 1;
        state.shaking.insert(number, Shaking { from, _stay: stay });
        *state.addresses.entry(from).or_default() += 1;
        Handshake { gate: self.clone(), number, sent_away: Some(sent_away) }
    }

    /// Gives a peer a seat, unless it has its share already or all are taken.
    pub(super) fn seat(&self, who: &Identity) -> Option<Seat> {
        let mut state = self.state.lock();
        let peer = (who.role, who.name.clone());
        let has = state.peers.get(&peer).copied().unwrap_or(0);
        if has >= self.per_peer_max || state.seated >= self.connections_max {
            return None;
        }
        state.seated += 1;
        state.peers.insert(peer.clone(), has + 1);
        Some(Seat { gate: self.clone(), peer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(handshakes_max: usize) -> Gate {
        Gate::new(&HttpLimits { handshakes_max, ..HttpLimits::default() })
    }

    fn is_away(shaking: &mut Handshake) -> bool {
        shaking
            .sent_away
            .as_mut()
            .is_some_and(|stay| stay.try_recv().is_err_and(|e| e == oneshot::error::TryRecvError::Closed))
    }

    #[test]
    fn of_those_with_most_connections_the_oldest_goes() {
        let gate = gate(3);
        let addresses = ["10.0.0.9", "10.0.0.1", "10.0.0.1", "2001:db8::1"].map(|text| text.parse::<IpAddr>().unwrap());
        let mut shaking = addresses.map(|from| gate.enter(from));
        assert_eq!(shaking.each_mut().map(is_away), [false, true, false, false]);
    }

    #[test]
    fn nobody_goes_before_his_time_as_his_address_is_the_highest() {
        let gate = gate(4);
        let mut many: Vec<Handshake> = (1..=3_u32).map(|no| gate.enter(IpAddr::V4(no.into()))).collect();
        let mut honest = gate.enter("2001:db8::ffff".parse().unwrap());
        many.extend((4..=6_u32).map(|no| gate.enter(IpAddr::V4(no.into()))));
        assert!(!is_away(&mut honest), "three older ones were there to go");
        let away: Vec<bool> = many.iter_mut().map(is_away).collect();
        assert_eq!(away, [true, true, true, false, false, false]);
    }
}

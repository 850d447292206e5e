//! A TCP proxy of the test's own, between a process and the appliance: it passes bytes on, slowly, late or not at all.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// What is passed on at once.
const BUFFER_BYTES: usize = 16 << 10;

/// How a proxy treats what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It passes everything on.
    Flow,
    /// It takes connections and passes nothing on, until it flows again: packets are lost, nobody is told.
    Stall,
    /// So many bytes a second, on each connection and each way.
    Rate(u64),
    /// It closes connections as soon as they are made.
    Refuse,
    /// It is taken down.
    Down,
}

/// A running proxy; taken down, with all its connections, on drop.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    acceptor: Option<JoinHandle<()>>,
}

impl Proxy {
    /// One on a free port of 127.0.0.1 that leads to `upstream`.
    pub fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("a port's address");
        let state = State { mode: Mode::Flow, open: BTreeMap::new(), next: 0 };
        let shared = Arc::new(Shared { upstream, state: Mutex::new(state), changed: Condvar::new() });
        let serving = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || serve(&serving, &listener));
        Self { shared, address, acceptor: Some(acceptor) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Treats all connections like this from now on.
    pub fn set(&self, mode: Mode) {
        self.shared.lock().mode = mode;
        self.shared.changed.notify_all();
    }

    /// How many connections came about through it.
    pub fn connections(&self) -> u64 {
        self.shared.lock().next
    }

    /// Cuts all connections, wherever they are; how many these were.
    pub fn cut(&self) -> u64 {
        let open = std::mem::take(&mut self.shared.lock().open);
        for ends in open.values() {
            ends.iter().for_each(close);
        }
        self.shared.changed.notify_all();
        open.len() as u64
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(Mode::Down);
        self.cut();
        // The acceptor looks at the mode when somebody connects.
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    /// Both ends of each connection, by a number.
    open: BTreeMap<u64, [TcpStream; 2]>,
    next: u64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `bytes` of a connection may go on; `false` if it was cut.
    fn admit(&self, connection: u64, bytes: usize) -> bool {
        let mut state = self.lock();
        let mut paid = false;
        while state.open.contains_key(&connection) {
            match state.mode {
                Mode::Flow => return true,
                Mode::Rate(_) if paid => return true,
                Mode::Rate(rate) => {
                    let takes = Duration::from_secs_f64(bytes as f64 / rate as f64);
                    state = self.changed.wait_timeout(state, takes).unwrap_or_else(PoisonError::into_inner).0;
                    paid = true;
                }
                Mode::Stall => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Mode::Refuse | Mode::Down => return false,
            }
        }
        false
    }
}

fn serve(shared: &Arc<Shared>, listener: &TcpListener) {
    for client in listener.incoming().map_while(Result::ok) {
        match shared.lock().mode {
            Mode::Down => return,
            Mode::Refuse => continue,
            Mode::Flow | Mode::Stall | Mode::Rate(_) => {}
        }
        // Nobody there: the client sees its connection closed, as it would by a router of the provider.
        let Ok(server) = TcpStream::connect(shared.upstream) else { continue };
        let twins = (client.try_clone(), server.try_clone());
        let (Ok(client_twin), Ok(server_twin)) = twins else { continue };
        let mut state = shared.lock();
        let connection = state.next;
        state.next += 1;
        state.open.insert(connection, [client_twin, server_twin]);
        drop(state);
        let back = (client.try_clone(), server.try_clone());
        if let (Ok(to), Ok(from)) = back {
            pump(shared, connection, client, server);
            pump(shared, connection, from, to);
        }
    }
}

/// Passes on in one direction, in a thread of its own, until either end closes.
fn pump(shared: &Arc<Shared>, connection: u64, mut from: TcpStream, mut to: TcpStream) {
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if !shared.admit(connection, count) || to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        shared.lock().open.remove(&connection);
        [from, to].iter().for_each(close);
        shared.changed.notify_all();
    });
}

fn close(end: &TcpStream) {
    // The other side may have closed it already.
    let _ = end.shutdown(Shutdown::Both);
}

//! The proxy does what it says: otherwise chaos would find nothing because nothing happened.

use sluice_chaos::{Mode, Proxy};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// A connection through a proxy, with both of its ends.
fn connected() -> (Proxy, TcpStream, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap());
    let client = TcpStream::connect(proxy.address()).unwrap();
    let (server, _) = listener.accept().unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (proxy, client, server)
}

fn read(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn bytes_flow_both_ways() {
    let (_proxy, mut client, mut server) = connected();
    client.write_all(b"there").unwrap();
    assert_eq!(read(&mut server, 5), b"there");
    server.write_all(b"and back").unwrap();
    assert_eq!(read(&mut client, 8), b"and back");
}

#[test]
fn a_cut_ends_both_sides() {
    let (proxy, mut client, mut server) = connected();
    client.write_all(b"x").unwrap();
    read(&mut server, 1);
    assert_eq!(proxy.cut(), 1);
    assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
    assert!(matches!(server.read(&mut [0]), Ok(0) | Err(_)));
    assert_eq!(proxy.cut(), 0, "nothing is left to be cut");
}

#[test]
fn a_refused_connection_is_closed_at_once() {
    let (proxy, ..) = connected();
    proxy.set(Mode::Refuse);
    let mut refused = TcpStream::connect(proxy.address()).unwrap();
    refused.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert!(matches!(refused.read(&mut [0]), Ok(0)));
}

#[test]
fn what_is_stalled_comes_when_it_flows_again() {
    let (proxy, mut client, mut server) = connected();
    proxy.set(Mode::Stall);
    client.write_all(b"late").unwrap();
    server.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(server.read(&mut [0]).is_err(), "nothing passes a stall");
    server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    proxy.set(Mode::Flow);
    assert_eq!(read(&mut server, 4), b"late");
}

#[test]
fn a_rate_is_kept() {
    let (proxy, mut client, mut server) = connected();
    proxy.set(Mode::Rate(64 << 10));
    let start = Instant::now();
    let writer = std::thread::spawn(move || client.write_all(&[7; 32 << 10]).map(|()| client));
    assert_eq!(read(&mut server, 32 << 10), vec![7; 32 << 10]);
    assert!(start.elapsed() >= Duration::from_millis(400), "32 KiB take half a second: {:?}", start.elapsed());
    writer.join().unwrap().unwrap();
}

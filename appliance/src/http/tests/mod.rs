//! The port on loopback, with real TLS: that honest clients are served, and what hostile ones get.

mod bodies;
mod crowds;
mod door;
mod honest;
mod memory;
mod strangers;
mod world;

//! `sluice` as it is typed: arguments, output, exit codes.
#![forbid(unsafe_code)]

mod arguments;
mod demo;
mod devices;
mod inspect;
mod interrupted;
mod refusals;
mod replicate;
mod support;
mod tracked;
mod verify;

//! The gateway as its clients and servers see it: the real process, usually two of them that know each other,
//! in front of servers that answer what the test says and record every byte that reaches them. No cluster, no
//! SDK; every port is on loopback. G1–G33 are the requirements that the tests quote.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(clippy::print_stderr, reason = "the log of a gateway whose test failed")]

mod admin;
mod client;
mod compose;
mod drain;
mod eras;
mod events;
mod health;
mod identifiers;
mod limits;
mod listen;
mod pod;
mod recovery;
mod reports;
mod retries;
mod sessions;
mod streams;
mod tls;
mod upstream;
mod world;

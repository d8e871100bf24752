//! The warden: the small program that outlives the test process by the seconds that cleaning up takes.
//!
//! - `watch DIR` holds the read end of a pipe of the test process. When that process ends, however it ends
//!   (return, panic, Ctrl-C, SIGKILL), the pipe closes and the warden removes the cluster. The word `keep` on
//!   the pipe makes it leave without doing so: that is how `cluster up` leaves one running.
//! - `down DIR` removes a cluster at once.
//! - `forward ADDRESS DIR` accepts on the listening socket that it got as standard input and copies to
//!   ADDRESS; started inside the cluster's network namespace, with a socket of the host's.
//! - `get HOST:PORT PATH` exits 0 if a plain HTTP GET is answered with 2xx.
//! - `node DIR KUBELET ARGS…` is a node: mounts, containerd, kubelet; started in namespaces of its own.
//!
//! Standard library only: it is compiled with plain rustc into the cache. It must never touch a process or a
//! file that does not belong to the folder it was given.
#![allow(clippy::print_stderr, reason = "standard error is the warden's log")]

mod forward;
mod http;
mod node;
mod teardown;

use std::env;
use std::io::{BufRead, stdin};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["watch", dir] => watch(Path::new(dir)),
        ["down", dir] => teardown::run(Path::new(dir)),
        ["forward", address, _dir] => forward::run(address),
        ["get", address, path] => http::get(address, path),
        ["node", dir, kubelet, rest @ ..] => node::run(Path::new(dir), kubelet, rest),
        _ => Err("usage: warden watch DIR | down DIR | forward ADDRESS DIR | get HOST:PORT PATH | node DIR KUBELET ARGS".to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("warden: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Waits for the pipe to close, then removes the cluster unless told to keep it.
fn watch(dir: &Path) -> Result<(), String> {
    for line in stdin().lock().lines() {
        match line.as_deref() {
            Ok("keep") => return Ok(()),
            Ok(_) => {}
            Err(_) => break,
        }
    }
    teardown::run(dir)
}

//! The helper inside a fleet's pods: `mcp-fleet-agent install` and `mcp-fleet-agent await-drain`.
//!
//! An init container of our own image runs `install` and leaves this very executable in a shared
//! volume; the server's container runs it from there as its `preStop` hook, `await-drain`, so that a
//! terminating pod goes at once when nobody is connected and stays while somebody is.
//!
//! | file | does |
//! |---|---|
//! | `args` | command line → [`args::Command`] |
//! | `sockets` | `/proc/net/tcp{,6}` text → connections on the watched ports; pure |
//! | `drain` | connections over time → wait, or done and why; pure, no clock |
//! | `await_drain` | reads `/proc` and the clock, drives `drain` |
//! | `install` | copies the executable |
//!
//! It must not use anything but the standard library: it has to start in any image, for any user, on
//! a read-only root, in milliseconds.

pub mod args;
mod await_drain;
pub mod drain;
mod install;
pub mod sockets;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;

use args::Command;

/// Name of the executable, also of the file that `install` leaves behind.
pub const EXECUTABLE: &str = "mcp-fleet-agent";

/// Exit code for a command line that cannot be understood.
const USAGE: u8 = 2;

/// Runs the agent with the arguments after the program name.
///
/// The exit code is 0 when the work is done, also when a drain ran into its deadline (the kubelet
/// goes on either way, and an exit code other than 0 would only add a false alarm), 1 when it could
/// not be done, and 2 when the command line is wrong.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match args::parse(arguments) {
        Ok(Command::Install { directory }) => match install::install(&directory) {
            Ok(path) => {
                say(format_args!("installed {}", path.display()));
                ExitCode::SUCCESS
            }
            Err(error) => {
                say(error);
                ExitCode::FAILURE
            }
        },
        Ok(Command::AwaitDrain(settings)) => {
            say(await_drain::run(&settings));
            ExitCode::SUCCESS
        }
        Ok(Command::Print(text)) => {
            let written = writeln!(std::io::stdout(), "{text}");
            if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            say(format_args!("{error}; see `{EXECUTABLE} --help`"));
            ExitCode::from(USAGE)
        }
    }
}

/// One line on standard error. A closed standard error must not change what the agent does.
fn say(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{EXECUTABLE}: {line}");
}

//! The agent's command line.
//!
//! Parsed by hand: clap would be most of the executable, and the only callers are the pod templates
//! that the operator generates. It must not touch the environment or the file system.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::drain::Limits;

/// What `--help` prints.
const HELP: &str = "\
The helper that mcp-fleet puts into the pods of a fleet.

Usage:
  mcp-fleet-agent install DIR
      Copies this executable to DIR/mcp-fleet-agent (mode 0755, replaced in one step).

  mcp-fleet-agent await-drain --port PORT [--port PORT ...] [options]
      For a preStop hook: returns when nobody is connected to PORT any more.
      --port PORT             TCP port that the server listens on, 1 to 65535; may be repeated
      --min-seconds N         wait at least so long: endpoints take time to spread (default 5)
      --quiet-seconds N       nobody connected for so long, without a break (default 2)
      --timeout-seconds N     return after so long in any case (default 300, at most 86400)
      The exit code is 0 at the deadline as well.

  mcp-fleet-agent --help | --version";

/// Ports that one hook may watch; a server has one or two.
const MAX_PORTS: usize = 16;

/// Longest time that may be asked for, in seconds: one day, far above any grace period in use.
const MAX_SECONDS: u64 = 86_400;

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Copy the executable into this directory.
    Install {
        /// An existing directory, usually a mounted volume.
        directory: PathBuf,
    },
    /// Wait until nobody is connected.
    AwaitDrain(AwaitDrain),
    /// Print this text and be done (`--help`, `--version`).
    Print(String),
}

/// Arguments of `await-drain`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwaitDrain {
    /// Local TCP ports to watch; at least one, at most [`MAX_PORTS`].
    pub ports: Vec<u16>,
    /// How long to wait, at least and at most.
    pub limits: Limits,
}

/// Why a command line is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// No subcommand at all.
    #[error("a subcommand is missing: install or await-drain")]
    NoCommand,
    /// A subcommand that does not exist.
    #[error("unknown subcommand {0:?}: expected install or await-drain")]
    UnknownCommand(String),
    /// An argument that the subcommand does not take.
    #[error("{command} does not take {argument:?}")]
    Unexpected {
        /// The subcommand.
        command: &'static str,
        /// The argument, as given.
        argument: String,
    },
    /// A flag at the end of the line, without its value.
    #[error("{0} needs a value")]
    NoValue(String),
    /// A value that is not a number in range.
    #[error("{flag} {value:?} is not a whole number from {min} to {max}")]
    BadNumber {
        /// The flag.
        flag: &'static str,
        /// The value, as given.
        value: String,
        /// Smallest allowed value.
        min: u64,
        /// Largest allowed value.
        max: u64,
    },
    /// `install` without a directory.
    #[error("install needs the directory to copy the executable to")]
    NoDirectory,
    /// `await-drain` without a port.
    #[error("await-drain needs at least one --port")]
    NoPort,
    /// More ports than a server can sensibly have.
    #[error("more than {MAX_PORTS} --port flags")]
    TooManyPorts,
}

/// Parses the arguments after the program name.
pub fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Command, ArgsError> {
    let command = arguments.next().ok_or(ArgsError::NoCommand)?;
    match command.to_str() {
        Some("install") => parse_install(arguments),
        Some("await-drain") => parse_await_drain(arguments),
        Some("--help" | "-h" | "help") => Ok(Command::Print(HELP.to_owned())),
        Some("--version" | "-V") => {
            Ok(Command::Print(format!("{} {}", super::EXECUTABLE, env!("CARGO_PKG_VERSION"))))
        }
        _ => Err(ArgsError::UnknownCommand(command.to_string_lossy().into_owned())),
    }
}

fn parse_install(mut arguments: impl Iterator<Item = OsString>) -> Result<Command, ArgsError> {
    let directory = arguments.next().ok_or(ArgsError::NoDirectory)?;
    // A path is taken as it is, but a flag in its place is a mistake and not a directory.
    if directory.is_empty() || directory.as_encoded_bytes().starts_with(b"-") {
        return Err(unexpected("install", &directory));
    }
    match arguments.next() {
        None => Ok(Command::Install { directory: PathBuf::from(directory) }),
        Some(extra) => Err(unexpected("install", &extra)),
    }
}

fn parse_await_drain(mut arguments: impl Iterator<Item = OsString>) -> Result<Command, ArgsError> {
    let mut ports = Vec::new();
    let mut limits = Limits::default();
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy().into_owned();
        let (flag, inline) = match text.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None => (text.clone(), None),
        };
        let mut value = || match inline.clone() {
            Some(value) => Ok(value),
            None => arguments
                .next()
                .map(|value| value.to_string_lossy().into_owned())
                .ok_or_else(|| ArgsError::NoValue(flag.clone())),
        };
        match flag.as_str() {
            "--port" => {
                let port = number("--port", value()?, 1, u64::from(u16::MAX))?;
                // In range of u16 by the line above; 0 cannot be reached.
                ports.push(u16::try_from(port).unwrap_or(0));
            }
            "--min-seconds" => limits.min = seconds("--min-seconds", value()?)?,
            "--quiet-seconds" => limits.quiet = seconds("--quiet-seconds", value()?)?,
            "--timeout-seconds" => limits.timeout = seconds("--timeout-seconds", value()?)?,
            _ => return Err(unexpected("await-drain", &argument)),
        }
    }
    if ports.is_empty() {
        return Err(ArgsError::NoPort);
    }
    if ports.len() > MAX_PORTS {
        return Err(ArgsError::TooManyPorts);
    }
    Ok(Command::AwaitDrain(AwaitDrain { ports, limits }))
}

fn seconds(flag: &'static str, value: String) -> Result<Duration, ArgsError> {
    number(flag, value, 0, MAX_SECONDS).map(Duration::from_secs)
}

fn number(flag: &'static str, value: String, min: u64, max: u64) -> Result<u64, ArgsError> {
    match value.parse::<u64>() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(ArgsError::BadNumber { flag, value, min, max }),
    }
}

fn unexpected(command: &'static str, argument: &OsString) -> ArgsError {
    ArgsError::Unexpected { command, argument: argument.to_string_lossy().into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Command, ArgsError> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_line_that_the_operator_generates() {
        let command = parse_line(
            "await-drain --port 8080 --port=9091 --min-seconds 5 --timeout-seconds 300 --quiet-seconds=2",
        );
        let limits = Limits {
            min: Duration::from_secs(5),
            quiet: Duration::from_secs(2),
            timeout: Duration::from_mins(5),
        };
        assert_eq!(command, Ok(Command::AwaitDrain(AwaitDrain { ports: vec![8080, 9091], limits })));
        assert_eq!(
            parse_line("install /mcp-fleet"),
            Ok(Command::Install { directory: PathBuf::from("/mcp-fleet") })
        );
    }

    #[test]
    fn defaults_stand_where_a_flag_is_missing() {
        let command = parse_line("await-drain --port 8080");
        let expected = AwaitDrain { ports: vec![8080], limits: Limits::default() };
        assert_eq!(command, Ok(Command::AwaitDrain(expected)));
    }

    #[test]
    fn a_wrong_line_says_what_is_wrong() {
        let too_many = format!("await-drain{}", " --port 1".repeat(17));
        for (line, message) in [
            ("", "a subcommand is missing: install or await-drain"),
            ("drain", "unknown subcommand \"drain\": expected install or await-drain"),
            ("install", "install needs the directory to copy the executable to"),
            ("install --force", "install does not take \"--force\""),
            ("install /a /b", "install does not take \"/b\""),
            ("await-drain", "await-drain needs at least one --port"),
            ("await-drain --port", "--port needs a value"),
            ("await-drain --port 0", "--port \"0\" is not a whole number from 1 to 65535"),
            ("await-drain --port 65536", "--port \"65536\" is not a whole number from 1 to 65535"),
            ("await-drain --port=", "--port \"\" is not a whole number from 1 to 65535"),
            (
                "await-drain --port 1 --min-seconds -1",
                "--min-seconds \"-1\" is not a whole number from 0 to 86400",
            ),
            (
                "await-drain --port 1 --timeout-seconds 5s",
                "--timeout-seconds \"5s\" is not a whole number from 0 to 86400",
            ),
            ("await-drain --port 1 8080", "await-drain does not take \"8080\""),
            (too_many.as_str(), "more than 16 --port flags"),
        ] {
            assert_eq!(parse_line(line).map_err(|error| error.to_string()), Err(message.to_owned()));
        }
    }

    #[test]
    fn help_and_version_print() {
        assert!(matches!(parse_line("--help"), Ok(Command::Print(text)) if text.contains("await-drain")));
        assert!(
            matches!(parse_line("--version"), Ok(Command::Print(text)) if text.starts_with("mcp-fleet-agent "))
        );
    }
}

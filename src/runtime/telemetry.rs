//! Logs: text for people, JSON for machines, on standard error.
//!
//! Standard output belongs to what a command prints (`mcp-fleet crds`). It must not be called twice,
//! and not by a library.

use std::io::{self, IsTerminal as _};
use std::panic;

use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::fmt;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line for people; in colour on a terminal.
    Text,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    /// Text on a terminal, JSON for everything else that reads our standard error.
    pub fn for_stderr() -> Self {
        if io::stderr().is_terminal() { Self::Text } else { Self::Json }
    }
}

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be understood.
    #[error(
        "the log level {filter:?} is wrong: {reason}; use error, warn, info, debug, trace or off, \
         also per module, as in \"info,kube=debug\""
    )]
    Filter {
        /// As given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody has set up logging in this process already.
    #[error("failed to set up logging: {0}")]
    Init(#[from] tracing_subscriber::util::TryInitError),
}

/// Sets up logging for the whole process, panics included.
pub fn init(format: LogFormat, filter: &str) -> Result<(), TelemetryError> {
    let filter = parse_filter(filter)?;
    let builder = fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(is_colour_wanted()).finish().try_init()?,
        LogFormat::Json => {
            builder.json().flatten_event(true).with_span_list(false).finish().try_init()?;
        }
    }
    log_panics();
    Ok(())
}

/// Logs every call that fails as an error, before anybody knows whether it matters. Whoever made the
/// call reports it with its causes and what follows from it.
const CALL_LOGGER: &str = "kube_client::client::builder";

/// Turns it off, unless the filter speaks of it.
const CALL_LOGGER_OFF: &str = "kube_client::client::builder=off";

/// Stricter than the parser, which takes every unknown word for the name of a module: with
/// `--log-level=inof` nothing would ever be logged, and nobody told why.
fn parse_filter(filter: &str) -> Result<EnvFilter, TelemetryError> {
    let wrong = |reason: String| TelemetryError::Filter { filter: filter.to_owned(), reason };
    let mut directives: Vec<_> = filter.split(',').map(str::trim).collect();
    for directive in &directives {
        let is_bare = !directive.contains(['=', '[', ']', '{', '}']);
        // An empty directive would parse, as the level "error".
        if directive.is_empty() || (is_bare && directive.parse::<LevelFilter>().is_err()) {
            return Err(wrong(format!("{directive:?} is not a level")));
        }
    }
    if !filter.contains(CALL_LOGGER) {
        directives.insert(0, CALL_LOGGER_OFF);
    }
    EnvFilter::try_new(directives.join(",")).map_err(|error| wrong(error.to_string()))
}

fn is_colour_wanted() -> bool {
    // https://no-color.org: any value but an empty one.
    let is_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !is_refused
}

/// A panic becomes a log line like every other, so that it is not lost among JSON.
fn log_panics() {
    panic::set_hook(Box::new(|info| {
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        let message = info.payload_as_str().unwrap_or("unknown");
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(location, %backtrace, "panicked: {message}");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_modules_are_accepted() {
        for filter in
            ["info", "WARN", "off", "info,kube=debug", "warn, mcp_fleet::operator=trace", "[span]=debug"]
        {
            assert!(parse_filter(filter).is_ok(), "{filter}");
        }
    }

    #[test]
    fn a_typo_is_an_error_that_helps() {
        for (filter, reason) in [
            ("inof", "\"inof\" is not a level"),
            ("info,kube", "\"kube\" is not a level"),
            ("", "\"\" is not a level"),
            ("kube=loud", "error parsing level filter"),
        ] {
            let error = parse_filter(filter).unwrap_err().to_string();
            assert!(error.starts_with(&format!("the log level {filter:?} is wrong: {reason}")), "{error}");
            assert!(error.ends_with("as in \"info,kube=debug\""), "{error}");
        }
    }
}

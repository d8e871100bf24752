//! The one error type of this library. Role: say what was attempted, where it failed and what the failing
//! program printed. Nobody is expected to match on it, except on [`Error::Unavailable`] to skip.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::Tier;

/// What went wrong while building, running or ending a cluster.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine cannot run this tier; a test reports it as skipped with this reason.
    #[error("{tier} cannot run on this machine: {reason}")]
    Unavailable {
        /// The tier asked for.
        tier: Tier,
        /// What is missing and how to get it.
        reason: String,
    },
    /// A file, pipe or process could not be read, written or started.
    #[error("failed to {what}")]
    Io {
        /// What was attempted, as in "failed to …".
        what: String,
        /// The cause.
        source: io::Error,
    },
    /// A helper program ended with an error.
    #[error("`{command}` failed with {status}: {output}")]
    Command {
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// What it printed, shortened to the end.
        output: String,
    },
    /// A daemon ended by itself while something waited for it.
    #[error("{name} ended by itself with {status}; the end of {}:\n{tail}", log.display())]
    Died {
        /// Name of the daemon.
        name: String,
        /// Its exit status.
        status: String,
        /// Its log.
        log: PathBuf,
        /// The last lines of that log.
        tail: String,
    },
    /// A condition did not come true in time.
    #[error("{what} did not happen within {} s: {last}", after.as_secs())]
    Timeout {
        /// What was waited for.
        what: String,
        /// The limit.
        after: Duration,
        /// What the last look said.
        last: String,
    },
    /// The caller asked for something that does not exist.
    #[error("{0}")]
    Invalid(String),
}

/// Result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Adds "failed to …" to I/O errors.
pub(crate) trait Context<T> {
    /// Wraps the error; `what` completes the sentence "failed to …".
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io { what: what(), source })
    }
}

//! Waiting for conditions, bounded in time. The only place of this library that sleeps.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(75);

/// Looks until `look` says Ok(()) or the limit is over; its last error is then part of ours. `give_up` may end
/// the wait early with an error of its own, for instance when the daemon concerned has died.
pub(crate) fn until(
    what: &str,
    limit: Duration,
    mut give_up: impl FnMut() -> Result<()>,
    mut look: impl FnMut() -> Result<(), String>,
) -> Result<()> {
    let start = Instant::now();
    loop {
        let last = match look() {
            Ok(()) => return Ok(()),
            Err(last) => last,
        };
        give_up()?;
        if start.elapsed() >= limit {
            return Err(Error::Timeout { what: what.to_owned(), after: limit, last });
        }
        sleep(INTERVAL);
    }
}

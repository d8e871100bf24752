//! Waits with a limit; a failure says what was waited for, and what was seen last.

use std::time::Duration;

use libtest_mimic::Failed;
use tokio::time::Instant;

/// Long enough for a busy machine; a wait that is met takes no longer than it needs.
pub const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);

/// Waits until `look` succeeds.
pub async fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, Failed> {
    let start = Instant::now();
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(seen) if start.elapsed() > limit => {
                return Err(format!("waited {limit:?} for {what}; last seen: {seen}").into());
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Checks that something holds for a while.
pub async fn holds(
    what: &str,
    period: Duration,
    mut look: impl AsyncFnMut() -> Result<(), String>,
) -> Result<(), Failed> {
    let start = Instant::now();
    while start.elapsed() < period {
        if let Err(seen) = look().await {
            return Err(format!("{what} did not hold after {:?}: {seen}", start.elapsed()).into());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

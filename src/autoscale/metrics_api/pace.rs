//! How soon something is tried again: a second after it went well, later and later while it fails. Pure but for the
//! runtime's clock.

use std::time::Duration;

use tokio::time::Instant;

/// After a success: our own watch needs a moment to show it.
const SETTLE: Duration = Duration::from_secs(1);
/// Pause after the first failure, and the longest.
const FIRST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(60);

/// When the next attempt is due.
#[derive(Debug, Default)]
pub(super) struct Pace {
    next: Option<Instant>,
    pause: Option<Duration>,
}

impl Pace {
    /// It may be tried now.
    pub(super) fn is_due(&self) -> bool {
        self.next.is_none_or(|next| next <= Instant::now())
    }

    /// It was tried.
    pub(super) fn note(&mut self, went_well: bool) {
        self.pause = (!went_well).then(|| self.pause.map_or(FIRST, |pause| (pause * 2).min(LONGEST)));
        self.next = Some(Instant::now() + self.pause.unwrap_or(SETTLE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn failures_are_tried_less_and_less() {
        let mut pace = Pace::default();
        assert!(pace.is_due());
        for seconds in [2, 4, 8, 16, 32, 60, 60] {
            pace.note(false);
            advance(Duration::from_millis(seconds * 1000 - 1)).await;
            assert!(!pace.is_due());
            advance(Duration::from_millis(1)).await;
            assert!(pace.is_due());
        }
        pace.note(true);
        assert!(!pace.is_due());
        advance(SETTLE).await;
        assert!(pace.is_due());
        pace.note(false);
        advance(FIRST).await;
        assert!(pace.is_due(), "a success starts over");
    }
}

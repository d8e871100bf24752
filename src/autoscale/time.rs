//! Moments. Windows and cooldowns count on a clock that never jumps; only what is persisted is in wall time.

/// A moment, or a duration, in milliseconds of the monotonic clock. Moments before the start of the process are
/// negative: what was restored.
pub type Millis = i64;

/// Now, on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds on a clock that never jumps.
    pub mono: Millis,
    /// Milliseconds since the Unix epoch.
    pub wall: i64,
}

impl Now {
    /// The wall time of a moment of the monotonic clock.
    pub fn to_wall(self, mono: Millis) -> i64 {
        self.wall.saturating_sub(self.mono.saturating_sub(mono))
    }

    /// The moment of a wall time. One in the future is now: a clock that was set back must not shorten a wait.
    pub fn to_mono(self, wall: i64) -> Millis {
        self.mono.saturating_sub(self.wall.saturating_sub(wall).max(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let now = Now { mono: 5_000, wall: 1_000_000 };
        assert_eq!(now.to_wall(3_000), 998_000);
        assert_eq!(now.to_mono(998_000), 3_000);
        assert_eq!(now.to_mono(990_000), -5_000, "before the start of the process");
        assert_eq!(now.to_mono(2_000_000), 5_000, "the future is now");
    }
}

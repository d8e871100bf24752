//! The strategies by their names in the API. Names only: what they do is in `pick`.

use std::{fmt, str::FromStr};

/// How the next endpoint is chosen. All share eligibility, penalties, ejection and slow start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// In turn, whatever the weights.
    RoundRobin,
    /// Uniformly at random, whatever the weights.
    Random,
    /// At random in proportion to the weights.
    Weighted,
    /// Fewest calls, streams and sessions per weight.
    LeastConnections,
    /// The one with fewer calls in flight per weight, of two drawn at random.
    #[default]
    LeastRequest,
    /// The one with the lower expected latency times calls in flight, of two drawn at random.
    PeakEwma,
}

/// The text names no strategy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown strategy {0:?}")]
pub struct UnknownStrategy(pub String);

impl Strategy {
    /// All strategies.
    pub const ALL: [Self; 6] = [
        Self::RoundRobin,
        Self::Random,
        Self::Weighted,
        Self::LeastConnections,
        Self::LeastRequest,
        Self::PeakEwma,
    ];

    /// The name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "RoundRobin",
            Self::Random => "Random",
            Self::Weighted => "Weighted",
            Self::LeastConnections => "LeastConnections",
            Self::LeastRequest => "LeastRequest",
            Self::PeakEwma => "PeakEWMA",
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Strategy {
    type Err = UnknownStrategy;

    fn from_str(text: &str) -> Result<Self, UnknownStrategy> {
        Self::ALL
            .into_iter()
            .find(|strategy| strategy.as_str() == text)
            .ok_or_else(|| UnknownStrategy(text.to_owned()))
    }
}

//! Bounds of a fleet's scale.

/// Fewest and most replicas that an autoscaler may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaRange {
    min: i32,
    max: i32,
}

/// Bounds that exclude each other.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "autoscaling.minReplicas ({min}) and autoscaling.maxReplicas ({max}) must be 0 ≤ min ≤ max and 1 ≤ max ≤ 1000"
)]
pub struct InvalidRange {
    min: i32,
    max: i32,
}

impl ReplicaRange {
    /// Most replicas that one fleet may have, so that one object cannot flood a cluster.
    pub const CAP: i32 = 1000;

    /// Checks 0 ≤ min ≤ max and 1 ≤ max ≤ [`Self::CAP`]. A least of 0: the fleet may go to zero.
    pub fn new(min: i32, max: i32) -> Result<Self, InvalidRange> {
        if (0..=max).contains(&min) && (1..=Self::CAP).contains(&max) {
            Ok(Self { min, max })
        } else {
            Err(InvalidRange { min, max })
        }
    }

    /// Fewest replicas.
    pub fn min(self) -> i32 {
        self.min
    }

    /// Most replicas.
    pub fn max(self) -> i32 {
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        assert!(ReplicaRange::new(1, 1000).is_ok());
        assert!(ReplicaRange::new(0, 1).is_ok());
        for (min, max) in [(0, 0), (2, 1), (1, 1001), (-1, 5)] {
            assert!(ReplicaRange::new(min, max).is_err(), "{min}..{max}");
        }
    }
}

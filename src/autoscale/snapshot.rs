//! What is known of a fleet at one moment: the input of a decision beside policy and memory.

use super::load::Load;

/// UID of a pod, as a number: samples of 10,000 fleets are joined by it each second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodUid(pub u128);

impl PodUid {
    /// Reads the hexadecimal form of Kubernetes; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut digits = 0_u32;
        let mut value = 0_u128;
        for c in text.chars().filter(|c| *c != '-') {
            value = value << 4 | u128::from(c.to_digit(16)?);
            digits += 1;
        }
        (digits == 32).then_some(Self(value))
    }
}

/// Who acts on the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actuator {
    /// An HPA reads what is recommended; we write only the steps from and to zero.
    Hpa,
    /// We write.
    Direct,
    /// Nobody of ours: a dry run.
    Off,
}

/// What a person stopped by annotation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pause {
    /// Everything; at so many replicas, or where it stands.
    pub all: Option<Option<i32>>,
    /// No fewer.
    pub scale_in: bool,
    /// No more.
    pub scale_out: bool,
}

/// All that is known of a fleet now.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// N: `McpFleet.spec.replicas`, and what is ahead of it.
    pub replicas: i32,
    /// Its pods that have not failed and do not end.
    pub pods: Vec<Pod>,
    /// What the gateways said; `None` where none has said anything that is fresh enough.
    pub load: Option<Load>,
    /// Who acts.
    pub actuator: Actuator,
    /// What a person stopped.
    pub pause: Pause,
    /// Pods wait for a place, or cannot be made, for so long that more of them would not help: why.
    pub blocked: Option<String>,
}

impl Snapshot {
    /// R: ready pods.
    pub fn ready(&self) -> i32 {
        self.pods.iter().filter(|p| p.ready).count() as i32
    }
}

/// One pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// Its UID.
    pub uid: PodUid,
    /// Its endpoint serves, and it is past its warm-up.
    pub ready: bool,
    /// CPU in use as a share of the request; `None`: no sample, or a stale one.
    pub cpu: Option<f64>,
    /// Memory in use as a share of the request.
    pub memory: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_are_numbers() {
        assert_eq!(PodUid::parse("00000000-0000-0000-0000-0000000000ff"), Some(PodUid(255)));
        for bad in ["", "x", "00000000-0000-0000-0000-0000000000f", "00000000-0000-0000-0000-0000000000ffa"] {
            assert_eq!(PodUid::parse(bad), None, "{bad}");
        }
    }
}

//! What a person stopped by annotation. Pure.

use std::collections::BTreeMap;

use crate::{api::names, autoscale::snapshot::Pause};

/// Reads `mcpfleet.io/paused` and its like. A number that cannot be read, or is out of 0..=1000, pauses where the
/// fleet stands: who writes it wants it to stand still.
pub fn of(annotations: &BTreeMap<String, String>) -> Pause {
    let on = |name: &str| annotations.get(name).is_some_and(|v| v == "true");
    let replicas = annotations.get(names::ANNOTATION_PAUSED_REPLICAS);
    let number = replicas.and_then(|n| n.parse().ok()).filter(|n| (0..=1000).contains(n));
    Pause {
        all: (on(names::ANNOTATION_PAUSED) || replicas.is_some()).then_some(number),
        scale_in: on(names::ANNOTATION_PAUSED_SCALE_IN),
        scale_out: on(names::ANNOTATION_PAUSED_SCALE_OUT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_annotation_has_its_meaning() {
        let pause = |given: &[(&str, &str)]| {
            of(&given.iter().map(|(k, v)| (format!("mcpfleet.io/{k}"), (*v).to_owned())).collect())
        };
        assert_eq!(pause(&[]), Pause::default());
        assert_eq!(pause(&[("paused", "false")]), Pause::default());
        assert_eq!(pause(&[("paused", "true")]).all, Some(None));
        assert_eq!(pause(&[("paused-replicas", "5")]).all, Some(Some(5)));
        assert_eq!(pause(&[("paused", "true"), ("paused-replicas", "0")]).all, Some(Some(0)));
        for odd in ["", "five", "-1", "1001", "99999999999"] {
            assert_eq!(pause(&[("paused-replicas", odd)]).all, Some(None), "{odd}");
        }
        assert_eq!(
            pause(&[("paused-scale-in", "true"), ("paused-scale-out", "true")]),
            Pause { all: None, scale_in: true, scale_out: true }
        );
    }
}

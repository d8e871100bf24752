//! Volumes of the pod: the user's, a writable `/tmp`, and the helper's folder.

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, EmptyDirVolumeSource, KeyToPath, PersistentVolumeClaimVolumeSource,
    SecretVolumeSource, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::{
    api::{
        names,
        v1alpha1::{self as api, Drain},
    },
    operator::validate::ValidatedFleet,
};

/// The helper has about 1 MiB.
const AGENT_VOLUME_SIZE: &str = "16Mi";

pub(super) fn volumes(fleet: &ValidatedFleet) -> Vec<Volume> {
    let mut all: Vec<Volume> = fleet.server.volumes.iter().map(volume).collect();
    if needs_tmp(fleet) {
        all.push(empty(names::VOLUME_TMP, None));
    }
    if fleet.drain.mode == Drain::Await {
        all.push(empty(names::AGENT, Some(AGENT_VOLUME_SIZE)));
    }
    all
}

pub(super) fn mounts(fleet: &ValidatedFleet) -> Vec<VolumeMount> {
    let mut all: Vec<VolumeMount> = fleet.server.volume_mounts.iter().map(mount).collect();
    if needs_tmp(fleet) {
        all.push(VolumeMount {
            name: names::VOLUME_TMP.into(),
            mount_path: "/tmp".into(),
            ..VolumeMount::default()
        });
    }
    if fleet.drain.mode == Drain::Await {
        all.push(VolumeMount {
            name: names::AGENT.into(),
            mount_path: names::AGENT_DIR.into(),
            read_only: Some(true),
            ..VolumeMount::default()
        });
    }
    all
}

fn needs_tmp(fleet: &ValidatedFleet) -> bool {
    !fleet.server.volume_mounts.iter().any(|m| m.mount_path.trim_end_matches('/') == "/tmp")
}

fn empty(name: &str, size_limit: Option<&str>) -> Volume {
    Volume {
        name: name.into(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: None,
            size_limit: size_limit.map(|s| Quantity(s.into())),
        }),
        ..Volume::default()
    }
}

fn volume(volume: &api::Volume) -> Volume {
    Volume {
        name: volume.name.clone(),
        config_map: volume.config_map.as_ref().map(|c| ConfigMapVolumeSource {
            name: c.name.clone(),
            items: items(&c.items),
            optional: c.optional.then_some(true),
            default_mode: None,
        }),
        secret: volume.secret.as_ref().map(|s| SecretVolumeSource {
            secret_name: Some(s.secret_name.clone()),
            items: items(&s.items),
            optional: s.optional.then_some(true),
            default_mode: None,
        }),
        empty_dir: volume.empty_dir.as_ref().map(|e| EmptyDirVolumeSource {
            medium: e.medium.map(|_| "Memory".to_owned()),
            size_limit: e.size_limit.as_ref().map(|q| Quantity(q.0.clone())),
        }),
        persistent_volume_claim: volume.persistent_volume_claim.as_ref().map(|c| {
            PersistentVolumeClaimVolumeSource {
                claim_name: c.claim_name.clone(),
                read_only: c.read_only.then_some(true),
            }
        }),
        ..Volume::default()
    }
}

fn items(items: &[api::KeyToPath]) -> Option<Vec<KeyToPath>> {
    let item = |i: &api::KeyToPath| KeyToPath { key: i.key.clone(), path: i.path.clone(), mode: None };
    (!items.is_empty()).then(|| items.iter().map(item).collect())
}

fn mount(mount: &api::VolumeMount) -> VolumeMount {
    VolumeMount {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        sub_path: mount.sub_path.clone().filter(|p| !p.is_empty()),
        read_only: mount.read_only.then_some(true),
        ..VolumeMount::default()
    }
}

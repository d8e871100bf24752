//! Who owns the group `custom.metrics.k8s.io`, and what follows: from all APIServices to one verdict. Pure.
//!
//! HPAs read only a group's preferred version, so a v1beta2 beside somebody's v1beta1 would take all their metrics
//! away (custom-metrics-apiserver #70). Ours is there only while nobody else has a version of the group.

use k8s_openapi::{
    ByteString,
    kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceSpec, ServiceReference},
};
use kube::{ResourceExt as _, api::ObjectMeta};

use super::{
    discovery::{GROUP, VERSION},
    state::ApiState,
};

/// Name of our APIService.
pub(super) const NAME: &str = "v1beta2.custom.metrics.k8s.io";
/// Label by which our objects are known.
pub(super) const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "mcp-fleet");
/// Port of the Service.
const PORT: i32 = 443;

/// What is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ours {
    /// Namespace of the Service.
    pub(super) namespace: String,
    /// Name of the Service.
    pub(super) service: String,
}

/// What is to be done; only a leader does it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    /// Everything is as it should be, or nothing may be done.
    Nothing,
    /// There is none.
    Create(Box<APIService>),
    /// Ours differs: the whole object, with the resourceVersion that was read.
    Replace(Box<APIService>),
    /// Somebody else has a version of the group. Not before fleets had time to leave.
    Withdraw {
        /// UID of ours.
        uid: String,
        /// Its resourceVersion.
        resource_version: String,
    },
}

/// What follows from what there is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Verdict {
    /// How it stands.
    pub(super) state: ApiState,
    /// What is to be done.
    pub(super) action: Action,
    /// The certificates by which the API server knows us, PEM; `None`: there is no APIService of ours.
    pub(super) ca_bundle: Option<String>,
}

/// Judges all APIServices of the cluster. `authorities`: the union of certificates, PEM; empty while it is not known,
/// and then nothing is created or replaced.
pub(super) fn judge<'a>(
    all: impl IntoIterator<Item = &'a APIService>,
    ours: &Ours,
    authorities: &str,
) -> Verdict {
    let (mut foreign, mut mine) = (Vec::new(), None);
    for service in all {
        let Some(spec) = service.spec.as_ref().filter(|spec| spec.group.as_deref() == Some(GROUP)) else {
            continue;
        };
        if !is_ours(spec, ours) {
            foreign.push(owner(service, spec));
        } else if service.name_any() == NAME {
            mine = Some(service);
        }
    }
    foreign.sort();
    foreign.dedup();
    let ca_bundle = mine.map(bundle_of);
    if !foreign.is_empty() {
        let action = mine.and_then(withdraw).unwrap_or(Action::Nothing);
        return Verdict { state: ApiState::OwnedByOther(foreign), action, ca_bundle };
    }
    let Some(mine) = mine else {
        let state =
            ApiState::NotServing(format!("APIService {NAME} is not there yet; the leader creates it"));
        let action = if authorities.is_empty() {
            Action::Nothing
        } else {
            Action::Create(Box::new(wanted(None, ours, authorities)))
        };
        return Verdict { state, action, ca_bundle };
    };
    let wanted = wanted(Some(mine), ours, authorities);
    let is_same = wanted.spec == mine.spec && wanted.metadata.labels == mine.metadata.labels;
    let action =
        if authorities.is_empty() || is_same { Action::Nothing } else { Action::Replace(Box::new(wanted)) };
    Verdict { state: availability(mine), action, ca_bundle }
}

/// Whether it leads to our Service.
pub(super) fn is_ours(spec: &APIServiceSpec, ours: &Ours) -> bool {
    spec.service.as_ref().is_some_and(|service| {
        service.namespace.as_deref() == Some(&ours.namespace)
            && service.name.as_deref() == Some(&ours.service)
    })
}

/// `<namespace>/<service>`; one without a Service is served by the API server itself.
fn owner(service: &APIService, spec: &APIServiceSpec) -> String {
    match &spec.service {
        Some(ServiceReference { namespace, name, .. }) => {
            let text = |part: &Option<String>| part.clone().unwrap_or_default();
            format!("{}/{}", text(namespace), text(name))
        }
        None => format!("{} (the API server itself)", service.name_any()),
    }
}

fn bundle_of(service: &APIService) -> String {
    let bundle = service.spec.as_ref().and_then(|spec| spec.ca_bundle.as_ref());
    bundle.map(|bundle| String::from_utf8_lossy(&bundle.0).into_owned()).unwrap_or_default()
}

fn withdraw(mine: &APIService) -> Option<Action> {
    let (uid, resource_version) = (mine.metadata.uid.clone()?, mine.metadata.resource_version.clone()?);
    Some(Action::Withdraw { uid, resource_version })
}

/// Ours as it should be; labels and annotations of others stay.
fn wanted(live: Option<&APIService>, ours: &Ours, authorities: &str) -> APIService {
    let mut metadata = match live {
        Some(live) => ObjectMeta { managed_fields: None, ..live.metadata.clone() },
        None => ObjectMeta { name: Some(NAME.into()), ..ObjectMeta::default() },
    };
    metadata.labels.get_or_insert_default().insert(MANAGED_BY.0.into(), MANAGED_BY.1.into());
    let spec = APIServiceSpec {
        ca_bundle: Some(ByteString(authorities.as_bytes().to_vec())),
        group: Some(GROUP.into()),
        group_priority_minimum: 100,
        insecure_skip_tls_verify: None,
        service: Some(ServiceReference {
            name: Some(ours.service.clone()),
            namespace: Some(ours.namespace.clone()),
            port: Some(PORT),
        }),
        version: Some(VERSION.into()),
        version_priority: 200,
    };
    APIService { metadata, spec: Some(spec), status: None }
}

/// What the API server says of reaching us.
fn availability(mine: &APIService) -> ApiState {
    let conditions = mine.status.as_ref().and_then(|status| status.conditions.as_ref());
    let available = conditions.and_then(|all| all.iter().find(|c| c.type_ == "Available"));
    match available {
        Some(condition) if condition.status == "True" => ApiState::Serving,
        Some(condition) => {
            let reason = condition.reason.as_deref().unwrap_or("Unknown");
            let message = condition.message.as_deref().unwrap_or("no message");
            ApiState::NotServing(format!("the API server says {reason}: {message}"))
        }
        None => ApiState::NotServing("the API server has not tried to reach it yet".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const CA: &str = "-----BEGIN CERTIFICATE-----";

    fn ours() -> Ours {
        Ours { namespace: "sys".into(), service: "op-api".into() }
    }

    fn service(version: &str, namespace: &str, service: &str) -> APIService {
        serde_json::from_value(json!({
            "metadata": {"name": format!("{version}.{GROUP}"), "uid": "u", "resourceVersion": "7"},
            "spec": {"group": GROUP, "version": version, "groupPriorityMinimum": 100, "versionPriority": 200,
                     "service": {"namespace": namespace, "name": service, "port": 443}},
        }))
        .unwrap()
    }

    fn live(available: Option<&str>) -> APIService {
        let mut live = wanted(None, &ours(), CA);
        live.metadata.uid = Some("u".into());
        live.metadata.resource_version = Some("7".into());
        let condition = |status| json!({"type": "Available", "status": status, "reason": "FailedDiscoveryCheck", "message": "no route"});
        live.status = available
            .map(|status| serde_json::from_value(json!({"conditions": [condition(status)]})).unwrap());
        live
    }

    #[test]
    fn an_unclaimed_group_becomes_ours() {
        let other_group: APIService = serde_json::from_value(json!({
            "metadata": {"name": "v1beta1.metrics.k8s.io"},
            "spec": {"group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 1, "versionPriority": 1,
                     "service": {"namespace": "kube-system", "name": "metrics-server"}},
        }))
        .unwrap();
        let verdict = judge([&other_group], &ours(), CA);
        let Action::Create(created) = verdict.action else { panic!("{verdict:?}") };
        assert_eq!(
            serde_json::to_value(&created.spec).unwrap(),
            json!({"group": GROUP, "version": "v1beta2", "groupPriorityMinimum": 100, "versionPriority": 200,
                "caBundle": "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t",
                "service": {"namespace": "sys", "name": "op-api", "port": 443}})
        );
        assert_eq!(created.metadata.name.as_deref(), Some(NAME));
        assert!(matches!(verdict.state, ApiState::NotServing(_)));
        assert_eq!(judge([], &ours(), "").action, Action::Nothing, "not without certificates");
    }

    #[test]
    fn it_serves_when_the_api_server_says_so() {
        for (available, expected) in [
            (Some("True"), ApiState::Serving),
            (
                Some("False"),
                ApiState::NotServing("the API server says FailedDiscoveryCheck: no route".into()),
            ),
            (None, ApiState::NotServing("the API server has not tried to reach it yet".into())),
        ] {
            let verdict = judge([&live(available)], &ours(), CA);
            assert_eq!((verdict.state, verdict.action), (expected, Action::Nothing));
            assert_eq!(verdict.ca_bundle.as_deref(), Some(CA));
        }
    }

    #[test]
    fn any_version_of_anybody_else_makes_us_leave() {
        let (v1beta1, v1) = (service("v1beta1", "mon", "adapter"), service("v1", "dd", "agent"));
        let verdict = judge([&v1beta1, &live(Some("True")), &v1], &ours(), CA);
        assert_eq!(verdict.state, ApiState::OwnedByOther(vec!["dd/agent".into(), "mon/adapter".into()]));
        assert_eq!(verdict.action, Action::Withdraw { uid: "u".into(), resource_version: "7".into() });
        assert!(verdict.ca_bundle.is_some());

        let theirs = service("v1beta2", "mon", "adapter");
        let verdict = judge([&theirs], &ours(), CA);
        assert_eq!(verdict.state, ApiState::OwnedByOther(vec!["mon/adapter".into()]));
        assert_eq!(verdict.action, Action::Nothing, "never force, never delete what is not ours");
        assert_eq!(verdict.ca_bundle, None);
    }

    #[test]
    fn a_version_without_a_service_is_somebody_elses_too() {
        let mut local = service("v1", "", "");
        local.spec.as_mut().unwrap().service = None;
        let verdict = judge([&local], &ours(), CA);
        assert_eq!(
            verdict.state,
            ApiState::OwnedByOther(vec!["v1.custom.metrics.k8s.io (the API server itself)".into()])
        );
    }

    #[test]
    fn drift_is_mended_and_what_is_not_ours_stays() {
        let mut drifted = live(Some("True"));
        drifted.metadata.annotations = Some([("note".to_owned(), "theirs".to_owned())].into());
        drifted.metadata.labels.get_or_insert_default().insert("team".into(), "x".into());
        assert_eq!(judge([&drifted], &ours(), CA).action, Action::Nothing);
        for drift in [
            |spec: &mut APIServiceSpec| spec.insecure_skip_tls_verify = Some(true),
            |spec: &mut APIServiceSpec| spec.ca_bundle = None,
            |spec: &mut APIServiceSpec| spec.version_priority = 1,
            |spec: &mut APIServiceSpec| spec.group_priority_minimum = 18_000,
            |spec: &mut APIServiceSpec| spec.service.as_mut().unwrap().port = Some(8443),
        ] {
            let mut live = drifted.clone();
            drift(live.spec.as_mut().unwrap());
            let Action::Replace(mended) = judge([&live], &ours(), CA).action else { panic!("not mended") };
            assert_eq!(mended.spec, drifted.spec);
            assert_eq!(mended.metadata.resource_version.as_deref(), Some("7"));
            assert_eq!(mended.metadata.annotations, drifted.metadata.annotations);
            assert_eq!(mended.metadata.labels, drifted.metadata.labels);
        }
        let mut unlabelled = drifted.clone();
        unlabelled.metadata.labels = None;
        assert!(matches!(judge([&unlabelled], &ours(), CA).action, Action::Replace(_)));
        let renewed = judge([&drifted], &ours(), "new certificates");
        assert!(matches!(renewed.action, Action::Replace(_)));
        assert_eq!(judge([&drifted], &ours(), "").action, Action::Nothing, "not without certificates");
    }
}

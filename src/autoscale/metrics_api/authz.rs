//! Whether a caller may read a metric: the API server is asked, and its answer kept for some seconds.
//!
//! Selectors are no part of the question: each HPA would ask its own, and use up the reviews of a cluster.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec, SubjectAccessReviewStatus,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};

use super::{
    answers::Question,
    authn::Caller,
    cached::{Cached, NoAnswer},
    discovery::{GROUP, RESOURCE, VERSION},
    metrics::ApiMetrics,
};
use crate::runtime::chain::Chain;

/// How long a yes counts, and a no.
const ALLOWED: Duration = Duration::from_secs(10);
const DENIED: Duration = Duration::from_secs(5);
/// Questions that are kept. Each fleet's HPA asks one.
const CAPACITY: usize = 8192;
/// Who may everything, without a review; as in Kubernetes' own servers.
const MASTERS: &str = "system:masters";

/// A no, with the API server's reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Denied(pub(super) String);

/// Asks, and remembers.
pub(super) struct Authorizer {
    client: Client,
    answers: Cached<(Caller, Question), Result<(), Denied>>,
    metrics: ApiMetrics,
}

impl Authorizer {
    /// Nothing remembered.
    pub(super) fn new(client: Client, metrics: ApiMetrics) -> Self {
        Self { client, answers: Cached::new(CAPACITY), metrics }
    }

    /// Whether the caller may get the answer. Without the API server's word nobody may.
    pub(super) async fn may_read(
        &self,
        caller: Caller,
        question: &Question,
    ) -> Result<Result<(), Denied>, NoAnswer> {
        if caller.groups.iter().any(|group| group == MASTERS) {
            return Ok(Ok(()));
        }
        let key = (caller, question.clone());
        let (client, metrics) = (self.client.clone(), self.metrics.clone());
        let review = review(&key.0, question);
        self.answers.get(&key, move || ask(client, review, metrics)).await
    }
}

async fn ask(
    client: Client,
    review: SubjectAccessReview,
    metrics: ApiMetrics,
) -> Result<(Result<(), Denied>, Duration), NoAnswer> {
    const KIND: &str = "SubjectAccessReview";
    let status = match Api::all(client).create(&PostParams::default(), &review).await {
        Ok(SubjectAccessReview { status: Some(status), .. }) => status,
        Ok(_) => {
            metrics.reviewed(KIND, "failed");
            return Err(NoAnswer("the API server's review has no status".into()));
        }
        Err(error) => {
            metrics.reviewed(KIND, "failed");
            return Err(NoAnswer(format!("failed to review the caller's rights: {}", Chain(&error))));
        }
    };
    let verdict = verdict(status);
    metrics.reviewed(KIND, if verdict.is_ok() { "allowed" } else { "denied" });
    let life = if verdict.is_ok() { ALLOWED } else { DENIED };
    Ok((verdict, life))
}

fn verdict(status: SubjectAccessReviewStatus) -> Result<(), Denied> {
    if status.allowed && status.denied != Some(true) {
        return Ok(());
    }
    Err(Denied(
        status.reason.filter(|reason| !reason.is_empty()).unwrap_or_else(|| "no rule allows it".into()),
    ))
}

fn review(caller: &Caller, question: &Question) -> SubjectAccessReview {
    let Caller { user, uid, groups, extra } = caller;
    let Question { namespace, name, metric } = question;
    let attributes = ResourceAttributes {
        group: Some(GROUP.into()),
        version: Some(VERSION.into()),
        resource: Some(RESOURCE.into()),
        subresource: Some(metric.clone()),
        namespace: Some(namespace.clone()),
        name: Some(name.clone()),
        verb: Some("get".into()),
        ..ResourceAttributes::default()
    };
    let extra: BTreeMap<_, _> = extra.clone();
    SubjectAccessReview {
        metadata: ObjectMeta::default(),
        spec: SubjectAccessReviewSpec {
            user: Some(user.clone()),
            uid: uid.clone(),
            groups: Some(groups.clone()),
            extra: (!extra.is_empty()).then_some(extra),
            non_resource_attributes: None,
            resource_attributes: Some(attributes),
        },
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autoscale::metrics_api::test_support::Stub;
    use tokio::time::advance;

    fn question(name: &str) -> Question {
        Question { namespace: "a".into(), name: name.into(), metric: "mcp_utilization".into() }
    }

    fn caller(user: &str, groups: &[&str]) -> Caller {
        let groups = groups.iter().map(|g| (*g).to_owned()).collect();
        Caller { user: user.into(), groups, ..Caller::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_yes_counts_ten_seconds_and_a_no_five() {
        let reviews = Stub::answering(|review| {
            let allowed = review["spec"]["user"] == "jane";
            (201, serde_json::json!({"allowed": allowed, "reason": if allowed { "" } else { "not hers" }}))
        });
        let authorizer = Authorizer::new(reviews.client(), ApiMetrics::default());
        for (user, life) in [("jane", 10), ("john", 5)] {
            let expected = if user == "jane" { Ok(()) } else { Err(Denied("not hers".into())) };
            let before = reviews.n();
            for _ in 0..3 {
                let seen = authorizer.may_read(caller(user, &[]), &question("github")).await;
                assert_eq!(seen, Ok(expected.clone()));
            }
            assert_eq!(reviews.n(), before + 1);
            advance(Duration::from_secs(life)).await;
            authorizer.may_read(caller(user, &[]), &question("github")).await.unwrap().ok();
            assert_eq!(reviews.n(), before + 2);
        }
        let spec = &reviews.last()["spec"];
        assert_eq!(
            spec["resourceAttributes"],
            serde_json::json!({"group": "custom.metrics.k8s.io", "version": "v1beta2", "resource": "mcpfleets.mcpfleet.io",
                "subresource": "mcp_utilization", "namespace": "a", "name": "github", "verb": "get"})
        );
    }

    #[tokio::test]
    async fn each_caller_and_each_fleet_is_a_question_of_its_own() {
        let reviews = Stub::answering(|_| (201, serde_json::json!({"allowed": true})));
        let authorizer = Authorizer::new(reviews.client(), ApiMetrics::default());
        for (user, groups, fleet) in
            [("jane", vec![], "x"), ("jane", vec!["dev"], "x"), ("john", vec![], "x"), ("jane", vec![], "y")]
        {
            authorizer.may_read(caller(user, &groups), &question(fleet)).await.unwrap().unwrap();
        }
        assert_eq!(reviews.n(), 4);
    }

    #[tokio::test]
    async fn masters_pass_and_a_failed_review_lets_nobody_in() {
        let reviews = Stub::answering(|_| (500, serde_json::json!({})));
        let authorizer = Authorizer::new(reviews.client(), ApiMetrics::default());
        let masters = caller("admin", &["system:authenticated", "system:masters"]);
        assert_eq!(authorizer.may_read(masters, &question("x")).await, Ok(Ok(())));
        assert_eq!(reviews.n(), 0);
        authorizer.may_read(caller("jane", &[]), &question("x")).await.unwrap_err();
    }

    #[test]
    fn an_explicit_no_wins() {
        let status = |allowed, denied| SubjectAccessReviewStatus { allowed, denied, ..Default::default() };
        assert!(verdict(status(true, None)).is_ok());
        assert!(verdict(status(true, Some(true))).is_err());
        assert!(verdict(status(false, None)).is_err());
    }
}

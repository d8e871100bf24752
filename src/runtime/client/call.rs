//! What a request to the API server is about: its verb and its resource; pure.
//!
//! Both become labels of metrics, so both come from closed lists: whatever is asked for, their number
//! stays small, and no object's name gets into them.

use http::{HeaderMap, Method, Request, Uri, header};

/// Resources that this product touches. Anything else is `other`.
const RESOURCES: &[&str] = &[
    "apiservices",
    "configmaps",
    "customresourcedefinitions",
    "deployments",
    "endpointslices",
    "events",
    "horizontalpodautoscalers",
    "leases",
    "mcpfleets",
    "mcpfleets/scale",
    "mcpfleets/status",
    "networkpolicies",
    "poddisruptionbudgets",
    "pods",
    "serviceaccounts",
    "services",
    "subjectaccessreviews",
    "tokenreviews",
];

/// What a resource that is not on the list is counted as; also discovery.
const OTHER: &str = "other";

/// A call, as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Call {
    /// The API server's word for what is done, or `apply` for a server-side apply.
    pub(super) verb: &'static str,
    /// Plural name, with the subresource, if there is one.
    pub(super) resource: &'static str,
}

impl Call {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let (resource, is_named) = resource(request.uri().path());
        let verb = verb(request.method(), request.uri(), request.headers(), is_named);
        Self { verb, resource }
    }

    /// A watch answers for minutes; everything else is over with its answer.
    pub(super) fn is_watch(self) -> bool {
        self.verb == "watch"
    }
}

fn verb(method: &Method, uri: &Uri, headers: &HeaderMap, is_named: bool) -> &'static str {
    match *method {
        Method::GET if is_watch(uri) => "watch",
        Method::GET if is_named => "get",
        Method::GET => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH if is_apply(headers) => "apply",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => OTHER,
    }
}

fn is_watch(uri: &Uri) -> bool {
    let query = uri.query().unwrap_or_default();
    query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1"))
}

fn is_apply(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/apply-patch"))
}

/// The resource of a path, and whether the path names one object.
///
/// `/api/v1/…` or `/apis/GROUP/VERSION/…`, then maybe `namespaces/NAMESPACE/`, then
/// `RESOURCE[/NAME[/SUBRESOURCE]]`.
fn resource(path: &str) -> (&'static str, bool) {
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    let n_version = match segments.next() {
        Some("api") => 1,
        Some("apis") => 2,
        _ => return (OTHER, true),
    };
    let rest: Vec<_> = segments.skip(n_version).take(5).collect();
    let rest = match rest.as_slice() {
        ["namespaces", _, rest @ ..] if !rest.is_empty() => rest,
        rest => rest,
    };
    let find = |name: &str| RESOURCES.iter().find(|known| **known == name).copied().unwrap_or(OTHER);
    match rest {
        [] => (OTHER, true),
        [resource] => (find(resource), false),
        [resource, _] => (find(resource), true),
        [resource, _, subresource, ..] => (find(&format!("{resource}/{subresource}")), true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_call_has_its_name() {
        let fleets = "/apis/mcpfleet.io/v1alpha1/namespaces/tools/mcpfleets";
        for (method, uri, verb, resource) in [
            ("GET", fleets.to_owned(), "list", "mcpfleets"),
            ("GET", "/apis/mcpfleet.io/v1alpha1/mcpfleets?limit=50".to_owned(), "list", "mcpfleets"),
            ("GET", format!("{fleets}?&watch=true&timeoutSeconds=290"), "watch", "mcpfleets"),
            ("GET", format!("{fleets}?watch=1"), "watch", "mcpfleets"),
            ("GET", format!("{fleets}/github"), "get", "mcpfleets"),
            ("PATCH", format!("{fleets}/github/status?fieldManager=x"), "patch", "mcpfleets/status"),
            ("PATCH", format!("{fleets}/github/scale"), "patch", "mcpfleets/scale"),
            ("POST", "/api/v1/namespaces/tools/services".to_owned(), "create", "services"),
            ("DELETE", "/api/v1/namespaces/tools/services/github".to_owned(), "delete", "services"),
            ("PUT", "/apis/coordination.k8s.io/v1/namespaces/a/leases/b".to_owned(), "update", "leases"),
            ("GET", "/api/v1/namespaces/tools/secrets/x".to_owned(), "get", "other"),
            ("GET", "/api/v1/namespaces/tools".to_owned(), "get", "other"),
            ("GET", "/api/v1/namespaces".to_owned(), "list", "other"),
            ("GET", "/api/v1/pods/p/log/a/b/c/d/e".to_owned(), "get", "other"),
            ("GET", "/version".to_owned(), "get", "other"),
            ("GET", "/".to_owned(), "get", "other"),
            ("OPTIONS", "/apis".to_owned(), "other", "other"),
        ] {
            let request = Request::builder().method(method).uri(&uri).body(()).unwrap();
            assert_eq!(Call::of(&request), Call { verb, resource }, "{method} {uri}");
        }
    }

    #[test]
    fn an_apply_is_not_just_any_patch() {
        for (kind, verb) in [
            ("application/apply-patch+yaml", "apply"),
            ("application/merge-patch+json", "patch"),
            ("application/strategic-merge-patch+json", "patch"),
        ] {
            let request = Request::patch("/apis/apps/v1/namespaces/a/deployments/b")
                .header(header::CONTENT_TYPE, kind)
                .body(())
                .unwrap();
            assert_eq!(Call::of(&request), Call { verb, resource: "deployments" });
        }
    }
}

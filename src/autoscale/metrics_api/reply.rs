//! Answers as Kubernetes writes them: JSON bodies, and `metav1.Status` for everything that went wrong. Pure.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde::Serialize;
use serde_json::json;

/// An answer with its whole body.
pub(super) type Reply = Response<Full<Bytes>>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Text, for probes and people.
pub(super) fn text(body: &'static str) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    reply
}

/// JSON.
pub(super) fn json(code: StatusCode, body: &impl Serialize) -> Reply {
    // Only a map with keys that are no strings, or a failing `Serialize` of our own, could make it fail.
    let body = serde_json::to_vec(body).unwrap_or_default();
    bytes(code, body.into())
}

/// JSON that is written already.
pub(super) fn bytes(code: StatusCode, body: Bytes) -> Reply {
    let mut reply = Response::new(Full::new(body));
    *reply.status_mut() = code;
    reply.headers_mut().insert(header::CONTENT_TYPE, JSON);
    reply
}

/// A failure. Clients tell them apart by code and reason; the message is for people.
pub(super) fn failure(code: StatusCode, message: &str) -> Reply {
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason(code),
        "code": code.as_u16(),
    });
    json(code, &status)
}

/// No answer for the moment. Without Retry-After: with it, client-go tries up to ten times by itself, and keeps one of
/// the HPA controller's few workers busy with that.
pub(super) fn unavailable(message: &str) -> Reply {
    failure(StatusCode::SERVICE_UNAVAILABLE, message)
}

/// Another method than the one that works here.
pub(super) fn wrong_method(allowed: &'static str) -> Reply {
    let mut reply =
        failure(StatusCode::METHOD_NOT_ALLOWED, &format!("this path answers {allowed} requests only"));
    reply.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    reply
}

/// The reasons of `k8s.io/apimachinery/pkg/apis/meta/v1`.
fn reason(code: StatusCode) -> &'static str {
    match code {
        StatusCode::BAD_REQUEST => "BadRequest",
        StatusCode::UNAUTHORIZED => "Unauthorized",
        StatusCode::FORBIDDEN => "Forbidden",
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::METHOD_NOT_ALLOWED => "MethodNotAllowed",
        StatusCode::NOT_ACCEPTABLE => "NotAcceptable",
        StatusCode::REQUEST_TIMEOUT => "Timeout",
        StatusCode::PAYLOAD_TOO_LARGE => "RequestEntityTooLarge",
        StatusCode::UNPROCESSABLE_ENTITY => "Invalid",
        StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
        _ => "InternalError",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn a_failure_is_a_status() {
        let reply = unavailable("no fresh samples");
        assert_eq!(reply.status(), 503);
        assert!(!reply.headers().contains_key("retry-after"));
        assert_eq!(reply.headers()["content-type"], "application/json");
        let body = reply.into_body().collect().await.unwrap().to_bytes();
        let status: k8s_openapi::apimachinery::pkg::apis::meta::v1::Status =
            serde_json::from_slice(&body).unwrap();
        assert_eq!(status.code, Some(503));
        assert_eq!(status.reason.as_deref(), Some("ServiceUnavailable"));
        assert_eq!(status.message.as_deref(), Some("no fresh samples"));
    }
}

//! An API server that answers reviews and nothing else, for unit tests.

use std::sync::Arc;

use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use kube::{Client, client::Body};
use parking_lot::Mutex;
use serde_json::{Value, json};

type Answers = Arc<dyn Fn(&Value) -> (u16, Value) + Send + Sync>;

/// The reviews that were asked for.
pub(super) struct Reviews {
    answers: Answers,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Reviews {
    /// `answers`: review → status code of the answer, and the review's status.
    pub(super) fn answering(answers: impl Fn(&Value) -> (u16, Value) + Send + Sync + 'static) -> Self {
        Self { answers: Arc::new(answers), asked: Arc::default() }
    }

    /// A client for it. Must be called inside the runtime.
    pub(super) fn client(&self) -> Client {
        let (answers, asked) = (Arc::clone(&self.answers), Arc::clone(&self.asked));
        let service = tower::service_fn(move |request: Request<Body>| {
            let (answers, asked) = (Arc::clone(&answers), Arc::clone(&asked));
            async move {
                let body =
                    request.into_body().collect().await.map_err(Into::<tower::BoxError>::into)?.to_bytes();
                let mut review: Value = serde_json::from_slice(&body).unwrap();
                let (code, status) = answers(&review);
                asked.lock().push(review.clone());
                review["status"] = status;
                if code >= 400 {
                    review = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
                        "reason": "InternalError", "message": "down", "metadata": {}});
                }
                let body = Full::from(serde_json::to_vec(&review).unwrap());
                Ok::<_, tower::BoxError>(Response::builder().status(code).body(body).unwrap())
            }
        });
        Client::new(service, "default")
    }

    /// How many were asked for.
    pub(super) fn n(&self) -> usize {
        self.asked.lock().len()
    }

    /// The last one.
    pub(super) fn last(&self) -> Value {
        self.asked.lock().last().cloned().unwrap_or_default()
    }
}

//! An API server of a few hundred bytes, for tests and the benchmark: ConfigMaps and APIServices with watches, and
//! reviews that the test answers.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicUsize, atomic::Ordering::SeqCst},
};

use bytes::Bytes;
use futures::stream;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use kube::{Client, client::Body};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

/// Where ConfigMaps and APIServices are.
pub(crate) const APISERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";

/// Review → status code of the answer, and the review's status.
type Answers = Box<dyn Fn(&Value) -> (u16, Value) + Send + Sync>;
type Reply = Response<UnsyncBoxBody<Bytes, std::convert::Infallible>>;

/// The API server.
#[derive(Clone)]
pub(crate) struct Stub(Arc<Inner>);

struct Inner {
    answers: Answers,
    reviews: Mutex<Vec<Value>>,
    n_reviews: AtomicUsize,
    store: Mutex<Store>,
    length: watch::Sender<usize>,
}

#[derive(Default)]
struct Store {
    /// By path.
    objects: BTreeMap<String, Value>,
    /// Collection and event; the version of an object is its place here.
    log: Vec<(String, Value)>,
}

impl Stub {
    /// With nothing in it.
    pub(crate) fn answering(answers: impl Fn(&Value) -> (u16, Value) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            answers: Box::new(answers),
            reviews: Mutex::default(),
            n_reviews: AtomicUsize::new(0),
            store: Mutex::default(),
            length: watch::Sender::new(0),
        }))
    }

    /// A client for it. Must be called inside the runtime.
    pub(crate) fn client(&self) -> Client {
        let stub = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let stub = stub.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.map_err(Into::<tower::BoxError>::into)?.to_bytes();
                let (path, query) =
                    (head.uri.path().to_owned(), head.uri.query().unwrap_or_default().to_owned());
                let is_apply = head
                    .headers
                    .get("content-type")
                    .is_some_and(|t| t.as_bytes().ends_with(b"apply-patch+yaml"));
                let body = serde_json::from_slice(&body).unwrap_or_default();
                Ok::<_, tower::BoxError>(stub.answer(&head.method, &path, &query, body, is_apply))
            }
        });
        Client::new(service, "default")
    }

    /// How many reviews were asked for.
    pub(crate) fn n(&self) -> usize {
        self.0.n_reviews.load(SeqCst)
    }

    /// The last review.
    pub(crate) fn last(&self) -> Value {
        self.0.reviews.lock().last().cloned().unwrap_or_default()
    }

    /// An object, if it is there.
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.0.store.lock().objects.get(path).cloned()
    }

    /// Creates or replaces an object, as somebody else.
    pub(crate) fn put(&self, path: &str, object: Value) -> Value {
        let mut store = self.0.store.lock();
        let (collection, name) = path.rsplit_once('/').unwrap();
        let type_ = if store.objects.contains_key(path) { "MODIFIED" } else { "ADDED" };
        let version = store.log.len() + 1;
        let mut object = object;
        object["metadata"]["name"] = name.into();
        object["metadata"]["uid"] = format!("uid-of-{name}").into();
        object["metadata"]["resourceVersion"] = version.to_string().into();
        store.objects.insert(path.to_owned(), object.clone());
        store.log.push((collection.to_owned(), json!({"type": type_, "object": object})));
        self.0.length.send_replace(version);
        object
    }

    /// Removes an object, as somebody else.
    pub(crate) fn remove(&self, path: &str) -> Option<Value> {
        let mut store = self.0.store.lock();
        let mut object = store.objects.remove(path)?;
        let version = store.log.len() + 1;
        object["metadata"]["resourceVersion"] = version.to_string().into();
        let (collection, _) = path.rsplit_once('/').unwrap();
        store.log.push((collection.to_owned(), json!({"type": "DELETED", "object": object})));
        self.0.length.send_replace(version);
        Some(object)
    }

    fn answer(&self, method: &Method, path: &str, query: &str, body: Value, is_apply: bool) -> Reply {
        let is_watch = query.split('&').any(|pair| pair == "watch=true");
        let is_collection = path == APISERVICES || path.ends_with("/configmaps");
        match *method {
            Method::POST if path.ends_with("reviews") => self.review(body),
            Method::GET if is_collection && is_watch => self.watch(path, query),
            Method::GET if is_collection => self.list(path, query),
            Method::GET => self.get(path).map_or_else(|| failure(StatusCode::NOT_FOUND), |o| ok(&o)),
            Method::POST => {
                let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap_or_default());
                if self.get(&path).is_some() {
                    failure(StatusCode::CONFLICT)
                } else {
                    ok(&self.put(&path, body))
                }
            }
            Method::PATCH | Method::PUT => {
                let found = self.get(path);
                let version = &body["metadata"]["resourceVersion"];
                let is_stale = found
                    .as_ref()
                    .is_some_and(|o| !version.is_null() && o["metadata"]["resourceVersion"] != *version);
                match found {
                    None if !is_apply => failure(StatusCode::NOT_FOUND),
                    _ if is_stale => failure(StatusCode::CONFLICT),
                    Some(mut object) if *method == Method::PATCH => {
                        merge(&mut object, &body);
                        ok(&self.put(path, object))
                    }
                    _ => ok(&self.put(path, body)),
                }
            }
            Method::DELETE => self.remove(path).map_or_else(|| failure(StatusCode::NOT_FOUND), |o| ok(&o)),
            _ => failure(StatusCode::METHOD_NOT_ALLOWED),
        }
    }

    fn review(&self, mut review: Value) -> Reply {
        let (code, status) = (self.0.answers)(&review);
        self.0.n_reviews.fetch_add(1, SeqCst);
        *self.0.reviews.lock() = vec![review.clone()];
        review["status"] = status;
        if code < 400 { ok(&review) } else { failure(StatusCode::from_u16(code).unwrap()) }
    }

    fn list(&self, path: &str, query: &str) -> Reply {
        let store = self.0.store.lock();
        let is_in =
            |at: &str, object: &Value| at.rsplit_once('/').unwrap().0 == path && is_named(query, object);
        let items: Vec<&Value> =
            store.objects.iter().filter(|(at, o)| is_in(at, o)).map(|(_, o)| o).collect();
        ok(&json!({"metadata": {"resourceVersion": store.log.len().to_string()}, "items": items}))
    }

    fn watch(&self, path: &str, query: &str) -> Reply {
        let from = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion=")?.parse().ok());
        let state = (
            self.clone(),
            path.to_owned(),
            query.to_owned(),
            from.unwrap_or(0_usize),
            self.0.length.subscribe(),
        );
        let events = stream::unfold(state, |(stub, path, query, mut at, mut length)| async move {
            loop {
                let next = stub.0.store.lock().log.get(at).cloned();
                let Some((collection, event)) = next else {
                    length.changed().await.ok()?;
                    continue;
                };
                at += 1;
                if collection == path && is_named(&query, &event["object"]) {
                    let line = Bytes::from(format!("{event}\n"));
                    return Some((Ok(Frame::data(line)), (stub, path, query, at, length)));
                }
            }
        });
        Response::new(StreamBody::new(events).boxed_unsync())
    }
}

/// Whether a field selector by name, if there is one, means the object.
fn is_named(query: &str, object: &Value) -> bool {
    let selector = query.split('&').find_map(|pair| pair.strip_prefix("fieldSelector="));
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    selector.is_none_or(|selector| selector == format!("metadata.name%3D{name}"))
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key.as_str()], value);
        }
    }
}

fn ok(value: &Value) -> Reply {
    Response::new(Full::from(value.to_string()).boxed_unsync())
}

fn failure(code: StatusCode) -> Reply {
    let reason = match code {
        StatusCode::CONFLICT => "Conflict",
        StatusCode::NOT_FOUND => "NotFound",
        _ => "InternalError",
    };
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "code": code.as_u16(), "reason": reason, "message": reason});
    let mut reply = ok(&status);
    *reply.status_mut() = code;
    reply
}

//! The port on which gateways, and the operator, ask this one: sealed questions about sessions, and what the
//! operator reads of fleets. Nothing here changes a fleet.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{admin, session, shared::Gateway};

/// Where the operator asks.
const FLEETS: &str = "/internal/fleets";
/// Connections at the same time.
const MOST: usize = 1024;
/// From the start of a connection to its end: a home may wait for a pod.
const LONGEST: Duration = Duration::from_secs(60);
/// Largest question, in bytes.
const LARGEST: usize = 64 * 1024;

/// Answers until `stop`.
pub async fn run(gateway: Arc<Gateway>, listener: TcpListener, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(MOST));
    loop {
        let place = Arc::clone(&places).acquire_owned();
        let (Some(Ok(place)), Some(accepted)) =
            (stop.run_until_cancelled(place).await, stop.run_until_cancelled(listener.accept()).await)
        else {
            return;
        };
        let Ok((stream, peer)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let gateway = Arc::clone(&gateway);
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(|request| {
                let gateway = Arc::clone(&gateway);
                async move { Ok::<_, Infallible>(answer(&gateway, peer, request).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(5))
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            let _ = timeout(LONGEST, connection).await;
        });
    }
}

async fn answer(gateway: &Gateway, peer: SocketAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    match (&head.method, head.uri.path()) {
        (&Method::GET, FLEETS) => {
            let mut response = Response::new(Full::new(admin::internal_fleets(gateway).into()));
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            response
        }
        (&Method::POST, session::PEER_PATH) => {
            let Ok(question) = Limited::new(body, LARGEST).collect().await else {
                return empty(StatusCode::PAYLOAD_TOO_LARGE);
            };
            if let Some(reply) = session::answer_peer(gateway, &question.to_bytes()).await {
                Response::new(Full::new(reply.into()))
            } else {
                tracing::warn!(%peer, "a message came that is not of a gateway with our keys");
                empty(StatusCode::FORBIDDEN)
            }
        }
        _ => empty(StatusCode::NOT_FOUND),
    }
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

//! One question to one gateway, bounded in time and size.

use std::{net::SocketAddr, time::Duration};

use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpStream, lookup_host},
    task::JoinSet,
    time::timeout,
};

use super::wire::Answer;

/// Longest time for the addresses, and for one answer.
const LONGEST: Duration = Duration::from_secs(5);
/// Largest answer, in bytes: ten thousand fleets of ten pods.
const LARGEST: usize = 16 * 1024 * 1024;
/// Most gateways.
const MOST: usize = 64;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// The name of the gateways' Service has no address.
    #[error("failed to look up {0}")]
    Lookup(String, #[source] std::io::Error),
    /// There are absurdly many.
    #[error("{0} has more than {MOST} addresses")]
    TooMany(String),
    /// It did not answer in time.
    #[error("{0} did not answer within {LONGEST:?}")]
    Timeout(String),
    /// It cannot be reached.
    #[error("failed to connect to {0}")]
    Connect(SocketAddr, #[source] std::io::Error),
    /// The connection broke.
    #[error("failed to ask {0}")]
    Http(SocketAddr, #[source] hyper::Error),
    /// It answered something else.
    #[error("{0} answered {1}")]
    Status(SocketAddr, StatusCode),
    /// The answer is too large, or broke off.
    #[error("failed to read the answer of {0}: {1}")]
    Body(SocketAddr, String),
    /// The answer is not what gateways answer.
    #[error("failed to understand the answer of {0}")]
    Json(SocketAddr, #[source] serde_json::Error),
}

/// All addresses of `host:port`: those of the gateways that are ready.
pub(super) async fn addresses(peers: &str) -> Result<Vec<SocketAddr>, FetchError> {
    let found =
        timeout(LONGEST, lookup_host(peers)).await.map_err(|_| FetchError::Timeout(peers.to_owned()))?;
    let found: Vec<_> = found.map_err(|e| FetchError::Lookup(peers.to_owned(), e))?.take(MOST + 1).collect();
    if found.len() > MOST { Err(FetchError::TooMany(peers.to_owned())) } else { Ok(found) }
}

/// What the gateway at an address knows of its fleets.
pub(super) async fn fleets(address: SocketAddr) -> Result<Answer, FetchError> {
    timeout(LONGEST, get(address)).await.unwrap_or_else(|_| Err(FetchError::Timeout(address.to_string())))
}

async fn get(address: SocketAddr) -> Result<Answer, FetchError> {
    let stream = TcpStream::connect(address).await.map_err(|e| FetchError::Connect(address, e))?;
    let failed = |e| FetchError::Http(address, e);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // Ends with this function, whatever way that ends.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = http::Uri::from_static("/internal/fleets");
    if let Ok(host) = address.to_string().parse() {
        request.headers_mut().insert(header::HOST, host);
    }
    let answer = sender.send_request(request).await.map_err(failed)?;
    if answer.status() != StatusCode::OK {
        return Err(FetchError::Status(address, answer.status()));
    }
    let body = Limited::new(answer.into_body(), LARGEST).collect().await;
    let body = body.map_err(|e| FetchError::Body(address, e.to_string()))?.to_bytes();
    serde_json::from_slice(&body).map_err(|e| FetchError::Json(address, e))
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    async fn answered(answer: &'static str) -> Result<Answer, FetchError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut asked = vec![0; 4096];
            let n = stream.read(&mut asked).await.expect("a request");
            assert!(asked[..n].starts_with(b"GET /internal/fleets HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).await.expect("written");
        });
        let result = fleets(address).await;
        server.await.expect("served");
        result
    }

    #[tokio::test]
    async fn a_gateway_is_asked() {
        let good = "HTTP/1.1 200 OK\r\ncontent-length: 60\r\n\r\n{\"fleets\": [{\"namespace\": \"tools\", \"name\": \"w\", \"more\": 1}]}";
        let answer = answered(good).await.expect("an answer");
        assert_eq!(answer.fleets[0].name, "w");
        let status = answered("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
        assert!(matches!(status, Err(FetchError::Status(_, StatusCode::NOT_FOUND))));
        assert!(matches!(
            answered("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{").await,
            Err(FetchError::Json(..))
        ));
        assert!(matches!(
            answered("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{").await,
            Err(FetchError::Body(..))
        ));
    }

    #[tokio::test]
    async fn all_addresses_of_a_name() {
        assert_eq!(
            addresses("127.0.0.1:8082").await.expect("found"),
            ["127.0.0.1:8082".parse().expect("an address")]
        );
        assert!(matches!(addresses("no port").await, Err(FetchError::Lookup(..))));
    }
}

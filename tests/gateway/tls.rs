//! Clients that speak TLS, HTTP/2 and HTTP/1.1, on a gateway with certificates of its own.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::FutureExt as _;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    client::{LEGACY, MODERN, initialize, modern, soon, text, tool, until},
    pod::{Pod, Speaks, says},
    world::{Alone, fleet},
};

const A: (&str, &str) = (
    include_str!("../../src/gateway/conn/tls/testdata/a.cert.pem"),
    include_str!("../../src/gateway/conn/tls/testdata/a.key.pem"),
);
const B: (&str, &str) = (
    include_str!("../../src/gateway/conn/tls/testdata/b.cert.pem"),
    include_str!("../../src/gateway/conn/tls/testdata/b.key.pem"),
);

/// A gateway with the certificate of a.example, which clients may ask for.
async fn secured(pods: &[Pod]) -> Alone {
    secured_with(pods, json!({})).await
}

async fn secured_with(pods: &[Pod], settings: Value) -> Alone {
    let mut fleet = fleet("demo", pods, &settings);
    fleet["hostnames"] = json!(["a.example", "b.example"]);
    Alone::configured(pods, &fleet, |folder, config| {
        std::fs::write(folder.join("tls.cert"), A.0).unwrap();
        std::fs::write(folder.join("tls.key"), A.1).unwrap();
        config["tls"] = json!([{"cert": "tls.cert", "key": "tls.key"}]);
    })
    .await
}

/// Trusts one certificate, which signs itself.
#[derive(Debug)]
struct Only(CertificateDer<'static>, Arc<CryptoProvider>);

impl ServerCertVerifier for Only {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let known = *certificate == self.0;
        known.then(ServerCertVerified::assertion).ok_or(rustls::CertificateError::UnknownIssuer.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.1.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.1.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.1.signature_verification_algorithms.supported_schemes()
    }
}

/// A handshake for a name, trusting that name's certificate alone.
async fn shake(
    alone: &Alone,
    (certificate, name): (&str, &'static str),
    alpn: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let only = Only(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap(), Arc::clone(&provider));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(only))
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let stream = TcpStream::connect(("127.0.0.1", alone.gateway.port)).await?;
    let name = ServerName::try_from(name).unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn.as_bytes()));
    Ok(stream)
}

/// The fleet by its own host name.
const URL: &str = "https://a.example/mcp";

type H2 = http2::SendRequest<Full<Bytes>>;

async fn h2(alone: &Alone) -> H2 {
    let stream = soon("a handshake", shake(alone, (A.0, "a.example"), "h2")).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn post(uri: &str, headers: &[(&str, &str)], body: &Value) -> Request<Full<Bytes>> {
    let mut request = Request::post(uri)
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(Bytes::from(body.to_string()))).unwrap()
}

fn call(id: impl Into<Value>, name: &str) -> Request<Full<Bytes>> {
    let headers = [("mcp-protocol-version", MODERN), ("mcp-method", "tools/call"), ("mcp-name", name)];
    let body = modern(id, "tools/call", json!({"name": name}));
    post(URL, &headers, &body)
}

async fn json_of(body: Incoming) -> Value {
    let bytes = soon("a body", body.collect()).await.unwrap().to_bytes();
    serde_json::from_slice(&bytes).unwrap()
}

// Many calls at once on one connection, each with its own answer.
#[tokio::test]
async fn http2_carries_calls_side_by_side() {
    let pods = [Pod::start("one", Speaks::Both).await];
    let alone = secured(&pods).await;
    let sender = h2(&alone).await;
    let calls = (0..20).map(|id| {
        let mut sender = sender.clone();
        async move {
            let answer = soon("an answer", sender.send_request(call(id, "whoami"))).await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
            let message = json_of(answer.into_body()).await;
            assert_eq!((&message["id"], text(&message)), (&json!(id), "one"));
        }
    });
    futures::future::join_all(calls).await;
    assert_eq!(pods[0].calls("whoami").len(), 20);
}

// A call is over when its answer is there, however long its client takes to read it.
#[tokio::test]
async fn a_client_of_http2_that_does_not_read_holds_no_place() {
    let pods = [Pod::start("one", Speaks::Both).await];
    let alone = secured_with(&pods, json!({"maxRequestsPerPod": 1})).await;
    let stream = soon("a handshake", shake(&alone, (A.0, "a.example"), "h2")).await.unwrap();
    let mut builder = http2::Builder::new(TokioExecutor::new());
    // No room for any of an answer.
    let (mut lazy, connection) =
        builder.initial_stream_window_size(0).handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let unread = soon("a head", lazy.send_request(call(1, "whoami"))).await.unwrap();
    assert_eq!(unread.status(), StatusCode::OK);
    let answer = soon("an answer", h2(&alone).await.send_request(call(2, "whoami"))).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    drop(unread);
}

// Over HTTP/2 nobody refuses a HEAD. Its answer tells of a body that does not come.
#[tokio::test]
async fn a_head_request_waits_for_no_body() {
    let pods = [Pod::start("one", Speaks::Both).await];
    pods[0].script(|seen, out| {
        let framing = match seen.path.as_str() {
            "/sized" => "content-length: 500",
            "/chunked" => "transfer-encoding: chunked",
            _ => return None,
        };
        let (out, answer) = (out.clone(), format!("HTTP/1.1 200 OK\r\nx-is: head\r\n{framing}\r\n\r\n"));
        (seen.http == "HEAD").then(|| async move { out.raw(answer).await }.boxed())
    });
    let alone = secured(&pods).await;
    let mut sender = h2(&alone).await;
    for path in ["sized", "chunked", "sized"] {
        let request = Request::head(format!("https://a.example/{path}")).body(Full::default()).unwrap();
        let answer = soon("an answer", sender.send_request(request)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        assert_eq!(answer.headers()["x-is"], "head", "{path}");
        let body = soon("its end", answer.into_body().collect()).await.unwrap();
        assert!(body.to_bytes().is_empty(), "{path}");
    }
}

// Over HTTP/2 no guard has judged the head: a routing header that stands there twice is refused all the same.
#[tokio::test]
async fn http2_repeats_no_routing_header() {
    let pods = [Pod::start("one", Speaks::Both).await];
    let alone = secured(&pods).await;
    let mut sender = h2(&alone).await;
    let mut twice = call(1, "whoami");
    twice.headers_mut().append("mcp-name", http::HeaderValue::from_static("whoami"));
    let answer = soon("an answer", sender.send_request(twice)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    assert!(pods[0].calls("whoami").is_empty());
}

// A session over HTTP/2, and the same session over HTTP/1.1.
#[tokio::test]
async fn a_session_does_not_care_for_the_version_of_http() {
    let pods = [Pod::start("one", Speaks::Both).await];
    let alone = secured(&pods).await;
    let mut two = h2(&alone).await;
    let answer = two.send_request(post(URL, &[], &initialize(LEGACY))).await;
    let answer = answer.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{:?}", answer.headers());
    let session = answer.headers()["mcp-session-id"].to_str().unwrap().to_owned();
    let stream = shake(&alone, (A.0, "a.example"), "http/1.1").await.unwrap();
    let (mut one, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let on = [("mcp-session-id", session.as_str()), ("mcp-protocol-version", LEGACY)];
    for count in ["1", "2", "3", "4"] {
        let body = tool(count, "counter");
        let answer = if count == "2" {
            let with_host: Vec<_> = on.iter().copied().chain([("host", "a.example")]).collect();
            one.send_request(post("/mcp", &with_host, &body)).await
        } else {
            two.send_request(post(URL, &on, &body)).await
        };
        let message = json_of(answer.unwrap().into_body()).await;
        assert_eq!((&message["id"], text(&message)), (&json!(count), count));
    }
}

// G15 over HTTP/2: a client that resets its stream has left, and only that call ends.
#[tokio::test]
async fn a_reset_stream_is_a_client_that_has_left() {
    let pods = [Pod::start("one", Speaks::Both).await];
    pods[0].script(|seen, out| {
        let out = out.clone();
        (seen.tool() == "dangling").then(|| {
            async move {
                out.stream(&[]).await;
                out.event(&json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {}})).await;
                std::future::pending::<()>().await;
            }
            .boxed()
        })
    });
    let alone = secured(&pods).await;
    let mut sender = h2(&alone).await;
    let mut answer = soon("a stream", sender.send_request(call(1, "dangling"))).await.unwrap();
    soon("an event", answer.body_mut().frame()).await.unwrap().unwrap();
    drop(answer);
    let left = Instant::now();
    until("the end of the call", || pods[0].calls("dangling")[0].left.is_some()).await;
    let took = pods[0].calls("dangling")[0].left.unwrap().saturating_duration_since(left);
    assert!(took < Duration::from_millis(100), "{took:?}");
    let answer = soon("another call", sender.send_request(call(2, "whoami"))).await.unwrap();
    assert_eq!(json_of(answer.into_body()).await["result"]["content"], says("one")["content"]);
}

// RFC 9110 section 15.5.20: a connection that was made for one fleet's name is not another's.
#[tokio::test]
async fn the_name_of_another_fleet_is_misdirected() {
    let pods = [Pod::start("one", Speaks::Both).await];
    let mut alone = secured(&pods).await;
    let mut other = fleet("other", &pods, &json!({}));
    other["hostnames"] = json!(["other.example"]);
    alone.gateway.add_fleet(other);
    let mut sender = h2(&alone).await;
    let headers = [("mcp-protocol-version", MODERN), ("mcp-method", "tools/list")];
    let status = async |sender: &mut H2, host: &str| {
        let request = post(&format!("https://{host}/mcp"), &headers, &modern(1, "tools/list", json!({})));
        soon("an answer", sender.send_request(request)).await.unwrap().status().as_u16()
    };
    soon("the other fleet", async {
        while status(&mut sender, "other.example").await != 421 {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(status(&mut sender, "b.example").await, 200, "another name of the same fleet");
    assert_eq!(status(&mut sender, "nobody.example").await, 403);
}

// A certificate that was replaced is in force within seconds; a bad one never is, and connections stay.
#[tokio::test]
async fn certificates_are_replaced_under_way() {
    let pods = [Pod::start("one", Speaks::Both).await];
    let alone = secured(&pods).await;
    let mut before = h2(&alone).await;
    alone.put("tls.cert", "-----BEGIN CERTIFICATE-----\nnone\n");
    until("a word about the bad one", || alone.gateway.log().contains("tls.cert")).await;
    shake(&alone, (A.0, "a.example"), "h2").await.expect("the old one is still in force");
    alone.put("tls.key", B.1);
    alone.put("tls.cert", B.0);
    soon("the new one", async {
        while shake(&alone, (B.0, "b.example"), "h2").await.is_err() {
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert!(shake(&alone, (A.0, "a.example"), "h2").await.is_err(), "the old one is gone");
    let answer = before.send_request(call(1, "whoami")).await.expect("the connection from before");
    assert_eq!(answer.status(), StatusCode::OK);
}

// What listens with TLS answers no plain text.
#[tokio::test]
async fn plain_text_gets_no_answer() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let pods = [Pod::start("one", Speaks::Both).await];
    let alone = secured(&pods).await;
    let mut stream = TcpStream::connect(("127.0.0.1", alone.gateway.port)).await.unwrap();
    stream.write_all(b"GET /tools/demo/mcp HTTP/1.1\r\nhost: a.example\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = soon("the end", stream.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP/"), "{}", String::from_utf8_lossy(&answer));
    shake(&alone, (A.0, "a.example"), "http/1.1").await.expect("the next one is served");
}

//! The control side: where fleets and endpoints come from, and whether endpoints are alive. It runs on a thread
//! of its own, publishes to [`super::shared::Gateway`] and never touches a request.
//!
//! | module | does |
//! |---|---|
//! | `standalone` | fleets and endpoints of a configuration file, and what was removed from it |
//! | `dns` | addresses of a name |
//! | `cluster` | fleets and endpoints of a Kubernetes cluster, read only |
//! | `probe` | health and capabilities of endpoints |

pub mod cluster;
pub mod dns;
pub mod probe;
pub mod standalone;

use http::HeaderValue;

use super::fleet;
use crate::api::v1alpha1::Transport;

impl From<Transport> for fleet::Transport {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::StreamableHTTP => Self::StreamableHttp,
            Transport::SSE => Self::Sse,
        }
    }
}

/// What servers get to see as `Host` (G12): with the port, since Python servers refuse a bare `localhost`.
fn upstream_host(port: u16) -> (String, HeaderValue) {
    let host = format!("localhost:{port}");
    // Letters, digits and a colon always are a header value.
    let header = HeaderValue::from_str(&host).unwrap_or(HeaderValue::from_static("localhost"));
    (host, header)
}

/// Whether an endpoint counts as near: it does where either zone is unknown.
fn is_local(own: Option<&str>, zone: Option<&str>) -> bool {
    own.is_none() || zone.is_none() || own == zone
}

//! Which web pages may call, and what a browser has to be told for it (Fetch standard, CORS). Pure.

use http::{
    HeaderName, HeaderValue,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, VARY,
    },
};

use super::{host_of, is_loopback};

/// Methods of both eras.
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, DELETE, OPTIONS");
/// What a preflight is told that does not say what it wants, or says too much.
const HEADERS: HeaderValue = HeaderValue::from_static(
    "Accept, Authorization, Content-Type, Last-Event-ID, Mcp-Method, Mcp-Name, Mcp-Protocol-Version, Mcp-Session-Id",
);
/// What pages need to read of our answers (gateway.md section 5).
const EXPOSED: HeaderValue =
    HeaderValue::from_static("Mcp-Session-Id, Mcp-Protocol-Version, WWW-Authenticate");
/// Seconds for which a browser may remember a preflight: an hour is what browsers take at most or more.
const MAX_AGE: HeaderValue = HeaderValue::from_static("3600");
/// Longest list of headers that is granted as asked.
const MAX_REQUESTED: usize = 1024;

/// Which origins may call.
#[derive(Clone, Copy, Debug)]
pub struct OriginPolicy<'a> {
    /// `gateway.origins` of the fleet.
    pub origins: &'a [String],
    /// The request came over TLS that ended here: a page without TLS is then not of the same origin.
    pub tls: bool,
}

impl OriginPolicy<'_> {
    /// Whether a request with this Origin for this Host may pass. None passes: programs send none. Otherwise the
    /// same origin does, loopback, and what the fleet lists; else the answer is 403 (G12).
    pub fn accepts(&self, origin: Option<&str>, host: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        if self.origins.iter().any(|listed| listed.eq_ignore_ascii_case(origin)) {
            return true;
        }
        let Some((scheme, authority)) = origin.split_once("://") else { return false };
        let default = match scheme {
            "http" => ":80",
            "https" => ":443",
            _ => return false,
        };
        if host_of(authority).is_some_and(is_loopback) {
            return true;
        }
        let bare =
            |authority: &str| authority.len() - if authority.ends_with(default) { default.len() } else { 0 };
        let same = host.is_some_and(|host| {
            host_of(host).is_some() && host[..bare(host)].eq_ignore_ascii_case(&authority[..bare(authority)])
        });
        same && !(self.tls && scheme == "http")
    }
}

/// What every answer to an accepted Origin carries.
pub fn cors_headers(origin: &HeaderValue) -> [(HeaderName, HeaderValue); 3] {
    [
        (ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()),
        (ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED),
        (VARY, HeaderValue::from_static("Origin")),
    ]
}

/// What the answer to a preflight (`OPTIONS` with `Access-Control-Request-Method`) of an accepted Origin carries;
/// its status is 204. `requested` is `Access-Control-Request-Headers`: granted as asked, since servers may declare
/// headers of their own (`Mcp-Param-*`). Credentials that a browser adds by itself are never allowed.
pub fn preflight_headers(
    origin: &HeaderValue,
    requested: Option<&HeaderValue>,
) -> [(HeaderName, HeaderValue); 5] {
    let token = |b: &u8| b.is_ascii_alphanumeric() || b"-_, ".contains(b);
    let asked = requested.filter(|r| r.len() <= MAX_REQUESTED && r.as_bytes().iter().all(token));
    [
        (ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()),
        (ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (ACCESS_CONTROL_ALLOW_HEADERS, asked.cloned().unwrap_or(HEADERS)),
        (ACCESS_CONTROL_MAX_AGE, MAX_AGE),
        (VARY, HeaderValue::from_static("Origin, Access-Control-Request-Headers")),
    ]
}

//! Where requests go, and which do not get through.
#![allow(clippy::unwrap_used, reason = "tests")]

use http::HeaderValue;
use proptest::{prop_assert, prop_assert_eq, proptest};

use super::*;

fn routes() -> Routes {
    let fleet = |name: &str, path: &str, hosts: &[&str]| {
        (FleetKey::new("tools", name), path.to_owned(), hosts.iter().map(|h| (*h).to_owned()).collect())
    };
    Routes::new([
        fleet("github", "/mcp", &[]),
        fleet("weather", "/v1/mcp", &["weather.example.com", "W.example.com"]),
        fleet("old", "/sse", &["old.example.com", "weather.example.com"]),
        fleet("root", "/", &[]),
    ])
}

fn fleet<'a>(index: usize, prefix: &'a str, rest_path: &'a str, mcp: bool) -> Route<'a> {
    Route::Fleet { index, prefix, rest_path, mcp }
}

#[test]
fn paths_lead_to_fleets() {
    let (routes, at) = (routes(), Some("gateway:80"));
    for (path, expected) in [
        ("/tools/github/mcp", fleet(0, "/tools/github", "/mcp", true)),
        ("/tools/github/mcp/", fleet(0, "/tools/github", "/mcp/", false)),
        ("/tools/github/", fleet(0, "/tools/github", "/", false)),
        ("/tools/github/a%2Fb/../c", fleet(0, "/tools/github", "/a%2Fb/../c", false)),
        ("/tools/weather/mcp", fleet(1, "/tools/weather", "/v1/mcp", true)),
        ("/tools/weather/v1/mcp", fleet(1, "/tools/weather", "/v1/mcp", true)),
        ("/tools/old/mcp", fleet(2, "/tools/old", "/sse", true)),
        ("/tools/old/messages", fleet(2, "/tools/old", "/messages", false)),
        ("/tools/root/mcp", fleet(3, "/tools/root", "/", true)),
    ] {
        assert_eq!(routes.route(at, path), expected, "{path}");
        assert_eq!(routes.route(None, path), expected, "{path}");
    }
}

#[test]
fn other_spellings_of_a_prefix_are_unknown() {
    let routes = routes();
    for path in [
        "",
        "/",
        "*",
        "/mcp",
        "/tools",
        "/tools/github",
        "/tools/github?x",
        "tools/github/mcp",
        "//tools/github/mcp",
        "/tools//github/mcp",
        "/tools/./github/mcp",
        "/x/../tools/github/mcp",
        "/tools%2Fgithub/mcp",
        "/tools/github%2Fmcp",
        "/tools/git%68ub/mcp",
        "/Tools/github/mcp",
        "/tools/github\\mcp",
        "/tools/github;a/mcp",
        "/tools/nothing/mcp",
        "/%2e/tools/github/mcp",
        "/other/github/mcp",
    ] {
        assert_eq!(routes.route(Some("gateway"), path), Route::Unknown, "{path}");
    }
}

#[test]
fn a_host_name_is_its_fleets_alone() {
    let routes = routes();
    for host in ["weather.example.com", "WEATHER.example.com:8443", "weather.example.com.", "w.example.com"] {
        let at = Some(host);
        assert_eq!(routes.route(at, "/mcp"), fleet(1, "", "/v1/mcp", true), "{host}");
        assert_eq!(routes.route(at, "/"), fleet(1, "", "/", false), "{host}");
        assert_eq!(routes.route(at, "/tools/github/mcp"), fleet(1, "", "/tools/github/mcp", false), "{host}");
        assert_eq!(routes.route(at, "*"), Route::Unknown, "{host}");
    }
    assert_eq!(routes.route(Some("old.example.com"), "/mcp"), fleet(2, "", "/sse", true));
    assert_eq!(routes.route(Some("example.com"), "/mcp"), Route::Unknown);
    assert_eq!(routes.route(Some("weather.example.com@evil"), "/mcp"), Route::Unknown);
}

#[test]
fn metadata_of_protected_resources() {
    let routes = routes();
    let known = |index, prefix, rest_path| Route::WellKnown { index, prefix, rest_path };
    let at = |host: &'static str, path: &'static str| routes.route(Some(host), path);
    let path = "/.well-known/oauth-protected-resource/tools/weather/mcp";
    let expected = known(1, "/tools/weather", "/.well-known/oauth-protected-resource/v1/mcp");
    assert_eq!(at("gateway", path), expected);
    assert_eq!(at("gateway", "/.well-known/oauth-protected-resource/tools/weather/v1/mcp"), expected);
    let root = "/.well-known/oauth-protected-resource/tools/root/mcp";
    assert_eq!(at("gateway", root), known(3, "/tools/root", "/.well-known/oauth-protected-resource"));
    for unknown in [
        "/.well-known/oauth-protected-resource",
        "/.well-known/oauth-protected-resource/mcp",
        "/.well-known/oauth-protected-resource/tools/weather",
        "/.well-known/oauth-protected-resource/tools/weather/x",
        "/.well-known/oauth-protected-resourcetools/weather/mcp",
        "/.well-known/other/tools/weather/mcp",
    ] {
        assert_eq!(at("gateway", unknown), Route::Unknown, "{unknown}");
    }
    let host = "weather.example.com";
    assert_eq!(
        at(host, "/.well-known/oauth-protected-resource"),
        known(1, "", "/.well-known/oauth-protected-resource")
    );
    let of_mcp = known(1, "", "/.well-known/oauth-protected-resource/v1/mcp");
    assert_eq!(at(host, "/.well-known/oauth-protected-resource/mcp"), of_mcp);
    let other = "/.well-known/oauth-authorization-server";
    assert_eq!(at(host, other), fleet(1, "", other, false));
}

#[test]
fn hosts_that_may_be_asked_for() {
    let routes = routes();
    let own = service_names("mcp-fleet-gateway", "mcp-fleet-system");
    let listed = ["mcp.example.org", "*.apps.example.org", "10.1.2.3", "fd00::1"].map(str::to_owned);
    let policy = HostPolicy::new(own.iter().chain(&listed));
    for good in [
        "mcp-fleet-gateway",
        "mcp-fleet-gateway:8080",
        "mcp-fleet-gateway.mcp-fleet-system.svc",
        "MCP.example.org:443",
        "mcp-fleet-gateway.mcp-fleet-system.svc.cluster.local.",
        "a.apps.example.org",
        "a.b.APPS.example.org",
        "localhost:12345",
        "127.0.0.1",
        "127.8.9.10:1",
        "[::1]:80",
        "10.1.2.3:80",
        "[fd00::1]:80",
        "weather.example.com",
        "Old.Example.Com:1",
    ] {
        assert!(policy.accepts(Some(good), &routes), "{good}");
    }
    for bad in [
        "",
        ":80",
        "evil.example",
        "mcp.example.org.evil.example",
        "apps.example.org",
        "xapps.example.org",
        "10.1.2.4",
        "localhost.evil.example",
        "user@localhost",
        "localhost:80:80",
        "localhost:x",
        "[::1",
        "[::1]x",
        "::1]",
        "localhost/",
        "a b",
        "mcp-fleet-gateway.mcp-fleet-system.svc.evil.example",
        ".apps.example.org",
    ] {
        assert!(!policy.accepts(Some(bad), &routes), "{bad}");
    }
    assert!(!policy.accepts(None, &routes));
    let any = HostPolicy::new(["*"]);
    assert!(any.accepts(Some("evil.example"), &routes) && !any.accepts(Some("a b"), &routes));
}

#[test]
fn origins_that_may_call() {
    let origins = ["https://app.example.com".to_owned(), "vscode-webview://0a".to_owned()];
    let plain = OriginPolicy { origins: &origins, tls: false };
    let tls = OriginPolicy { origins: &origins, tls: true };
    assert!(plain.accepts(None, None));
    let at = Some("mcp.example.com");
    for good in [
        "https://app.example.com",
        "vscode-webview://0a",
        "http://localhost:3000",
        "https://127.0.0.1",
        "http://[::1]:5173",
        "http://mcp.example.com",
        "https://mcp.example.com",
        "https://MCP.example.com:443",
    ] {
        assert!(plain.accepts(Some(good), at), "{good}");
    }
    for bad in [
        "null",
        "",
        "https://",
        "https://evil.example",
        "https://app.example.com:8443",
        "http://app.example.com",
        "https://mcp.example.com:8443",
        "https://mcp.example.com.evil.example",
        "ftp://mcp.example.com",
        "http://localhost.evil.example",
        "https://app.example.com/",
        "http://mcp.example.com:443",
    ] {
        assert!(!plain.accepts(Some(bad), at), "{bad}");
    }
    assert!(
        plain.accepts(Some("http://a:8080"), Some("a:8080"))
            && !plain.accepts(Some("http://a"), Some("a:8080"))
    );
    assert!(plain.accepts(Some("http://a"), Some("a:80")) && plain.accepts(Some("https://a"), Some("a:443")));
    assert!(tls.accepts(Some("https://a"), Some("a")) && !tls.accepts(Some("http://a"), Some("a")));
    assert!(!plain.accepts(Some("http://a"), None));
}

#[test]
fn browsers_are_told() {
    let origin = HeaderValue::from_static("https://app.example.com");
    let value = |headers: &[(http::HeaderName, HeaderValue)], name: &str| {
        headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.to_str().unwrap().to_owned()).unwrap()
    };
    let answer = cors_headers(&origin);
    assert_eq!(value(&answer, "access-control-allow-origin"), "https://app.example.com");
    for exposed in ["Mcp-Session-Id", "Mcp-Protocol-Version", "WWW-Authenticate"] {
        assert!(value(&answer, "access-control-expose-headers").contains(exposed));
    }
    assert_eq!(value(&answer, "vary"), "Origin");
    let asked = HeaderValue::from_static("mcp-param-city, content-type");
    let preflight = preflight_headers(&origin, Some(&asked));
    assert_eq!(value(&preflight, "access-control-allow-headers"), "mcp-param-city, content-type");
    for odd in
        [None, Some(HeaderValue::from_static("a:b")), Some(HeaderValue::from_str(&"a".repeat(2000)).unwrap())]
    {
        let preflight = preflight_headers(&origin, odd.as_ref());
        assert!(value(&preflight, "access-control-allow-headers").contains("Mcp-Session-Id"));
        assert!(preflight.iter().all(|(n, _)| n != "access-control-allow-credentials"));
    }
}

proptest! {
    /// Whatever comes before: a path leads to a fleet only if it starts with its very name, and what the fleet is
    /// asked for is the client's own text or the fleet's MCP path.
    #[test]
    fn only_its_own_prefix_leads_to_a_fleet(path in "(/?(tools|github|weather|\\.\\.|%2F|%2e|[a-z.%/;\\\\]{0,6})){0,5}") {
        let routes = routes();
        match routes.route(Some("gateway"), &path) {
            Route::Fleet { index, prefix, rest_path, mcp } => {
                let name = ["/tools/github", "/tools/weather", "/tools/old", "/tools/root"][index];
                prop_assert_eq!(prefix, name);
                let tail = path.strip_prefix(name).unwrap();
                prop_assert!(tail.starts_with('/'));
                let expected = if mcp { ["/mcp", "/v1/mcp", "/sse", "/"][index] } else { tail };
                prop_assert_eq!(rest_path, expected);
            }
            Route::WellKnown { .. } => prop_assert!(path.starts_with(METADATA)),
            Route::Unknown => {
                for name in ["/tools/github/", "/tools/weather/"] {
                    prop_assert!(!path.starts_with(name));
                }
            }
        }
    }

    #[test]
    fn any_host_and_origin_is_judged_without_harm(host in "\\PC{0,30}", origin in "(https?://)?\\PC{0,30}") {
        let routes = routes();
        let policy = HostPolicy::new(["a.example"]);
        if policy.accepts(Some(&host), &routes) {
            prop_assert!(host_of(&host).is_some());
        }
        let origins = OriginPolicy { origins: &[], tls: false };
        if origins.accepts(Some(&origin), Some(&host)) {
            let authority = origin.split_once("://").unwrap().1;
            prop_assert!(host_of(authority).is_some());
        }
        let _ = routes.route(Some(&host), &origin);
    }

    /// The case and the port of a host do not matter.
    #[test]
    fn hosts_are_compared_as_names(upper in proptest::bits::u32::ANY, port in proptest::option::of(0_u16..)) {
        let text: String = "weather.example.com".chars().enumerate()
            .map(|(i, c)| if upper >> i & 1 == 1 { c.to_ascii_uppercase() } else { c })
            .chain(port.map(|p| format!(":{p}")).unwrap_or_default().chars()).collect();
        prop_assert_eq!(routes().owner(&text), Some(1));
    }
}

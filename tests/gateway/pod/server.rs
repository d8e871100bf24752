//! What a scripted server answers where its script says nothing: as servers of either era do, with identifiers
//! of its own that begin with `raw-`.

use std::sync::{Arc, atomic::Ordering};

use serde_json::{Value, json};

use super::{Inner, Out, Seen, Speaks, error, result, says};
use crate::client::MODERN;

pub(super) async fn answer(inner: &Arc<Inner>, seen: &Seen, out: &Out) {
    let script = inner.state.lock().script.clone();
    if let Some(scripted) = script.and_then(|script| script(seen, out)) {
        return scripted.await;
    }
    let is_modern = seen.header("mcp-protocol-version").is_some_and(|v| v.starts_with('2') && v >= MODERN);
    match (is_modern, inner.speaks) {
        (true, Speaks::Legacy) => out.json(400, &[], &error(&seen.body["id"], -32000, "no session")).await,
        (true, _) => modern(inner, seen, out).await,
        (false, Speaks::Modern) => {
            let mut body = error(&seen.body["id"], -32022, "Unsupported protocol version");
            body["error"]["data"] = json!({"supported": [MODERN], "requested": "?"});
            out.json(400, &[], &body).await;
        }
        (false, _) => legacy(inner, seen, out).await,
    }
}

/// Counts a call while it runs.
struct Running<'a>(&'a Inner);

impl<'a> Running<'a> {
    fn begin(inner: &'a Inner) -> Self {
        let now = inner.running.fetch_add(1, Ordering::SeqCst) + 1;
        inner.most_running.fetch_max(now, Ordering::SeqCst);
        Self(inner)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn tool(inner: &Inner, seen: &Seen, session: Option<&str>) -> Value {
    let _running = Running::begin(inner);
    match seen.tool() {
        "slow" => {
            inner.gate.acquire().await.unwrap().forget();
            says(inner.name)
        }
        "counter" => {
            let mut state = inner.state.lock();
            let count = state.sessions.get_mut(session.unwrap_or_default()).unwrap();
            *count += 1;
            says(&count.to_string())
        }
        "failing" => json!({"content": [], "isError": true}),
        "task" => {
            let id = format!("raw-task-{}-{}", inner.name, inner.minted.fetch_add(1, Ordering::SeqCst));
            inner.state.lock().tasks.insert(id.clone(), "working");
            json!({"resultType": "task", "taskId": id, "status": "working", "ttlMs": null, "pollIntervalMs": 100})
        }
        "ask" => {
            let round = |n: u32| format!("raw-state-{}-{n}", inner.name);
            match seen.body["params"]["requestState"].as_str() {
                None => asks(&round(1)),
                Some(state) if state == round(1) => asks(&round(2)),
                Some(state) if state == round(2) => says(inner.name),
                Some(_) => json!({"error": "Invalid or expired requestState"}),
            }
        }
        _ => says(inner.name),
    }
}

fn asks(state: &str) -> Value {
    json!({"resultType": "input_required", "inputRequests": {"q": {"method": "elicitation/create"}},
           "requestState": state})
}

async fn modern(inner: &Arc<Inner>, seen: &Seen, out: &Out) {
    let request = &seen.body;
    let found = match seen.method() {
        "server/discover" => json!({"supportedVersions": [MODERN], "capabilities": {"tools": {}},
            "serverInfo": {"name": "scripted", "version": "1"}}),
        "tools/call" => tool(inner, seen, None).await,
        "tools/list" => json!({"tools": [{"name": "whoami", "inputSchema": {"type": "object"}}]}),
        "tasks/get" | "tasks/cancel" => {
            let id = request["params"]["taskId"].as_str().unwrap_or_default();
            let status = inner.state.lock().tasks.get(id).copied();
            match status {
                Some(status) if seen.header("mcp-name") == Some(id) => {
                    json!({"taskId": id, "status": status, "ttlMs": null, "pollIntervalMs": 100})
                }
                Some(_) => {
                    return out.json(400, &[], &error(&request["id"], -32020, "Mcp-Name differs")).await;
                }
                None => return out.json(200, &[], &error(&request["id"], -32602, "unknown task")).await,
            }
        }
        "subscriptions/listen" => return listen(inner, seen, out).await,
        _ => json!({"text": inner.name}),
    };
    if let Some(wrong) = found["error"].as_str() {
        return out.json(400, &[], &error(&request["id"], -32602, wrong)).await;
    }
    // A modern server has no sessions; one that says so all the same must not be heard.
    out.json(200, &[("Mcp-Session-Id", "raw-modern")], &result(request, found, true)).await;
}

async fn listen(inner: &Arc<Inner>, seen: &Seen, out: &Out) {
    out.stream(&[]).await;
    let request = seen.body.clone();
    let meta = json!({"io.modelcontextprotocol/subscriptionId": request["id"]});
    let params = json!({"_meta": meta, "notifications": request["params"]["notifications"]});
    let method = "notifications/subscriptions/acknowledged";
    out.event(&json!({"jsonrpc": "2.0", "method": method, "params": params})).await;
    inner.state.lock().listens.push((out.clone(), request));
    std::future::pending::<()>().await;
}

async fn legacy(inner: &Arc<Inner>, seen: &Seen, out: &Out) {
    let request = &seen.body;
    let session = seen.header("mcp-session-id").map(str::to_owned);
    if seen.method() == "initialize" {
        let id = format!("raw-{}-{}", inner.name, inner.minted.fetch_add(1, Ordering::SeqCst));
        inner.state.lock().sessions.insert(id.clone(), 0);
        let wanted = request["params"]["protocolVersion"].clone();
        let version = inner.state.lock().negotiates.map_or(wanted, |v| json!(v));
        let found = json!({"protocolVersion": version, "capabilities": {"tools": {}},
                           "serverInfo": {"name": "scripted", "version": "1"}});
        return out.json(200, &[("Mcp-Session-Id", &id)], &result(request, found, false)).await;
    }
    let known = session.as_ref().is_some_and(|s| inner.state.lock().sessions.contains_key(s));
    let Some(session) = session.filter(|_| known) else {
        // As py2 does: a fresh, dead session on the answer.
        let status = if seen.header("mcp-session-id").is_some() { 404 } else { 400 };
        let body = error(&json!("server-error"), -32600, "no such session");
        return out.json(status, &[("Mcp-Session-Id", "raw-phantom")], &body).await;
    };
    let own = [("Mcp-Session-Id", session.as_str())];
    match (seen.http.as_str(), seen.method()) {
        ("GET", _) => {
            out.stream(&own).await;
            inner.state.lock().gets.push((out.clone(), session));
            std::future::pending::<()>().await;
        }
        ("DELETE", _) => {
            inner.state.lock().sessions.remove(&session);
            out.whole(200, &own, b"").await;
        }
        (_, "tools/call") => {
            let found = tool(inner, seen, Some(&session)).await;
            out.json(200, &own, &result(request, found, false)).await;
        }
        (_, "tools/list") => {
            let tools = json!({"tools": [{"name": "whoami", "inputSchema": {"type": "object"}}]});
            out.json(200, &own, &result(request, tools, false)).await;
        }
        _ if request.get("id").is_none() || request.get("result").is_some() => {
            out.whole(202, &own, b"").await;
        }
        _ => out.json(200, &own, &result(request, json!({}), false)).await,
    }
}

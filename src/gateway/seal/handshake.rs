//! What of an `initialize` is kept for doing it again on another pod (G8): its `params`, with the version that
//! was negotiated, without what only people look at. Input: the bytes of the call. Decides nothing.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Deserialize;
use serde_json::value::RawValue;

/// Parts of `clientInfo` that are large and change nothing at the server.
const DROPPED: [&str; 3] = ["icons", "description", "websiteUrl"];

/// A key of an object, borrowed where it has no escapes.
#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

type Object<'a> = BTreeMap<Name<'a>, &'a RawValue>;

/// The smallest `params` with which a session can be made again. Params that are no object become one that
/// holds the version alone.
pub fn minimal(initialize_params: &RawValue, negotiated: &str) -> Vec<u8> {
    let mut params: Object<'_> = serde_json::from_str(initialize_params.get()).unwrap_or_default();
    params.remove(&Name("protocolVersion".into()));
    let info = params.remove(&Name("clientInfo".into()));
    let mut out = Vec::with_capacity(initialize_params.get().len() + 64);
    out.extend_from_slice(b"{\"protocolVersion\":");
    text(&mut out, negotiated);
    if let Some(info) = info {
        out.extend_from_slice(b",\"clientInfo\":");
        match serde_json::from_str::<Object<'_>>(info.get()) {
            Ok(mut fields) => {
                fields.retain(|name, _| !DROPPED.contains(&&*name.0));
                out.push(b'{');
                members(&mut out, &fields);
                out.push(b'}');
            }
            Err(_) => out.extend_from_slice(info.get().as_bytes()),
        }
    }
    if !params.is_empty() {
        out.push(b',');
        members(&mut out, &params);
    }
    out.push(b'}');
    out
}

fn members(out: &mut Vec<u8>, object: &Object<'_>) {
    for (i, (name, value)) in object.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        text(out, &name.0);
        out.push(b':');
        out.extend_from_slice(value.get().as_bytes());
    }
}

fn text(out: &mut Vec<u8>, value: &str) {
    // Writing a string into memory does not fail.
    let _ = serde_json::to_writer(out, value);
}

//! How it stands with the metrics API, for those who choose an actuator by it. Pure.

/// How it stands with our metrics API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ApiState {
    /// This operator has none: it manages one namespace, or was told so.
    #[default]
    Disabled,
    /// The API server reaches it.
    Serving,
    /// It is ours, and not reached (yet); why.
    NotServing(String),
    /// The group belongs to somebody else: `<namespace>/<service>` of each.
    OwnedByOther(Vec<String>),
}

//! The fixed sets of label values (G29): whatever a client or a server sends, a label is one of these.

/// An enumeration whose values are label values.
pub trait Label: Copy + 'static {
    /// All values, in the order of [`Self::index`].
    const ALL: &'static [Self];
    /// Position in [`Self::ALL`].
    fn index(self) -> usize;
    /// As it stands in a label.
    fn as_str(self) -> &'static str;
}

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$value_doc])* $value,)+
        }

        impl $name {
            /// How many values there are.
            pub const COUNT: usize = [$(Self::$value),+].len();
        }

        impl Label for $name {
            const ALL: &'static [Self] = &[$(Self::$value),+];

            fn index(self) -> usize {
                self as usize
            }

            fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $text,)+
                }
            }
        }
    };
}

labels! {
    /// JSON-RPC methods of all revisions that a client may send.
    #[allow(missing_docs, reason = "the name says which")]
    Method {
        Initialize = "initialize",
        Initialized = "notifications/initialized",
        Cancelled = "notifications/cancelled",
        Progress = "notifications/progress",
        RootsListChanged = "notifications/roots/list_changed",
        TaskStatus = "notifications/tasks/status",
        Ping = "ping",
        Discover = "server/discover",
        Listen = "subscriptions/listen",
        ToolsList = "tools/list",
        ToolsCall = "tools/call",
        PromptsList = "prompts/list",
        PromptsGet = "prompts/get",
        ResourcesList = "resources/list",
        ResourcesTemplatesList = "resources/templates/list",
        ResourcesRead = "resources/read",
        ResourcesSubscribe = "resources/subscribe",
        ResourcesUnsubscribe = "resources/unsubscribe",
        Complete = "completion/complete",
        SetLevel = "logging/setLevel",
        TasksGet = "tasks/get",
        TasksResult = "tasks/result",
        TasksList = "tasks/list",
        TasksUpdate = "tasks/update",
        TasksCancel = "tasks/cancel",
        /// A batch of 2025-03-26.
        Batch = "batch",
        /// A client's answer to a request of the server.
        Response = "response",
        /// A method that no revision knows.
        Other = "other",
        /// No message: a GET stream or a DELETE.
        None = "none",
    }
}

impl Method {
    /// Which method a name is; [`Self::Other`] for names that no revision knows.
    pub fn of(name: &str) -> Self {
        match name {
            "tools/call" => Self::ToolsCall,
            "tools/list" => Self::ToolsList,
            "initialize" => Self::Initialize,
            "notifications/initialized" => Self::Initialized,
            "notifications/cancelled" => Self::Cancelled,
            "notifications/progress" => Self::Progress,
            "notifications/roots/list_changed" => Self::RootsListChanged,
            "notifications/tasks/status" => Self::TaskStatus,
            "ping" => Self::Ping,
            "server/discover" => Self::Discover,
            "subscriptions/listen" => Self::Listen,
            "prompts/list" => Self::PromptsList,
            "prompts/get" => Self::PromptsGet,
            "resources/list" => Self::ResourcesList,
            "resources/templates/list" => Self::ResourcesTemplatesList,
            "resources/read" => Self::ResourcesRead,
            "resources/subscribe" => Self::ResourcesSubscribe,
            "resources/unsubscribe" => Self::ResourcesUnsubscribe,
            "completion/complete" => Self::Complete,
            "logging/setLevel" => Self::SetLevel,
            "tasks/get" => Self::TasksGet,
            "tasks/result" => Self::TasksResult,
            "tasks/list" => Self::TasksList,
            "tasks/update" => Self::TasksUpdate,
            "tasks/cancel" => Self::TasksCancel,
            _ => Self::Other,
        }
    }
}

labels! {
    /// Revisions of the protocol.
    #[allow(missing_docs, reason = "the name says which")]
    Version {
        V20241105 = "2024-11-05",
        V20250326 = "2025-03-26",
        V20250618 = "2025-06-18",
        V20251125 = "2025-11-25",
        V20260728 = "2026-07-28",
        /// A version that this gateway does not know.
        Other = "other",
        /// The request named none.
        None = "none",
    }
}

impl Version {
    /// Which revision a header or a body names.
    pub fn of(version: Option<&str>) -> Self {
        match version {
            Some("2026-07-28") => Self::V20260728,
            Some("2025-11-25") => Self::V20251125,
            Some("2025-06-18") => Self::V20250618,
            Some("2025-03-26") => Self::V20250326,
            Some("2024-11-05") => Self::V20241105,
            Some(_) => Self::Other,
            None => Self::None,
        }
    }
}

labels! {
    /// `error.type` of OpenTelemetry: the JSON-RPC code, or a word.
    #[allow(missing_docs, reason = "the name says which")]
    ErrorType {
        ParseError = "-32700",
        InvalidRequest = "-32600",
        MethodNotFound = "-32601",
        InvalidParams = "-32602",
        Internal = "-32603",
        Server = "-32000",
        SessionNotFound = "-32001",
        ResourceNotFound = "-32002",
        UrlElicitation = "-32042",
        HeaderMismatch = "-32020",
        MissingCapability = "-32021",
        UnsupportedVersion = "-32022",
        /// Another JSON-RPC code.
        OtherCode = "other",
        /// A tool said `isError`.
        Tool = "tool_error",
        /// Refused by the gateway for want of a place: 429, 503, a deadline in the queue.
        Overload = "overload",
        /// The pod could not be reached, broke off, or answered 5xx.
        Upstream = "upstream",
        /// A deadline of the gateway passed while the pod worked.
        Timeout = "timeout",
        /// The client left first.
        ClientLeft = "client_left",
        Unauthorized = "401",
        Forbidden = "403",
        NotFound = "404",
        /// Another 4xx without a JSON-RPC code.
        OtherClient = "4xx",
    }
}

impl ErrorType {
    /// Of a JSON-RPC error.
    pub fn of_code(code: i64) -> Self {
        match code {
            -32700 => Self::ParseError,
            -32600 => Self::InvalidRequest,
            -32601 => Self::MethodNotFound,
            -32602 => Self::InvalidParams,
            -32603 => Self::Internal,
            -32000 => Self::Server,
            -32001 => Self::SessionNotFound,
            -32002 => Self::ResourceNotFound,
            -32042 => Self::UrlElicitation,
            -32020 => Self::HeaderMismatch,
            -32021 => Self::MissingCapability,
            -32022 => Self::UnsupportedVersion,
            _ => Self::OtherCode,
        }
    }

    /// Of an upstream's HTTP status without a JSON-RPC error; `None` below 400.
    pub fn of_status(status: u16) -> Option<Self> {
        match status {
            0..400 => None,
            401 => Some(Self::Unauthorized),
            403 => Some(Self::Forbidden),
            404 => Some(Self::NotFound),
            429 => Some(Self::Overload),
            400..500 => Some(Self::OtherClient),
            _ => Some(Self::Upstream),
        }
    }
}

labels! {
    /// How a request ended, in the classes of the autoscaler (autoscaling.md section 3).
    Outcome {
        /// Served.
        Ok = "ok",
        /// Not served for want of capacity: our 429 and 503, the server's session cap, a deadline in the queue.
        Overload = "overload",
        /// The pod failed: connection, deadline, 5xx.
        Upstream = "upstream",
        /// The client's own fault, or it left.
        Client = "client",
        /// A tool failed (`isError`).
        Tool = "tool",
    }
}

labels! {
    /// Why a request was not taken.
    Shed {
        /// The queue was full.
        Full = "queue_full",
        /// Its time in the queue was over.
        Deadline = "queue_timeout",
        /// No pod came in time.
        NoEndpoint = "no_endpoint",
        /// Pods are there, but none that speaks its revision.
        NotCapable = "not_capable",
        /// The memory for bodies was used up.
        Memory = "memory",
        /// The gateway ends.
        Closing = "closing",
    }
}

labels! {
    /// Why a request was sent a second time.
    RetryReason {
        /// The pod did not take the connection.
        Connect = "connect",
        /// The connection was closed before a byte was written, or handed the request back.
        Undelivered = "undelivered",
        /// It failed, and its method may be repeated (G17).
        Repeatable = "repeatable",
        /// Its session was re-created.
        Session = "session",
        /// It was not: the budget for retries was used up.
        NoBudget = "no_budget",
    }
}

labels! {
    /// How the re-creation of a session ended (G8).
    Recovery {
        /// It lives on elsewhere.
        Recreated = "recreated",
        /// The fleet does not want it.
        Disabled = "disabled",
        /// The token carries no handshake.
        NoHandshake = "no_handshake",
        /// A request of the server was pending.
        Pending = "pending",
        /// The pod answered with another revision.
        Version = "version",
        /// The new pod refused or failed.
        Failed = "failed",
    }
}

labels! {
    /// What a token stands for.
    Purpose {
        /// A session of Streamable HTTP.
        Session = "session",
        /// A session of HTTP+SSE.
        Sse = "sse",
        /// A task.
        Task = "task",
        /// The state of a multi-round-trip request.
        State = "state",
    }
}

labels! {
    /// What a probe found.
    Probed {
        /// Healthy.
        Ok = "ok",
        /// Alive, without `server/discover`.
        Legacy = "legacy",
        /// Alive, and wants a credential.
        Protected = "protected",
        /// Not reached, no answer in time, or 5xx.
        Failed = "failed",
    }
}

labels! {
    /// How an operation of the control side ended.
    Done {
        /// Well.
        Ok = "ok",
        /// Not.
        Failed = "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_method_is_found_by_its_own_name() {
        for method in Method::ALL {
            let unnamed = matches!(method, Method::Batch | Method::Response | Method::Other | Method::None);
            let expected = if unnamed { Method::Other } else { *method };
            assert_eq!(Method::of(method.as_str()), expected);
        }
        assert_eq!(Method::of("Tools/Call"), Method::Other);
    }

    #[test]
    fn indexes_are_positions() {
        fn check<L: Label + PartialEq + std::fmt::Debug>() {
            for (i, label) in L::ALL.iter().enumerate() {
                assert_eq!(label.index(), i);
                let same = L::ALL.iter().filter(|l| l.as_str() == label.as_str()).count();
                assert_eq!(same, 1, "{label:?} shares its text");
            }
        }
        check::<Method>();
        check::<Version>();
        check::<ErrorType>();
        check::<Outcome>();
        check::<Shed>();
        check::<RetryReason>();
        check::<Recovery>();
        check::<Purpose>();
        check::<Probed>();
    }

    #[test]
    fn versions_and_errors_of_the_wire() {
        for version in Version::ALL.iter().filter(|v| !matches!(v, Version::Other | Version::None)) {
            assert_eq!(Version::of(Some(version.as_str())), *version);
        }
        assert_eq!(Version::of(Some("2027-01-01")), Version::Other);
        assert_eq!(Version::of(None), Version::None);
        for error in ErrorType::ALL {
            if let Ok(code) = error.as_str().parse::<i64>()
                && code < 0
            {
                assert_eq!(ErrorType::of_code(code), *error);
            }
        }
        assert_eq!(ErrorType::of_code(-32099), ErrorType::OtherCode);
        assert_eq!(ErrorType::of_status(202), None);
        assert_eq!(ErrorType::of_status(405), Some(ErrorType::OtherClient));
        assert_eq!(ErrorType::of_status(502), Some(ErrorType::Upstream));
    }
}

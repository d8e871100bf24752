//! Condition types and reasons (API conventions: types name states, reasons are one CamelCase word).

/// Condition types of an `McpFleet`, in the order in which they are shown.
pub mod types {
    /// The specification is valid and every child could be written.
    pub const ACCEPTED: &str = "Accepted";
    /// At least one endpoint serves.
    pub const AVAILABLE: &str = "Available";
    /// A rollout goes on, or ended well; `False` when it cannot finish.
    pub const PROGRESSING: &str = "Progressing";
    /// The autoscaler computes a scale.
    pub const SCALING_ACTIVE: &str = "ScalingActive";
    /// The autoscaler may change the scale.
    pub const ABLE_TO_SCALE: &str = "AbleToScale";
    /// The wanted scale is cut by a bound.
    pub const SCALING_LIMITED: &str = "ScalingLimited";
    /// The metrics API that a generated HorizontalPodAutoscaler reads is reached.
    pub const METRICS_API_AVAILABLE: &str = "MetricsAPIAvailable";
    /// Everything that was asked for serves.
    pub const READY: &str = "Ready";

    /// All of them; the status carries each one from the first visit on.
    pub const ALL: [&str; 8] = [
        ACCEPTED,
        AVAILABLE,
        PROGRESSING,
        SCALING_ACTIVE,
        ABLE_TO_SCALE,
        SCALING_LIMITED,
        METRICS_API_AVAILABLE,
        READY,
    ];
}

/// Reasons. A reason of `Ready` is what the STATUS column shows.
pub mod reasons {
    /// Valid, all children written.
    pub const ACCEPTED: &str = "Accepted";
    /// The specification cannot be used; the message says why.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// An object of that name exists and is not ours.
    pub const CHILD_CONFLICT: &str = "ChildConflict";
    /// The API server refused a child.
    pub const CHILD_REJECTED: &str = "ChildRejected";
    /// A field of a child cannot be changed in place.
    pub const IMMUTABLE_FIELD: &str = "ImmutableField";
    /// All replicas serve.
    pub const READY: &str = "Ready";
    /// Endpoints serve.
    pub const ENDPOINTS_READY: &str = "EndpointsReady";
    /// No endpoint serves.
    pub const NO_ENDPOINTS: &str = "NoReadyEndpoints";
    /// Fewer endpoints serve than were asked for.
    pub const REPLICAS_UNAVAILABLE: &str = "ReplicasUnavailable";
    /// Nothing wanted, nothing runs.
    pub const SCALED_TO_ZERO: &str = "ScaledToZero";
    /// A rollout goes on.
    pub const ROLLING_OUT: &str = "RollingOut";
    /// The last rollout is complete.
    pub const ROLLOUT_COMPLETE: &str = "RolloutComplete";
    /// The rollout did not finish in `progressDeadlineSeconds`.
    pub const ROLLOUT_STUCK: &str = "RolloutStuck";
    /// The operator has not seen enough to say.
    pub const PENDING: &str = "Pending";
    /// There is no autoscaling block.
    pub const AUTOSCALING_DISABLED: &str = "AutoscalingDisabled";
    /// `actuator: Off`.
    pub const ACTUATOR_OFF: &str = "ActuatorOff";
    /// Somebody else's autoscaler targets this fleet.
    pub const FOREIGN_AUTOSCALER: &str = "ForeignAutoscaler";
    /// `spec.replicas` is held by somebody although autoscaling is on.
    pub const REPLICAS_OVERRIDDEN: &str = "ReplicasOverridden";
    /// The HPA has not followed a step that the Deployment got ahead of it.
    pub const HPA_NOT_FOLLOWING: &str = "HPANotFollowing";
    /// What the fleet is to follow is measured by a gateway, and none serves it.
    pub const GATEWAY_MISSING: &str = "GatewayMissing";
    /// The scale follows its metrics.
    pub const VALID_METRIC_FOUND: &str = "ValidMetricFound";
    /// No metric is fresh; the scale stays.
    pub const METRICS_UNAVAILABLE: &str = "MetricsUnavailable";
    /// No metric has been fresh for long; `spec.autoscaling.fallback` holds.
    pub const FALLBACK: &str = "Fallback";
    /// A person paused it.
    pub const PAUSED: &str = "Paused";
    /// Pods of a fleet at zero were started, and none became ready.
    pub const ACTIVATION_FAILED: &str = "ActivationFailed";
    /// The image cannot be pulled.
    pub const IMAGE_PULL_FAILED: &str = "ImagePullFailed";
    /// A Secret, `ConfigMap` or key that the pod needs does not exist.
    pub const MISSING_REFERENCE: &str = "MissingReference";
    /// A volume cannot be mounted.
    pub const VOLUME_NOT_MOUNTED: &str = "VolumeNotMounted";
    /// The container cannot be created or started.
    pub const CONTAINER_NOT_STARTED: &str = "ContainerNotStarted";
    /// The server ends again and again.
    pub const CRASH_LOOP: &str = "CrashLoopBackOff";
    /// The server was ended for its memory.
    pub const OUT_OF_MEMORY: &str = "OutOfMemory";
    /// No node takes the pod.
    pub const UNSCHEDULABLE: &str = "Unschedulable";
    /// The namespace's quota is used up.
    pub const QUOTA_EXCEEDED: &str = "QuotaExceeded";
    /// The named `ServiceAccount` does not exist.
    pub const SERVICE_ACCOUNT_MISSING: &str = "ServiceAccountMissing";
    /// The API server refuses the pods for another reason.
    pub const PODS_REJECTED: &str = "PodsRejected";
}

//! `spec.autoscaling` → who changes the scale, and by which policy: presets resolved, nothing left open. Pure.
//!
//! What is named replaces what the preset says. Whether a gateway serves the fleet is known only later, so a fleet is
//! resolved for both cases, and `gateway::Install::bind` takes the one that holds.

use super::Invalid;
use crate::{
    api::v1alpha1::{
        Actuator, AmountMetric, AmountTarget, AutoscalingSpec, Behavior, Combine, FallbackBehavior,
        GatewaySpec, Metrics, PolicyType, Preset, Quantity, ResourceMetric, ScalingRules, SelectPolicy,
        SignalRole,
    },
    autoscale::{behavior, policy},
    domain::{ReplicaRange, quantity_value},
};

const CPU_TARGET: i32 = 70;
const MEMORY_TARGET: i32 = 80;
/// Of `combine: PowerMean`: near the greatest, and still smooth where two signals are equal.
const EXPONENT: f64 = 4.0;
const IDLE_SECONDS: i32 = 600;
const MAX_WEIGHT: f64 = 100.0;

/// Who changes the scale, resolved.
#[derive(Clone, Debug, PartialEq)]
pub enum Scaling {
    /// No `autoscaling` block: `spec.replicas` is the user's.
    Fixed,
    /// A generated HPA on CPU and memory alone, without us.
    Native(HpaSettings),
    /// Our own decision, from what the gateway and the cluster measure.
    Mcp(Box<McpScaling>),
    /// `actuator: Off` without anything that we could compute: somebody else's.
    Off(ReplicaRange),
}

impl Scaling {
    /// Bounds, where there are some.
    pub fn range(&self) -> Option<ReplicaRange> {
        match self {
            Self::Fixed => None,
            Self::Native(hpa) => Some(hpa.range),
            Self::Mcp(mcp) => Some(mcp.range),
            Self::Off(range) => Some(*range),
        }
    }

    /// Whether an autoscaler of ours should own `spec.replicas`.
    pub fn is_ours(&self) -> bool {
        match self {
            Self::Fixed | Self::Off(_) => false,
            Self::Native(_) => true,
            Self::Mcp(mcp) => mcp.actuator != Actuator::Off,
        }
    }
}

/// Our own decision.
#[derive(Clone, Debug, PartialEq)]
pub struct McpScaling {
    /// What it follows.
    pub policy: policy::Policy,
    /// Who should act on it.
    pub actuator: Actuator,
    /// Bounds; the least is 0 where the fleet may go to zero.
    pub range: ReplicaRange,
    /// What only a gateway could give, and what to change: there is none.
    pub unserved: Option<String>,
}

/// What the generated HPA on CPU and memory follows.
#[derive(Clone, Debug, PartialEq)]
pub struct HpaSettings {
    /// Bounds.
    pub range: ReplicaRange,
    /// CPU target in percent of the request.
    pub cpu: Option<i32>,
    /// Memory target in percent of the request.
    pub memory: Option<i32>,
    /// How fast it follows, complete.
    pub behavior: behavior::Behavior,
}

/// Resolves the block. `served`: a gateway serves the fleet.
pub(super) fn resolve(
    spec: &AutoscalingSpec,
    gateway: &GatewaySpec,
    served: bool,
) -> Result<Scaling, Invalid> {
    // A weighted sum has no pace of its own, so it takes that of the preset that it comes from.
    let classic = spec.preset == Some(Preset::Classic) || spec.combine == Some(Combine::WeightedSum);
    let asked_zero = asks_for_zero(spec)?;
    let zero = asked_zero && served;
    let min = if zero { 0 } else { spec.min_replicas.max(i32::from(asked_zero)) };
    let range = ReplicaRange::new(min, spec.max_replicas)?;
    let slots = Some(gateway.max_requests_per_pod).filter(|n| *n > 0).map(f64::from);
    let mut policy = if classic {
        policy::Policy { slots, ..policy::Policy::classic(range.min(), range.max()) }
    } else {
        policy::Policy::balanced(range.min(), range.max(), slots)
    };
    policy.combine = combine(spec, policy.combine)?;
    if spec.metrics != Metrics::default() {
        policy.signals = signals(&spec.metrics, classic, slots)?;
    } else if !served && !classic {
        policy.signals = policy::Signals { cpu: policy.signals.cpu, ..policy::Signals::default() };
    }
    pace(spec, zero, &mut policy);
    demand_is_possible(&policy)?;
    if is_native(spec, classic, asked_zero, &policy.signals) {
        return Ok(native(spec, range));
    }
    let unserved = (!served).then(|| unserved(gateway, asked_zero, &policy.signals)).flatten();
    Ok(Scaling::Mcp(Box::new(McpScaling { policy, actuator: spec.actuator, range, unserved })))
}

fn invalid(field: &str, problem: impl std::fmt::Display) -> Invalid {
    Invalid::Autoscaling { field: field.to_owned(), problem: problem.to_string() }
}

fn asks_for_zero(spec: &AutoscalingSpec) -> Result<bool, Invalid> {
    let enabled = spec.scale_to_zero.as_ref().and_then(|z| z.enabled);
    match (enabled, spec.min_replicas) {
        (Some(false), 0) => {
            Err(invalid("scaleToZero.enabled", "is false, but minReplicas is 0; set minReplicas to 1"))
        }
        (Some(true), 2..) => Err(invalid(
            "minReplicas",
            "a fleet that must keep more than 1 cannot go to zero; write minReplicas: 0",
        )),
        (enabled, min) => Ok(enabled.unwrap_or(min == 0)),
    }
}

fn combine(spec: &AutoscalingSpec, preset: policy::Combine) -> Result<policy::Combine, Invalid> {
    let combine = match spec.combine {
        None => preset,
        Some(Combine::Max) => policy::Combine::Max,
        Some(Combine::PowerMean) => policy::Combine::PowerMean { exponent: EXPONENT },
        Some(Combine::WeightedSum) => policy::Policy::classic(1, 1).combine,
    };
    let (policy::Combine::WeightedSum(mut thresholds), Some(named)) = (combine, &spec.thresholds) else {
        return Ok(combine);
    };
    thresholds.up = amount("thresholds.scaleUp", &named.scale_up)?;
    thresholds.down = amount("thresholds.scaleDown", &named.scale_down)?;
    let least = f64::from(spec.min_replicas.max(1));
    if thresholds.down * (least + 1.0) >= thresholds.up * least {
        let (up, down) = (&named.scale_up.0, &named.scale_down.0);
        let problem = format!(
            "scaleDown {down} is not below scaleUp {up} × {least}/{}: a replica that is added at minReplicas would be \
             taken away again; lower scaleDown, or raise scaleUp or minReplicas",
            least + 1.0
        );
        return Err(invalid("thresholds", problem));
    }
    Ok(policy::Combine::WeightedSum(thresholds))
}

fn amount(field: &str, quantity: &Quantity) -> Result<f64, Invalid> {
    quantity_value(&quantity.0).map_err(|error| invalid(field, error))
}

/// The weight of a named metric; `None`: it is not looked at.
fn weight(name: &str, named: Option<&Quantity>, default: f64) -> Result<Option<f64>, Invalid> {
    let Some(named) = named else { return Ok(Some(default)) };
    let field = format!("metrics.{name}.weight");
    let weight = amount(&field, named)?;
    if weight > MAX_WEIGHT {
        return Err(invalid(&field, format!("{} is more than {MAX_WEIGHT}", named.0)));
    }
    Ok((weight > 0.0).then_some(weight))
}

fn per_pod(name: &str, named: Option<&AmountTarget>, default: f64) -> Result<f64, Invalid> {
    let Some(named) = named else { return Ok(default) };
    let field = format!("metrics.{name}.target.averageValue");
    let value = amount(&field, &named.average_value)?;
    if value <= 0.0 {
        return Err(invalid(&field, "must be greater than 0"));
    }
    Ok(value)
}

/// The signals that are named, and no others. What one of them leaves out is as in a preset.
fn signals(metrics: &Metrics, classic: bool, slots: Option<f64>) -> Result<policy::Signals, Invalid> {
    let at_work = policy::concurrency_target(slots);
    // Weights of the formula where it has one; they count only in a sum.
    let share = |of_classic: f64| if classic { of_classic } else { 1.0 };
    let target = |name: &str, metric: Option<&AmountMetric>, value: f64, of_classic: f64| {
        let Some(metric) = metric else { return Ok(None) };
        let per_pod = per_pod(name, metric.target.as_ref(), value)?;
        let weight = weight(name, metric.weight.as_ref(), share(of_classic))?;
        Ok::<_, Invalid>(weight.map(|weight| policy::Target { per_pod, weight }))
    };
    let resource = |name: &str, metric: Option<&ResourceMetric>, percent: i32| {
        let Some(metric) = metric else { return Ok(None) };
        let per_pod = f64::from(utilization(metric, percent)) / 100.0;
        let weight = weight(name, metric.weight.as_ref(), 1.0)?;
        Ok::<_, Invalid>(weight.map(|weight| policy::Target { per_pod, weight }))
    };
    Ok(policy::Signals {
        concurrency: target("concurrency", metrics.concurrency.as_ref(), at_work, 1.0)?,
        queue: queue(metrics, share(0.2))?,
        connections: target("connections", metrics.connections.as_ref(), 100.0, 0.2)?,
        request_rate: target("requestRate", metrics.request_rate.as_ref(), 50.0, 1.0)?,
        cpu: resource("cpu", metrics.cpu.as_ref(), CPU_TARGET)?,
        memory: resource("memory", metrics.memory.as_ref(), MEMORY_TARGET)?,
        latency: latency(metrics, share(0.3))?,
        errors: errors(metrics, share(0.3))?,
    })
}

fn utilization(metric: &ResourceMetric, default: i32) -> i32 {
    metric.target.as_ref().map_or(default, |t| t.average_utilization)
}

fn queue(metrics: &Metrics, share: f64) -> Result<Option<policy::Queue>, Invalid> {
    let Some(metric) = &metrics.queue_depth else { return Ok(None) };
    let per_pod = per_pod("queueDepth", metric.target.as_ref(), 50.0)?;
    let weight = weight("queueDepth", metric.weight.as_ref(), share)?;
    let drain_seconds = f64::from(metric.drain_seconds.max(1));
    Ok(weight.map(|weight| policy::Queue { drain_seconds, per_pod, weight }))
}

fn latency(metrics: &Metrics, share: f64) -> Result<Option<policy::Latency>, Invalid> {
    let Some(metric) = &metrics.latency else { return Ok(None) };
    let weight = weight("latency", metric.weight.as_ref(), share)?;
    Ok(weight.map(|weight| policy::Latency {
        objective_ms: f64::from(metric.objective_milliseconds.max(1)),
        percentile: f64::from(metric.percentile),
        role: match metric.role {
            SignalRole::Guard => policy::Role::Guard,
            SignalRole::Boost => policy::Role::Boost,
        },
        max_boost: f64::from(metric.max_boost_percent) / 100.0,
        weight,
    }))
}

fn errors(metrics: &Metrics, share: f64) -> Result<Option<policy::Errors>, Invalid> {
    let Some(metric) = &metrics.error_rate else { return Ok(None) };
    let field = "metrics.errorRate.threshold";
    let threshold = amount(field, &metric.threshold)?;
    if threshold <= 0.0 || threshold > 1.0 {
        return Err(invalid(field, "must be greater than 0 and at most 1"));
    }
    let weight = weight("errorRate", metric.weight.as_ref(), share)?;
    Ok(weight.map(|weight| policy::Errors { threshold, weight }))
}

/// Windows, cooldown, behavior, zero and fallback.
fn pace(spec: &AutoscalingSpec, zero: bool, policy: &mut policy::Policy) {
    if let Some(windows) = &spec.windows {
        policy.windows = policy::Windows {
            stable: millis(windows.stable_seconds),
            panic: millis(windows.panic_seconds.min(windows.stable_seconds)),
            panic_threshold: f64::from(windows.panic_threshold_percent) / 100.0,
            max_sample_age: millis(windows.max_sample_age_seconds),
        };
    }
    if let Some(cooldown) = &spec.cooldown_seconds {
        policy.cooldown.after_up = cooldown.after_scale_up.map_or(policy.cooldown.after_up, millis);
        policy.cooldown.after_down = cooldown.after_scale_down.map_or(policy.cooldown.after_down, millis);
    }
    policy.preset_pace &= spec.behavior.as_ref().is_none_or(|b| b.scale_down.is_none());
    policy.behavior = named_behavior(spec, std::mem::take(&mut policy.behavior));
    policy.zero = zero.then(|| {
        let idle = spec.scale_to_zero.as_ref().map_or(IDLE_SECONDS, |z| z.idle_seconds);
        policy::Zero { idle: millis(idle).max(policy.windows.stable) }
    });
    policy.fallback = spec.fallback.as_ref().map(|fallback| policy::Fallback {
        after: millis(fallback.failure_duration_seconds),
        replicas: fallback.replicas.clamp(1, policy.max),
        behavior: match fallback.behavior {
            FallbackBehavior::Static => policy::FallbackBehavior::Static,
            FallbackBehavior::CurrentReplicas => policy::FallbackBehavior::CurrentReplicas,
            FallbackBehavior::CurrentReplicasIfHigher => policy::FallbackBehavior::CurrentReplicasIfHigher,
            FallbackBehavior::CurrentReplicasIfLower => policy::FallbackBehavior::CurrentReplicasIfLower,
        },
    });
    policy.activation_replicas = spec.activation.as_ref().map_or(1, |a| a.replicas.clamp(1, policy.max));
    if let Some(percent) = spec.min_available_percent {
        policy.min_available = f64::from(percent) / 100.0;
    }
}

fn millis(seconds: i32) -> i64 {
    i64::from(seconds) * 1000
}

/// A direction that is named is as in `autoscaling/v2`, with Kubernetes' defaults for what it leaves out; one that is not
/// is as in `preset`.
fn named_behavior(spec: &AutoscalingSpec, preset: behavior::Behavior) -> behavior::Behavior {
    let Behavior { scale_up, scale_down } = spec.behavior.clone().unwrap_or_default();
    let kubernetes = behavior::Behavior::default();
    behavior::Behavior {
        up: scale_up.map_or(preset.up, |user| rules(&user, kubernetes.up)),
        down: scale_down.map_or(preset.down, |user| rules(&user, kubernetes.down)),
    }
}

/// What the user says of a direction; the rest stays.
fn rules(user: &ScalingRules, mut rules: behavior::Rules) -> behavior::Rules {
    if let Some(seconds) = user.stabilization_window_seconds {
        rules.stabilization = millis(seconds);
    }
    match user.select_policy {
        None => {}
        Some(SelectPolicy::Max) => rules.select = behavior::Select::Max,
        Some(SelectPolicy::Min) => rules.select = behavior::Select::Min,
        Some(SelectPolicy::Disabled) => rules.select = behavior::Select::Disabled,
    }
    if !user.policies.is_empty() {
        let policy = |p: &crate::api::v1alpha1::ScalingPolicy| behavior::RatePolicy {
            unit: match p.type_ {
                PolicyType::Pods => behavior::Unit::Pods,
                PolicyType::Percent => behavior::Unit::Percent,
            },
            value: p.value,
            period: millis(p.period_seconds),
        };
        rules.policies = user.policies.iter().map(policy).collect();
    }
    rules
}

/// Latency and errors alone hold the scale and never ask for a replica; admission cannot see all weights.
fn demand_is_possible(policy: &policy::Policy) -> Result<(), Invalid> {
    let policy::Signals { concurrency, queue, connections, request_rate, cpu, memory, latency, errors } =
        policy.signals;
    let demand =
        [concurrency, connections, request_rate, cpu, memory].iter().any(Option::is_some) || queue.is_some();
    let guards = latency.is_some() || errors.is_some();
    match policy.combine {
        policy::Combine::WeightedSum(_) if demand || guards => Ok(()),
        policy::Combine::Max | policy::Combine::PowerMean { .. } if demand => Ok(()),
        _ => Err(invalid(
            "metrics",
            "nothing asks for replicas; name concurrency, cpu or another demand with a weight",
        )),
    }
}

/// CPU and memory alone are left to Kubernetes' own autoscaler, unless something is asked for that it cannot do.
fn is_native(spec: &AutoscalingSpec, classic: bool, zero: bool, signals: &policy::Signals) -> bool {
    let of_the_cluster =
        policy::Signals { cpu: signals.cpu, memory: signals.memory, ..policy::Signals::default() };
    let cooldown = spec.cooldown_seconds.as_ref();
    let rests =
        cooldown.is_some_and(|c| c.after_scale_up.unwrap_or(0) > 0 || c.after_scale_down.unwrap_or(0) > 0);
    let more = spec.windows.is_some() || spec.fallback.is_some() || spec.min_available_percent.is_some();
    *signals == of_the_cluster
        && spec.actuator != Actuator::Direct
        && !classic
        && !zero
        && !rests
        && !more
        && matches!(spec.combine, None | Some(Combine::Max))
}

fn native(spec: &AutoscalingSpec, range: ReplicaRange) -> Scaling {
    if spec.actuator == Actuator::Off {
        return Scaling::Off(range);
    }
    let looked_at = |m: &&ResourceMetric| weight("", m.weight.as_ref(), 1.0).is_ok_and(|w| w.is_some());
    let target = |m: Option<&ResourceMetric>, default| m.filter(looked_at).map(|m| utilization(m, default));
    let memory = target(spec.metrics.memory.as_ref(), MEMORY_TARGET);
    // Only where nothing is named: a fleet that names memory alone means memory alone.
    let unnamed = spec.metrics == Metrics::default();
    let cpu = target(spec.metrics.cpu.as_ref(), CPU_TARGET).or(unnamed.then_some(CPU_TARGET));
    // Kubernetes' own autoscaler, with its own pace.
    let behavior = named_behavior(spec, behavior::Behavior::default());
    Scaling::Native(HpaSettings { range, cpu, memory, behavior })
}

/// What only a gateway could give, if anything.
fn unserved(gateway: &GatewaySpec, zero: bool, signals: &policy::Signals) -> Option<String> {
    let missing: Vec<&str> = [
        (signals.concurrency.is_some(), "concurrency"),
        (signals.queue.is_some(), "queueDepth"),
        (signals.connections.is_some(), "connections"),
        (signals.request_rate.is_some(), "requestRate"),
        (signals.latency.is_some(), "latency"),
        (signals.errors.is_some(), "errorRate"),
        (zero, "calls to a fleet at zero"),
    ]
    .into_iter()
    .filter_map(|(asked, name)| asked.then_some(name))
    .collect();
    if missing.is_empty() {
        return None;
    }
    let advice = if gateway.enabled {
        format!(
            "no gateway of class {} is known to the operator: correct spec.gateway.class, or install one (chart value \
             gateway.enabled)",
            gateway.class
        )
    } else {
        "spec.gateway.enabled is false: set it to true".to_owned()
    };
    Some(format!(
        "only a gateway sees {}, and {advice}; or name only cpu and memory in spec.autoscaling.metrics, with minReplicas \
         of 1 or more",
        missing.join(", ")
    ))
}

#[cfg(test)]
mod tests;

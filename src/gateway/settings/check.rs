//! `GatewaySpec` → [`Settings`], with all that is wrong said at once. Pure. The bounds are those of the schema of
//! the API; a test holds the two together.

use std::time::Duration;

use super::{
    BreakerSettings, HealthCheck, InvalidSetting, InvalidSettings, Limits, Probe, Queue, Retries, Settings,
    Timeouts, is_class, is_hostname, is_origin,
};
use crate::{
    api::v1alpha1::{
        CircuitBreaker, GatewayHealthCheck, GatewayLimits, GatewayQueue, GatewayRetries, GatewaySpec,
        GatewayTimeouts, HealthCheckType, Toggle,
    },
    domain::quantity_value,
};

/// Collects what is wrong, so that all of it is said at once.
#[derive(Default)]
struct Check(Vec<InvalidSetting>);

impl Check {
    fn wrong(&mut self, field: &str, problem: impl Into<String>) {
        self.0.push(InvalidSetting { field: field.to_owned(), problem: problem.into() });
    }

    /// A number within bounds; out of them the lower one, beside a problem that discards the whole.
    fn number(&mut self, field: &str, value: i32, min: u32, max: u32) -> u32 {
        let found = u32::try_from(value).ok().filter(|v| (min..=max).contains(v));
        if found.is_none() {
            self.wrong(field, format!("{value} is out of range; write a number from {min} to {max}"));
        }
        found.unwrap_or(min)
    }

    fn seconds(&mut self, field: &str, value: i32, min: u32, max: u32) -> Duration {
        Duration::from_secs(self.number(field, value, min, max).into())
    }

    fn list(&mut self, field: &str, values: &[String], max: usize, what: &str, fits: fn(&str) -> bool) {
        if values.len() > max {
            self.wrong(field, format!("has {} entries; at most {max} are possible", values.len()));
        }
        for (i, value) in values.iter().enumerate() {
            let entry = format!("{field}[{i}]");
            if !fits(value) {
                self.wrong(&entry, format!("'{}' is not {what}", short(value)));
            } else if values[..i].contains(value) {
                self.wrong(&entry, format!("'{value}' stands there twice; leave one out"));
            }
        }
    }

    fn health(&mut self, spec: &GatewayHealthCheck) -> HealthCheck {
        let visible = |p: &str| p.len() <= 256 && p.bytes().all(|b| b.is_ascii_graphic());
        let probe = match (spec.type_, spec.path.as_deref()) {
            (HealthCheckType::HTTP, Some(path)) if path.starts_with('/') && visible(path) => {
                Probe::Http(path.to_owned())
            }
            (HealthCheckType::HTTP, _) => {
                self.wrong(
                    "healthCheck.path",
                    "type HTTP needs a path of at most 256 characters that starts with '/', for example /health",
                );
                Probe::Tcp
            }
            (_, Some(_)) => {
                self.wrong("healthCheck.path", "needs type HTTP; leave it out, or set type: HTTP");
                Probe::Tcp
            }
            (HealthCheckType::MCP, None) => Probe::Mcp,
            (HealthCheckType::TCP, None) => Probe::Tcp,
        };
        let interval = self.seconds("healthCheck.intervalSeconds", spec.interval_seconds, 1, 3600);
        let timeout = self.seconds("healthCheck.timeoutSeconds", spec.timeout_seconds, 1, 300);
        if timeout > interval {
            self.wrong("healthCheck.timeoutSeconds", "must not be greater than healthCheck.intervalSeconds");
        }
        HealthCheck {
            probe,
            interval,
            timeout,
            unhealthy_threshold: self.number(
                "healthCheck.unhealthyThreshold",
                spec.unhealthy_threshold,
                1,
                100,
            ),
            healthy_threshold: self.number("healthCheck.healthyThreshold", spec.healthy_threshold, 1, 100),
        }
    }

    fn breaker(&mut self, spec: &CircuitBreaker) -> BreakerSettings {
        let ratio = quantity_value(&spec.failure_ratio.0).ok().filter(|r| *r > 0.0 && *r <= 1.0);
        if ratio.is_none() {
            let problem = format!(
                "'{}' is not greater than 0 and at most 1; write for example \"0.5\"",
                short(&spec.failure_ratio.0)
            );
            self.wrong("circuitBreaker.failureRatio", problem);
        }
        let mut number =
            |field: &str, value, max| self.number(&format!("circuitBreaker.{field}"), value, 1, max);
        BreakerSettings {
            failure_threshold: number("failureThreshold", spec.failure_threshold, 10_000),
            recovery: Duration::from_secs(number("recoverySeconds", spec.recovery_seconds, 3600).into()),
            half_open_max_requests: number("halfOpenMaxRequests", spec.half_open_max_requests, 1000),
            min_requests: number("minRequests", spec.min_requests, 100_000),
            failure_ratio: ratio.unwrap_or(1.0),
            window: Duration::from_secs(number("windowSeconds", spec.window_seconds, 600).into()),
            max_ejected_percent: self.number(
                "circuitBreaker.maxEjectedPercent",
                spec.max_ejected_percent,
                0,
                100,
            ),
        }
    }

    fn queue(&mut self, spec: &GatewayQueue) -> Queue {
        Queue {
            capacity: self.number("queue.capacity", spec.capacity, 0, 100_000) as usize,
            timeout: self.seconds("queue.timeoutSeconds", spec.timeout_seconds, 1, 3600),
        }
    }

    fn retries(&mut self, spec: &GatewayRetries) -> Retries {
        Retries {
            budget_percent: self.number("retries.budgetPercent", spec.budget_percent, 0, 100),
            min_concurrency: self.number("retries.minConcurrency", spec.min_concurrency, 0, 1000),
            idempotent_tools: spec.idempotent_tools,
        }
    }

    fn limits(&mut self, spec: &GatewayLimits) -> Limits {
        Limits {
            max_body_bytes: self.number("limits.maxBodyBytes", spec.max_body_bytes, 1024, 67_108_864)
                as usize,
            max_header_bytes: self.number("limits.maxHeaderBytes", spec.max_header_bytes, 8192, 65_536)
                as usize,
            session_idle: self.seconds("limits.sessionIdleSeconds", spec.session_idle_seconds, 10, 604_800),
        }
    }

    fn timeouts(&mut self, spec: &GatewayTimeouts) -> Timeouts {
        let connect = self.number("timeouts.connectMilliseconds", spec.connect_milliseconds, 10, 60_000);
        let stream_max = self.seconds("timeouts.streamMaxSeconds", spec.stream_max_seconds, 0, 604_800);
        Timeouts {
            connect: Duration::from_millis(connect.into()),
            request: self.seconds("timeouts.requestSeconds", spec.request_seconds, 1, 86_400),
            stream_idle: self.seconds("timeouts.streamIdleSeconds", spec.stream_idle_seconds, 1, 86_400),
            stream_max: Some(stream_max).filter(|max| !max.is_zero()),
            activation: self.seconds("timeouts.activationSeconds", spec.activation_seconds, 1, 600),
        }
    }
}

impl TryFrom<&GatewaySpec> for Settings {
    type Error = InvalidSettings;

    fn try_from(spec: &GatewaySpec) -> Result<Self, InvalidSettings> {
        let mut check = Check::default();
        if !is_class(&spec.class) {
            let problem = format!(
                "'{}' is not a class; write at most 63 characters of a-z, 0-9 and '-', for example default",
                short(&spec.class)
            );
            check.wrong("class", problem);
        }
        let host = "a host name such as mcp.example.com: lower case, without scheme, port, path or wildcard";
        check.list("hostnames", &spec.hostnames, 16, host, is_hostname);
        let origin = "an exact origin such as https://app.example.com: lower case, a port only where it is not the \
                      default one, no path, no wildcard";
        check.list("origins", &spec.origins, 32, origin, is_origin);
        let settings = Self {
            enabled: spec.enabled,
            class: spec.class.clone(),
            hostnames: spec.hostnames.clone(),
            strategy: spec.strategy.into(),
            slow_start: check.seconds("slowStartSeconds", spec.slow_start_seconds, 0, 3600),
            health_check: check.health(&spec.health_check),
            breaker: check.breaker(&spec.circuit_breaker),
            queue: check.queue(&spec.queue),
            max_requests_per_pod: check.number("maxRequestsPerPod", spec.max_requests_per_pod, 0, 100_000),
            retries: check.retries(&spec.retries),
            session_recovery: spec.session_recovery == Toggle::Enabled,
            listen_fan_out: spec.listen_fan_out,
            limits: check.limits(&spec.limits),
            timeouts: check.timeouts(&spec.timeouts),
            origins: spec.origins.clone(),
        };
        if check.0.is_empty() { Ok(settings) } else { Err(InvalidSettings(check.0)) }
    }
}

/// Text of others, cut so that an error stays readable.
fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

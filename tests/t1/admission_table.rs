//! One bad specification for each CEL rule of the schema, and good ones that come close.

/// A specification that one rule refuses.
pub struct Bad {
    /// Where the rule stands, below `spec`; empty for the whole object.
    pub at: &'static str,
    /// Part of the rule's message.
    pub says: &'static str,
    /// The specification.
    pub spec: &'static str,
}

const fn bad(at: &'static str, says: &'static str, spec: &'static str) -> Bad {
    Bad { at, says, spec }
}

/// All rules but that of the name.
pub const BAD: &[Bad] = &[
    bad("server", "needs operator Exists", "{server: {image: a, tolerations: [{effect: NoSchedule}]}}"),
    bad(
        "server",
        "operator Exists takes no value",
        "{server: {image: a, tolerations: [{key: k, operator: Exists, value: v}]}}",
    ),
    bad(
        "server",
        "tolerationSeconds needs effect NoExecute",
        "{server: {image: a, tolerations: [{key: k, value: v, effect: NoSchedule, tolerationSeconds: 5}]}}",
    ),
    bad(
        "autoscaling",
        "minReplicas must not be greater than",
        "{server: {image: a}, autoscaling: {minReplicas: 5, maxReplicas: 4}}",
    ),
    bad(
        "autoscaling",
        "minReplicas must not be greater than",
        "{server: {image: a}, autoscaling: {maxReplicas: 1}}",
    ),
    bad(
        "autoscaling",
        "goes with autoscaling.minReplicas 0 or 1",
        "{server: {image: a}, autoscaling: {scaleToZero: {enabled: true}}}",
    ),
    bad(
        "autoscaling",
        "goes with autoscaling.minReplicas 0 or 1",
        "{server: {image: a}, autoscaling: {minReplicas: 3, scaleToZero: {enabled: true}}}",
    ),
    bad(
        "autoscaling",
        "autoscaling.scaleToZero.enabled is false",
        "{server: {image: a}, autoscaling: {minReplicas: 0, scaleToZero: {enabled: false}}}",
    ),
    bad(
        "autoscaling",
        "must not be less than autoscaling.windows.stableSeconds",
        "{server: {image: a}, autoscaling: {minReplicas: 0, scaleToZero: {idleSeconds: 59}}}",
    ),
    bad(
        "autoscaling",
        "must not be less than autoscaling.windows.stableSeconds",
        "{server: {image: a}, autoscaling: {minReplicas: 0, scaleToZero: {idleSeconds: 100}, windows: {stableSeconds: 101}}}",
    ),
    bad(
        "autoscaling",
        "panicSeconds must not be greater",
        "{server: {image: a}, autoscaling: {windows: {panicSeconds: 61}}}",
    ),
    bad(
        "autoscaling",
        "activation.replicas must not be greater",
        "{server: {image: a}, autoscaling: {minReplicas: 0, activation: {replicas: 11}}}",
    ),
    bad(
        "autoscaling",
        "fallback.replicas must not be greater",
        "{server: {image: a}, autoscaling: {fallback: {replicas: 11}}}",
    ),
    bad(
        "autoscaling",
        "thresholds belong to combine WeightedSum",
        "{server: {image: a}, autoscaling: {thresholds: {}}}",
    ),
    bad(
        "autoscaling",
        "thresholds belong to combine WeightedSum",
        "{server: {image: a}, autoscaling: {combine: PowerMean, thresholds: {scaleUp: 1}}}",
    ),
    bad(
        "autoscaling",
        "thresholds belong to combine WeightedSum",
        "{server: {image: a}, autoscaling: {preset: Classic, combine: Max, thresholds: {}}}",
    ),
    bad(
        "autoscaling",
        "would make the scale swing",
        "{server: {image: a}, autoscaling: {preset: Classic, minReplicas: 1, thresholds: {scaleUp: '0.8', scaleDown: '0.4'}}}",
    ),
    bad(
        "autoscaling",
        "would make the scale swing",
        "{server: {image: a}, autoscaling: {combine: WeightedSum, thresholds: {scaleUp: '0.8', scaleDown: '0.6'}}}",
    ),
    bad(
        "autoscaling",
        "would make the scale swing",
        "{server: {image: a}, autoscaling: {preset: Classic, minReplicas: 0, thresholds: {scaleUp: 1, scaleDown: 500m}}}",
    ),
    bad(
        "autoscaling",
        "latency and errorRate only hold the scale",
        "{server: {image: a}, autoscaling: {metrics: {latency: {objectiveMilliseconds: 500}}}}",
    ),
    bad(
        "autoscaling",
        "latency and errorRate only hold the scale",
        "{server: {image: a}, autoscaling: {combine: PowerMean, metrics: {latency: {}, errorRate: {}}}}",
    ),
    bad(
        "autoscaling",
        "latency and errorRate only hold the scale",
        "{server: {image: a}, autoscaling: {preset: Classic, combine: Max, metrics: {latency: {}}}}",
    ),
    bad(
        "autoscaling.metrics",
        "all weights are 0",
        "{server: {image: a}, autoscaling: {metrics: {cpu: {weight: 0}}}}",
    ),
    bad(
        "autoscaling.metrics",
        "all weights are 0",
        "{server: {image: a}, autoscaling: {preset: Classic, metrics: {latency: {weight: '0.0'}, connections: {weight: 0m}}}}",
    ),
    bad(
        "autoscaling.metrics",
        "errorRate.threshold must be greater than 0",
        "{server: {image: a}, autoscaling: {metrics: {cpu: {}, errorRate: {threshold: 0}}}}",
    ),
    bad(
        "autoscaling.metrics",
        "errorRate.threshold must be greater than 0",
        "{server: {image: a}, autoscaling: {metrics: {cpu: {}, errorRate: {threshold: '1.1'}}}}",
    ),
    bad(
        "autoscaling.metrics.concurrency.target",
        "target.averageValue must be greater than 0",
        "{server: {image: a}, autoscaling: {metrics: {concurrency: {target: {averageValue: 0}}}}}",
    ),
    bad(
        "autoscaling.metrics.queueDepth.target",
        "target.averageValue must be greater than 0",
        "{server: {image: a}, autoscaling: {metrics: {queueDepth: {target: {averageValue: 0}}}}}",
    ),
    bad(
        "autoscaling.metrics.connections.target",
        "target.averageValue must be greater than 0",
        "{server: {image: a}, autoscaling: {metrics: {connections: {target: {averageValue: 0}}}}}",
    ),
    bad(
        "autoscaling.metrics.requestRate.target",
        "target.averageValue must be greater than 0",
        "{server: {image: a}, autoscaling: {metrics: {requestRate: {target: {averageValue: 0}}}}}",
    ),
    bad(
        "",
        "scaling to zero needs the gateway",
        "{server: {image: a}, gateway: {enabled: false}, autoscaling: {minReplicas: 0}}",
    ),
    bad(
        "",
        "scaling to zero needs the gateway",
        "{server: {image: a}, gateway: {enabled: false}, autoscaling: {minReplicas: 1, scaleToZero: {enabled: true}}}",
    ),
    bad(
        "",
        "are measured by the gateway",
        "{server: {image: a}, gateway: {enabled: false}, autoscaling: {metrics: {cpu: {}, concurrency: {}}}}",
    ),
    bad(
        "",
        "are measured by the gateway",
        "{server: {image: a}, gateway: {enabled: false}, autoscaling: {metrics: {cpu: {}, queueDepth: {}}}}",
    ),
    bad(
        "",
        "are measured by the gateway",
        "{server: {image: a}, gateway: {enabled: false}, autoscaling: {metrics: {cpu: {}, connections: {}}}}",
    ),
    bad(
        "",
        "are measured by the gateway",
        "{server: {image: a}, gateway: {enabled: false}, autoscaling: {metrics: {cpu: {}, requestRate: {}}}}",
    ),
    bad(
        "",
        "are measured by the gateway",
        "{server: {image: a}, gateway: {enabled: false}, autoscaling: {metrics: {cpu: {}, latency: {}}}}",
    ),
    bad(
        "",
        "are measured by the gateway",
        "{server: {image: a}, gateway: {enabled: false}, autoscaling: {metrics: {cpu: {}, errorRate: {}}}}",
    ),
    bad(
        "networkPolicy.allowFrom[]",
        "a peer is either an ipBlock",
        "{server: {image: a}, networkPolicy: {allowFrom: [{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}]}}",
    ),
    bad(
        "networkPolicy.allowFrom[]",
        "a peer is either an ipBlock",
        "{server: {image: a}, networkPolicy: {allowFrom: [{}]}}",
    ),
    bad(
        "networkPolicy.allowFrom[].ipBlock",
        "must be a network such as",
        "{server: {image: a}, networkPolicy: {allowFrom: [{ipBlock: {cidr: 10.0.0.0}}]}}",
    ),
    bad(
        "networkPolicy.allowFrom[].ipBlock",
        "must be networks within ipBlock.cidr",
        "{server: {image: a}, networkPolicy: {allowFrom: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}]}}",
    ),
    bad(
        "networkPolicy.egress.allow[].to[]",
        "a peer is either an ipBlock",
        "{server: {image: a}, networkPolicy: {egress: {allow: [{to: [{}]}]}}}",
    ),
    bad(
        "networkPolicy.egress.allow[].to[].ipBlock",
        "must be a network such as",
        "{server: {image: a}, networkPolicy: {egress: {allow: [{to: [{ipBlock: {cidr: example.com}}]}]}}}",
    ),
    bad(
        "networkPolicy.egress.allow[].to[].ipBlock",
        "must be networks within ipBlock.cidr",
        "{server: {image: a}, networkPolicy: {egress: {allow: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [nonsense]}}]}]}}}",
    ),
    bad("rollout", "must not both be 0", "{server: {image: a}, rollout: {maxSurge: 0}}"),
    bad("rollout", "must not both be 0", "{server: {image: a}, rollout: {maxSurge: 0%, maxUnavailable: 0%}}"),
    bad("server", "server.path must start with '/'", "{server: {image: a, path: mcp}}"),
    bad(
        "server",
        "names that start with 'mcp-fleet'",
        "{server: {image: a, volumes: [{name: mcp-fleet-tmp, emptyDir: {}}]}}",
    ),
    bad(
        "server",
        "must name a volume of server.volumes",
        "{server: {image: a, volumeMounts: [{name: data, mountPath: /data}]}}",
    ),
    bad(
        "server",
        "must name a volume of server.volumes",
        "{server: {image: a, volumes: [{name: x, emptyDir: {}}], volumeMounts: [{name: other, mountPath: /data}]}}",
    ),
    bad(
        "server",
        "mountPath must be absolute",
        "{server: {image: a, volumes: [{name: x, emptyDir: {}}], volumeMounts: [{name: x, mountPath: /}]}}",
    ),
    bad(
        "server",
        "mountPath must be absolute",
        "{server: {image: a, volumes: [{name: x, emptyDir: {}}], volumeMounts: [{name: x, mountPath: data}]}}",
    ),
    bad(
        "server",
        "mountPath must be absolute",
        "{server: {image: a, volumes: [{name: x, emptyDir: {}}], volumeMounts: [{name: x, mountPath: /run/mcp-fleet}]}}",
    ),
    bad(
        "server.env[]",
        "either value or valueFrom",
        "{server: {image: a, env: [{name: A, value: b, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]}}",
    ),
    bad(
        "server.env[].valueFrom",
        "exactly one of configMapKeyRef",
        "{server: {image: a, env: [{name: A, valueFrom: {}}]}}",
    ),
    bad(
        "server.env[].valueFrom",
        "exactly one of configMapKeyRef",
        "{server: {image: a, env: [{name: A, valueFrom: {configMapKeyRef: {name: a, key: b}, secretKeyRef: {name: a, key: b}}}]}}",
    ),
    bad(
        "server.envFrom[]",
        "exactly one of configMapRef and secretRef",
        "{server: {image: a, envFrom: [{prefix: A}]}}",
    ),
    bad(
        "server.envFrom[]",
        "exactly one of configMapRef and secretRef",
        "{server: {image: a, envFrom: [{configMapRef: {name: a}, secretRef: {name: a}}]}}",
    ),
    bad(
        "server.podAnnotations",
        "annotations below mcpfleet.io/",
        "{server: {image: a, podAnnotations: {mcpfleet.io/x: value}}}",
    ),
    bad(
        "server.podLabels",
        "labels below mcpfleet.io/",
        "{server: {image: a, podLabels: {mcpfleet.io/fleet: other}}}",
    ),
    bad(
        "server.podLabels",
        "labels below mcpfleet.io/",
        "{server: {image: a, podLabels: {app.kubernetes.io/name: other}}}",
    ),
    bad(
        "server.probes.startup",
        "type HTTP needs a path",
        "{server: {image: a, probes: {startup: {type: HTTP}}}}",
    ),
    bad(
        "server.probes.startup",
        "path must start with '/'",
        "{server: {image: a, probes: {startup: {type: HTTP, path: health}}}}",
    ),
    bad(
        "server",
        "no MCP server answers a plain GET",
        "{server: {image: a, probes: {startup: {type: HTTP, path: /mcp}}}}",
    ),
    bad(
        "server.probes.readiness",
        "type HTTP needs a path",
        "{server: {image: a, probes: {readiness: {path: /health}}}}",
    ),
    bad(
        "server.probes.readiness",
        "path must start with '/'",
        "{server: {image: a, probes: {readiness: {type: HTTP, path: health}}}}",
    ),
    bad(
        "server",
        "no MCP server answers a plain GET",
        "{server: {image: a, probes: {readiness: {type: HTTP, path: /mcp}}}}",
    ),
    bad(
        "server.probes.liveness",
        "type HTTP needs a path",
        "{server: {image: a, probes: {liveness: {type: HTTP}}}}",
    ),
    bad(
        "server.probes.liveness",
        "path must start with '/'",
        "{server: {image: a, probes: {liveness: {type: HTTP, path: health}}}}",
    ),
    bad(
        "server",
        "no MCP server answers a plain GET",
        "{server: {image: a, probes: {liveness: {type: HTTP, path: /mcp}}}}",
    ),
    bad(
        "server",
        "no MCP server answers a plain GET",
        "{server: {image: a, path: /v1, probes: {liveness: {type: HTTP, path: /v1}}}}",
    ),
    bad(
        "server.resources",
        "a request must not be greater than the limit",
        "{server: {image: a, resources: {requests: {cpu: 2}, limits: {cpu: 1900m}}}}",
    ),
    bad("server.volumes[]", "exactly one of configMap, secret", "{server: {image: a, volumes: [{name: x}]}}"),
    bad(
        "server.volumes[]",
        "exactly one of configMap, secret",
        "{server: {image: a, volumes: [{name: x, emptyDir: {}, secret: {secretName: b}}]}}",
    ),
    bad(
        "server",
        "transport SSE always keeps sessions",
        "{server: {image: a, transport: SSE, sessions: Stateless}}",
    ),
    bad(
        "gateway",
        "write host names such as",
        "{server: {image: a}, gateway: {hostnames: ['https://mcp.example.com']}}",
    ),
    bad(
        "gateway",
        "write host names such as",
        "{server: {image: a}, gateway: {hostnames: ['*.example.com']}}",
    ),
    bad(
        "gateway",
        "write host names such as",
        "{server: {image: a}, gateway: {hostnames: ['a.example.com:80']}}",
    ),
    bad(
        "gateway",
        "write host names such as",
        "{server: {image: a}, gateway: {hostnames: [MCP.example.com]}}",
    ),
    bad("gateway", "write host names such as", "{server: {image: a}, gateway: {hostnames: ['10.0.0.1']}}"),
    bad(
        "gateway",
        "write exact origins such as",
        "{server: {image: a}, gateway: {origins: [app.example.com]}}",
    ),
    bad("gateway", "write exact origins such as", "{server: {image: a}, gateway: {origins: ['*']}}"),
    bad(
        "gateway",
        "write exact origins such as",
        "{server: {image: a}, gateway: {origins: ['https://a.example.com/']}}",
    ),
    bad(
        "gateway",
        "leave out the default port",
        "{server: {image: a}, gateway: {origins: ['https://a.example.com:443']}}",
    ),
    bad("gateway", "type HTTP needs a path", "{server: {image: a}, gateway: {healthCheck: {type: HTTP}}}"),
    bad(
        "gateway",
        "type HTTP needs a path",
        "{server: {image: a}, gateway: {healthCheck: {type: HTTP, path: health}}}",
    ),
    bad("gateway", "path needs type HTTP", "{server: {image: a}, gateway: {healthCheck: {path: /health}}}"),
    bad(
        "gateway",
        "timeoutSeconds must not be greater",
        "{server: {image: a}, gateway: {healthCheck: {intervalSeconds: 4}}}",
    ),
    bad(
        "gateway",
        "greater than 0 and at most 1",
        "{server: {image: a}, gateway: {circuitBreaker: {failureRatio: 0}}}",
    ),
    bad(
        "gateway",
        "greater than 0 and at most 1",
        "{server: {image: a}, gateway: {circuitBreaker: {failureRatio: '1.01'}}}",
    ),
    bad("service", "service.nodePort needs", "{server: {image: a}, service: {nodePort: 30007}}"),
    bad(
        "service",
        "service.externalTrafficPolicy needs",
        "{server: {image: a}, service: {externalTrafficPolicy: Local}}",
    ),
    bad(
        "service",
        "service.loadBalancerClass and",
        "{server: {image: a}, service: {type: NodePort, loadBalancerClass: example.com/lb}}",
    ),
    bad(
        "service",
        "service.loadBalancerClass and",
        "{server: {image: a}, service: {loadBalancerSourceRanges: [10.0.0.0/8]}}",
    ),
    bad(
        "service",
        "annotations below mcpfleet.io/",
        "{server: {image: a}, service: {annotations: {mcpfleet.io/applied-hash: x}}}",
    ),
];

/// Names that no Service can have, or whose children would have too long ones.
pub const BAD_NAMES: &[&str] = &[
    "1weather",
    "weather.one",
    "a12345678901234567890123456789012345678901234567890",
    "a12345678901234567890123456789012345678901234567890123456789012",
    "a.b2345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901",
];

/// Names that are just good enough.
pub const GOOD_NAMES: &[&str] = &["a", "weather-1", "a1234567890123456789012345678901234567890123456789"];

/// Specifications that come close to a rule and are good.
pub const GOOD: &[&str] = &[
    "{server: {image: a}}",
    "{server: {image: a}, replicas: 0}",
    "{server: {image: a}, autoscaling: {}}",
    "{server: {image: a}, autoscaling: {minReplicas: 4, maxReplicas: 4}}",
    "{server: {image: a}, autoscaling: {preset: Classic}}",
    "{server: {image: a}, autoscaling: {preset: Classic, minReplicas: 1}}",
    "{server: {image: a}, autoscaling: {preset: Classic, minReplicas: 1, thresholds: {scaleUp: '0.8', scaleDown: '0.39'}}}",
    "{server: {image: a}, autoscaling: {combine: WeightedSum, thresholds: {scaleUp: '0.8', scaleDown: '0.53'}, metrics: {latency: {}}}}",
    "{server: {image: a}, autoscaling: {combine: PowerMean, metrics: {concurrency: {weight: 2}, cpu: {weight: '0.5'}, latency: {weight: 0}}}}",
    "{server: {image: a}, autoscaling: {minReplicas: 0}}",
    "{server: {image: a}, autoscaling: {minReplicas: 0, scaleToZero: {enabled: true, idleSeconds: 60}, activation: {replicas: 10}}}",
    "{server: {image: a}, autoscaling: {minReplicas: 1, scaleToZero: {enabled: true, idleSeconds: 10}, windows: {stableSeconds: 10, panicSeconds: 10}}}",
    "{server: {image: a}, autoscaling: {actuator: Direct, fallback: {replicas: 10}}}",
    "{server: {image: a}, autoscaling: {actuator: 'Off', metrics: {errorRate: {threshold: 1}, memory: {}}}}",
    "{server: {image: a}, gateway: {enabled: false}, autoscaling: {preset: Classic, metrics: {cpu: {}}}}",
    "{server: {image: a}, gateway: {}}",
    "{server: {image: a}, gateway: {hostnames: [localhost, mcp.xn--p1ai, a-1.b.example], origins: ['http://localhost:3000', 'http://[fd00::1]:80800', 'vscode-webview://0abc'], healthCheck: {type: HTTP, path: /mcp/health, intervalSeconds: 5}, circuitBreaker: {failureRatio: 1}}}",
    "{server: {image: a, sessions: Stateless}}",
    "{server: {image: a}, rollout: {maxSurge: 0, maxUnavailable: 1}}",
    "{server: {image: a, path: /}}",
    "{server: {image: a, env: [{name: A}]}}",
    "{server: {image: a, env: [{name: A, value: ''}]}}",
    "{server: {image: a, resources: {requests: {cpu: 1000m}, limits: {cpu: 1}}}}",
    "{server: {image: a, resources: {requests: {cpu: 4}}}}",
    "{server: {image: a, topologySpread: {topologyKeys: []}}}",
    "{server: {image: a, probes: {readiness: {type: HTTP, path: /mcp/health}}}}",
    "{server: {image: a, path: /v1, probes: {readiness: {type: HTTP, path: /mcp}}}}",
    "{server: {image: a, volumes: [{name: x, emptyDir: {}}], volumeMounts: [{name: x, mountPath: /x}, {name: x, mountPath: /y}]}}",
    "{server: {image: a}, networkPolicy: {allowFrom: [{podSelector: {}}, {namespaceSelector: {}}, {ipBlock: {cidr: 'fd00::/8', except: ['fd00:1::/32']}}], egress: {allow: []}}}",
    "{server: {image: a}, service: {type: NodePort, externalTrafficPolicy: Local}}",
];

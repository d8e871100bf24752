//! Specifications that between them say everything that the schema knows.

/// Every field that can be set together with the others. Two entries where an entry is a choice.
pub const FULL: &str = r"
replicas: 3
server:
  image: registry.example.com/weather@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
  command: [/bin/weather]
  args: [--verbose, --region=eu]
  env:
    - {name: GREETING, value: hello}
    - {name: FROM_MAP, valueFrom: {configMapKeyRef: {name: settings, key: greeting, optional: true}}}
    - {name: FROM_SECRET, valueFrom: {secretKeyRef: {name: credentials, key: token, optional: true}}}
    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: LIMIT, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
  envFrom:
    - {prefix: MAP_, configMapRef: {name: settings, optional: true}}
    - {prefix: SECRET_, secretRef: {name: credentials, optional: true}}
  imagePullPolicy: Always
  imagePullSecrets: [{name: registry}]
  port: 3000
  path: /v1/mcp
  transport: SSE
  sessions: Stateful
  resources:
    requests: {cpu: 100m, memory: 64Mi}
    limits: {cpu: 900m, memory: 900Mi}
  probes:
    startup: {type: HTTP, path: /health/start, port: 3001, initialDelaySeconds: 3, periodSeconds: 4, timeoutSeconds: 2, failureThreshold: 9}
    readiness: {type: HTTP, path: /health/ready, port: 3002, initialDelaySeconds: 6, periodSeconds: 7, timeoutSeconds: 3, failureThreshold: 8}
    liveness: {type: HTTP, path: /health/live, port: 3003, initialDelaySeconds: 11, periodSeconds: 12, timeoutSeconds: 4, failureThreshold: 7}
  volumes:
    - {name: settings, configMap: {name: settings, optional: true, items: [{key: a, path: a.txt}]}}
    - {name: credentials, secret: {secretName: credentials, optional: true, items: [{key: b, path: b.txt}]}}
    - {name: scratch, emptyDir: {medium: Memory, sizeLimit: 64Mi}}
    - {name: data, persistentVolumeClaim: {claimName: data, readOnly: true}}
  volumeMounts:
    - {name: data, mountPath: /data, subPath: inner, readOnly: true}
  runAsUser: 1000
  runAsGroup: 1001
  fsGroup: 1002
  readOnlyRootFilesystem: false
  shareProcessNamespace: false
  automountServiceAccountToken: true
  serviceAccountName: external
  podLabels: {team.example.com/name: weather}
  podAnnotations: {note.example.com/text: hello}
  nodeSelector: {disk: fast}
  tolerations:
    - {key: dedicated, operator: Equal, value: mcp, effect: NoExecute, tolerationSeconds: 60}
  affinity:
    nodeAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
        - {weight: 5, preference: {matchExpressions: [{key: disk, operator: In, values: [fast]}]}}
  topologySpread: {topologyKeys: [example.com/rack], maxSkew: 2, whenUnsatisfiable: DoNotSchedule}
  priorityClassName: system-cluster-critical
autoscaling:
  preset: Classic
  actuator: HPA
  minReplicas: 3
  maxReplicas: 12
  combine: WeightedSum
  metrics:
    concurrency: {target: {averageValue: '20'}, weight: '0.5'}
    queueDepth: {drainSeconds: 8, target: {averageValue: '40'}, weight: '0.25'}
    connections: {target: {averageValue: '90'}, weight: '0.2'}
    requestRate: {target: {averageValue: '60'}, weight: '0.1'}
    cpu: {target: {averageUtilization: 55}, weight: '0.6'}
    memory: {target: {averageUtilization: 66}, weight: '0.7'}
    latency: {objectiveMilliseconds: 800, percentile: 90, role: Boost, maxBoostPercent: 30, weight: '0.3'}
    errorRate: {threshold: '0.1', role: Guard, weight: '0.4'}
  thresholds: {scaleUp: '0.9', scaleDown: '0.4'}
  windows: {stableSeconds: 50, panicSeconds: 5, panicThresholdPercent: 250, maxSampleAgeSeconds: 20}
  behavior:
    scaleUp: {stabilizationWindowSeconds: 10, selectPolicy: Min, policies: [{type: Pods, value: 3, periodSeconds: 20}]}
    scaleDown: {stabilizationWindowSeconds: 100, selectPolicy: Min, policies: [{type: Percent, value: 30, periodSeconds: 40}]}
  cooldownSeconds: {afterScaleUp: 200, afterScaleDown: 250}
  scaleToZero: {enabled: false, idleSeconds: 700}
  activation: {replicas: 2}
  fallback: {failureDurationSeconds: 120, replicas: 5, behavior: Static}
  minAvailablePercent: 60
gateway:
  enabled: true
  class: tenant-a
  hostnames: [weather.example.com]
  strategy: PeakEWMA
  slowStartSeconds: 10
  healthCheck: {type: HTTP, path: /health/gateway, intervalSeconds: 20, timeoutSeconds: 4, unhealthyThreshold: 4, healthyThreshold: 1}
  circuitBreaker: {failureThreshold: 6, recoverySeconds: 20, halfOpenMaxRequests: 2, minRequests: 30, failureRatio: '0.4', windowSeconds: 20, maxEjectedPercent: 40}
  queue: {capacity: 500, timeoutSeconds: 20}
  maxRequestsPerPod: 50
  retries: {budgetPercent: 10, minConcurrency: 2, idempotentTools: true}
  sessionRecovery: Disabled
  listenFanOut: false
  limits: {maxBodyBytes: 1048576, maxHeaderBytes: 32768, sessionIdleSeconds: 900}
  timeouts: {connectMilliseconds: 500, requestSeconds: 120, streamIdleSeconds: 200, streamMaxSeconds: 3600, activationSeconds: 30}
  origins: ['https://app.example.com']
service:
  type: LoadBalancer
  port: 8443
  sessionAffinity: ClientIP
  annotations: {lb.example.com/kind: internal}
  externalTrafficPolicy: Local
  loadBalancerSourceRanges: [10.0.0.0/8]
rollout: {maxSurge: 2, maxUnavailable: 10%, drain: Sleep, drainTimeoutSeconds: 45, progressDeadlineSeconds: 300}
disruption: {maxUnavailable: 20%}
networkPolicy:
  enabled: true
  allowFrom:
    - {podSelector: {matchLabels: {app: client}}, namespaceSelector: {matchLabels: {team: a}}}
    - {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}
  egress:
    allow:
      - to:
          - {podSelector: {matchLabels: {app: database}}, namespaceSelector: {matchLabels: {team: b}}}
          - {ipBlock: {cidr: 192.168.0.0/16, except: [192.168.1.0/24]}}
        ports: [{port: 5432, protocol: UDP}]
";

/// A fleet that Kubernetes' own autoscaler scales.
pub const NATIVE: &str = r"
server: {image: a}
autoscaling:
  actuator: HPA
  minReplicas: 3
  maxReplicas: 12
  metrics:
    cpu: {target: {averageUtilization: 55}}
    memory: {target: {averageUtilization: 66}}
  behavior:
    scaleUp: {stabilizationWindowSeconds: 10, selectPolicy: Min, policies: [{type: Pods, value: 3, periodSeconds: 20}]}
    scaleDown: {stabilizationWindowSeconds: 100, selectPolicy: Min, policies: [{type: Percent, value: 30, periodSeconds: 40}]}
";

/// Next to nothing.
pub const MINIMAL: &str = "server: {image: a}";

/// As YAML.
pub fn parse(text: &str) -> serde_json::Value {
    serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

//! R27, R28: the operator has no right that it does not use, and its users get none through it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
    sync::Arc,
};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, PostParams},
};
use libtest_mimic::Failed;
use mcp_fleet::{api::v1alpha1::McpFleet, operator::children::ChildKind};
use serde_json::{Value, json};

use crate::{
    common,
    samples::{FULL, MINIMAL},
    schema,
    support::{self, Namespace, Suite, TestResult, operator, wait},
};

/// Granted and not seen in the audit log, each with its reason.
const UNSEEN: &[(&str, &str)] = &[
    (
        "update mcpfleets.mcpfleet.io/finalizers",
        "asked for by the admission of owner references, which makes no request",
    ),
    ("watch leases.coordination.k8s.io", "as a get of the one lease, repeated"),
    ("patch pods", "asked for where gateways tell of pods; T1 has neither"),
    ("list leases.coordination.k8s.io", "the start of a watch of the one lease"),
    ("get mcpfleets.mcpfleet.io/scale", SCALER),
    ("patch mcpfleets.mcpfleet.io/scale", SCALER),
    ("list pods.metrics.k8s.io", SCALER),
    ("create tokenreviews.authentication.k8s.io", PORT),
    ("create subjectaccessreviews.authorization.k8s.io", PORT),
    ("create configmaps", PORT),
    ("get configmaps", PORT),
    ("list configmaps", PORT),
    ("watch configmaps", PORT),
    ("patch configmaps", PORT),
    ("delete configmaps", PORT),
    ("list apiservices.apiregistration.k8s.io", PORT),
    ("watch apiservices.apiregistration.k8s.io", PORT),
    ("create apiservices.apiregistration.k8s.io", PORT),
    ("get apiservices.apiregistration.k8s.io", PORT),
    ("update apiservices.apiregistration.k8s.io", PORT),
    ("delete apiservices.apiregistration.k8s.io", PORT),
];
const SCALER: &str = "used for fleets with MCP signals, which T1 has no gateways for";
const PORT: &str = "used by the port for reports and metrics, which this operator is not given";

/// Rights that a name has to limit, and to what.
const LIMITED: &[(&str, &str)] = &[
    ("configmaps", "mcp-fleet-operator-ca"),
    ("apiservices.apiregistration.k8s.io", "v1beta2.custom.metrics.k8s.io"),
];
/// What a name cannot limit, and who may do it sees or changes nothing of others by it.
const UNLIMITED: &[&str] = &[
    "create configmaps",
    "create apiservices.apiregistration.k8s.io",
    "list apiservices.apiregistration.k8s.io",
    "watch apiservices.apiregistration.k8s.io",
];

fn documents(text: &str) -> Result<Vec<Value>, Failed> {
    let all = text.split("\n---").map(serde_saphyr::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
    Ok(all.into_iter().filter(Value::is_object).collect())
}

fn read(path: &str) -> Result<String, Failed> {
    Ok(std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))?)
}

fn words(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

/// `verb resource.group/subresource`, as the audit log's kinds.
fn right(verb: &str, group: &str, resource: &str) -> String {
    let (plural, sub) =
        resource.split_once('/').map_or((resource, String::new()), |(p, s)| (p, format!("/{s}")));
    let group = if group.is_empty() { String::new() } else { format!(".{group}") };
    format!("{verb} {plural}{group}{sub}")
}

/// What the roles bound to the operator's account grant, and the names that limit it. Kubernetes' own role for
/// extension API servers, in kube-system, is not among them: one ConfigMap to read.
fn rules() -> Result<Vec<(String, Vec<String>)>, Failed> {
    let all = documents(&read("deploy/operator.yaml")?)?;
    let bound: BTreeSet<String> = all
        .iter()
        .filter(|d| d["kind"].as_str().is_some_and(|k| k.ends_with("RoleBinding")))
        .filter(|d| d["subjects"][0]["name"] == operator::SERVICE_ACCOUNT)
        .filter_map(|d| d["roleRef"]["name"].as_str().map(str::to_owned))
        .collect();
    let mut rights = Vec::new();
    for role in all.iter().filter(|d| matches!(d["kind"].as_str(), Some("Role" | "ClusterRole"))) {
        if !role["metadata"]["name"].as_str().is_some_and(|name| bound.contains(name)) {
            continue;
        }
        for rule in role["rules"].as_array().into_iter().flatten() {
            for (group, resource) in words(&rule["apiGroups"])
                .iter()
                .flat_map(|g| words(&rule["resources"]).into_iter().map(move |r| (g.clone(), r)))
            {
                let names = words(&rule["resourceNames"]);
                let verbs = words(&rule["verbs"]);
                rights.extend(verbs.iter().map(|verb| (right(verb, &group, &resource), names.clone())));
            }
        }
    }
    Ok(rights)
}

fn granted() -> Result<BTreeSet<String>, Failed> {
    Ok(rules()?.into_iter().map(|(right, _)| right).collect())
}

/// What the audit log saw the operator do, unfinished watches included, and what it was refused.
fn used(suite: &Suite) -> Result<(BTreeSet<String>, Vec<String>), Failed> {
    let (mut rights, mut refused) = (BTreeSet::new(), Vec::new());
    for line in std::fs::read_to_string(suite.cluster.audit_log().path())?.lines() {
        let Ok(entry) = serde_json::from_str::<Value>(line) else { continue };
        if entry["user"]["username"] != operator::USER {
            continue;
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let object = &entry["objectRef"];
        let resource = match text(&object["subresource"]) {
            sub if sub.is_empty() => text(&object["resource"]),
            sub => format!("{}/{sub}", text(&object["resource"])),
        };
        let (group, verb) = (text(&object["apiGroup"]), text(&entry["verb"]));
        let code = entry["responseStatus"]["code"].as_u64();
        // An apply that makes an object needs both rights.
        if verb == "patch" && code == Some(201) {
            rights.insert(right("create", &group, &resource));
        }
        // Admission refuses with 403 too; only a missing right says so here.
        if code == Some(403) && entry["annotations"]["authorization.k8s.io/decision"] == "forbid" {
            refused.push(format!("{verb} {}", text(&entry["requestURI"])));
        }
        rights.insert(right(&verb, &group, &resource));
    }
    Ok((rights, refused))
}

/// Makes an object with the fleet's labels, and its owner reference if it has one.
async fn owned(
    suite: &Suite,
    ns: &Namespace,
    kind: ChildKind,
    name: &str,
    like: &Value,
    owner: Option<&McpFleet>,
) -> TestResult {
    let resource = kind.api_resource();
    let mut object = like.clone();
    object["apiVersion"] = json!(resource.api_version);
    object["kind"] = json!(resource.kind);
    // Without labels it is not to be seen by the watches.
    object["metadata"] = json!({"name": name});
    if let Some(fleet) = owner {
        object["metadata"] = json!({
            "name": name,
            "labels": {"app.kubernetes.io/managed-by": "mcp-fleet", "mcpfleet.io/fleet": "weather"},
            "ownerReferences": [{"apiVersion": "mcpfleet.io/v1alpha1", "kind": "McpFleet", "name": "weather", "uid": fleet.uid(), "controller": true}],
        });
    }
    let api = common::api(&suite.client, &ns.name, kind);
    api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    Ok(())
}

/// Brings the operator to do everything that it may have to: make, mend, look at strangers, take away.
async fn exercise(suite: &Suite) -> TestResult {
    let ns = suite.namespace("rights").await?;
    let fleet = ns.fleet("weather", "{server: {image: a}, autoscaling: {}}").await?;
    let children = common::wait_children(&ns, &suite.client, "weather", 7).await?;
    let strangers = suite.namespace("strangers").await?;
    for ((kind, name), child) in &children {
        let mut like = json!({});
        if let Some(spec) = child.data.get("spec") {
            like["spec"] = spec.clone();
            if *kind == ChildKind::Service {
                like["spec"] = json!({"ports": [{"port": 1}]});
            }
            if *kind == ChildKind::HorizontalPodAutoscaler {
                like["spec"]["scaleTargetRef"]["name"] = json!("other");
            }
        }
        owned(suite, &strangers, *kind, name, &like, None).await?;
        // What an older version could have left under another name.
        owned(suite, &ns, *kind, &format!("{name}-old"), &like, Some(&fleet)).await?;
    }
    strangers.fleet("weather", "{server: {image: a}, autoscaling: {}}").await?;
    strangers.condition("weather", "Accepted", "False", "ChildConflict").await?;
    common::wait_children(&ns, &suite.client, "weather", 7).await?;
    let services = common::api(&suite.client, &ns.name, ChildKind::Service);
    services.delete("weather", &DeleteParams::default()).await?;
    common::wait_children(&ns, &suite.client, "weather", 7).await?;
    Ok(())
}

pub async fn every_right_is_used_and_none_is_missing(suite: Arc<Suite>) -> TestResult {
    suite.operator();
    exercise(&suite).await?;
    let granted = granted()?;
    assert!(granted.len() > 40, "{granted:?}");
    let unseen = |right: &String| UNSEEN.iter().any(|(name, _)| name == right);
    let idle = wait::until("every right to be used", wait::LIMIT, async || {
        let (used, _) = used(&suite).map_err(|e| format!("{e:?}"))?;
        let idle: Vec<_> =
            granted.iter().filter(|right| !used.contains(*right) && !unseen(right)).cloned().collect();
        if idle.is_empty() { Ok(idle) } else { Err(format!("granted and never used: {idle:?}")) }
    })
    .await?;
    assert!(idle.is_empty());
    let (_, refused) = used(&suite)?;
    // Leases of other tests' own may be asked for before their role is there.
    let refused: Vec<_> = refused.into_iter().filter(|what| !what.contains("/leases/")).collect();
    assert!(refused.is_empty(), "refused for want of a right: {refused:?}");
    Ok(())
}

pub async fn no_right_is_dangerous(suite: Arc<Suite>) -> TestResult {
    for (right, names) in rules()? {
        let (_, resource) = right.split_once(' ').unwrap_or_default();
        if let Some((_, name)) = LIMITED.iter().find(|(limited, _)| resource == *limited) {
            assert!(UNLIMITED.contains(&right.as_str()) || names == [*name], "{right} of {names:?}");
        }
        for never in [
            "secrets",
            "roles",
            "clusterroles",
            "pods/exec",
            "pods/attach",
            "*",
            "customresourcedefinitions",
            "tokens",
        ] {
            assert!(
                !resource.contains(never) || (never == "roles" && !resource.contains("roles")),
                "{right}"
            );
        }
    }
    let user = format!("--as={}", operator::USER);
    let list = suite.kubectl(&["auth", "can-i", "--list", "--no-headers", &user, "-n", "default"])?;
    for namespace in [operator::NAMESPACE, "kube-system"] {
        let list = suite.kubectl(&["auth", "can-i", "--list", "--no-headers", &user, "-n", namespace])?;
        for line in list.lines().filter(|line| line.starts_with("configmaps ") && !line.contains("[create]"))
        {
            let of = ["[mcp-fleet-operator-ca]", "[extension-apiserver-authentication]"];
            assert!(of.iter().any(|name| line.contains(name)), "{namespace}: {line}");
        }
    }
    // A line that begins with a space is about a path such as /healthz, which everybody may ask.
    for line in list.lines().filter(|line| !line.starts_with(' ')) {
        let resource = line.split_whitespace().next().unwrap_or_default();
        for never in ["secrets", "configmaps", "roles", "exec", "attach", "impersonate", "tokens", "*"] {
            assert!(!resource.contains(never), "{line}");
        }
        assert!(!line.contains("[*]"), "{line}");
    }
    // `kubectl auth can-i create pods/exec` would ask for a pod called exec.
    for (verb, what, subresource) in [
        ("get", "secrets", ""),
        ("get", "configmaps", ""),
        ("list", "configmaps", ""),
        ("delete", "apiservices", ""),
        ("update", "apiservices", ""),
        ("create", "pods", ""),
        ("create", "pods", "exec"),
        ("create", "pods", "attach"),
        ("create", "serviceaccounts", "token"),
        ("create", "rolebindings", ""),
        ("escalate", "roles", ""),
        ("bind", "roles", ""),
        ("update", "customresourcedefinitions", ""),
        ("impersonate", "users", ""),
    ] {
        let mut kubectl = suite.cluster.kubectl();
        let subresource = format!("--subresource={subresource}");
        let answer = kubectl.args(["auth", "can-i", verb, what, &subresource, &user, "-A"]).output()?;
        assert_eq!(String::from_utf8_lossy(&answer.stdout).trim(), "no", "{verb} {what} {subresource}");
    }
    Ok(())
}

fn output(command: &mut Command) -> Result<String, Failed> {
    let done = command.output()?;
    if !done.status.success() {
        return Err(String::from_utf8_lossy(&done.stderr).into_owned().into());
    }
    Ok(String::from_utf8(done.stdout)?)
}

pub async fn one_namespace_needs_no_cluster_wide_right(_: Arc<Suite>) -> TestResult {
    let suite = common::quiet();
    let (ns, system) = (suite.namespace("namespaced").await?, suite.namespace("namespaced-system").await?);
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/mcp-fleet");
    let mut helm = suite.cluster.helm();
    helm.arg("template")
        .arg("mcp-fleet")
        .arg(&chart)
        .args(["-n", &system.name, "-f"])
        .arg(chart.join("ci/namespaced-values.yaml"));
    let rendered = documents(&output(helm.args(["--set", &format!("watchNamespace={}", ns.name)]))?)?;
    for object in &rendered {
        assert!(
            object["metadata"]["namespace"].is_string(),
            "{} {} is of the whole cluster",
            object["kind"],
            object["metadata"]["name"]
        );
    }
    let rights = rendered
        .iter()
        .filter(|d| ["ServiceAccount", "Role", "RoleBinding"].iter().any(|kind| d["kind"] == *kind));
    let rights: Vec<&Value> = rights.collect();
    suite.cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": rights}).to_string())?;
    let account = rights
        .iter()
        .filter(|d| d["kind"] == "ServiceAccount")
        .filter_map(|d| d["metadata"]["name"].as_str())
        // The gateway has one of its own.
        .find(|name| name.ends_with("operator"))
        .ok_or("no ServiceAccount of the operator")?;
    let token = suite.cluster.service_account_token(&system.name, account)?;
    let kubeconfig = suite.cluster.token_kubeconfig(&ns.name, &token)?;
    let operator = operator::Operator::builder("namespaced")
        .namespace(&ns.name)
        .arg("--pod-namespace")
        .arg(&system.name)
        .kubeconfig(kubeconfig);
    let operator = operator.start(&suite.cluster)?;
    ns.fleet("weather", "{server: {image: a}, autoscaling: {}}").await?;
    common::wait_children(&ns, &suite.client, "weather", 7).await?;
    common::wait_observed(&ns, "weather").await?;
    let user = format!("system:serviceaccount:{}:{account}", system.name);
    let refused = suite.cluster.audit_log().all()?.by(&user).filter(|e| e.code == 403);
    assert!(refused.is_empty(), "{:?}", refused.summary());
    assert_eq!(operator.metric("mcp_fleet_operator_errors_total"), 0.0, "{}", operator.log());
    Ok(())
}

pub async fn the_schema_has_no_way_out_of_the_namespace(_: Arc<Suite>) -> TestResult {
    let never = [
        "namespace",
        "namespaces",
        "hostPath",
        "hostNetwork",
        "hostPID",
        "hostIPC",
        "hostPort",
        "hostAliases",
        "host",
        "privileged",
        "capabilities",
        "securityContext",
        "procMount",
        "seccompProfile",
        "runtimeClassName",
        "projected",
        "csi",
        "nfs",
        "externalIPs",
        "externalName",
        "clusterIP",
        "nodeName",
        "schedulerName",
        "initContainers",
        "containers",
        "template",
        "selector",
        "labels",
        "ownerReferences",
        "clientConfig",
    ];
    let mut found = Vec::new();
    schema::visit(&schema::spec(), "spec", &mut |path, _| {
        let field = path.rsplit('.').next().unwrap_or_default().trim_end_matches(['[', ']', '{', '}']);
        // Where pods run is looked up by labels; nothing of another namespace is read or changed by it.
        if never.contains(&field) && !path.starts_with("spec.server.affinity") {
            found.push(path.to_owned());
        }
    });
    assert!(found.is_empty(), "{found:?}");
    Ok(())
}

/// A person who may write fleets in one namespace, and nothing else.
pub async fn a_user_of_one_namespace_gets_nothing_of_another(suite: Arc<Suite>) -> TestResult {
    suite.operator();
    let (mine, theirs) = (suite.namespace("mine").await?, suite.namespace("theirs").await?);
    let rules = json!([{"apiGroups": ["mcpfleet.io"], "resources": ["mcpfleets"], "verbs": ["*"]}]);
    let meta = json!({"name": "user", "namespace": mine.name});
    suite.cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": meta, "rules": rules},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": meta, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "user"}, "subjects": [{"kind": "ServiceAccount", "name": "user", "namespace": mine.name}]},
    ]}).to_string())?;
    let kubeconfig = suite
        .cluster
        .token_kubeconfig(&mine.name, &suite.cluster.service_account_token(&mine.name, "user")?)?;
    let user = support::client(&kubeconfig).await?;
    theirs.fleet("weather", MINIMAL).await?;
    let before = common::wait_children(&theirs, &suite.client, "weather", 6).await?;
    common::wait_observed(&theirs, "weather").await?;

    let elsewhere: Api<McpFleet> = Api::namespaced(user.clone(), &theirs.name);
    assert!(matches!(elsewhere.get("weather").await, Err(kube::Error::Api(s)) if s.code == 403));
    // Fields that would reach out are not stored, whatever they say.
    let text = json!({"apiVersion": "mcpfleet.io/v1alpha1", "kind": "McpFleet", "metadata": {"name": "weather"}, "spec": {
        "server": {
            "image": "a", "namespace": theirs.name, "hostNetwork": true, "securityContext": {"privileged": true}, "privileged": true,
            "serviceAccountName": format!("../{}/serviceaccounts/mcp-weather", theirs.name),
            "envFrom": [{"secretRef": {"name": "token", "namespace": theirs.name}}],
            "volumes": [{"name": "root", "emptyDir": {}, "hostPath": {"path": "/"}}],
        },
        "service": {"externalName": "kubernetes.default", "selector": {"app": "victim"}, "externalIPs": ["10.0.0.1"]},
    }});
    let resource = kube::api::ApiResource::erase::<McpFleet>(&());
    let own: Api<kube::api::DynamicObject> = Api::namespaced_with(user.clone(), &mine.name, &resource);
    let stored = own.create(&PostParams::default(), &serde_json::from_value(text)?).await?;
    for part in
        ["hostNetwork", "hostPath", "privileged", "externalName", "externalIPs", "victim", "\"namespace\""]
    {
        assert!(!stored.data.to_string().contains(part), "{part} was stored");
    }
    // An account with a path for a name is refused as part of a pod template, and told.
    mine.condition("weather", "Accepted", "False", "ChildRejected").await?;
    let after = common::wait_children(&theirs, &suite.client, "weather", 6).await?;
    for (child, object) in &before {
        assert_eq!(
            after[child].resource_version(),
            object.resource_version(),
            "{child:?} of another namespace was written"
        );
    }
    let services = common::api(&suite.client, &mine.name, ChildKind::Service);
    assert_eq!(
        services.get("weather").await?.data["spec"]["selector"],
        json!({"mcpfleet.io/fleet": "weather"})
    );
    Ok(())
}

pub async fn generated_pods_are_restricted(suite: Arc<Suite>) -> TestResult {
    suite.operator();
    let ns = suite.namespace("restricted").await?;
    suite.kubectl(&["label", "namespace", &ns.name, "pod-security.kubernetes.io/enforce=restricted"])?;
    suite.kubectl(&["create", "serviceaccount", "external", "-n", &ns.name])?;
    let pods: Api<Pod> = ns.api();
    let dry = PostParams { dry_run: true, field_manager: None };
    let admit = async |mut pod: Value| {
        pod["metadata"]["name"] = json!("pod");
        pods.create(&dry, &serde_json::from_value(pod).map_err(|e| e.to_string())?)
            .await
            .map(drop)
            .map_err(|e| e.to_string())
    };
    // The check itself: a pod that is not restricted must be refused.
    let plain = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {"serviceAccountName": "external", "containers": [{"name": "c", "image": "i"}]}});
    let refusal = admit(plain).await.expect_err("Pod Security is not at work");
    assert!(refusal.contains("PodSecurity"), "{refusal}");
    let mut specs = BTreeMap::from([("minimal", MINIMAL.to_owned()), ("full", FULL.to_owned())]);
    for drain in ["Await", "Sleep", "None"] {
        specs.insert(drain, format!("{{server: {{image: a}}, rollout: {{drain: {drain}}}}}"));
    }
    for (name, spec) in specs {
        let name = name.to_lowercase();
        ns.fleet(&name, &spec).await?;
        common::wait_observed(&ns, &name).await?;
        let deployment = common::api(&suite.client, &ns.name, ChildKind::Deployment).get(&name).await?;
        let mut pod = deployment.data["spec"]["template"].clone();
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        admit(pod).await.map_err(|e| format!("the pod of fleet {name} is refused: {e}"))?;
    }
    Ok(())
}

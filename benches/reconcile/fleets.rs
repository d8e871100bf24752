//! The fleets of the benchmark, and the plain client's way to make them.

use std::time::{Duration, SystemTime};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Config, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    core::DynamicObject,
};
use mcp_fleet::{
    api::{names, v1alpha1::McpFleet},
    operator::{
        desired::{self, Desired, Facts, Rendering},
        plan::applied_hash,
        validate::validate,
    },
};
use serde_json::json;

/// Namespaces that the fleets are spread over.
const N_NAMESPACES: usize = 10;
/// Children of each fleet: ServiceAccount, two Services, NetworkPolicy, budget, Deployment, autoscaler.
pub const N_CHILDREN: usize = 7;

/// Clients with one connection each, all as administrator.
pub struct Pool(Vec<Client>);

impl Pool {
    /// Opens `n`.
    pub async fn new(n: usize) -> anyhow::Result<Self> {
        let mut clients = Vec::with_capacity(n);
        for _ in 0..n {
            let mut config = Config::infer().await?;
            config.default_retry = false;
            clients.push(Client::try_from(config)?);
        }
        Ok(Self(clients))
    }

    /// The first, for what is not timed.
    pub fn any(&self) -> Client {
        self.0[0].clone()
    }

    /// Does `call` with each item, on each connection one after the other; the results in no order.
    pub async fn each<T, R, F>(
        &self,
        items: Vec<T>,
        call: impl Fn(Client, T) -> F + Copy,
    ) -> anyhow::Result<Vec<R>>
    where
        F: Future<Output = anyhow::Result<R>>,
    {
        let queue = parking_lot::Mutex::new(items.into_iter());
        let worker = |client: &Client| {
            let (client, queue) = (client.clone(), &queue);
            async move {
                let mut results = Vec::new();
                loop {
                    let Some(item) = queue.lock().next() else { return Ok::<_, anyhow::Error>(results) };
                    results.push(call(client.clone(), item).await?);
                }
            }
        };
        let all: Vec<Vec<R>> =
            stream::iter(self.0.iter().map(worker)).buffer_unordered(self.0.len()).try_collect().await?;
        Ok(all.into_iter().flatten().collect())
    }
}

/// Where the `i`-th fleet of a phase lives.
pub fn place(phase: &str, i: usize) -> (String, String) {
    (format!("{phase}-{}", i % N_NAMESPACES), format!("fleet-{i:04}"))
}

/// An autoscaled fleet with all seven children and one replica to begin with.
pub fn fleet(phase: &str, i: usize, spec: &serde_json::Value) -> anyhow::Result<McpFleet> {
    let (namespace, name) = place(phase, i);
    let mut object = json!({
        "apiVersion": names::API_VERSION, "kind": names::KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"server": {"image": "registry.example/server:1"}, "autoscaling": {"minReplicas": 1, "maxReplicas": 4}},
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        for (inner, value) in value.as_object().into_iter().flatten() {
            object["spec"][key][inner] = value.clone();
        }
        if !value.is_object() {
            object["spec"][key] = value.clone();
        }
    }
    Ok(serde_json::from_value(object)?)
}

/// Makes the namespaces of a phase, and waits until each has its default ServiceAccount.
pub async fn namespaces(client: &Client, phase: &str) -> anyhow::Result<()> {
    let api: Api<Namespace> = Api::all(client.clone());
    for i in 0..N_NAMESPACES {
        let namespace = serde_json::from_value(json!({"metadata": {"name": format!("{phase}-{i}")}}))?;
        api.create(&PostParams::default(), &namespace).await?;
    }
    let accounts = |i| {
        Api::<k8s_openapi::api::core::v1::ServiceAccount>::namespaced(client.clone(), &format!("{phase}-{i}"))
    };
    for i in 0..N_NAMESPACES {
        while accounts(i).get_opt("default").await?.is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// Creates a fleet; the time just before, since 1970.
pub async fn create(client: Client, fleet: McpFleet) -> anyhow::Result<((String, String), Duration)> {
    let (namespace, name) = (fleet.namespace().unwrap_or_default(), fleet.name_any());
    let sent = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Api::<McpFleet>::namespaced(client, &namespace).create(&PostParams::default(), &fleet).await?;
    Ok(((namespace, name), sent))
}

/// Creates a fleet as it would be with an operator that has made nothing of it yet but its scale, so that the
/// autoscaler of the plain client finds what that of the operator finds.
pub async fn create_with_scale(client: Client, mut fleet: McpFleet) -> anyhow::Result<Vec<Desired>> {
    let (namespace, name) = (fleet.namespace().unwrap_or_default(), fleet.name_any());
    fleet.spec.replicas = Some(1);
    let api = Api::<McpFleet>::namespaced(client, &namespace);
    let created = api.create(&PostParams::default(), &fleet).await?;
    let valid = validate(&created)?;
    let status = json!({"status": {"replicas": 1, "selector": desired::selector_text(&valid)}});
    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await?;
    let rendering = Rendering {
        agent_image: "localhost/mcp-fleet:dev".into(),
        agent_image_pull_policy: "IfNotPresent".into(),
    };
    Ok(desired::build(&valid, &Facts::default(), &rendering))
}

/// Creates a child as any client would: POST.
pub async fn create_child(client: Client, child: Desired) -> anyhow::Result<()> {
    let mut object = child.object;
    object["metadata"]["annotations"][names::ANNOTATION_APPLIED_HASH] = applied_hash(&object).into();
    let object: DynamicObject = serde_json::from_value(object)?;
    let namespace = object.namespace().unwrap_or_default();
    let api = Api::<DynamicObject>::namespaced_with(client, &namespace, &child.kind.api_resource());
    api.create(&PostParams::default(), &object).await?;
    Ok(())
}

/// Deletes the fleets of a phase, and waits until their pods and autoscalers are gone too.
pub async fn delete_all(client: &Client, phase: &str) -> anyhow::Result<()> {
    for i in 0..N_NAMESPACES {
        let namespace = format!("{phase}-{i}");
        let api = Api::<McpFleet>::namespaced(client.clone(), &namespace);
        api.delete_collection(&DeleteParams::background(), &ListParams::default()).await?;
    }
    let first = ListParams::default().limit(1);
    for i in 0..N_NAMESPACES {
        let namespace = format!("{phase}-{i}");
        let pods = Api::<k8s_openapi::api::core::v1::Pod>::namespaced(client.clone(), &namespace);
        let autoscalers = Api::<k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler>::namespaced(
            client.clone(),
            &namespace,
        );
        while !(pods.list_metadata(&first).await?.items.is_empty()
            && autoscalers.list_metadata(&first).await?.items.is_empty())
        {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    Ok(())
}

//! What gateways tell the operator: which pods a scale-down takes, what servers speak. And that a gateway that is
//! installed later restarts nobody. On a cluster of its own, because here the operator itself is what changes.

use std::{collections::BTreeSet, sync::Arc};

use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use libtest_mimic::Failed;
use mcp_fleet::api::{names, v1alpha1::McpFleet};
use mcp_fleet_cluster::{Cluster, Tier};
use parking_lot::Mutex;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::{
    look::{self, SERVER, check},
    support::{
        self, Namespace, Suite, TestResult, client,
        operator::{self, Operator},
        wait,
    },
};

/// Answers the operator as a gateway does; its address.
async fn gateway(answer: Arc<Mutex<String>>) -> Result<String, Failed> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = [0; 1024];
            let _ = stream.read(&mut asked).await;
            let body = answer.lock().clone();
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        }
    });
    Ok(address)
}

async fn uids(ns: &Namespace) -> Result<BTreeSet<String>, Failed> {
    Ok(look::pods(ns, "weather").await?.iter().filter_map(ResourceExt::uid).collect())
}

pub async fn a_scale_down_takes_the_emptiest(_suite: Arc<Suite>) -> TestResult {
    let cluster = Cluster::builder(Tier::T2).name("t2-gateways").kwok_nodes(2).start()?;
    support::install_crd(&cluster)?;
    operator::install_rights(&cluster)?;
    let ns = Namespace::existing("default", client(&cluster.kubeconfig()).await?);
    let mut before = Operator::builder("before").start(&cluster)?;
    ns.fleet("weather", &format!("{{replicas: 5, {SERVER}}}")).await?;
    ns.condition("weather", "Ready", "True", "Ready").await?;
    let pods = uids(&ns).await?;
    check(before.terminate() == Some(0), || "the first operator did not end in order".into())?;

    // Loads of 0, 1, 20, 300 and 4000.
    let loads = pods.iter().zip([300, 0, 4000, 1, 20]);
    let endpoints: Vec<_> = loads
        .clone()
        .map(|(uid, load)| json!({"podUid": uid, "sessions": load / 2, "inflight": load - load / 2, "streams": 0}))
        .collect();
    let busy: BTreeSet<String> = loads.filter(|(_, load)| *load >= 300).map(|(uid, _)| uid.clone()).collect();
    let answer = json!({"gateway": "a", "fleets": [{"namespace": "default", "name": "weather", "uid": "u",
        "protocol": {"versions": ["2025-11-25", "2026-07-28"], "server": {"name": "w", "version": "1"}, "sessions": "Stateful"},
        "endpoints": endpoints}]});
    let address = gateway(Arc::new(Mutex::new(answer.to_string()))).await?;
    let with = ["--gateway-url", "http://gate.example.com", "--gateway-peers", &address];
    let builder = with.iter().fold(Operator::builder("with-gateway"), |builder, arg| builder.arg(arg));
    let _operator = builder.start(&cluster)?;

    let fleet = wait::until("what the servers speak", wait::LIMIT, async || {
        let fleet: McpFleet = ns.api().get("weather").await.map_err(|e| e.to_string())?;
        let status = fleet.status.clone().unwrap_or_default();
        status
            .protocol
            .map(|p| p.versions.len())
            .filter(|n| *n == 2)
            .map(|_| fleet)
            .ok_or("nothing".to_owned())
    })
    .await?;
    let url = fleet.status.and_then(|s| s.url);
    check(url.as_deref() == Some("http://gate.example.com/default/weather/mcp"), || format!("{url:?}"))?;
    wait::until("the costs", wait::LIMIT, async || {
        let pods = look::pods(&ns, "weather").await.map_err(|e| format!("{e:?}"))?;
        let n = pods.iter().filter(|p| p.annotations().contains_key(names::ANNOTATION_DELETION_COST)).count();
        // The empty one needs none.
        if n == 4 { Ok(()) } else { Err(format!("{n} pods with a cost")) }
    })
    .await?;
    check(uids(&ns).await? == pods, || "the gateway restarted pods".into())?;

    let scale = json!({"spec": {"replicas": 2}});
    ns.api::<McpFleet>().patch_scale("weather", &PatchParams::default(), &Patch::Merge(&scale)).await?;
    wait::until("the two busiest to be left", wait::LIMIT, async || {
        let left = uids(&ns).await.map_err(|e| format!("{e:?}"))?;
        if left == busy { Ok(()) } else { Err(format!("{left:?}, not {busy:?}")) }
    })
    .await
}

//! A real Kubernetes for tests and for people: etcd, the API server, the controllers, fake and real nodes,
//! as plain processes in a network namespace of their own. No Docker, no registry, nothing of the host changed.
//!
//! ```no_run
//! use mcp_fleet_cluster::{Cluster, Tier};
//! # fn main() -> mcp_fleet_cluster::Result<()> {
//! let cluster = Cluster::builder(Tier::T2).name("demo").kwok_nodes(3).start()?;
//! cluster.kubectl_ok(["create", "deployment", "web", "--image=web", "--replicas=3"])?;
//! println!("export KUBECONFIG={}", cluster.kubeconfig().display());
//! # Ok(()) }
//! ```
//!
//! | tier | what runs |
//! |---|---|
//! | T1 | etcd, API server (RBAC, audit log, aggregation layer) |
//! | T2 | + controller-manager, scheduler, kwok with fake nodes |
//! | T3 | + real nodes (kubelet and containerd), kube-proxy, DNS, metrics-server |
//!
//! Dropping the [`Cluster`] removes it. So does the end of the process, however it comes: a small program, the
//! warden, holds the other end of a pipe and cleans up when that closes. Several clusters may run at once.
//!
//! This crate knows Kubernetes only through its command line programs; it does not depend on the product.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "blocking code around processes: wall-clock waits and std locks are the right tools here"
)]

pub mod audit;
pub mod image;

mod addons;
mod builder;
mod cluster;
mod control_plane;
mod error;
mod kubeconfig;
mod layout;
mod netns;
mod node;
mod process;
mod registry;
mod secrets;
mod tier;
mod tools;
mod wait;

pub use builder::Builder;
pub use cluster::{Cluster, Forward};
pub use error::{Error, Result};
pub use registry::{Entry as Running, down, list, open};
pub use tier::Tier;
pub use tools::{cache_dir, compile_rust};

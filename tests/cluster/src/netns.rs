//! The network of one cluster: one namespace with the control plane and the first node, and one for each
//! further node, joined by a bridge. The default route exists only inside; the host's routes, rules and
//! settings are not touched.
//!
//! ```text
//!   NS        etcd, API server, …, n1 ── bridge node0 (10.99.0.1/24) ─┬─ v2 ── eth0 (10.99.0.2/24)  NS-n2
//!             pods of n1: bridge cni0 (10.244.0.0/24)                 └─ v3 ── …        pods: 10.244.1.0/24
//! ```

use std::fs::File;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::process::Command;

use crate::error::{Context, Error, Result};
use crate::layout::{Layout, NODE_IP};
use crate::process::run;

/// Creates the namespaces for `n_nodes` real nodes (their addresses are 10.99.0.1, .2, …).
pub(crate) fn create(layout: &Layout, n_nodes: usize) -> Result<()> {
    let ns = layout.ns.as_str();
    ip(&["netns", "add", ns])?;
    steps(ns, &["link set lo up", "link add node0 type bridge"])?;
    steps(ns, &[&format!("addr add {NODE_IP}/24 dev node0"), "link set node0 up"])?;
    // This pair of interfaces gives the bridge a carrier; without one it stays down.
    steps(
        ns,
        &[
            "link add up0 type veth peer name up1",
            "link set up1 master node0",
            "link set up0 up",
            "link set up1 up",
        ],
    )?;
    steps(ns, &["route add default dev node0"])?;
    for node in 2..=n_nodes {
        let (other, port) = (layout.node_ns(node), link(node));
        ip(&["netns", "add", &other])?;
        steps(ns, &[&format!("link add {port} type veth peer name eth0 netns {other}")])?;
        steps(ns, &[&format!("link set {port} master node0"), &format!("link set {port} up")])?;
        steps(
            &other,
            &["link set lo up", &format!("addr add {}/24 dev eth0", node_ip(node)), "link set eth0 up"],
        )?;
        steps(&other, &[&format!("route add default via {NODE_IP}")])?;
    }
    for node in 1..=n_nodes.max(1) {
        let ns = layout.node_ns(node);
        for other in (1..=n_nodes).filter(|&other| other != node) {
            steps(&ns, &[&format!("route add {} via {}", pod_net(other), node_ip(other))])?;
        }
        // These settings are per namespace; the second makes the rules of Services apply between pods of one bridge.
        let settings = "echo 1 > /proc/sys/net/ipv4/ip_forward; f=/proc/sys/net/bridge/bridge-nf-call-iptables; [ ! -e $f ] || echo 1 > $f";
        run(Command::new("nsenter").args([&format!("--net=/run/netns/{ns}"), "--", "sh", "-ec", settings]))?;
    }
    Ok(())
}

/// A socket of this process that listens in the first namespace. A socket belongs for ever to the namespace in
/// which it was made, so only a thread of its own has to enter it.
pub(crate) fn listen(layout: &Layout, port: u16) -> Result<TcpListener> {
    let ns = layout.ns.clone();
    let bind = move || -> std::io::Result<TcpListener> {
        let namespace = File::open(format!("/run/netns/{ns}"))?;
        rustix::thread::move_into_link_name_space(namespace.as_fd(), None)?;
        TcpListener::bind((NODE_IP, port))
    };
    let bound = std::thread::spawn(bind).join();
    let bound = bound.map_err(|_| Error::Invalid("the thread that binds a socket panicked".to_owned()))?;
    bound.context(|| format!("listen on {NODE_IP}:{port} in {}", layout.ns))
}

/// Cuts a node other than the first off from the network, or joins it again.
pub(crate) fn set_link(layout: &Layout, node: usize, state: &str) -> Result<()> {
    steps(&layout.ns, &[&format!("link set {} {state}", link(node))])
}

/// Address of real node `node`, counted from 1.
pub(crate) fn node_ip(node: usize) -> String {
    let (network, _) = NODE_IP.rsplit_once('.').unwrap_or_default();
    format!("{network}.{node}")
}

/// Addresses of the pods of real node `node`.
pub(crate) fn pod_net(node: usize) -> String {
    format!("10.244.{}.0/24", node - 1)
}

/// The node's port on the bridge.
fn link(node: usize) -> String {
    format!("v{node}")
}

fn steps(ns: &str, steps: &[&str]) -> Result<()> {
    for step in steps {
        let words: Vec<&str> = ["-n", ns].into_iter().chain(step.split(' ')).collect();
        ip(&words)?;
    }
    Ok(())
}

fn ip(args: &[&str]) -> Result<()> {
    run(Command::new("ip").args(args)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_node_has_the_address_of_the_api_server() {
        assert_eq!(node_ip(1), NODE_IP);
        assert_eq!(node_ip(2), "10.99.0.2");
    }

    #[test]
    fn nodes_have_pod_ranges_of_their_own() {
        assert_eq!((pod_net(1), pod_net(2)), ("10.244.0.0/24".to_owned(), "10.244.1.0/24".to_owned()));
    }
}

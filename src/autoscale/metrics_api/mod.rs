//! The operator's TLS port: the aggregated API `custom.metrics.k8s.io/v1beta2`, and the gateways' load reports.
//!
//! Every replica serves from memory: the [`Board`] that its own scaler fills. The leader alone writes: the
//! APIService, and the union of the replicas' certificates. Nothing here decides about a scale.

mod answers;
mod apiservice;
mod authn;
mod authz;
mod bundle;
mod cached;
mod certs;
mod discovery;
mod metrics;
mod reply;
mod selector;
mod state;
#[cfg(test)]
mod test_support;
mod url;

pub use metrics::SamplesDropped;
pub use state::ApiState;

use std::{collections::BTreeMap, io, net::SocketAddr, path::PathBuf, sync::Arc};

use kube::Client;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
};
use tokio_util::sync::CancellationToken;

use self::metrics::ApiMetrics;
use crate::{
    autoscale::{board::Board, ledger::Ledger, time::Now},
    domain::FleetKey,
    runtime::{admin::Readiness, lease::Leadership},
};

/// What the flags say.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address of the TLS port.
    pub listen: SocketAddr,
    /// Namespace of the operator, its Services and the ConfigMap.
    pub namespace: String,
    /// Name of this replica.
    pub pod_name: String,
    /// Service behind the APIService; without it there is no metrics API ([`ApiState::Disabled`]).
    pub metrics_api_service: Option<String>,
    /// Headless Service to which gateways report; without it reports are refused (404).
    pub load_service: Option<String>,
    /// ConfigMap with the replicas' CA certificates.
    pub ca_config_map: String,
    /// User name of the gateways, `system:serviceaccount:<namespace>:<name>`; its tokens are reviewed.
    pub gateway_user: Option<String>,
    /// Audience that their tokens must name.
    pub audience: String,
    /// A file with one shared bearer token, instead of reviews; for an operator without cluster-wide rights.
    pub load_token_file: Option<PathBuf>,
}

/// Reads both clocks; the same as the scaler's, or windows would not fit.
pub type Clock = Arc<dyn Fn() -> Now + Send + Sync>;

/// Labels of a fleet, for label selectors; `None`: no such fleet.
pub type LabelsOf = Arc<dyn Fn(&FleetKey) -> Option<BTreeMap<String, String>> + Send + Sync>;

/// What it works with.
#[derive(Clone)]
pub struct Parts {
    /// The API server.
    pub client: Client,
    /// Who may write.
    pub leadership: Leadership,
    /// What is answered.
    pub board: Arc<Board>,
    /// Where reports go.
    pub ledger: Arc<Mutex<Ledger>>,
    /// Woken when calls wait at a fleet without a ready pod.
    pub urgent: Arc<Notify>,
    /// Both clocks.
    pub clock: Clock,
    /// Labels of fleets.
    pub labels: LabelsOf,
    /// Counts what is refused.
    pub dropped: SamplesDropped,
}

/// The port could not be opened, or made no sense.
#[derive(Debug, thiserror::Error)]
pub enum MetricsApiError {
    /// The address.
    #[error(
        "failed to listen on {address} for the metrics API: {source}; choose another address with --api-listen"
    )]
    Listen {
        /// As given.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// The port, open and not yet answering.
pub struct MetricsApi {
    config: Config,
    parts: Parts,
    listener: TcpListener,
    metrics: ApiMetrics,
    readiness: Readiness,
    state: watch::Sender<ApiState>,
}

impl MetricsApi {
    /// Opens the port. Holds readiness back until the API server knows this replica's certificate, where it is
    /// asked for one.
    pub async fn bind(
        config: Config,
        parts: Parts,
        readiness: &Readiness,
        registry: &mut Registry,
    ) -> Result<Self, MetricsApiError> {
        let failed = |source| MetricsApiError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let state = match config.metrics_api_service {
            Some(_) => ApiState::NotServing("the APIService was not looked at yet".into()),
            None => ApiState::Disabled,
        };
        Ok(Self {
            config,
            parts,
            listener,
            metrics: ApiMetrics::register(registry),
            readiness: readiness.clone(),
            state: watch::Sender::new(state),
        })
    }

    /// Where it listens; tells the port that was given for port 0.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// How it stands with the API, now and later.
    pub fn state(&self) -> watch::Receiver<ApiState> {
        self.state.subscribe()
    }

    /// Serves until `stop`, then lets open requests end. It ends before that only by a defect.
    pub async fn run(self, stop: CancellationToken) {
        stop.cancelled().await;
    }
}

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
pub mod cleanup;
mod discovery;
mod endpoints;
mod load;
mod metrics;
mod pace;
mod registrar;
mod reply;
mod selector;
mod server;
mod state;
#[cfg(test)]
mod test_support;
mod url;
mod watched;

pub use metrics::SamplesDropped;
pub use state::ApiState;

use std::{collections::BTreeMap, io, net::SocketAddr, path::PathBuf, sync::Arc};

use kube::Client;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use rustls::ServerConfig;
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
};
use tokio_util::sync::CancellationToken;

pub use self::certs::CertError;
use self::{
    apiservice::Ours,
    authn::FrontProxy,
    authz::Authorizer,
    certs::{Authority, Serving},
    endpoints::{Api, Endpoints},
    load::{Gate, Loads, Review, SharedToken},
    metrics::ApiMetrics,
    registrar::{Registrar, Setup},
    server::Server,
};
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
    /// Certificates.
    #[error(transparent)]
    Certificate(#[from] CertError),
    /// TLS.
    #[error("failed to set up TLS for the metrics API: {0}")]
    Tls(#[from] rustls::Error),
    /// Reports that nobody may send.
    #[error("--load-service needs --gateway-service-account, whose tokens may report, or --load-token-file")]
    NobodyReports,
    /// No source of chance.
    #[error("failed to draw a random key; the system has no source of chance")]
    Chance,
}

/// The port, open and not yet answering.
pub struct MetricsApi {
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    endpoints: Arc<Endpoints>,
    registrar: Registrar,
    /// Whom to believe; absent without a metrics API.
    front_proxy: Option<Arc<FrontProxy>>,
    client: Client,
    metrics: ApiMetrics,
    state: watch::Sender<ApiState>,
}

impl MetricsApi {
    /// Opens the port and makes the first certificates. Holds readiness back until the API server knows them, where
    /// it asks this replica at all.
    pub async fn bind(
        config: Config,
        parts: Parts,
        readiness: &Readiness,
        registry: &mut Registry,
    ) -> Result<Self, MetricsApiError> {
        let failed = |source| MetricsApiError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let metrics = ApiMetrics::register(registry);
        let services = config.metrics_api_service.iter().chain(&config.load_service);
        let hosts = certs::hosts(services.map(String::as_str), &config.namespace);
        let authority = Authority::new(&config.pod_name, hosts)?;
        let issued = authority.issue((parts.clock)().wall.div_euclid(1000))?;
        metrics.certificate_expires.set(issued.expires_at as f64);
        let serving = Arc::new(Serving::default());
        serving.set(issued);
        let tls = server::tls(Arc::clone(&serving), config.metrics_api_service.is_some())?;
        let ours = config
            .metrics_api_service
            .clone()
            .map(|service| Ours { namespace: config.namespace.clone(), service });
        let state = watch::Sender::new(match ours {
            Some(_) => ApiState::NotServing("the APIServices were not looked at yet".into()),
            None => ApiState::Disabled,
        });
        let front_proxy = ours.as_ref().map(|_| Arc::new(FrontProxy::default()));
        let endpoints = endpoints(&config, &parts, front_proxy.clone(), &metrics)?;
        let registrar = Registrar::new(Setup {
            client: parts.client.clone(),
            leadership: parts.leadership,
            clock: parts.clock,
            namespace: config.namespace,
            pod_name: config.pod_name,
            config_map: config.ca_config_map,
            ours,
            authority,
            serving,
            state: state.clone(),
            readiness: readiness.clone(),
            metrics: metrics.clone(),
        });
        let (tls, endpoints) = (Arc::new(tls), Arc::new(endpoints));
        Ok(Self { listener, tls, endpoints, registrar, front_proxy, client: parts.client, metrics, state })
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
        let Self { listener, tls, endpoints, registrar, front_proxy, client, metrics, state: _state } = self;
        let trust = async {
            if let Some(front_proxy) = front_proxy {
                watched::follow_trust(client, front_proxy, stop.clone()).await;
            }
        };
        let server = Server { listener, tls, endpoints, metrics };
        tokio::join!(server.run(stop.clone()), registrar.run(stop.clone()), trust);
    }
}

fn endpoints(
    config: &Config,
    parts: &Parts,
    front_proxy: Option<Arc<FrontProxy>>,
    metrics: &ApiMetrics,
) -> Result<Endpoints, MetricsApiError> {
    let api = front_proxy.map(|front_proxy| Api {
        front_proxy,
        authorizer: Authorizer::new(parts.client.clone(), metrics.clone()),
        board: Arc::clone(&parts.board),
        labels: Arc::clone(&parts.labels),
    });
    let loads = match (&config.load_service, &config.load_token_file, &config.gateway_user) {
        (None, _, _) => None,
        (Some(_), Some(file), _) => {
            Some(Gate::Shared(Box::new(SharedToken::new(file.clone()).ok_or(MetricsApiError::Chance)?)))
        }
        (Some(_), None, Some(user)) => {
            let (client, audience) = (parts.client.clone(), config.audience.clone());
            Some(Gate::Review(Box::new(Review::new(client, user.clone(), audience, metrics.clone()))))
        }
        (Some(_), None, None) => return Err(MetricsApiError::NobodyReports),
    };
    let loads = loads.map(|gate| Loads::new(gate, parts, metrics.clone()));
    Ok(Endpoints { api, loads, clock: Arc::clone(&parts.clock), metrics: metrics.clone() })
}

#[cfg(test)]
mod tests;

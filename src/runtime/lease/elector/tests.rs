//! Several electors over one register that compares versions, on a paused clock.
//!
//! The register stands for the one property of the API server that the election rests on; that the
//! API server has it is tested on the real one.

use super::super::election::Record;
use super::super::leadership::NotLeader;
use super::*;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::ObjectMeta;
use parking_lot::Mutex;
use std::future::pending;
use std::sync::Arc;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

const SECOND: Duration = Duration::from_secs(1);

/// Every call takes so long.
const LATENCY: Duration = Duration::from_millis(10);

/// What is wrong between one replica and the register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Calls never reach it.
    Cut,
    /// Writes reach it, their answers are lost.
    AnswersLost,
}

struct Register {
    lease: Mutex<(Option<Lease>, u64)>,
    changes: broadcast::Sender<Option<Stored>>,
}

impl Register {
    fn new() -> Arc<Self> {
        Arc::new(Self { lease: Mutex::default(), changes: broadcast::channel(64).0 })
    }

    /// Compares and sets, as the API server does.
    fn set(&self, base: Option<u64>, spec: Option<LeaseSpec>) -> Result<Stored, StoreError> {
        let (lease, version) = &mut *self.lease.lock();
        if lease.as_ref().map(|lease| Stored::new(lease.clone()).revision()) != base.map(Some) {
            return Err(StoreError::Conflict);
        }
        *version += 1;
        let metadata = ObjectMeta { resource_version: Some(version.to_string()), ..ObjectMeta::default() };
        let stored = Stored::new(Lease { metadata: metadata.clone(), spec: spec.clone() });
        let change = spec.is_some().then(|| stored.clone());
        *lease = spec.is_some().then_some(Lease { metadata, spec });
        let _ = self.changes.send(change);
        Ok(stored)
    }

    fn get(&self) -> Option<Stored> {
        self.lease.lock().0.clone().map(Stored::new)
    }

    fn holder(&self) -> Option<String> {
        self.get()?.record().holder
    }

    fn delete(&self) {
        self.set(self.get().and_then(|stored| stored.revision()), None).unwrap();
    }

    /// A person who edits the Lease.
    fn give_to(&self, holder: &str) {
        let base = self.get().and_then(|stored| stored.revision());
        let spec = LeaseSpec { holder_identity: Some(holder.to_owned()), ..LeaseSpec::default() };
        self.set(base, Some(spec)).unwrap();
    }
}

struct Line {
    register: Arc<Register>,
    fault: Arc<Mutex<Fault>>,
    is_watching: bool,
}

impl LeaseStore for Line {
    async fn read(&self) -> Result<Option<Stored>, StoreError> {
        sleep(LATENCY).await;
        if *self.fault.lock() == Fault::Cut {
            pending::<()>().await;
        }
        Ok(self.register.get())
    }

    async fn write(&self, base: Option<&Stored>, record: &Record) -> Result<Stored, StoreError> {
        sleep(LATENCY).await;
        if *self.fault.lock() == Fault::Cut {
            pending::<()>().await;
        }
        let spec = LeaseSpec {
            holder_identity: record.holder.clone(),
            renew_time: record.renewed.map(MicroTime),
            lease_transitions: Some(record.transitions),
            lease_duration_seconds: record.duration.map(|duration| duration.as_secs() as i32),
            ..LeaseSpec::default()
        };
        let written = self.register.set(base.and_then(Stored::revision), Some(spec));
        if *self.fault.lock() == Fault::AnswersLost {
            pending::<()>().await;
        }
        written
    }

    fn changes(&self) -> BoxStream<'static, Option<Stored>> {
        if !self.is_watching {
            return futures::stream::pending().boxed();
        }
        let receiver = self.register.changes.subscribe();
        futures::stream::unfold(receiver, |mut receiver| async move {
            let change = receiver.recv().await.ok()?;
            Some((change, receiver))
        })
        .boxed()
    }
}

/// One process of the operator.
struct Replica {
    name: &'static str,
    leadership: Leadership,
    stop: CancellationToken,
    fault: Arc<Mutex<Fault>>,
    task: JoinHandle<Result<(), Lost>>,
}

impl Replica {
    fn start(name: &'static str, register: &Arc<Register>) -> Self {
        Self::start_with(name, register, true)
    }

    fn start_with(name: &'static str, register: &Arc<Register>, is_watching: bool) -> Self {
        let fault = Arc::new(Mutex::new(Fault::None));
        let line = Line { register: Arc::clone(register), fault: Arc::clone(&fault), is_watching };
        let (elector, leadership) =
            Elector::new(line, name.to_owned(), Timing::default(), LeaseMetrics::default());
        let stop = CancellationToken::new();
        let task = tokio::spawn(elector.run(stop.clone()));
        Self { name, leadership, stop, fault, task }
    }

    /// Waits until it leads and says how long that took.
    async fn until_leader(&self) -> Duration {
        let started = Instant::now();
        Box::pin(self.leadership.gained()).next().await.unwrap();
        assert!(self.leadership.is_leader(), "{}", self.name);
        started.elapsed()
    }

    async fn lost(self) -> String {
        self.task.await.unwrap().unwrap_err().to_string()
    }
}

/// A leader and a standby that has watched it for a while.
async fn pair(is_watching: bool) -> (Arc<Register>, Replica, Replica) {
    let register = Register::new();
    let first = Replica::start("first", &register);
    assert!(first.until_leader().await < SECOND);
    let second = Replica::start_with("second", &register, is_watching);
    sleep(60 * SECOND).await;
    assert!(first.leadership.is_leader() && !second.leadership.is_leader());
    (register, first, second)
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_goes_over_at_once() {
    let (register, first, second) = pair(true).await;
    first.stop.cancel();
    assert!(second.until_leader().await < 5 * LATENCY);
    assert!(first.task.await.unwrap().is_ok());
    assert_eq!(register.holder().as_deref(), Some("second"));
    assert_eq!(register.get().unwrap().record().transitions, 1);
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_goes_over_within_a_second_without_a_watch() {
    let (_register, first, second) = pair(false).await;
    first.stop.cancel();
    assert!(second.until_leader().await <= POLL + 5 * LATENCY);
}

#[tokio::test(start_paused = true)]
async fn a_silent_leader_is_followed_after_the_lease_duration() {
    let (_register, first, second) = pair(true).await;
    first.task.abort();
    let gap = second.until_leader().await;
    assert!(gap >= 13 * SECOND && gap <= 16 * SECOND, "{gap:?}");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_stops_before_another_begins() {
    for fault in [Fault::Cut, Fault::AnswersLost] {
        let (_register, first, second) = pair(true).await;
        *first.fault.lock() = fault;
        let cut = Instant::now();
        while first.leadership.is_leader() {
            assert!(!second.leadership.is_leader());
            sleep(LATENCY).await;
        }
        assert!(cut.elapsed() <= 10 * SECOND, "{:?}", cut.elapsed());
        assert_eq!(first.leadership.fenced(async {}).await, Err(NotLeader::Standby));
        let message = first.lost().await;
        assert!(
            message.starts_with("lost the leader lease as first: it could not be renewed within 10s"),
            "{message}"
        );
        assert!(message.contains("last error: no answer about the lease within"), "{message}");
        second.until_leader().await;
        assert!(cut.elapsed() <= 40 * SECOND, "{:?}", cut.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_costs_nothing() {
    let (_register, first, second) = pair(true).await;
    for fault in [Fault::Cut, Fault::AnswersLost] {
        *first.fault.lock() = fault;
        sleep(4 * SECOND).await;
        *first.fault.lock() = Fault::None;
        sleep(20 * SECOND).await;
        assert!(first.leadership.is_leader() && !second.leadership.is_leader());
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_given_to_somebody_else_ends_the_term_at_once() {
    let (register, first, second) = pair(true).await;
    register.give_to("a person");
    let edited = Instant::now();
    assert_eq!(first.lost().await, "lost the leader lease as first: it is held by a person now");
    assert!(edited.elapsed() <= LATENCY);
    let gap = second.until_leader().await;
    assert!(gap >= 14 * SECOND, "{gap:?}");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_lease_comes_back_with_the_same_leader() {
    let (register, first, second) = pair(true).await;
    register.delete();
    sleep(SECOND).await;
    assert_eq!(register.holder().as_deref(), Some("first"));
    sleep(30 * SECOND).await;
    assert!(first.leadership.is_leader() && !second.leadership.is_leader());
}

#[tokio::test(start_paused = true)]
async fn an_end_in_the_middle_of_a_write_releases_as_well() {
    for millis in 0..40 {
        let register = Register::new();
        let only = Replica::start("only", &register);
        sleep(Duration::from_millis(millis)).await;
        only.stop.cancel();
        only.task.await.unwrap().unwrap();
        assert_eq!(register.holder(), None, "stopped after {millis} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn many_replicas_have_one_leader_through_many_restarts() {
    let register = Register::new();
    let mut replicas: Vec<_> =
        ["a", "b", "c"].into_iter().map(|name| Replica::start(name, &register)).collect();
    for round in 0..20_u64 {
        sleep(Duration::from_millis(3_000 + round * 377)).await;
        let leaders: Vec<_> =
            replicas.iter().filter(|replica| replica.leadership.is_leader()).map(|r| r.name).collect();
        assert_eq!(leaders.len(), 1, "{leaders:?} in round {round}");
        let at = replicas.iter().position(|replica| replica.name == leaders[0]).unwrap();
        let old = replicas.remove(at);
        old.stop.cancel();
        old.task.await.unwrap().unwrap();
        replicas.push(Replica::start(old.name, &register));
    }
}

#[tokio::test(start_paused = true)]
async fn the_metrics_tell_who_leads() {
    let register = Register::new();
    let mut registry = Registry::default();
    let metrics = LeaseMetrics::register(&mut registry);
    let line = Line { register, fault: Arc::new(Mutex::new(Fault::None)), is_watching: true };
    let (elector, leadership) = Elector::new(line, "me".to_owned(), Timing::default(), metrics);
    let stop = CancellationToken::new();
    let task = tokio::spawn(elector.run(stop.clone()));
    Box::pin(leadership.gained()).next().await.unwrap();
    stop.cancel();
    task.await.unwrap().unwrap();
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains("leader 0\n"), "{text}");
    assert!(text.contains("lease_writes_total{outcome=\"ok\"} 2\n"), "{text}");
}

//! Looks at one fleet, with times of the test's own.

mod ahead;

use std::sync::Arc;

use kube::core::DeserializeGuard;
use serde_json::{Value, json};
use tokio::sync::watch;

use self::ahead::beside_an_hpa;
use super::{
    Clock, Scaler,
    entry::Wrote,
    look::{Follows, Tick, Write},
};
use crate::{
    api::{names, v1alpha1::McpFleet},
    autoscale::{board::Published, decision::Reason, head_start::HeadStart, time::Now},
    domain::FleetKey,
    operator::{
        cache::Entry,
        children::ChildKind,
        gateway::Install,
        observe::{Caches, LiveChild},
        pods,
        scaling::{ApiState, EffectiveActuator},
        state::WatchedFleet,
    },
};

const UID: &str = "00000000-0000-0000-0000-00000000000a";
const WALL: i64 = 1_000_000_000;

/// One fleet, its pods and its gateway.
struct World {
    scaler: Scaler,
    api: watch::Sender<ApiState>,
    caches: Caches,
    install: Install,
    fleet: Value,
    leads: bool,
    /// Milliseconds since the start.
    now: i64,
    level: f64,
    sequence: u64,
    integral: f64,
}

impl World {
    /// A fleet of one replica, for which `autoscaling` is added to a target of 10 calls for each pod.
    fn new(autoscaling: &Value) -> Self {
        let api = watch::Sender::new(ApiState::Disabled);
        let mut spec = json!({"minReplicas": 1, "maxReplicas": 8,
            "metrics": {"concurrency": {"target": {"averageValue": "10"}}},
            "windows": {"stableSeconds": 10, "panicSeconds": 2},
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}});
        spec.as_object_mut().unwrap().extend(autoscaling.as_object().unwrap().clone());
        let world = Self {
            scaler: Scaler::new(
                Clock::start(),
                Arc::default(),
                Arc::default(),
                Arc::default(),
                api.subscribe(),
            ),
            api,
            caches: Caches::default(),
            install: Install::new("http://gate.example.com", "gates".into(), vec!["default".into()]).unwrap(),
            fleet: json!({
                "apiVersion": "mcpfleet.io/v1alpha1", "kind": "McpFleet",
                "metadata": {"name": "weather", "namespace": "tools", "uid": UID, "generation": 1, "resourceVersion": "100"},
                "spec": {"replicas": 1, "server": {"image": "a"}, "autoscaling": spec},
            }),
            leads: true,
            now: 0,
            level: 0.0,
            sequence: 0,
            integral: 0.0,
        };
        world.pods(1);
        world
    }

    fn key() -> FleetKey {
        FleetKey::new("tools", "weather")
    }

    fn object(&self) -> Arc<WatchedFleet> {
        let fleet: McpFleet = serde_json::from_value(self.fleet.clone()).expect("a fleet");
        Arc::new(DeserializeGuard(Ok(fleet)))
    }

    fn at(&self) -> Now {
        Now { mono: self.now, wall: WALL + self.now }
    }

    fn pods(&self, n: u32) {
        for i in 1..=n {
            let pod = json!({
                "metadata": {"name": format!("p{i}"), "namespace": "tools", "uid": format!("00000000-0000-0000-0000-{i:012}")},
                "status": {"phase": "Running", "conditions": [
                    {"type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:00:00Z"}]},
            });
            let value = pods::facts(&serde_json::from_value(pod).expect("a pod"));
            let key = ("tools".to_owned(), value.name.clone());
            self.caches.pods.take(
                kube::runtime::watcher::Event::Apply(value),
                |value| Some(Entry { key: key.clone(), fleet: Self::key(), value }),
                |_| (key.clone(), 0),
            );
        }
    }

    fn report(&mut self, seconds: f64) {
        self.sequence += 1;
        self.integral += self.level * seconds;
        let (taken, integral, level) = (self.at().wall, self.integral, self.level);
        let time = jiff::Timestamp::from_millisecond(taken).expect("a time").to_string();
        let mut latencies = vec![0.0; 32];
        latencies[20] = integral;
        let report = json!({"version": 1, "gateway": "g", "epoch": 1, "sequence": self.sequence, "time": time, "fleets": [
            {"namespace": "tools", "name": "weather", "uid": UID, "ready": 1, "arrivals": integral, "admitted": integral,
             "inFlight": level, "inFlightSeconds": integral, "completions": {"ok": integral},
             "latencyLog2Micros": latencies,
             "pods": [{"uid": "00000000-0000-0000-0000-000000000001", "inFlight": level, "inFlightSeconds": integral,
                       "completions": {"ok": integral}}]}]});
        let report = serde_json::from_value(report).expect("a report");
        self.scaler.ledger.lock().accept(&report, self.at());
    }

    fn look(&self) -> Follows {
        let tick = Tick {
            caches: &self.caches,
            gateway: Some(&self.install),
            api: self.scaler.api_state(),
            usage: Arc::default(),
            gateways: None,
            leads: self.leads,
            now: self.at(),
        };
        self.scaler.look(&Self::key(), &self.object(), &tick)
    }

    /// Reports and looks each second, for so many seconds; what followed from the looks.
    fn run(&mut self, seconds: usize) -> Vec<Follows> {
        let step = |world: &mut Self| {
            world.now += 1000;
            world.report(1.0);
            world.look()
        };
        (0..seconds).map(|_| step(self)).collect()
    }

    fn write(&mut self, seconds: usize) -> Option<Write> {
        self.run(seconds).into_iter().find_map(|f| f.write)
    }

    fn desired(&self) -> Option<i32> {
        self.scaler.of(&Self::key()).and_then(|s| s.decision.recommended)
    }
}

#[test]
fn the_leader_writes_what_the_load_asks_for_and_nobody_else() {
    let mut world = World::new(&json!({}));
    world.level = 35.0;
    world.leads = false;
    assert_eq!(world.write(15), None);
    assert_eq!(world.desired(), Some(4), "a standby decides, too");
    world.leads = true;
    let write = world.write(1).expect("a write");
    assert_eq!(write, Write { uid: UID.into(), from: 1, to: 4, version: 100 });
    world.scaler.writing(&World::key(), true);
    assert_eq!(world.write(3), None, "one at a time");
}

#[test]
fn an_own_write_counts_before_the_watch_tells_of_it() {
    let mut world = World::new(&json!({"cooldownSeconds": {"afterScaleUp": 60, "afterScaleDown": 0}}));
    world.level = 35.0;
    let write = world.write(15).expect("a write");
    world.scaler.wrote(&World::key(), UID, Wrote { version: 105, replicas: write.to });
    let follows = world.look();
    assert_eq!(follows, Follows { pass: true, write: None });
    let scaled = world.scaler.of(&World::key()).expect("a decision");
    assert_eq!((scaled.replicas, scaled.effective), (4, EffectiveActuator::Direct));
    assert_eq!(scaled.persisted.last_up, Some(scaled.at), "the rest begins");
    let cause = scaled.cause.as_ref().map(|c| (c.reason, c.recommended));
    assert!(
        matches!(cause, Some((Reason::ScaleUp | Reason::Panic, Some(4)))),
        "what asked for it: {cause:?}"
    );
    assert_eq!(scaled.cooldown_until, Some(scaled.at + 60_000));
    // A status of ours, still with the old scale; then the change itself.
    world.fleet["metadata"]["resourceVersion"] = json!("103");
    world.level = 80.0;
    assert_eq!(world.write(5), None, "it rests");
    world.fleet["metadata"]["resourceVersion"] = json!("105");
    world.fleet["spec"]["replicas"] = json!(4);
    world.pods(4);
    assert_eq!(world.write(50), None, "it rests still");
    assert_eq!(world.write(10).map(|w| (w.from, w.to, w.version)), Some((4, 8, 105)));
}

#[test]
fn another_process_keeps_the_rest() {
    let rest = |up: &str, more: Value| {
        let mut world = World::new(&json!({"cooldownSeconds": {"afterScaleUp": 60, "afterScaleDown": 60}}));
        let mut status = json!({"effectiveActuator": "Direct", "currentReplicas": 1, "lastScaleUpTime": up});
        status.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        world.fleet["status"] = json!({"autoscaling": status});
        world.level = 35.0;
        let follows = world.run(80);
        follows.iter().position(|f| f.write.is_some()).map(|i| i + 1)
    };
    // 1970-01-12T13:46:40Z is the start.
    let late = rest("1970-01-12T13:46:20Z", json!({})).expect("a write");
    assert!((40..=42).contains(&late), "20 s of 60 were over: {late}");
    let crashed = rest("1970-01-12T13:40:00Z", json!({"currentReplicas": 3})).expect("a write");
    assert!((60..=62).contains(&crashed), "nobody wrote the last change down: {crashed}");
    let future = rest("1970-01-12T14:46:40Z", json!({})).expect("a write");
    assert!((60..=62).contains(&future), "the clock was set back: {future}");
}

#[test]
fn a_standby_takes_over_what_the_leader_wrote() {
    let mut world = World::new(&json!({"cooldownSeconds": {"afterScaleUp": 60, "afterScaleDown": 0}}));
    world.leads = false;
    world.level = 35.0;
    world.run(15);
    world.fleet["status"] = json!({"autoscaling": {"effectiveActuator": "Direct", "currentReplicas": 1,
        "lastScaleUpTime": "1970-01-12T13:46:50Z"}});
    world.fleet["metadata"]["resourceVersion"] = json!("101");
    world.leads = true;
    assert_eq!(world.write(54), None);
    assert!(world.write(3).is_some());
}

fn owner(kind: &str, uid: &str) -> Value {
    json!({"apiVersion": "mcpfleet.io/v1alpha1", "kind": kind, "name": "weather", "uid": uid, "controller": true})
}

fn hpa(owner: &Value, behavior: &Value) -> Entry<LiveChild> {
    let object = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "weather", "namespace": "tools", "uid": "h", "resourceVersion": "7",
            "labels": {names::LABEL_MANAGED_BY: names::MANAGED_BY, names::LABEL_FLEET: "weather"},
            "ownerReferences": [owner]},
        "spec": {"scaleTargetRef": {"kind": "McpFleet", "name": "weather"}, "behavior": behavior},
    });
    let kind = ChildKind::HorizontalPodAutoscaler;
    LiveChild::entry(kind, serde_json::from_value(object).expect("an HPA")).expect("an entry")
}

#[test]
fn direct_waits_until_the_old_hpa_is_gone_and_a_foreign_one_stops_it() {
    let hpa = |owner: Value| hpa(&owner, &Value::Null);
    let hpas = ChildKind::HorizontalPodAutoscaler;
    for (uid, whose) in [(UID, "ours"), ("another", "of an earlier fleet")] {
        let mut world = World::new(&json!({}));
        world.level = 35.0;
        world.caches.children(hpas).wrote(hpa(owner("McpFleet", uid)));
        assert_eq!(world.write(15), None, "{whose}");
        let scaled = world.scaler.of(&World::key()).expect("a decision");
        assert_eq!(scaled.effective, EffectiveActuator::Direct, "{whose}");
        world.caches.children(hpas).remove(&("tools".into(), "weather".into()));
        assert!(world.write(1).is_some(), "{whose}");
    }
    let mut world = World::new(&json!({}));
    world.level = 35.0;
    world.caches.children(hpas).wrote(hpa(owner("ScaledObject", "k")));
    assert_eq!(world.write(15), None);
    let scaled = world.scaler.of(&World::key()).expect("a decision");
    assert_eq!(
        (scaled.effective, scaled.decision.recommended),
        (EffectiveActuator::Off, Some(4)),
        "a dry run"
    );
}

#[test]
fn the_actuator_changes_with_the_metrics_api() {
    let mut world = World::new(&json!({}));
    world.level = 35.0;
    world.api.send_replace(ApiState::Serving);
    assert_eq!(world.write(15), None, "the HPA's");
    let effective = |world: &World| world.scaler.of(&World::key()).map(|s| s.effective);
    assert_eq!(effective(&world), Some(EffectiveActuator::Hpa));
    world.api.send_replace(ApiState::OwnedByOther(vec!["monitoring/adapter".into()]));
    let follows = world.run(1);
    assert!(follows[0].pass, "the HPA has to go");
    assert!(follows[0].write.is_some(), "none is there");
    assert_eq!(effective(&world), Some(EffectiveActuator::Direct));
}

#[test]
fn what_cannot_be_used_holds() {
    let mut world = World::new(&json!({}));
    world.level = 35.0;
    world.run(15);
    assert!(matches!(world.scaler.board.get(&World::key()), Some(Published::Value(_))));
    world.fleet["spec"]["autoscaling"]["minReplicas"] = json!(9);
    world.fleet["metadata"]["generation"] = json!(2);
    assert_eq!(world.write(3), None);
    assert_eq!(world.scaler.board.get(&World::key()), None);
    assert_eq!(world.scaler.of(&World::key()), None);
    world.fleet["spec"]["autoscaling"]["minReplicas"] = json!(1);
    world.fleet["metadata"]["generation"] = json!(3);
    assert!(world.write(3).is_some(), "mended");
}

#[test]
fn a_fleet_without_its_first_scale_is_left_alone() {
    let mut world = World::new(&json!({}));
    world.fleet["spec"].as_object_mut().unwrap().remove("replicas");
    assert!(world.run(5).iter().all(|f| *f == Follows::default()));
    assert_eq!(world.scaler.of(&World::key()), None);
}

#[test]
fn a_write_that_fails_is_tried_again_later_and_later() {
    let mut world = World::new(&json!({}));
    world.level = 35.0;
    world.write(15).expect("a write");
    let waits: Vec<_> = {
        let mut entries = world.scaler.entries.lock();
        let entry = entries.get_mut(&World::key()).expect("an entry");
        (0..8).map(|_| entry.failed(world.now)).collect()
    };
    assert_eq!(waits, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
    assert_eq!(world.write(59), None);
    let write = world.write(2).expect("a write");
    world.scaler.wrote(&World::key(), UID, Wrote { version: 105, replicas: write.to });
    assert_eq!(world.scaler.entries.lock()[&World::key()].failures, (0, 0));
}

#[test]
fn a_fleet_at_rest_is_told_once() {
    let mut world = World::new(&json!({}));
    world.level = 8.0;
    world.run(20);
    let follows = world.run(120);
    assert_eq!(follows.iter().filter(|f| f.pass).count(), 0);
}

#[test]
fn a_restart_says_nothing_before_it_knows_something() {
    let mut world = World::new(&json!({}));
    world.fleet["status"] = json!({"autoscaling": {"effectiveActuator": "Direct", "currentReplicas": 1}});
    for _ in 0..80 {
        world.now += 1000;
        assert_eq!(world.look(), Follows::default(), "no gateway has reported yet");
        assert_eq!(world.scaler.of(&World::key()), None);
    }
    world.now += 15_000;
    assert!(world.look().pass, "none will");
    assert!(world.scaler.of(&World::key()).is_some());
}

/// Beside an HPA, a step down comes up to a period after the decision; what a person sets in between is not ours.
#[test]
fn a_change_is_put_down_to_the_decision_that_led_to_it_and_to_no_other() {
    let after = |seconds_of_load: usize, set_to: i32| {
        let mut world = beside_an_hpa(&json!({}), 4, 34.0);
        assert_eq!(world.desired(), Some(4));
        world.level = 18.0;
        world.run(25);
        assert_eq!(world.desired(), Some(2));
        world.level = 34.0;
        world.run(seconds_of_load);
        world.scaled_to(set_to);
        world.run(1);
        world.scaler.of(&World::key()).and_then(|s| s.cause).and_then(|c| c.recommended)
    };
    assert_eq!(after(0, 2), Some(2));
    assert_eq!(after(0, 3), Some(2), "a step that was cut");
    assert!(after(15, 3).is_some(), "an HPA that looked a while ago");
    assert_eq!(after(60, 3), None, "nothing asked for less for a long time");
    assert_eq!(after(0, 5), None, "the other direction");
}

#[test]
fn a_new_fleet_warms_up_before_anything_is_missed() {
    let mut world = World::new(&json!({}));
    let mut reason = |now| {
        world.now = now;
        world.look();
        world.scaler.of(&World::key()).map(|s| s.decision.reason)
    };
    assert_eq!(reason(0), Some(Reason::WarmingUp));
    assert_eq!(reason(9_999), Some(Reason::WarmingUp));
    assert_eq!(reason(10_000), Some(Reason::MetricsUnavailable), "nobody reports on it");
}

#[test]
fn what_is_gone_is_forgotten() {
    let mut world = World::new(&json!({}));
    world.run(3);
    assert_eq!(world.scaler.len(), 1);
    world.scaler.retain(|_| false);
    assert_eq!((world.scaler.len(), world.scaler.board.get(&World::key())), (0, None));
}

//! Steps up that do not wait for the HPA, and what it reads.

use super::*;

/// All at once, as an HPA has it that the operator paces.
fn open() -> Value {
    let all = json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "tolerance": "0",
        "policies": [{"type": "Pods", "value": 1000, "periodSeconds": 15}]});
    json!({"scaleUp": all, "scaleDown": all})
}

/// A fleet of so many replicas under that load, with an HPA that reads what is published.
pub(super) fn beside_an_hpa(more: &Value, n: u32, level: f64) -> World {
    let mut autoscaling = json!({"actuator": "HPA"});
    autoscaling.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut world = World::new(&autoscaling);
    world.api.send_replace(ApiState::Serving);
    world.stands(&open());
    world.pods(n);
    world.fleet["spec"]["replicas"] = json!(n);
    world.level = level;
    world.run(20);
    assert_eq!(world.ahead(), None);
    world
}

/// Two replicas and an HPA that has yet to look, while the load asks for so many.
fn ahead_by(n: i32) -> World {
    let mut world = beside_an_hpa(&json!({}), 2, 20.0);
    world.level = f64::from(10 * n - 5);
    world.run(5);
    assert_eq!(world.ahead(), Some((2, n)));
    world
}

impl World {
    /// Our HPA, as it is.
    fn stands(&self, behavior: &Value) {
        let hpa = hpa(&owner("McpFleet", UID), behavior);
        self.caches.children(ChildKind::HorizontalPodAutoscaler).remove(&("tools".into(), "weather".into()));
        self.caches.children(ChildKind::HorizontalPodAutoscaler).wrote(hpa);
    }

    /// Somebody writes the scale.
    pub(super) fn scaled_to(&mut self, n: i32) {
        self.fleet["spec"]["replicas"] = json!(n);
        let version: u64 = self.fleet["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        self.fleet["metadata"]["resourceVersion"] = json!((version + 1).to_string());
    }

    /// What stands ahead of `spec.replicas`, as passes see it.
    fn ahead(&self) -> Option<(i32, i32)> {
        let spec = self.fleet["spec"]["replicas"].as_i64().unwrap() as i32;
        let ahead = HeadStart::standing(self.scaler.ahead(&Self::key()), spec);
        ahead.map(|a| (a.over, a.replicas))
    }

    fn published(&self) -> Option<i32> {
        match self.scaler.board.get(&Self::key()) {
            Some(Published::Value(value)) => Some(value.desired),
            _ => None,
        }
    }

    fn n(&self) -> i32 {
        self.scaler.of(&Self::key()).expect("a decision").replicas
    }

    fn unfollowed(&self) -> bool {
        self.scaler.of(&Self::key()).expect("a decision").unfollowed
    }
}

#[test]
fn a_step_up_does_not_wait_for_the_hpa_to_look() {
    let mut world = beside_an_hpa(&json!({}), 2, 20.0);
    world.level = 75.0;
    let follows = world.run(3);
    let first = follows.iter().position(|f| f.pass).expect("a pass");
    assert!(first <= 1, "at once: {follows:?}");
    assert!(follows.iter().all(|f| f.write.is_none()), "the HPA's field");
    world.run(3);
    assert_eq!((world.ahead(), world.published(), world.n()), (Some((2, 8)), Some(8), 8));
    let told = world.scaler.of(&World::key()).and_then(|s| s.ahead);
    assert_eq!(told, Some(HeadStart { over: 2, replicas: 8 }), "the status says the same");
    world.level = 20.0;
    world.run(30);
    assert_eq!((world.ahead(), world.published()), (Some((2, 8)), Some(8)), "less load takes nothing back");
    world.scaled_to(5);
    world.run(1);
    assert_eq!((world.ahead(), world.published()), (Some((5, 8)), Some(8)), "the HPA is on its way");
    world.scaled_to(8);
    assert!(world.run(1)[0].pass, "the status is to forget it");
    assert_eq!(
        (world.ahead(), world.published(), world.n()),
        (None, Some(2), 8),
        "now it is the HPA's to go down"
    );
    world.scaled_to(2);
    world.run(1);
    assert_eq!((world.ahead(), world.n()), (None, 2));
}

#[test]
fn a_person_takes_it_back_and_a_pause_keeps_it() {
    let mut world = ahead_by(6);
    world.fleet["metadata"]["annotations"] = json!({"mcpfleet.io/paused": "true"});
    world.scaled_to(2);
    world.level = 75.0;
    world.run(5);
    assert_eq!((world.ahead(), world.published()), (Some((2, 6)), Some(6)), "as it stands");
    world.scaled_to(1);
    assert_eq!(world.ahead(), None, "before anything is decided about it");
    world.run(5);
    assert_eq!((world.ahead(), world.n(), world.published()), (None, 1, Some(1)));
}

#[test]
fn nobody_goes_ahead_of_an_hpa_that_does_not_look() {
    let mut world = beside_an_hpa(&json!({}), 2, 20.0);
    world.api.send_replace(ApiState::NotServing("no endpoints".into()));
    world.level = 55.0;
    world.run(20);
    assert_eq!((world.ahead(), world.published()), (None, Some(6)), "it could not read it");
    world.api.send_replace(ApiState::Serving);
    world.run(1);
    assert_eq!(world.ahead(), Some((2, 6)));
    world.run(60);
    assert!(!world.unfollowed(), "it may be late");
    world.level = 75.0;
    world.run(5);
    assert!(world.unfollowed());
    assert_eq!((world.ahead(), world.published()), (Some((2, 6)), Some(8)), "no further");
    world.level = 45.0;
    world.pods(6);
    world.run(30);
    assert_eq!(world.ahead(), Some((2, 5)), "and down with the demand");
    world.scaled_to(5);
    world.level = 75.0;
    world.run(10);
    assert!(!world.unfollowed());
    assert_eq!(world.ahead(), Some((5, 8)), "it looks again");
}

/// Its policies let it take a step in two minutes: it may leave the scale alone for longer than it takes to look.
#[test]
fn an_hpa_that_its_policies_hold_is_not_missed() {
    let one = json!({"policies": [{"type": "Pods", "value": 1, "periodSeconds": 120}]});
    let mut world = beside_an_hpa(&json!({"behavior": {"scaleUp": one}}), 2, 20.0);
    world.level = 75.0;
    world.run(5);
    assert_eq!((world.ahead(), world.published()), (Some((2, 3)), Some(8)));
    world.run(155);
    assert!(!world.unfollowed());
    world.run(15);
    assert!(world.unfollowed());
}

#[test]
fn nobody_goes_ahead_of_an_hpa_that_is_not_there() {
    let mut world = beside_an_hpa(&json!({}), 2, 20.0);
    world.caches.children(ChildKind::HorizontalPodAutoscaler).remove(&("tools".into(), "weather".into()));
    world.level = 55.0;
    world.run(10);
    assert_eq!((world.ahead(), world.published()), (None, Some(6)));
    world.stands(&open());
    world.run(1);
    assert_eq!(world.ahead(), Some((2, 6)));
}

#[test]
fn a_new_leader_goes_on_from_what_stands_in_the_status() {
    let status = json!({"autoscaling": {"effectiveActuator": "HPA", "currentReplicas": 6,
        "headStart": {"specReplicas": 2, "replicas": 6}}});
    let mut world = World::new(&json!({"actuator": "HPA"}));
    world.api.send_replace(ApiState::Serving);
    world.stands(&open());
    world.fleet["spec"]["replicas"] = json!(2);
    world.fleet["status"] = status.clone();
    world.pods(6);
    for _ in 0..5 {
        world.now += 1000;
        world.look();
    }
    let ahead = world.scaler.ahead(&World::key()).map(|a| (a.over, a.replicas));
    assert_eq!(ahead, Some((2, 6)), "nobody has reported yet, and nothing is taken away");
    world.level = 55.0;
    world.run(5);
    assert_eq!((world.ahead(), world.published()), (Some((2, 6)), Some(6)));

    let message = json!({"type": "AbleToScale", "status": "False", "reason": "HPANotFollowing", "message": "m",
        "lastTransitionTime": "1970-01-01T00:00:00Z"});
    let mut again = World::new(&json!({"actuator": "HPA"}));
    again.fleet["spec"]["replicas"] = json!(2);
    again.fleet["status"] = status.clone();
    again.fleet["status"]["conditions"] = json!([message]);
    again.api.send_replace(ApiState::NotServing("it has just begun".into()));
    again.pods(6);
    again.level = 75.0;
    again.run(3);
    again.stands(&open());
    again.api.send_replace(ApiState::Serving);
    again.run(5);
    assert!(again.unfollowed(), "a restart is no news");
    assert_eq!(again.ahead(), Some((2, 6)), "and goes no further");

    let mut standby = beside_an_hpa(&json!({}), 2, 20.0);
    standby.leads = false;
    standby.level = 55.0;
    standby.run(5);
    assert_eq!((standby.ahead(), standby.published()), (None, Some(6)), "the leader's to do");
    standby.fleet["status"] = status;
    standby.scaled_to(2);
    standby.level = 20.0;
    standby.run(20);
    assert_eq!(
        (standby.ahead(), standby.published()),
        (Some((2, 6)), Some(6)),
        "it answers as the leader does"
    );
}

#[test]
fn a_dry_run_publishes_what_it_would_do() {
    let mut world = World::new(&json!({"actuator": "Off", "behavior": null}));
    world.level = 55.0;
    world.run(15);
    assert_eq!((world.published(), world.n(), world.ahead()), (Some(6), 1, None));
}

#[test]
fn a_pause_at_a_number_counts_more_than_what_is_ahead() {
    let mut world = ahead_by(8);
    world.fleet["metadata"]["annotations"] = json!({"mcpfleet.io/paused-replicas": "5"});
    world.scaled_to(2);
    world.run(2);
    assert_eq!((world.ahead(), world.published()), (Some((2, 5)), Some(5)));
    world.scaled_to(5);
    world.run(90);
    assert_eq!((world.ahead(), world.published(), world.n()), (None, Some(5), 5));
    world.fleet["metadata"]["annotations"] = json!({"mcpfleet.io/paused-replicas": "7"});
    world.scaled_to(5);
    world.run(2);
    assert_eq!((world.ahead(), world.published()), (None, Some(7)), "the HPA goes there");
}

/// The preset's pace: the operator keeps it, and the number says what it leaves.
#[test]
fn the_pace_of_a_preset_is_in_the_number_and_one_that_is_named_is_not() {
    let after_a_peak = |behavior: Value, stands: &Value| {
        let mut world = beside_an_hpa(&json!({"behavior": behavior}), 8, 75.0);
        world.stands(stands);
        world.level = 15.0;
        world.run(60);
        assert_eq!(world.desired(), Some(2));
        world.published()
    };
    let named = json!({"scaleDown": {"stabilizationWindowSeconds": 300}});
    let paced = json!({"scaleUp": {"tolerance": "0"}, "scaleDown": {"stabilizationWindowSeconds": 300, "tolerance": "0"}});
    assert_eq!(after_a_peak(Value::Null, &open()), Some(8), "held for the preset's window");
    assert_eq!(after_a_peak(Value::Null, &paced), Some(8), "not yet opened");
    assert_eq!(after_a_peak(named.clone(), &paced), Some(2), "the HPA holds it");
    assert_eq!(after_a_peak(named, &open()), Some(8), "not yet written into the HPA");
}

/// A window upwards is the HPA's: it must see what is wanted while its own runs.
#[test]
fn a_window_upwards_is_not_waited_for_twice() {
    let behavior = json!({"scaleUp": {"stabilizationWindowSeconds": 120}});
    let mut world = beside_an_hpa(&json!({"behavior": behavior}), 2, 20.0);
    world.level = 55.0;
    world.run(60);
    assert_eq!((world.ahead(), world.published()), (None, Some(6)));
    world.run(70);
    assert_eq!(world.ahead(), Some((2, 6)), "after its window");
}

/// An HPA that takes a tenth for noise gets a step that it makes, and its write is known as ours.
#[test]
fn a_coarse_hpa_is_told_a_step_that_it_makes() {
    let mut world = beside_an_hpa(&json!({"behavior": null, "maxReplicas": 20}), 20, 195.0);
    let mut coarse = open();
    for direction in ["scaleUp", "scaleDown"] {
        coarse[direction].as_object_mut().unwrap().remove("tolerance");
    }
    coarse["scaleDown"]["stabilizationWindowSeconds"] = json!(60);
    world.stands(&coarse);
    world.level = 15.0;
    world.run(470);
    assert_eq!(world.published(), Some(20));
    world.run(40);
    assert_eq!(world.published(), Some(17), "18 is a tenth less");
    world.scaled_to(17);
    world.run(10);
    assert_eq!(world.published(), Some(17), "a step a minute");
    world.run(55);
    assert_eq!(world.published(), Some(15));
}

#[test]
fn what_was_ahead_does_not_come_back() {
    let mut world = ahead_by(8);
    let autoscaling = world.fleet["spec"]["autoscaling"].take();
    world.fleet["spec"].as_object_mut().unwrap().remove("autoscaling");
    world.fleet["metadata"]["generation"] = json!(2);
    world.scaled_to(3);
    world.run(1);
    assert_eq!(world.ahead(), None);
    world.fleet["spec"]["autoscaling"] = autoscaling;
    world.fleet["metadata"]["generation"] = json!(3);
    world.scaled_to(3);
    assert_eq!(world.ahead(), None, "before the next decision");
}

#[test]
fn an_hpa_that_cannot_read_a_number_is_not_blamed() {
    let mut world = ahead_by(8);
    // The gateways fall silent.
    for _ in 0..80 {
        world.now += 1000;
        world.look();
    }
    assert_eq!((world.ahead(), world.published()), (Some((2, 8)), None), "it holds");
    assert!(!world.unfollowed());
}

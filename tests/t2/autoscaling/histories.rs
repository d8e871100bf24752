//! Random fleets for the differential test: how each is scaled, and what is answered about it, all of it from one
//! seed.

use std::fmt::Write as _;

use fastrand::Rng;
use serde_json::{Value, json};

use super::metrics_server::Answer;

/// Windows and periods in seconds. The controller looks every 2 s and a little, so that what it remembers is about
/// an even number of seconds old: at odd limits it is clear what is inside.
const ODD: [i64; 7] = [1, 3, 5, 7, 9, 11, 15];

/// How one fleet is scaled.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its name, and its HPA's.
    pub name: String,
    /// Scale at the start, perhaps out of bounds.
    pub replicas: i32,
    /// Least.
    pub min: i32,
    /// Most.
    pub max: i32,
    /// `averageValue` in thousandths.
    pub target_milli: i64,
    /// Upwards.
    pub up: Direction,
    /// Downwards.
    pub down: Direction,
    /// A person changes the scale in between.
    pub by_hand: bool,
}

/// `behavior` in one direction.
#[derive(Clone, Debug)]
pub struct Direction {
    /// In seconds.
    pub window: i64,
    /// Max, Min or Disabled.
    pub select: &'static str,
    /// In thousandths.
    pub tolerance_milli: i64,
    /// Pods or Percent, how many, in how many seconds.
    pub policies: Vec<(&'static str, i32, i64)>,
}

impl Direction {
    fn random(rng: &mut Rng) -> Self {
        let window = if rng.u8(0..3) > 0 { 0 } else { pick(rng, &ODD) };
        let select = match rng.u8(0..20) {
            0 => "Disabled",
            1..=7 => "Min",
            _ => "Max",
        };
        let tolerance_milli = pick(rng, &[0, 0, 0, 50, 100, 250, 625]);
        let policies = (0..rng.usize(1..=3)).map(|_| {
            let period = pick(rng, &ODD);
            if rng.bool() { ("Pods", rng.i32(1..=6), period) } else { ("Percent", rng.i32(5..=200), period) }
        });
        Self { window, select, tolerance_milli, policies: policies.collect() }
    }

    fn json(&self) -> Value {
        let policies: Vec<_> = self
            .policies
            .iter()
            .map(|(type_, value, period)| json!({"type": type_, "value": value, "periodSeconds": period}))
            .collect();
        json!({
            "stabilizationWindowSeconds": self.window,
            "selectPolicy": self.select,
            "tolerance": milli(self.tolerance_milli),
            "policies": policies,
        })
    }
}

impl Plan {
    /// The `index`-th of a seed.
    pub fn random(seed: u64, index: usize) -> Self {
        let mut rng = rng(seed, index);
        let min = rng.i32(1..=4);
        let max = min + rng.i32(1..=40);
        let (up, mut down) = (Direction::random(&mut rng), Direction::random(&mut rng));
        if index.is_multiple_of(3) {
            // The same longest period for both: there Direct does exactly what the controller does.
            let longest = |d: &Direction| d.policies.iter().map(|p| p.2).max().unwrap_or_default();
            let period = longest(&up);
            down.policies.iter_mut().for_each(|p| p.2 = p.2.min(period));
            down.policies[0].2 = period;
        }
        Self {
            name: format!("fleet-{index}"),
            replicas: rng.i32(1..=max + 3),
            min,
            max,
            target_milli: pick(&mut rng, &[1000, 1000, 1000, 2500, 10_000]),
            up,
            down,
            by_hand: index.is_multiple_of(6),
        }
    }

    /// The fleet, which nobody runs.
    pub fn fleet(&self, namespace: &str) -> Value {
        json!({"apiVersion": "mcpfleet.io/v1alpha1", "kind": "McpFleet",
            "metadata": {"name": self.name, "namespace": namespace},
            "spec": {"replicas": self.replicas, "server": {"image": "registry.example/weather:1"}}})
    }

    /// Its autoscaler.
    pub fn hpa(&self, namespace: &str) -> Value {
        let fleet = json!({"apiVersion": "mcpfleet.io/v1alpha1", "kind": "McpFleet", "name": self.name});
        json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": self.name, "namespace": namespace},
        "spec": {
            "scaleTargetRef": fleet, "minReplicas": self.min, "maxReplicas": self.max,
            "behavior": {"scaleUp": self.up.json(), "scaleDown": self.down.json()},
            "metrics": [{"type": "Object", "object": {"describedObject": fleet, "metric": {"name": "load"},
                "target": {"type": "AverageValue", "averageValue": milli(self.target_milli)}}}],
        }})
    }
}

/// What is answered about a fleet, question after question.
pub struct Script {
    rng: Rng,
    max: f64,
    target: f64,
    level: f64,
    left: u32,
    kind: u8,
    errors: u32,
}

impl Script {
    /// Of the `index`-th fleet of a seed.
    pub fn new(seed: u64, index: usize, plan: &Plan) -> Self {
        let mut rng = rng(seed ^ 0x5eed, index);
        let level = rng.f64() * f64::from(plan.max);
        let (max, target) = (f64::from(plan.max), plan.target_milli as f64 / 1000.0);
        Self { rng, max, target, level, left: 0, kind: 0, errors: 0 }
    }

    /// The next answer: steps, ramps, noise and spikes around a level, and now and then errors for a while.
    pub fn answer(&mut self) -> Answer {
        let rng = &mut self.rng;
        if self.errors > 0 {
            self.errors -= 1;
            return Answer::Error(if rng.bool() { 503 } else { 404 });
        }
        if self.left == 0 {
            self.left = rng.u32(1..=6);
            self.kind = rng.u8(0..10);
            if self.kind < 6 {
                self.level = rng.f64() * self.max * 1.3;
            }
            if self.kind == 6 {
                self.errors = rng.u32(0..=4);
            }
        }
        self.left -= 1;
        let wanted = match self.kind {
            0..=2 => self.level,
            3 | 4 => self.level * (0.85 + 0.3 * rng.f64()),
            5 => {
                self.level = (self.level * (0.6 + rng.f64())).clamp(0.0, 2.0 * self.max);
                self.level
            }
            7 => self.level * if rng.u8(0..3) == 0 { 5.0 } else { 1.0 },
            8 => 0.0,
            _ => self.level.round(),
        };
        Answer::Value(quantity(rng, wanted * self.target))
    }

    /// What `status.replicas` will be at the next question, when the specification says `spec`.
    pub fn status(&mut self, spec: i32, status: i32) -> i32 {
        match self.rng.u8(0..20) {
            0..=11 => spec,
            12..=15 => status,
            16 => (spec - 1).max(0),
            17 => spec + 1,
            18 => i32::midpoint(spec, status),
            _ => 0,
        }
    }
}

/// A number as people write it: whole, in thousandths, or with more digits than the controller keeps.
fn quantity(rng: &mut Rng, value: f64) -> String {
    match rng.u8(0..3) {
        0 => format!("{}", value.round()),
        1 => format!("{}m", (value * 1000.0).round()),
        _ => {
            let mut text = String::new();
            let _ = write!(text, "{value:.4}");
            text
        }
    }
}

/// Thousandths as a quantity.
fn milli(value: i64) -> String {
    if value % 1000 == 0 { (value / 1000).to_string() } else { format!("{value}m") }
}

fn rng(seed: u64, index: usize) -> Rng {
    Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(index as u64))
}

fn pick<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.usize(..of.len())]
}

//! `mcp-fleet simulate`.
pub mod measure;
mod random;
mod run;
pub mod scalers;
pub mod scenario;
pub mod scenarios;
pub mod trace;
mod world;

pub fn quick(name: &str, kind: scalers::Kind, seed: u64) -> measure::Summary {
    let s = scenarios::named(name).unwrap();
    run::run(&s, kind, &crate::autoscale::policy::Policy::balanced(2, 30), Default::default(), seed).summary()
}

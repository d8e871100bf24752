//! Fuzzing on the stable toolchain: mutates the committed corpus and runs one target or all. A target panics when
//! an invariant does not hold; the input is then saved under `artifacts/<target>/` and the run fails.
//!
//! `cargo run -p mcp-fleet-fuzz -- --target all --seconds 60 [--seed N]`, or `-- --target sse FILE…`
//! to run saved inputs again. It is not guided by coverage: the corpus has to hold the interesting shapes.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_types,
    reason = "a command for people, without a runtime"
)]

mod load;
mod mutate;
mod targets;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use targets::{TARGETS, Target};

struct Args {
    target: String,
    seconds: u64,
    seed: u64,
    files: Vec<PathBuf>,
}

fn args() -> Result<Args, String> {
    let mut args = Args { target: "all".into(), seconds: 10, seed: fastrand::u64(..), files: Vec::new() };
    let mut given = std::env::args().skip(1);
    while let Some(arg) = given.next() {
        let mut value = || given.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--target" => args.target = value()?,
            "--seconds" => args.seconds = value()?.parse().map_err(|_| "--seconds needs a number")?,
            "--seed" => args.seed = value()?.parse().map_err(|_| "--seed needs a number")?,
            flag if flag.starts_with('-') => return Err(format!("unknown flag {flag}")),
            file => args.files.push(file.into()),
        }
    }
    Ok(args)
}

/// Inputs of a folder; none where it is missing.
fn read_folder(folder: &Path) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().map(|f| f.path()).collect();
    paths.sort();
    paths.iter().filter_map(|path| fs::read(path).ok()).collect()
}

fn holds(target: &Target, input: &[u8]) -> bool {
    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_ok()
}

fn save(root: &Path, target: &Target, input: &[u8]) {
    let folder = root.join("artifacts").join(target.name);
    let name = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let path = folder.join(format!("{name:016x}"));
    match fs::create_dir_all(&folder).and_then(|()| fs::write(&path, input)) {
        Ok(()) => eprintln!("saved {}", path.display()),
        Err(error) => eprintln!("failed to save {}: {error}", path.display()),
    }
}

/// Runs a target for a while; whether every input held.
fn fuzz(root: &Path, target: &Target, time: Duration, random: &mut fastrand::Rng) -> bool {
    let mut corpus = read_folder(&root.join("corpus").join(target.name));
    let committed = corpus.len();
    corpus.extend((target.seeds)());
    let (start, mut runs, mut held) = (Instant::now(), 0_u64, true);
    for input in &corpus {
        runs += 1;
        if !holds(target, input) {
            save(root, target, input);
            held = false;
        }
    }
    while held && start.elapsed() < time {
        for _ in 0..64 {
            let input = mutate::mutate(&corpus, random);
            runs += 1;
            if !holds(target, &input) {
                save(root, target, &input);
                held = false;
                break;
            }
        }
    }
    let verdict = if held { "ok" } else { "FAILED" };
    println!("{:<10} {verdict}: {runs} inputs, {committed} from the corpus", target.name);
    held
}

fn main() -> ExitCode {
    let args = match args() {
        Ok(args) => args,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let chosen: Vec<_> = TARGETS.iter().filter(|t| args.target == "all" || args.target == t.name).collect();
    if chosen.is_empty() {
        let names: Vec<_> = TARGETS.iter().map(|t| t.name).collect();
        eprintln!("no target {}; there are: all, {}", args.target, names.join(", "));
        return ExitCode::from(2);
    }
    let mut held = true;
    for file in &args.files {
        let input = match fs::read(file) {
            Ok(input) => input,
            Err(error) => {
                eprintln!("failed to read {}: {error}", file.display());
                return ExitCode::from(2);
            }
        };
        held &= chosen.iter().all(|target| holds(target, &input));
    }
    if args.files.is_empty() {
        println!("seed {}", args.seed);
        let each = Duration::from_secs(args.seconds) / chosen.len() as u32;
        let mut random = fastrand::Rng::with_seed(args.seed);
        for target in chosen {
            held &= fuzz(root, target, each, &mut random);
        }
    }
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

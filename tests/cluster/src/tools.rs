//! The programs a cluster needs: the Kubernetes ones by `binaries.sh`, the warden by rustc, pause by a C
//! compiler. All go to the cache outside the tree, keyed by their sources, so they are built once.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use crate::error::{Context, Error, Result};
use crate::image::Image;
use crate::layout::hex;
use crate::process::run;
use crate::tier::Tier;

/// Name of the pod sandbox image.
pub(crate) const PAUSE_IMAGE: &str = "localhost/pause:1";
const PAUSE_SOURCE: &str = include_str!("../assets/pause.c");

/// This crate's folder in the source tree.
fn home() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The cache outside the tree: `$MCP_FLEET_CACHE`, else `$XDG_CACHE_HOME/mcp-fleet`, else `~/.cache/mcp-fleet`.
pub fn cache_dir() -> PathBuf {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let user_cache = || set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    set("MCP_FLEET_CACHE")
        .or_else(|| Some(user_cache()?.join("mcp-fleet")))
        .unwrap_or_else(|| PathBuf::from("/tmp/mcp-fleet-cache"))
}

/// The folder of the Kubernetes programs for `tier`, after building what is missing (the first time some 20
/// minutes; progress on standard error). `MCP_FLEET_CLUSTER_BIN` names a folder to be used as it is.
pub(crate) fn binaries(tier: Tier) -> Result<PathBuf> {
    static FOUND: Mutex<BTreeMap<Tier, PathBuf>> = Mutex::new(BTreeMap::new());
    if let Some(given) = env::var_os("MCP_FLEET_CLUSTER_BIN").filter(|value| !value.is_empty()) {
        return Ok(PathBuf::from(given));
    }
    // Held while building: two tests of one process then build once.
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(dir) = found.get(&tier) {
        return Ok(dir.clone());
    }
    let script = home().join("binaries.sh");
    let mut command = Command::new("bash");
    command
        .arg(&script)
        .args(["--tier", &tier.number().to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    let output = command.output().context(|| format!("start {}", script.display()))?;
    if !output.status.success() {
        let text = "what it said stands above".to_owned();
        return Err(Error::Command {
            command: script.display().to_string(),
            status: output.status.to_string(),
            output: text,
        });
    }
    let dir = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    found.insert(tier, dir.clone());
    Ok(dir)
}

/// The warden, compiled if need be.
pub(crate) fn warden() -> Result<PathBuf> {
    compile_rust("warden", &home().join("src/warden/main.rs"))
}

/// Compiles a Rust program that uses the standard library alone, with its modules in the same folder, into
/// the cache; for the small programs that run in pods and namespaces of tests. Returns where it is.
pub fn compile_rust(name: &str, main: &Path) -> Result<PathBuf> {
    let folder = main.parent().unwrap_or(Path::new("."));
    let mut sources: Vec<PathBuf> = fs::read_dir(folder)
        .context(|| format!("read {}", folder.display()))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect();
    sources.sort();
    let mut hash = Sha256::new();
    for source in &sources {
        hash.update(fs::read(source).context(|| format!("read {}", source.display()))?);
    }
    let compiler = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    build(name, &hex(&hash.finalize()), |out| {
        let mut command = Command::new(&compiler);
        command.args([
            "--edition",
            "2024",
            "-C",
            "opt-level=2",
            "-C",
            "strip=symbols",
            "-C",
            "panic=abort",
            "--crate-name",
            "tool",
            "-o",
        ]);
        run(command.arg(out).arg(main)).map(drop)
    })
}

/// The reaping init, linked statically: it runs where there is no C library.
pub(crate) fn pause() -> Result<PathBuf> {
    let compiler =
        c_compiler().ok_or_else(|| Error::Invalid("no C compiler: install musl-tools or gcc".to_owned()))?;
    build("pause", &hex(&Sha256::digest(PAUSE_SOURCE)), |out| {
        let source = out.with_extension("c");
        fs::write(&source, PAUSE_SOURCE).context(|| format!("write {}", source.display()))?;
        let built = run(Command::new(compiler).args(["-static", "-O2", "-s", "-o"]).arg(out).arg(&source));
        let _ = fs::remove_file(&source);
        built.map(drop)
    })
}

/// The image of pause as a tar file.
pub(crate) fn pause_image() -> Result<PathBuf> {
    let program = pause()?;
    let key = hex(&Sha256::digest(fs::read(&program).context(|| format!("read {}", program.display()))?));
    build("pause-image", &key, |out| {
        Image::new(PAUSE_IMAGE).file(&program, "/pause").entrypoint(["/pause"]).write(out).map(drop)
    })
}

/// The first C compiler of the machine that links statically.
pub(crate) fn c_compiler() -> Option<&'static str> {
    ["musl-gcc", "gcc", "cc"].into_iter().find(|name| find(name).is_some())
}

/// Looks a program up on the `PATH`.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Makes `cache/cluster/NAME-KEY` with `produce` unless it is there; written under another name first, so that a
/// build that is cut off, or a second one at the same time, does no harm.
fn build(name: &str, key: &str, produce: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let dir = cache_dir().join("cluster");
    let done = dir.join(format!("{name}-{}", &key[..16]));
    if done.exists() {
        return Ok(done);
    }
    fs::create_dir_all(&dir).context(|| format!("create {}", dir.display()))?;
    let part = dir.join(format!(".{name}-{}-{}.part", std::process::id(), crate::layout::random_hex(3)?));
    let made = produce(&part)
        .and_then(|()| fs::rename(&part, &done).context(|| format!("create {}", done.display())));
    if made.is_err() {
        let _ = fs::remove_file(&part);
    }
    made.map(|()| done)
}

//! The images that real nodes run, made by `tests/images.sh`; see there.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};
use mcp_fleet_cluster::{compile_rust, image::Image};

/// The operator and the agent.
pub const PRODUCT: &str = "localhost/mcp-fleet:dev";
/// The sample MCP server and its client, `/usr/local/bin/mcp-call`.
pub const SAMPLE: &str = "localhost/mcp-fleet-sample:dev";
/// The same under another tag: what a fleet is updated to. As long as the first, see [`retag`].
pub const SAMPLE_NEXT: &str = "localhost/mcp-fleet-sample:two";
/// A server without any signal handler. As process 1 it would not notice a SIGTERM.
pub const DEAF: &str = "localhost/deaf:dev";

/// Builds what is out of date and returns the image files, for [`mcp_fleet_cluster::Builder::images`].
pub fn build() -> anyhow::Result<Vec<PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = root.join("tests/images.sh");
    let mut command = Command::new(&script);
    let output = command.stderr(Stdio::inherit()).output().context("failed to start tests/images.sh")?;
    if !output.status.success() {
        bail!("tests/images.sh: {}; what it said stands above", output.status);
    }
    let text = String::from_utf8(output.stdout)?;
    let [product, sample] = text.lines().collect::<Vec<_>>()[..] else {
        bail!("tests/images.sh printed {text:?} instead of two files");
    };
    let folder = Path::new(product).parent().context("an absolute path")?;
    let next = folder.join("mcp-fleet-sample-next.tar");
    retag(Path::new(sample), SAMPLE, SAMPLE_NEXT, &next)?;
    let deaf = folder.join("deaf.tar");
    let program = compile_rust("deaf", &root.join("tests/cluster/probe/main.rs"))?;
    Image::new(DEAF).program(program, "/deaf")?.entrypoint(["/deaf", "serve", "8080"]).write(&deaf)?;
    Ok(vec![product.into(), sample.into(), next, deaf])
}

/// Copies an image file under another reference. Of the same length, so that it can stand in its place.
fn retag(tar: &Path, old: &str, new: &str, out: &Path) -> anyhow::Result<()> {
    let mut bytes = std::fs::read(tar)?;
    let at = bytes.windows(old.len()).position(|window| window == old.as_bytes());
    let at = at.filter(|_| old.len() == new.len()).context("the image's index does not name it")?;
    bytes[at..at + old.len()].copy_from_slice(new.as_bytes());
    std::fs::write(out, bytes)?;
    Ok(())
}

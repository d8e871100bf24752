//! Where the files of one cluster are, and its fixed addresses. Every cluster has a network namespace of its
//! own, so the addresses may be the same in all of them.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};
use crate::process;

/// Address of the API server and of the first node, inside the namespace.
pub(crate) const NODE_IP: &str = "10.99.0.1";
/// Port of the API server, inside the namespace.
pub(crate) const API_PORT: u16 = 6443;
/// All addresses of pods on real nodes.
pub(crate) const POD_NET: &str = "10.244.0.0/16";
/// All addresses of pods on fake nodes.
pub(crate) const KWOK_NET: &str = "10.250.0.0/16";
/// Addresses of Services.
pub(crate) const SERVICE_NET: &str = "10.96.0.0/16";
/// Service `kubernetes`: the first of them.
pub(crate) const SERVICE_IP: &str = "10.96.0.1";
/// First part of the name of every folder, namespace and cgroup of ours; the warden refuses others.
pub(crate) const PREFIX: &str = "mcpf-";
/// Longest scratch path: containerd's and the kubelet's Unix sockets below it must stay under 108 bytes.
const MAX_PATH: usize = 60;

/// Names and places of one cluster.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// What the user calls it.
    pub(crate) name: String,
    /// Network namespace of the control plane, and cgroup root: prefix, name and a random part.
    pub(crate) ns: String,
    /// Scratch folder, absolute.
    pub(crate) dir: PathBuf,
}

impl Layout {
    /// Creates the scratch folder of a new cluster.
    pub(crate) fn create(name: &str) -> Result<Self> {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 20 || !name.chars().all(is_plain) {
            return Err(Error::Invalid(format!(
                "`{name}` is no name for a cluster: use 1 to 20 of a-z, 0-9 and -"
            )));
        }
        let ns = format!("{PREFIX}{name}-{}", random_hex(4)?);
        let temp = std::env::temp_dir();
        let is_short = temp.as_os_str().len() + ns.len() < MAX_PATH;
        let base = if temp.is_absolute() && is_short { temp } else { PathBuf::from("/tmp") };
        let layout = Self { name: name.to_owned(), dir: base.join(&ns), ns };
        for folder in ["pids", "log", "pki", "kubeconfig", "images", "home"] {
            layout.mkdir(folder)?;
        }
        layout.write("ns", &layout.ns)?;
        layout.write("owner", &process::record(std::process::id()))?;
        Ok(layout)
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join(name)
    }

    /// The path as text; scratch paths are ASCII or at least what `$TMPDIR` holds.
    pub(crate) fn text(&self, name: impl AsRef<Path>) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    pub(crate) fn mkdir(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::create_dir_all(&path).context(|| format!("create {}", path.display()))?;
        Ok(path)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path(name);
        write(&path, text)?;
        Ok(path)
    }

    /// Network namespace of real node `index`, counted from 1; the first shares the control plane's. The warden
    /// knows them by this form.
    pub(crate) fn node_ns(&self, index: usize) -> String {
        if index == 1 { self.ns.clone() } else { format!("{}-n{index}", self.ns) }
    }

    pub(crate) fn log(&self, daemon: &str) -> PathBuf {
        self.path(format!("log/{daemon}.log"))
    }
}

/// Writes a file that only the owner reads: most of them hold a token.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let open = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
    let written = open.and_then(|mut file| file.write_all(text.as_bytes()));
    written.context(|| format!("write {}", path.display()))
}

/// `bytes` random bytes in hexadecimal digits.
pub(crate) fn random_hex(bytes: usize) -> Result<String> {
    let mut buffer = vec![0; bytes];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut buffer))
        .context(|| "read /dev/urandom".to_owned())?;
    Ok(hex(&buffer))
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_scratch_folder_are_refused() {
        for name in ["", "A", "../x", "a/b", "a name", "abcdefghijklmnopqrstuvwxyz"] {
            assert!(Layout::create(name).is_err(), "{name}");
        }
    }

    #[test]
    fn hexadecimal_digits() {
        assert_eq!(hex(&[0, 0x1f, 0xff]), "001fff");
    }
}

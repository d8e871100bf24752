//! Container images without Docker and without a registry: an OCI image layout in a tar file, for
//! `ctr images import`, one uncompressed layer. The same files give the same bytes, hence the same digests.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

use crate::error::{Context, Error, Result};
use crate::layout::hex;

/// Largest file that an image may hold: layers are put together in memory.
const MAX_FILE_BYTES: u64 = 512 * 1024 * 1024;

/// An image to be written.
#[derive(Debug, Clone)]
pub struct Image {
    name: String,
    files: Vec<(PathBuf, String)>,
    entrypoint: Vec<String>,
    command: Vec<String>,
    env: Vec<String>,
    user: (u32, u32),
}

impl Image {
    /// `name` is the reference that pods use, with its tag: `localhost/server:1`. Runs as 65532:65532.
    pub fn new(name: impl Into<String>) -> Self {
        let env = vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
        Self {
            name: name.into(),
            files: Vec::new(),
            entrypoint: Vec::new(),
            command: Vec::new(),
            env,
            user: (65_532, 65_532),
        }
    }

    /// Puts the file `source` at the absolute path `target`; it stays executable if it is.
    #[must_use]
    pub fn file(mut self, source: impl AsRef<Path>, target: impl Into<String>) -> Self {
        self.files.push((source.as_ref().to_owned(), target.into()));
        self
    }

    /// As [`Image::file`], with the shared libraries that the program is linked with, from this machine.
    pub fn program(mut self, source: impl AsRef<Path>, target: impl Into<String>) -> Result<Self> {
        let source = source.as_ref();
        for library in shared_libraries(source)? {
            if !self.files.iter().any(|(_, target)| *target == library) {
                self.files.push((PathBuf::from(&library), library));
            }
        }
        Ok(self.file(source, target))
    }

    /// What is run; without it the image cannot be started unless the pod says what.
    #[must_use]
    pub fn entrypoint<S: Into<String>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.entrypoint = words.into_iter().map(Into::into).collect();
        self
    }

    /// Arguments, which a pod's `args` replace.
    #[must_use]
    pub fn command<S: Into<String>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.command = words.into_iter().map(Into::into).collect();
        self
    }

    /// An environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push(format!("{name}={value}"));
        self
    }

    /// Numeric user and group, so that Pod Security can see that it is not root.
    #[must_use]
    pub fn user(mut self, user: u32, group: u32) -> Self {
        self.user = (user, group);
        self
    }

    /// Writes the tar file; returns the digest of the image's manifest, `sha256:…`.
    pub fn write(&self, out: impl AsRef<Path>) -> Result<String> {
        let out = out.as_ref();
        let layer = self.layer()?;
        let config = json!({
            "architecture": match std::env::consts::ARCH { "x86_64" => "amd64", "aarch64" => "arm64", other => other },
            "os": "linux",
            "config": {
                "User": format!("{}:{}", self.user.0, self.user.1), "WorkingDir": "/", "Env": self.env,
                "Entrypoint": self.entrypoint, "Cmd": self.command,
            },
            // Not compressed, so the digest of the layer is that of its content.
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
            "history": [{"created_by": "mcp-fleet-cluster"}],
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
        });
        let manifest = manifest.to_string().into_bytes();
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
        entry["annotations"] = json!({"io.containerd.image.name": self.name});
        let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string().into_bytes();
        let mut tar = Tar::default();
        tar.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
        tar.file("index.json", &index, 0o644)?;
        for blob in [&config, &manifest, &layer] {
            tar.file(&format!("blobs/sha256/{}", hex(&Sha256::digest(blob))), blob, 0o644)?;
        }
        let bytes = tar.finish()?;
        File::create(out)
            .and_then(|mut file| file.write_all(&bytes))
            .context(|| format!("write {}", out.display()))?;
        Ok(digest(&manifest))
    }

    /// The file system: our files, a name for the user, and a `/tmp` that anyone may write to.
    fn layer(&self) -> Result<Vec<u8>> {
        let (user, group) = self.user;
        let mut tar = Tar::default();
        tar.dir("tmp", 0o1777)?;
        tar.file("etc/passwd", format!("app:x:{user}:{group}::/:/none\n").as_bytes(), 0o644)?;
        tar.file("etc/group", format!("app:x:{group}:\n").as_bytes(), 0o644)?;
        let mut files = self.files.clone();
        files.sort_by(|a, b| a.1.cmp(&b.1));
        for (source, target) in files {
            let Some(target) =
                target.strip_prefix('/').filter(|target| !target.is_empty() && !target.ends_with('/'))
            else {
                return Err(Error::Invalid(format!(
                    "image {}: `{target}` is not the absolute path of a file",
                    self.name
                )));
            };
            let what = || format!("read {} for image {}", source.display(), self.name);
            let meta = fs::metadata(&source).context(what)?;
            if !meta.is_file() || meta.len() > MAX_FILE_BYTES {
                return Err(Error::Invalid(format!(
                    "image {}: {} is not a file of at most 512 MiB",
                    self.name,
                    source.display()
                )));
            }
            let mut content = Vec::new();
            File::open(&source)
                .and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut content))
                .context(what)?;
            let mode = if meta.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
            tar.file(target, &content, mode)?;
        }
        tar.finish()
    }
}

/// A tar file in memory without anything that differs between two runs: no times, no owners.
#[derive(Default)]
struct Tar {
    builder: Option<tar::Builder<Vec<u8>>>,
    dirs: Vec<String>,
}

impl Tar {
    fn file(&mut self, path: &str, content: &[u8], mode: u32) -> Result<()> {
        let mut at = 0;
        while let Some(slash) = path[at..].find('/') {
            at += slash + 1;
            self.dir(&path[..at - 1], 0o755)?;
        }
        self.append(path, EntryType::Regular, content, mode)
    }

    fn dir(&mut self, path: &str, mode: u32) -> Result<()> {
        if self.dirs.iter().any(|dir| dir == path) {
            return Ok(());
        }
        self.dirs.push(path.to_owned());
        self.append(&format!("{path}/"), EntryType::Directory, &[], mode)
    }

    fn append(&mut self, path: &str, kind: EntryType, content: &[u8], mode: u32) -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        let builder = self.builder.get_or_insert_with(|| tar::Builder::new(Vec::new()));
        builder.append_data(&mut header, path, content).context(|| format!("add {path} to a tar file"))
    }

    fn finish(self) -> Result<Vec<u8>> {
        self.builder
            .unwrap_or_else(|| tar::Builder::new(Vec::new()))
            .into_inner()
            .context(|| "finish a tar file".to_owned())
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}

/// Absolute paths of the libraries and of the loader that `ldd` names; none for a static program.
fn shared_libraries(program: &Path) -> Result<Vec<String>> {
    if !program.is_file() {
        return Err(Error::Invalid(format!("there is no program {}", program.display())));
    }
    let output = Command::new("ldd").arg(program).output().context(|| "start ldd".to_owned())?;
    let text = String::from_utf8_lossy(&output.stdout);
    // "libc.so.6 => /lib/libc.so.6 (0x…)" or "/lib64/ld-linux-x86-64.so.2 (0x…)".
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(str::to_owned);
    if !output.status.success() || text.contains("statically linked") {
        return Ok(Vec::new());
    }
    if let Some(line) = text.lines().find(|line| line.contains("not found")) {
        return Err(Error::Invalid(format!(
            "{} needs a library that is not here: {}",
            program.display(),
            line.trim()
        )));
    }
    Ok(text.lines().filter_map(path).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("cluster-image-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).expect("scratch folder");
        dir
    }

    #[test]
    fn the_same_files_give_the_same_bytes_whatever_their_times_and_order() {
        let dir = scratch("same");
        let (a, b) = (dir.join("a"), dir.join("b"));
        fs::write(&a, "one").expect("write");
        fs::write(&b, "two").expect("write");
        let image = Image::new("localhost/x:1").entrypoint(["/a"]);
        let first = image.clone().file(&a, "/a").file(&b, "/deep/b").write(dir.join("1.tar")).expect("image");
        fs::write(&a, "one").expect("write again, later");
        let second = image.file(&b, "/deep/b").file(&a, "/a").write(dir.join("2.tar")).expect("image");
        assert_eq!(first, second);
        assert_eq!(fs::read(dir.join("1.tar")).expect("read"), fs::read(dir.join("2.tar")).expect("read"));
        fs::remove_dir_all(dir).expect("clean up");
    }

    #[test]
    fn other_content_gives_another_digest() {
        let dir = scratch("other");
        let file = dir.join("a");
        let mut digests = Vec::new();
        for content in ["one", "two"] {
            fs::write(&file, content).expect("write");
            digests
                .push(Image::new("localhost/x:1").file(&file, "/a").write(dir.join("x.tar")).expect("image"));
        }
        assert_ne!(digests[0], digests[1]);
        fs::remove_dir_all(dir).expect("clean up");
    }

    #[test]
    fn a_relative_target_is_refused() {
        let error =
            Image::new("localhost/x:1").file("/etc/hostname", "a").write("/dev/null").expect_err("relative");
        assert!(error.to_string().contains("absolute"), "{error}");
    }

    #[test]
    fn a_program_brings_its_libraries() {
        let shell = Image::new("localhost/x:1").program("/bin/sh", "/bin/sh").expect("ldd");
        assert!(shell.files.iter().any(|(_, target)| target.contains("libc.so")), "{:?}", shell.files);
    }
}

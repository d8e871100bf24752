//! `install DIR`: leaves this executable in a volume that the server's container mounts.
//!
//! It must not leave half a file under the final name: the copy goes to a temporary name first and
//! is moved there in one step, so that a container that restarts in between finds the old file, the
//! new one or none, and a hook that is just running keeps the one it started from.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::EXECUTABLE;

/// The running executable itself, whatever path or image it was started from.
const SELF: &str = "/proc/self/exe";

/// Everybody may run it: the server's container has another user.
const MODE: u32 = 0o755;

/// The copy failed.
#[derive(Debug, thiserror::Error)]
#[error("failed to install {EXECUTABLE} into {}: failed to {step}: {source}; {}", directory.display(), hint(source))]
pub(crate) struct InstallError {
    directory: PathBuf,
    step: &'static str,
    source: io::Error,
}

/// Copies the running executable to `directory/mcp-fleet-agent` and returns that path.
pub(crate) fn install(directory: &Path) -> Result<PathBuf, InstallError> {
    install_from(Path::new(SELF), directory)
}

fn install_from(source: &Path, directory: &Path) -> Result<PathBuf, InstallError> {
    let target = directory.join(EXECUTABLE);
    // The process id keeps two installers of one directory apart. A leftover of a crashed one is
    // simply written over.
    let temporary = directory.join(format!(".{EXECUTABLE}.{}", std::process::id()));
    copy_to(source, &temporary, &target).map_err(|(step, source)| {
        // Best effort: the reason to report is the one that stopped the copy.
        let _ = fs::remove_file(&temporary);
        InstallError { directory: directory.to_owned(), step, source }
    })?;
    Ok(target)
}

fn copy_to(source: &Path, temporary: &Path, target: &Path) -> Result<(), (&'static str, io::Error)> {
    let mut from = File::open(source).map_err(|error| ("read the executable", error))?;
    let mut to = File::create(temporary).map_err(|error| ("create the file", error))?;
    io::copy(&mut from, &mut to).map_err(|error| ("write the file", error))?;
    // Set after creation, so that the umask has no say.
    to.set_permissions(Permissions::from_mode(MODE)).map_err(|error| ("make it executable", error))?;
    drop(to);
    fs::rename(temporary, target).map_err(|error| ("move it into place", error))
}

/// What to do about it, for the one line that a person sees in the init container's log.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            "the directory must exist: mount a volume there"
        }
        io::ErrorKind::PermissionDenied => {
            "the directory must be writable for this user: check runAsUser and fsGroup"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "the directory must be writable: mount the volume without readOnly"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "the volume is full: raise its sizeLimit"
        }
        _ => "check the volume that is mounted there",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of this test alone, removed at its end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("agent-install-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_copy_is_complete_executable_and_alone() {
        let scratch = Scratch::new("complete");
        let target = install(&scratch.0).unwrap();
        assert_eq!(target, scratch.0.join("mcp-fleet-agent"));
        assert_eq!(fs::read(&target).unwrap(), fs::read(SELF).unwrap());
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o7777, 0o755);
        assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 1);
    }

    #[test]
    fn an_older_copy_is_replaced_and_stays_whole_for_who_has_it_open() {
        let scratch = Scratch::new("replace");
        let old = scratch.0.join("mcp-fleet-agent");
        fs::write(&old, "old").unwrap();
        let mut open = File::open(&old).unwrap();
        install(&scratch.0).unwrap();
        assert_eq!(io::read_to_string(&mut open).unwrap(), "old");
        assert_eq!(fs::read(&old).unwrap(), fs::read(SELF).unwrap());
    }

    #[test]
    fn a_failure_names_the_directory_the_step_and_the_way_out() {
        let scratch = Scratch::new("failure");
        let missing = scratch.0.join("nowhere");
        let error = install(&missing).unwrap_err().to_string();
        assert!(error.starts_with(&format!("failed to install mcp-fleet-agent into {}", missing.display())));
        assert!(error.contains("failed to create the file"), "{error}");
        assert!(error.ends_with("mount a volume there"), "{error}");
    }

    #[test]
    fn a_failed_copy_leaves_nothing_behind() {
        let scratch = Scratch::new("leftover");
        // The final name is taken by a directory, so the last step fails.
        fs::create_dir(scratch.0.join("mcp-fleet-agent")).unwrap();
        assert!(install(&scratch.0).is_err());
        assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 1);
    }
}

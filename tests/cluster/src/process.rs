//! Starting and ending the daemons of a cluster. Each is started in the cluster's network namespace and in a
//! session of its own (so Ctrl-C at the terminal does not reach it), its pid is recorded for the warden, and
//! its output goes to `log/NAME.log`.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::error::{Context, Error, Result};
use crate::layout::{Layout, write};
use crate::wait;

/// How much of a log or of a program's output an error carries.
const TAIL_BYTES: usize = 2_000;

/// One daemon: how to start it, and the running process if there is one.
#[derive(Debug)]
pub(crate) struct Daemon {
    name: String,
    netns: String,
    program: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    may_end: bool,
    child: Option<Child>,
}

/// How to end a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// SIGTERM, and SIGKILL if it has not ended after this time.
    Gently(Duration),
    /// SIGKILL.
    Kill,
}

impl Daemon {
    /// A daemon called `name` for the network namespace `netns`; not started yet.
    pub(crate) fn new(name: &str, netns: &str, program: impl AsRef<Path>, args: Vec<String>) -> Self {
        let program = program.as_ref().to_string_lossy().into_owned();
        Self {
            name: name.to_owned(),
            netns: netns.to_owned(),
            program,
            args,
            env: Vec::new(),
            may_end: false,
            child: None,
        }
    }

    /// Adds environment variables, and lets it end by itself without failing whoever waits for something.
    pub(crate) fn of_a_test(mut self, env: &[(&str, &str)]) -> Self {
        self.env = env.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        self.may_end = true;
        self
    }

    pub(crate) fn args(&self) -> &[String] {
        &self.args
    }

    /// Starts it; `stdin` is null unless something is handed over.
    pub(crate) fn start(&mut self, layout: &Layout, stdin: Option<Stdio>) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        let path = layout.log(&self.name);
        let log = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .context(|| format!("open {}", path.display()))?;
        let copy = log.try_clone().context(|| format!("open {}", path.display()))?;
        // Both `setsid` and `nsenter` end in exec: the pid stays that of the daemon.
        let mut command = Command::new("setsid");
        command
            .arg("nsenter")
            .arg(format!("--net=/run/netns/{}", self.netns))
            .arg("--")
            .arg(&self.program)
            .args(&self.args);
        command.stdin(stdin.unwrap_or_else(Stdio::null)).stdout(log).stderr(copy).current_dir(&layout.dir);
        // A proxy of the environment must not come between the components.
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
            command.env_remove(name);
        }
        command.env("HOME", layout.path("home")).envs(self.env.iter().map(|(name, value)| (name, value)));
        let child = command.spawn().context(|| format!("start {}", self.name))?;
        let pid = child.id();
        self.child = Some(child);
        write(&layout.path(format!("pids/{}", self.name)), &record(pid))
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// An error with the end of the log if the daemon was started and has ended by itself.
    pub(crate) fn check(&mut self, layout: &Layout) -> Result<()> {
        if self.may_end {
            return Ok(());
        }
        let Some(Ok(Some(status))) = self.child.as_mut().map(Child::try_wait) else { return Ok(()) };
        let log = layout.log(&self.name);
        Err(Error::Died { name: self.name.clone(), status: status.to_string(), tail: tail_of(&log), log })
    }

    /// Ends it and waits until it is gone; Ok if it was not running.
    pub(crate) fn stop(&mut self, layout: &Layout, how: Stop) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        if let Stop::Gently(patience) = how {
            let pid = child.id().to_string();
            // Not reaped yet, so the pid is still this process; the shell's own `kill` needs no package.
            run(Command::new("sh").args(["-c", "kill -TERM \"$1\"", "sh", &pid]))?;
            let gone = wait::until(
                &self.name,
                patience,
                || Ok(()),
                || match child.try_wait() {
                    Ok(None) => Err("it ignores SIGTERM".to_owned()),
                    _ => Ok(()),
                },
            );
            if gone.is_ok() {
                let _ = fs::remove_file(layout.path(format!("pids/{}", self.name)));
                return Ok(());
            }
        }
        let killed = child.kill().and_then(|()| child.wait());
        let _ = fs::remove_file(layout.path(format!("pids/{}", self.name)));
        killed.map(drop).context(|| format!("end {}", self.name))
    }

    /// Replaces or adds arguments for the next start: `--name=value` replaces an earlier `--name=…`.
    pub(crate) fn override_args(&mut self, extra: &[String]) {
        override_args(&mut self.args, extra);
    }

    /// Takes the exit status of a process that somebody else has ended.
    pub(crate) fn reap(&mut self) {
        if let Some(child) = self.child.as_mut() {
            let _ = child.wait();
        }
    }
}

/// Puts `extra` over `args`: a flag given again replaces the earlier one.
pub(crate) fn override_args(args: &mut Vec<String>, extra: &[String]) {
    for new in extra {
        let name = new.split_once('=').map_or(new.as_str(), |(name, _)| name);
        args.retain(|old| old != name && !(old.starts_with(name) && old[name.len()..].starts_with('=')));
        args.push(new.clone());
    }
}

/// What identifies a process for as long as the machine runs: pid and start time, for a file.
pub(crate) fn record(pid: u32) -> String {
    format!("{pid} {}\n", start_time(pid).unwrap_or_default())
}

/// Whether the process that was recorded in the file still runs; none if there is no such file.
pub(crate) fn recorded_runs(file: &Path) -> Option<bool> {
    let text = fs::read_to_string(file).ok()?;
    let mut words = text.split_whitespace();
    let pid: u32 = words.next()?.parse().ok()?;
    let start: u64 = words.next()?.parse().ok()?;
    Some(start_time(pid) == Some(start))
}

/// Start time in clock ticks since boot; none for a process that has ended, a zombie included.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name stands in brackets and may hold anything; fields are counted from behind it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if matches!(fields.first(), Some(&("Z" | "X"))) {
        return None;
    }
    fields.get(19)?.parse().ok()
}

/// Runs a program to its end; its standard output, or an error with what it printed.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .context(|| format!("start {}", command.get_program().to_string_lossy()))?;
    finish(command, &output)
}

/// Runs a program with `input` as its standard input.
pub(crate) fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    use std::io::Write;
    let what = || format!("run {}", command.get_program().to_string_lossy());
    let (reader, mut writer) = std::io::pipe().context(|| "make a pipe".to_owned())?;
    let text = input.to_owned();
    // From a thread of its own: a manifest may be larger than a pipe holds.
    let feeder = std::thread::spawn(move || writer.write_all(text.as_bytes()));
    let message = what();
    let output = command.stdin(reader).output().context(|| message)?;
    drop(feeder);
    finish(command, &output)
}

fn finish(command: &Command, output: &std::process::Output) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let printed = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    Err(Error::Command {
        command: line(command),
        status: output.status.to_string(),
        output: tail(&String::from_utf8_lossy(&printed)),
    })
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn tail_of(path: &Path) -> String {
    tail(&fs::read_to_string(path).unwrap_or_default())
}

fn tail(text: &str) -> String {
    let text = text.trim();
    let from = text.len().saturating_sub(TAIL_BYTES);
    let from = (from..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or_default();
    text[from..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_given_again_replaces_the_earlier_one() {
        let mut args: Vec<String> = ["--a=1", "--ab=2", "--c"].map(String::from).to_vec();
        override_args(&mut args, &["--a=3".to_owned(), "--d=4".to_owned()]);
        assert_eq!(args, ["--ab=2", "--c", "--a=3", "--d=4"]);
    }

    #[test]
    fn errors_carry_what_the_program_printed() {
        let error = run(Command::new("sh").args(["-c", "echo seen; exit 3"])).expect_err("it fails");
        assert!(error.to_string().contains("seen"), "{error}");
    }

    #[test]
    fn input_larger_than_a_pipe_arrives_whole() {
        let input = "x".repeat(1_000_000);
        assert_eq!(run_with_input(&mut Command::new("cat"), &input).expect("cat").len(), input.len());
    }
}

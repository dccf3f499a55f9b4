//! One process of the server's program: started, watched, signalled, ended.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use super::wait::{PATIENCE, eventually};

/// What the server's first line on standard output begins with.
pub const LISTENING: &str = "raftkv-server listening ";
/// How much of each output is printed when a test fails.
const LINES_SHOWN: usize = 40;

/// The server's program.
pub fn server() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_raftkv-server"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RAFTKV_") {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG");
    command
}

/// The command behind the arguments of another that runs it, with the same environment.
pub fn through(mut outer: Command, inner: &Command) -> Command {
    outer.arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer
}

/// A running or ended process. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    stdout: PathBuf,
    stderr: PathBuf,
    ended: Option<ExitStatus>,
}

/// How a process ended that was to end by itself.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Everything that it printed.
    pub stdout: String,
    /// Everything that it complained about.
    pub stderr: String,
}

impl Process {
    /// Starts a command. Its output goes to two files in `logs` that are named after `name`.
    pub fn spawn(name: &str, command: &mut Command, logs: &Path) -> Process {
        let file = |kind: &str| logs.join(format!("{name}.{kind}"));
        let (stdout, stderr) = (file("out"), file("err"));
        let open = |path: &Path| Stdio::from(File::create(path).expect("the log file can be created"));
        let child = command.stdin(Stdio::null()).stdout(open(&stdout)).stderr(open(&stderr)).spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Process { child, name: name.to_owned(), stdout, stderr, ended: None }
    }

    /// Starts a command whose standard error is a pipe that nobody reads.
    pub fn spawn_unheard(name: &str, command: &mut Command, logs: &Path) -> Process {
        let (stdout, stderr) = (logs.join(format!("{name}.out")), logs.join(format!("{name}.err")));
        let out = File::create(&stdout).expect("the log file can be created");
        let child = command.stdin(Stdio::null()).stdout(out).stderr(Stdio::piped()).spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Process { child, name: name.to_owned(), stdout, stderr, ended: None }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stdout).unwrap_or_default()).into_owned()
    }

    /// What it has complained about so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap_or_default()).into_owned()
    }

    /// Waits for the line that says where it listens, and returns it.
    pub fn await_listening(&mut self) -> String {
        let what = format!("{} listens", self.name);
        eventually(PATIENCE, what, || {
            let line = self.stdout().lines().find(|line| line.starts_with(LISTENING)).map(str::to_owned);
            if line.is_none() && self.has_ended() {
                panic!("{} has ended: {}", self.name, self.stderr());
            }
            line
        })
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("a child can be waited for");
        }
        self.ended.is_some()
    }

    /// Waits until it has ended.
    pub fn await_end(&mut self, patience: Duration) -> Ended {
        let what = format!("{} ends", self.name);
        eventually(patience, what, || self.has_ended().then_some(()));
        let code = self.ended.and_then(|status| status.code());
        Ended { code, stdout: self.stdout(), stderr: self.stderr() }
    }

    /// Sends it a signal, by name as in `TERM`. Nothing happens if it has ended.
    pub fn signal(&mut self, signal: &str) {
        // Before it has been waited for, its process id can be nobody else's.
        if !self.has_ended() {
            send_signal(self.pid(), signal);
        }
    }

    /// Kills it at once.
    pub fn kill_9(&mut self) {
        if !self.has_ended() {
            self.child.kill().expect("a child can be killed");
            self.ended = Some(self.child.wait().expect("a child can be waited for"));
        }
    }

    /// Stops its clock; returns when it stands still.
    pub fn pause(&mut self) {
        self.signal("STOP");
        let stat = format!("/proc/{}/stat", self.pid());
        eventually(PATIENCE, format!("{} is paused", self.name), || {
            let stat = fs::read_to_string(&stat).expect("the process is there");
            let state = stat.rsplit_once(") ").expect("a state follows the name").1;
            state.starts_with('T').then_some(())
        });
    }

    /// Lets it go on.
    pub fn resume(&mut self) {
        self.signal("CONT");
    }

    /// Resident memory in bytes.
    pub fn rss_bytes(&self) -> u64 {
        memory_bytes(self.pid(), "VmRSS:")
    }

    /// The most resident memory that it has ever had, in bytes.
    pub fn peak_rss_bytes(&self) -> u64 {
        memory_bytes(self.pid(), "VmHWM:")
    }

    /// Processor time used so far, user and system, in hundredths of a second.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("the process is there");
        let after_name = stat.rsplit_once(") ").expect("fields follow the name").1;
        let fields: Vec<u64> =
            after_name.split(' ').skip(11).take(2).map(|field| field.parse().expect("ticks")).collect();
        fields.iter().sum()
    }

    /// The processes that it has started and that still run.
    pub fn children(&self) -> Vec<u32> {
        let path = format!("/proc/{0}/task/{0}/children", self.pid());
        let children = fs::read_to_string(path).unwrap_or_default();
        children.split_whitespace().map(|pid| pid.parse().expect("a process id")).collect()
    }

    fn show(&self) {
        for (kind, text) in [("stdout", self.stdout()), ("stderr", self.stderr())] {
            let lines: Vec<&str> = text.lines().collect();
            let shown = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
            eprintln!("--- {} {kind}, the last {} of {} lines", self.name, shown.len(), lines.len());
            for line in shown {
                eprintln!("{line}");
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            self.show();
        }
        // A test that panics must not panic again here; a process that cannot be killed has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the system says of a process's memory, as in `VmRSS:`.
pub fn memory_bytes(pid: u32, which: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let line = status.lines().find_map(|line| line.strip_prefix(which)).expect("it has memory");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}

/// Sends a signal to a process that this test has started, or that such a process has started.
pub fn send_signal(pid: u32, signal: &str) {
    let status = Command::new("sh").args(["-c", "kill -s \"$1\" \"$2\"", "sh", signal, &pid.to_string()]).status();
    assert!(status.expect("there is a shell").success(), "signal {signal} to {pid}");
}

/// Whether a process of this id exists and is no zombie.
pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

/// Runs the server with these arguments to its end.
pub fn run_to_end(args: &[impl AsRef<OsStr>], cwd: &Path) -> Ended {
    let mut process = Process::spawn("refused", server().args(args).current_dir(cwd), cwd);
    process.await_end(PATIENCE)
}

//! Folders, ports and processes of the tests.
//!
//! A [`RunFolder`] is for one process at a time and comes with a watchdog: a shell that holds the read end of a pipe of ours. Whatever ends the test process closes the pipe; then the watchdog kills the process group that
//! it was last told and removes the folder. (`PR_SET_PDEATHSIG` would not do: it fires when the *thread* that started the child ends, and each test has its own.)

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::wait::{try_wait_until, wait_until};

/// A signal to stop takes effect at the next time slice.
const STOPPED_WITHIN: Duration = Duration::from_secs(10);

/// How long a killed process may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(20);

/// Lines of a log that are shown with a failure.
const LINES_SHOWN: usize = 60;

/// Told the process group, or 0, line by line; at the end of its input kills the group and removes the folder, more than once because a dying process may still write.
const WATCHDOG: &str = r#"group=0
while read -r line; do group=$line; done
[ "$group" = 0 ] || kill -s KILL -- "-$group" 2>/dev/null
for attempt in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    rm -rf -- "$1" 2>/dev/null && exit
    sleep 0.5
done"#;

/// Who runs a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// Whoever runs the tests.
    Same,
    /// `nobody` when the tests run as root, else whoever runs the tests. Elasticsearch refuses root.
    Unprivileged,
}

/// The user and group of `nobody`.
const NOBODY: (u32, u32) = (65_534, 65_534);

fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn identity(user: User) -> Option<(u32, u32)> {
    (user == User::Unprivileged && is_root()).then_some(NOBODY)
}

/// A temporary folder, with the watchdog that ends what runs in it; see the module.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    user: User,
    watchdog: Child,
    pipe: Pipe,
}

/// The write end of the watchdog's pipe, shared with the folder's process; `None` once it is closed.
type Pipe = Arc<Mutex<Option<ChildStdin>>>;

impl RunFolder {
    /// Makes a folder whose name contains `name`, owned by `user`.
    pub fn new(name: &str, user: User) -> Self {
        let folder = tempfile::Builder::new().prefix(&format!("drover-test-{name}-")).tempdir().expect("a temporary folder");
        let path = folder.keep();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a folder of our own");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", WATCHDOG, "watchdog"]).arg(&path).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // A group of its own, so that an interrupt at the terminal reaches us first and the watchdog afterwards.
        let mut watchdog = command.process_group(0).spawn().expect("/bin/sh");
        let pipe = Arc::new(Mutex::new(watchdog.stdin.take()));
        let made = Self { path, user, watchdog, pipe };
        made.give(&made.path);
        made
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file or folder in here that belongs to the folder's user.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).expect("a folder below ours");
            self.give(parent);
        }
        fs::write(&path, content).expect("a file in our folder");
        self.give(&path);
        path
    }

    /// A folder in here that belongs to the folder's user.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.path.join(name);
        fs::create_dir_all(&path).expect("a folder below ours");
        self.give(&path);
        path
    }

    fn give(&self, path: &Path) {
        if let Some((user, group)) = identity(self.user) {
            std::os::unix::fs::chown(path, Some(user), Some(group)).expect("root gives a folder away");
        }
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        drop(self.pipe.lock().unwrap_or_else(PoisonError::into_inner).take());
        let _ = self.watchdog.wait();
    }
}

/// Whether every thread of a process is stopped by a signal (`T` in its `stat`, proc(5)).
fn is_stopped(id: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{id}/task")) else { return true };
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The state follows the name, which is in parentheses and may contain some.
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
    })
}

/// Tells the watchdog which group to kill; 0 is none.
fn tell(pipe: &Pipe, group: u32) {
    if let Some(open) = pipe.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        writeln!(open, "{group}").expect("the watchdog lives as long as its pipe");
    }
}

/// One process in a group of its own, whose output goes to a file.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    ended: Option<ExitStatus>,
    log: PathBuf,
    group_paused: bool,
    watchdog: Pipe,
}

impl Process {
    /// Starts `command` in `folder` as the folder's user; standard output and error are appended to `NAME.log` there.
    pub fn start(folder: &RunFolder, name: &str, mut command: Command) -> Self {
        let log = folder.path().join(format!("{name}.log"));
        let output = append_to(&log);
        let errors = output.try_clone().expect("a second handle of the log");
        command.current_dir(folder.path()).stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
        if let Some((user, group)) = identity(folder.user) {
            command.uid(user).gid(group);
        }
        let child = command.spawn().unwrap_or_else(|error| panic!("{name} cannot be started with {command:?}: {error}"));
        tell(&folder.pipe, child.id());
        Self { name: name.to_owned(), child, ended: None, log, group_paused: false, watchdog: Arc::clone(&folder.pipe) }
    }

    /// The process id, which is also the id of its group.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended; `None` while it runs. What is left of its group is killed as soon as that is seen, and the id is not used again.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("our own child");
            if self.ended.is_some() {
                self.send(libc::SIGKILL, -1);
                tell(&self.watchdog, 0);
            }
        }
        self.ended
    }

    /// Waits until it has ended by itself; `None` at the deadline.
    pub fn wait(&mut self, deadline: Duration) -> Option<ExitStatus> {
        try_wait_until(deadline, || self.ended())
    }

    /// Sends a signal to the process alone.
    pub fn signal(&mut self, signal: i32) {
        if self.ended().is_none() {
            self.send(signal, 1);
        }
    }

    /// SIGSTOP to the whole group, and waits until no thread of the process runs any more: on a busy machine one may go on for a while.
    pub fn pause(&mut self) {
        self.signal_group(libc::SIGSTOP);
        self.group_paused = true;
        if self.ended().is_none() {
            wait_until("every thread has stopped", STOPPED_WITHIN, || is_stopped(self.child.id()).then_some(()));
        }
    }

    /// SIGCONT to the whole group.
    pub fn resume(&mut self) {
        self.signal_group(libc::SIGCONT);
        self.group_paused = false;
    }

    /// SIGTERM; after the deadline SIGKILL. `None` when it had to be killed.
    pub fn terminate(&mut self, deadline: Duration) -> Option<ExitStatus> {
        if self.group_paused {
            self.resume();
        }
        self.signal(libc::SIGTERM);
        let status = self.wait(deadline);
        self.kill();
        status
    }

    /// SIGKILL to the whole group, and waits until the process is gone.
    pub fn kill(&mut self) -> ExitStatus {
        self.signal_group(libc::SIGKILL);
        wait_until(&format!("{} is gone after SIGKILL", self.name), GONE_WITHIN, || self.ended())
    }

    /// The last lines of its output.
    pub fn log_tail(&self) -> String {
        tail(&self.log, LINES_SHOWN)
    }

    /// The file of its output.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// The most resident memory so far, in bytes (`VmHWM`).
    pub fn peak_resident_bytes(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// The resident memory now, in bytes (`VmRSS`).
    pub fn resident_bytes(&self) -> u64 {
        self.memory("VmRSS:")
    }

    fn memory(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("a running process");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in {status}"));
        let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number of kB");
        kibibytes * 1024
    }

    /// User and system time of all its threads so far, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        cpu_seconds_of(self.id())
    }

    /// How many descriptors it has open.
    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.id())).map_or(0, Iterator::count)
    }

    /// From now on it can open files only while it has fewer than this many; those that are open stay.
    pub fn limit_open_files(&self, most: u64) {
        let id = i32::try_from(self.id()).expect("a process id");
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the pointers are to values of ours that outlive the calls; null asks for nothing. The id is that of our child.
        let done = unsafe {
            libc::prlimit(id, libc::RLIMIT_NOFILE, std::ptr::null(), &raw mut limit) == 0 && {
                limit.rlim_cur = most;
                libc::prlimit(id, libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut()) == 0
            }
        };
        assert!(done, "prlimit: {}", std::io::Error::last_os_error());
    }

    fn signal_group(&mut self, signal: i32) {
        if self.ended().is_none() {
            self.send(signal, -1);
        }
    }

    fn send(&self, signal: i32, direction: i32) {
        let id = i32::try_from(self.child.id()).expect("a process id");
        // SAFETY: kill takes plain numbers; the id is our child's, not reaped, or reaped a moment ago when its group is meant.
        unsafe { libc::kill(direction * id, signal) };
    }
}

/// A control group (version 1) with a limit of memory, for what must not be trusted to keep its own. Ends with the value, when no process is in it any more.
#[derive(Debug)]
pub struct MemoryGroup {
    path: PathBuf,
}

impl MemoryGroup {
    /// A group of its own with this limit; the error says why this machine has none.
    pub fn new(most_bytes: u64) -> Result<Self, String> {
        let path = PathBuf::from(format!("/sys/fs/cgroup/memory/drover-test-{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| format!("{} cannot be made: {error}", path.display()))?;
        let group = Self { path };
        group.write("memory.limit_in_bytes", most_bytes)?;
        Ok(group)
    }

    /// From now on what this process allocates counts.
    pub fn add(&self, process: u32) {
        self.write("cgroup.procs", u64::from(process)).unwrap_or_else(|reason| panic!("{reason}"));
    }

    /// The most that was in use, the kernel's cache of files included, in bytes.
    pub fn peak_bytes(&self) -> u64 {
        let path = self.path.join("memory.max_usage_in_bytes");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        text.trim().parse().expect("a number of bytes")
    }

    fn write(&self, name: &str, value: u64) -> Result<(), String> {
        let path = self.path.join(name);
        fs::write(&path, value.to_string()).map_err(|error| format!("{} cannot be written: {error}", path.display()))
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        if try_wait_until(GONE_WITHIN, || fs::remove_dir(&self.path).ok()).is_none() {
            eprintln!("{} is left behind", self.path.display());
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.send(libc::SIGKILL, -1);
            let _ = self.child.wait();
            tell(&self.watchdog, 0);
        }
    }
}

/// User and system time of all threads of a process so far, in seconds.
pub fn cpu_seconds_of(id: u32) -> f64 {
    cpu_seconds_in(&format!("/proc/{id}/stat"))
}

/// The same of the threads of this name.
pub fn cpu_seconds_of_threads(id: u32, name: &str) -> f64 {
    let threads = fs::read_dir(format!("/proc/{id}/task")).expect("a running process").map(|thread| thread.expect("a thread").path());
    let named = threads.filter(|thread| fs::read_to_string(thread.join("comm")).is_ok_and(|known| known.trim_end() == name));
    named.map(|thread| cpu_seconds_in(&thread.join("stat").display().to_string())).sum()
}

fn cpu_seconds_in(path: &str) -> f64 {
    let stat = fs::read_to_string(path).expect("a running process");
    // The second field is the name in brackets and may contain spaces; utime and stime are fields 14 and 15 (proc(5)).
    let after_name = stat.rsplit_once(')').expect("the name in brackets").1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().map(|index| fields[*index].parse::<u64>().expect("ticks")).sum();
    // SAFETY: sysconf has no preconditions.
    let ticks_per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    ticks as f64 / ticks_per_second as f64
}

/// The last `count` lines of a file, or why it cannot be read.
pub fn tail(path: &Path, count: usize) -> String {
    let text = match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => return format!("({} cannot be read: {error})", path.display()),
    };
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn append_to(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Where [`free_port`] looks: below the range from which Linux takes ports for outgoing connections (32768 and up), so that a stopped server gets its port again.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

/// The locks of this process's ports, for as long as it lives: a stopped server comes back to its port.
static LOCKED_PORTS: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A loopback port that nobody listens on, given once by all test processes of this machine that live at the same time.
pub fn free_port() -> u16 {
    let span = PORTS.end - PORTS.start;
    let first = (std::process::id() % u32::from(span)) as u16;
    for _ in 0..span {
        let step = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + ((u32::from(first) + u32::from(step)) % u32::from(span)) as u16;
        let Some(lock) = lock_port(port) else { continue };
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            LOCKED_PORTS.lock().unwrap_or_else(PoisonError::into_inner).push(lock);
            return port;
        }
    }
    panic!("no free port in {PORTS:?}");
}

/// The lock file of a port, unless another process holds it. The kernel frees it when the process ends, however it ends.
fn lock_port(port: u16) -> Option<File> {
    let folder = std::env::temp_dir().join("drover-test-ports");
    fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    // Another user's file cannot be opened: that port is theirs.
    let file = OpenOptions::new().create(true).append(true).open(folder.join(port.to_string())).ok()?;
    file.try_lock().ok().map(|()| file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal_of(status: ExitStatus) -> Option<i32> {
        std::os::unix::process::ExitStatusExt::signal(&status)
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    fn is_alive(id: &str) -> bool {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }

    fn child_of(folder: &RunFolder) -> String {
        wait_until("the child has said its id", GONE_WITHIN, || {
            let id = fs::read_to_string(folder.path().join("child")).ok()?;
            id.ends_with('\n').then(|| id.trim().to_owned())
        })
    }

    /// A process with a child in the same group, which waits for it.
    const FAMILY: &str = "sleep 600 & echo $! > child; wait";

    #[test]
    fn what_still_runs_when_the_test_process_ends_is_killed_with_its_children() {
        let folder = RunFolder::new("watchdog", User::Unprivileged);
        let path = folder.path().to_owned();
        let mut process = Process::start(&folder, "family", shell(FAMILY));
        let child = child_of(&folder);
        // To the watchdog the end of the folder and the end of the test process look the same: the pipe closes.
        drop(folder);
        let status = process.wait(GONE_WITHIN).expect("killed");
        assert_eq!(signal_of(status), Some(libc::SIGKILL));
        wait_until("the child is gone", GONE_WITHIN, || (!is_alive(&child)).then_some(()));
        assert!(!path.exists());
    }

    #[test]
    fn a_paused_process_can_be_terminated_and_leaves_no_child() {
        let folder = RunFolder::new("paused", User::Unprivileged);
        let mut process = Process::start(&folder, "family", shell(FAMILY));
        let child = child_of(&folder);
        process.pause();
        let status = process.terminate(GONE_WITHIN).expect("ended by SIGTERM");
        assert_eq!(signal_of(status), Some(libc::SIGTERM));
        wait_until("the child is gone", GONE_WITHIN, || (!is_alive(&child)).then_some(()));
    }

    #[test]
    fn a_process_that_ignores_the_polite_signal_is_killed_and_its_output_kept() {
        let folder = RunFolder::new("stubborn", User::Unprivileged);
        let mut process = Process::start(&folder, "stubborn", shell("trap '' TERM; echo started; while :; do sleep 0.1; done"));
        wait_until("it has started", GONE_WITHIN, || process.log_tail().contains("started").then_some(()));
        assert!(process.peak_resident_bytes() > 0);
        assert_eq!(process.terminate(Duration::from_millis(200)), None);
        assert_eq!(signal_of(process.ended().expect("killed")), Some(libc::SIGKILL));
        assert_eq!(process.log_tail(), "started");
    }

    #[test]
    fn a_port_is_given_once() {
        let ports: std::collections::BTreeSet<u16> = (0..100).map(|_| free_port()).collect();
        assert_eq!(ports.len(), 100);
    }

    #[test]
    fn a_port_that_another_process_was_given_is_not_given_here() {
        let port = free_port();
        // Locks belong to the opened file, not to the process: a second opening stands for a second process.
        assert!(lock_port(port).is_none());
    }
}

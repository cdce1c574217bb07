//! The program under test as a process: started, asked, killed, ended and started again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::checker::Letter;
use super::http::{self, Answer};
use super::process::{Process, RunFolder, User, free_port, tail};
use super::producer::hash;
use super::wait::try_wait_until;

/// From the start of the process to readiness.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Lines of the log that are shown when a test fails.
const LINES_SHOWN: usize = 120;

/// A running `drover` with a folder of its own: `config.yaml`, `data` and `drover.log` (its standard output and error, over all its lives).
#[derive(Debug)]
pub struct Drover {
    binary: PathBuf,
    port: u16,
    environment: Vec<(String, String)>,
    process: Process,
    folder: RunFolder,
}

impl Drover {
    /// Starts drover on this configuration and waits until it is ready. `listen` is the harness's; a relative `data_dir`, such as the default one, is in the own folder.
    #[track_caller]
    pub fn start(config_yaml: &str, environment: &[(&str, &str)]) -> Self {
        let mut drover = Self::launch(config_yaml, environment);
        drover.wait_ready();
        drover
    }

    /// Starts drover without waiting.
    pub fn launch(config_yaml: &str, environment: &[(&str, &str)]) -> Self {
        Self::launch_binary(Path::new(env!("CARGO_BIN_EXE_drover")), config_yaml, environment)
    }

    /// Starts another build of drover without waiting.
    pub fn launch_binary(binary: &Path, config_yaml: &str, environment: &[(&str, &str)]) -> Self {
        let folder = RunFolder::new("drover", User::Same);
        folder.write("config.yaml", config_yaml);
        let port = free_port();
        let environment: Vec<_> = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let process = spawn(&folder, binary, port, &environment);
        Self { binary: binary.to_owned(), port, environment, process, folder }
    }

    /// Waits until `/readyz` answers 200.
    #[track_caller]
    pub fn wait_ready(&mut self) {
        self.wait_for("drover is ready", READY_WITHIN, |drover| {
            let answer = drover.try_request("GET", "/readyz", None).ok()?;
            (answer.status == 200).then_some(())
        });
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port of the API.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder with the configuration and the data.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The process id of its current life.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// One request; the error says why there is no answer.
    pub fn try_request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, String> {
        http::send_json(method, &format!("{}{path}", self.url()), body)
    }

    /// One request with headers; panics when there is no answer.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<Vec<u8>>) -> Answer {
        http::send(method, &format!("{}{path}", self.url()), headers, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// The JSON of a GET that must answer 2xx.
    #[track_caller]
    pub fn get(&self, path: &str) -> Value {
        self.request("GET", path, &[("accept", "application/json")], None).ok().json()
    }

    /// The text of a GET that must answer 2xx.
    #[track_caller]
    pub fn get_text(&self, path: &str) -> String {
        self.request("GET", path, &[("accept", "text/plain")], None).ok().text()
    }

    /// A POST with a JSON body, whatever it answers.
    #[track_caller]
    pub fn post(&self, path: &str, body: Option<&Value>) -> Answer {
        self.try_request("POST", path, body).unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    /// A PUT with a JSON body, whatever it answers.
    #[track_caller]
    pub fn put(&self, path: &str, body: &Value) -> Answer {
        self.try_request("PUT", path, Some(body)).unwrap_or_else(|error| panic!("PUT {path}: {error}"))
    }

    /// A DELETE, whatever it answers.
    #[track_caller]
    pub fn delete(&self, path: &str) -> Answer {
        self.try_request("DELETE", path, None).unwrap_or_else(|error| panic!("DELETE {path}: {error}"))
    }

    /// One task, as the API shows it; `None` while it is not there.
    pub fn task(&self, topic: &str, partition: i32) -> Option<Value> {
        let answer = self.try_request("GET", &format!("/api/v1/tasks/{topic}/{partition}"), None).ok()?;
        (answer.status == 200).then(|| answer.json())
    }

    /// One topic, as the API shows it; `None` while it is not there.
    pub fn topic(&self, topic: &str) -> Option<Value> {
        let answer = self.try_request("GET", &format!("/api/v1/topics/{topic}"), None).ok()?;
        (answer.status == 200).then(|| answer.json())
    }

    /// Waits until `condition` gives a value. Fails at once when the process has ended, and at the deadline.
    #[track_caller]
    pub fn wait_for<T>(&mut self, what: &str, deadline: Duration, mut condition: impl FnMut(&Self) -> Option<T>) -> T {
        let outcome = try_wait_until(deadline, || {
            if let Some(status) = self.process.ended() {
                return Some(Err(status));
            }
            condition(self).map(Ok)
        });
        match outcome {
            Some(Ok(value)) => value,
            Some(Err(status)) => panic!("drover ended with {status} while waiting until {what}"),
            None => panic!("waited {deadline:?} in vain until {what}"),
        }
    }

    /// Waits until the API says that the topic has tasks and no lag.
    #[track_caller]
    pub fn wait_caught_up(&mut self, topic: &str, deadline: Duration) {
        self.wait_for(&format!("{topic} has no lag"), deadline, |drover| {
            let status = drover.topic(topic)?["status"].take();
            (status["partitions"].as_u64()? > 0 && status["lag"].as_u64()? == 0).then_some(())
        });
    }

    /// Every dead letter that the API lists.
    #[track_caller]
    pub fn letters(&self) -> Vec<Letter> {
        let mut letters = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let after = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
            let page = self.get(&format!("/api/v1/dead-letters?limit=1000{after}"));
            letters.extend(page["items"].as_array().expect("items").iter().map(letter));
            cursor = page["next"].as_str().map(str::to_owned);
            if cursor.is_none() {
                return letters;
            }
        }
    }

    /// SIGKILL.
    pub fn kill9(&mut self) {
        self.process.kill();
    }

    /// SIGTERM, and the exit status. Panics when it has not ended at the deadline.
    #[track_caller]
    pub fn terminate(&mut self, deadline: Duration) -> ExitStatus {
        self.process.terminate(deadline).unwrap_or_else(|| panic!("drover has not ended {deadline:?} after SIGTERM"))
    }

    /// Any signal.
    pub fn signal(&mut self, signal: i32) {
        self.process.signal(signal);
    }

    /// SIGSTOP.
    pub fn pause(&mut self) {
        self.process.pause();
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        self.process.resume();
    }

    /// Waits until it has ended by itself; `None` at the deadline.
    pub fn wait_end(&mut self, deadline: Duration) -> Option<ExitStatus> {
        self.process.wait(deadline)
    }

    /// The next life on the same configuration, folder, port and environment; a life that still runs is killed. Waits until it is ready.
    #[track_caller]
    pub fn restart(&mut self) {
        self.restart_without_waiting();
        self.wait_ready();
    }

    /// The next life without waiting.
    pub fn restart_without_waiting(&mut self) {
        self.process.kill();
        self.process = spawn(&self.folder, &self.binary, self.port, &self.environment);
    }

    /// The environment of the next lives.
    pub fn set_environment(&mut self, environment: &[(&str, &str)]) {
        self.environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    }

    /// Replaces the configuration as editors do: a new file, renamed over the old one.
    pub fn replace_config(&self, config_yaml: &str) {
        let new = self.folder.write("config.yaml.new", config_yaml);
        fs::rename(new, self.folder.path().join("config.yaml")).expect("a rename in our folder");
    }

    /// Everything it has printed so far, over all its lives.
    pub fn log(&self) -> String {
        tail(self.process.log_path(), usize::MAX)
    }

    /// The most resident memory of this life, in bytes.
    pub fn peak_resident_bytes(&self) -> u64 {
        self.process.peak_resident_bytes()
    }

    /// How many descriptors it has open.
    pub fn open_files(&self) -> usize {
        self.process.open_files()
    }

    /// From now on it can open files only while it has fewer than this many.
    pub fn limit_open_files(&self, most: usize) {
        self.process.limit_open_files(most as u64);
    }

    /// The resident memory now, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.process.resident_bytes()
    }

    /// CPU seconds of this life.
    pub fn cpu_seconds(&self) -> f64 {
        self.process.cpu_seconds()
    }
}

impl Drop for Drover {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the last lines of drover ({})\n{}\n---", self.url(), tail(self.process.log_path(), LINES_SHOWN));
        }
    }
}

fn spawn(folder: &RunFolder, binary: &Path, port: u16, environment: &[(String, String)]) -> Process {
    let mut command = Command::new(binary);
    command.arg("run").arg("--config").arg(folder.path().join("config.yaml")).arg("--listen").arg(format!("127.0.0.1:{port}"));
    for name in ["DROVER_CONFIG", "DROVER_LISTEN", "FAILPOINTS"] {
        command.env_remove(name);
    }
    command.env("RUST_BACKTRACE", "1").envs(environment.iter().map(|(name, value)| (name, value)));
    obey_permissions(&mut command);
    Process::start(folder, "drover", command)
}

/// Where the tests run as root, `chmod 000` would mean nothing to the program: it gets along without the two capabilities that pass over permissions.
fn obey_permissions(command: &mut Command) {
    // linux/capability.h
    const CAP_DAC_OVERRIDE: libc::c_ulong = 1;
    const CAP_DAC_READ_SEARCH: libc::c_ulong = 2;
    let drop_them = || {
        for capability in [CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH] {
            // SAFETY: prctl takes plain numbers here. Whoever is not root may not do this and need not.
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes two system calls and touches no memory.
    unsafe { std::os::unix::process::CommandExt::pre_exec(command, drop_them) };
}

/// A dead letter as the API shows it, for the checker.
pub fn letter(value: &Value) -> Letter {
    let text = |field: &str| value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}")).to_owned();
    let whole = value["truncated"] == false;
    let payload = value["payload_base64"].as_str().filter(|_| whole).map(|encoded| STANDARD.decode(encoded).expect("base64"));
    Letter {
        id: text("id"),
        cause: text("cause"),
        error_type: value["error"]["type"].as_str().unwrap_or_default().to_owned(),
        hash: payload.map(|bytes| hash(&bytes)),
    }
}

//! A real etcd with one member, or with three of which one can be cut off, and what tests ask of it. Everything here goes through `etcdctl`, around drover's own client.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::http;
use super::pki::{CA, SERVER, SERVER_KEY, pki};
use super::process::{Process, RunFolder, User, free_port};
use super::proxy::{Mode, Proxy};
use super::servers::fetched;
use super::wait::try_wait_until;

/// About a second on two idle cores.
const START_WITHIN: Duration = Duration::from_secs(60);
/// A clean stop takes a moment.
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// For one command of `etcdctl`.
const COMMAND_WITHIN: &str = "--command-timeout=10s";
/// The data folder below the run folder.
const DATA: &str = "data";

/// Which etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The system's package: 3.4 on Debian 12.
    System,
    /// 3.6, built by Go.
    Built,
}

impl Version {
    /// The folder of the program. `None` where this version is left out, because nothing can build it.
    fn home(self) -> Result<Option<PathBuf>, String> {
        let name = match self {
            Self::System => "etcd",
            Self::Built => "etcd-3.6",
        };
        Ok(Some(fetched(name)?).filter(|folder| !folder.as_os_str().is_empty()))
    }

    /// Whether this version is there. When it is left out, that is printed.
    pub fn is_there(self) -> bool {
        let home = self.home().unwrap_or_else(|reason| panic!("{reason}"));
        if home.is_none() {
            eprintln!("LEFT OUT: etcd {self} is not there; see tests/servers/fetch.sh");
        }
        home.is_some()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "of the system",
            Self::Built => "3.6",
        })
    }
}

/// One member of a real etcd on free ports; most often the only one.
#[derive(Debug)]
pub struct Etcd {
    home: PathBuf,
    name: String,
    port: u16,
    peer_port: u16,
    /// Where the others find it.
    peer_url: String,
    /// All members with their peer URLs.
    cluster: String,
    options: Mutex<Vec<String>>,
    /// Whether clients speak TLS and show a certificate of the private CA.
    is_encrypted: bool,
    /// `NAME:PASSWORD` for `etcdctl`, once there are users.
    administrator: Mutex<Option<String>>,
    process: Mutex<Option<Process>>,
    // After the process: the folder goes last.
    folder: RunFolder,
}

/// A key with its value, as etcd has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The value; bytes that are not UTF-8 are replaced.
    pub value: String,
    /// The revision of the last write.
    pub mod_revision: i64,
}

impl Etcd {
    /// Starts this version with options of its own, such as `--quota-backend-bytes=16777216`, and waits until it answers.
    pub fn start(version: Version, options: &[&str]) -> Self {
        Self::try_start(version, options).unwrap_or_else(|reason| panic!("{reason}"))
    }

    fn try_start(version: Version, options: &[&str]) -> Result<Self, String> {
        let peer_port = free_port();
        let peer_url = format!("http://127.0.0.1:{peer_port}");
        let etcd = Self::member(version, options, "test", peer_port, &peer_url, &format!("test={peer_url}"))?;
        etcd.launch()?;
        Ok(etcd)
    }

    /// One member, not started.
    fn member(version: Version, options: &[&str], name: &str, peer_port: u16, peer_url: &str, cluster: &str) -> Result<Self, String> {
        Ok(Self {
            home: version.home()?.ok_or_else(|| format!("etcd {version} is not there"))?,
            name: name.to_owned(),
            port: free_port(),
            peer_port,
            peer_url: peer_url.to_owned(),
            cluster: cluster.to_owned(),
            options: Mutex::new(options.iter().map(|option| (*option).to_owned()).collect()),
            is_encrypted: false,
            administrator: Mutex::new(None),
            process: Mutex::new(None),
            folder: RunFolder::new("etcd", User::Unprivileged),
        })
    }

    /// An etcd over TLS, with a certificate of the private CA, that lets in who shows one too. The options may name [`SERVER`] and [`SERVER_KEY`], which lie in its folder.
    pub fn start_encrypted(version: Version, options: &[&str]) -> Self {
        let tls = [&format!("--cert-file={SERVER}"), &format!("--key-file={SERVER_KEY}"), &format!("--trusted-ca-file={CA}"), "--client-cert-auth"];
        let (peer_port, options) = (free_port(), [&tls, options].concat());
        let peer_url = format!("http://127.0.0.1:{peer_port}");
        let member = Self::member(version, &options, "test", peer_port, &peer_url, &format!("test={peer_url}"));
        let etcd = Self { is_encrypted: true, ..member.unwrap_or_else(|reason| panic!("{reason}")) };
        pki().copy([CA, SERVER, SERVER_KEY], &etcd.folder);
        etcd.launch().unwrap_or_else(|reason| panic!("{reason}"));
        etcd
    }

    /// From now on etcd asks who calls. There are the administrator, whom the harness's own calls use, and the user `drover`, who may use drover's keys and read those of `collector`.
    #[track_caller]
    pub fn ask_for_users(&self, administrator: &str, user: &str, collector: &[&str]) {
        let write = |arguments: &[&str]| drop(self.etcdctl(arguments));
        write(&["role", "add", "drover"]);
        write(&["role", "grant-permission", "drover", "readwrite", "--prefix=true", "drover/"]);
        for key in collector {
            write(&["role", "grant-permission", "drover", "read", key]);
        }
        for (name, password, role) in [("root", administrator, "root"), ("drover", user, "drover")] {
            write(&["user", "add", &format!("{name}:{password}")]);
            write(&["user", "grant-role", name, role]);
        }
        write(&["auth", "enable"]);
        *self.administrator.lock().expect("no panic while changing users") = Some(format!("root:{administrator}"));
    }

    /// Makes a user without a password, whom only a certificate of that common name proves.
    #[track_caller]
    pub fn add_certificate_user(&self, name: &str) {
        self.etcdctl(&["user", "add", name, "--no-password"]);
        self.etcdctl(&["user", "grant-role", name, "drover"]);
    }

    /// Changes a user's password.
    #[track_caller]
    pub fn set_password(&self, user: &str, password: &str) {
        self.try_etcdctl(&["user", "passwd", user, "--interactive=false"], Some(format!("{password}\n").as_bytes()))
            .unwrap_or_else(|reason| panic!("{reason}"));
    }

    /// `http://127.0.0.1:PORT`, or with `https`.
    pub fn url(&self) -> String {
        let scheme = if self.is_encrypted { "https" } else { "http" };
        format!("{scheme}://{}", self.address())
    }

    /// `127.0.0.1:PORT`, as the collector's `etcdconfig` names it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Ends it cleanly.
    pub fn stop(&self) {
        if let Some(mut process) = self.process.lock().expect("no panic while stopping").take() {
            process.terminate(STOP_WITHIN);
        }
    }

    /// Ends it by SIGKILL.
    pub fn kill(&self) {
        if let Some(mut process) = self.process.lock().expect("no panic while killing").take() {
            process.kill();
        }
    }

    /// Starts it again with its data, on the same ports.
    pub fn start_again(&self) {
        self.launch().unwrap_or_else(|reason| panic!("{reason}"));
    }

    /// Starts it again on the same ports with no data: a fresh cluster of the same id, since that is made from names and addresses, whose revisions begin at 1.
    pub fn start_empty(&self) {
        self.stop();
        let data = self.data();
        std::fs::remove_dir_all(&data).unwrap_or_else(|error| panic!("{}: {error}", data.display()));
        self.start_again();
    }

    /// The same with a new cluster id.
    pub fn start_empty_as_another_cluster(&self) {
        self.options.lock().expect("no panic while changing options").push("--initial-cluster-token=another".to_owned());
        self.start_empty();
    }

    /// Writes everything that it has into a file of its folder.
    #[track_caller]
    pub fn save_snapshot(&self) -> PathBuf {
        let path = self.folder.path().join("snapshot.db");
        self.etcdctl(&["snapshot", "save", &path.display().to_string()]);
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("a file of our own");
        path
    }

    /// Starts it again with what it had when the snapshot was made, as an operator does after a loss. The revisions go back; the cluster's id, made from names and addresses, stays.
    #[track_caller]
    pub fn restore(&self, snapshot: &Path) {
        self.stop();
        let data = self.data();
        std::fs::remove_dir_all(&data).unwrap_or_else(|error| panic!("{}: {error}", data.display()));
        // Newer versions have moved this to `etcdutl`; here it is the system's.
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["snapshot", "restore"]).arg(snapshot).arg(format!("--data-dir={}", data.display()));
        command.arg(format!("--name={}", self.name)).arg(format!("--initial-cluster={}", self.cluster));
        command.arg(format!("--initial-advertise-peer-urls={}", self.peer_url));
        let mut restoring = Process::start(&self.folder, "restore", command);
        let status = restoring.wait(START_WITHIN);
        assert!(status.is_some_and(|status| status.success()), "{status:?}: {}", restoring.log_tail());
        self.start_again();
    }

    /// The options of the next start.
    pub fn set_options(&self, options: &[&str]) {
        *self.options.lock().expect("no panic while changing options") = options.iter().map(|option| (*option).to_owned()).collect();
    }

    /// SIGSTOP.
    pub fn pause(&self) {
        if let Some(process) = self.process.lock().expect("no panic while pausing").as_mut() {
            process.pause();
        }
    }

    /// SIGCONT.
    pub fn resume(&self) {
        if let Some(process) = self.process.lock().expect("no panic while resuming").as_mut() {
            process.resume();
        }
    }

    /// Runs `etcdctl` and returns what it prints. Panics when it fails.
    #[track_caller]
    pub fn etcdctl(&self, arguments: &[&str]) -> String {
        self.try_etcdctl(arguments, None).unwrap_or_else(|reason| panic!("{reason}"))
    }

    /// Runs `etcdctl` with bytes for its standard input. The error is what it prints when it fails.
    pub fn try_etcdctl(&self, arguments: &[&str], input: Option<&[u8]>) -> Result<String, String> {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").env_remove("ETCDCTL_ENDPOINTS");
        command.arg(format!("--endpoints={}", self.url())).args(["--dial-timeout=5s", COMMAND_WITHIN]);
        if self.is_encrypted {
            for (option, file) in [("--cacert", CA), ("--cert", SERVER), ("--key", SERVER_KEY)] {
                command.arg(option).arg(pki().path(file));
            }
        }
        if let Some(administrator) = self.administrator.lock().expect("no panic while changing users").as_ref() {
            command.arg("--user").arg(administrator);
        }
        command.args(arguments);
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() }).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("etcdctl cannot be started: {error}; run: bash .ci/prerequisites.sh"))?;
        if let (Some(bytes), Some(mut pipe)) = (input, child.stdin.take()) {
            pipe.write_all(bytes).map_err(|error| format!("etcdctl does not read its input: {error}"))?;
        }
        let output = child.wait_with_output().map_err(|error| format!("etcdctl: {error}"))?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            return Err(format!("etcdctl {arguments:?} ended with {}: {printed}{}", output.status, String::from_utf8_lossy(&output.stderr)));
        }
        Ok(printed)
    }

    /// Puts a key.
    #[track_caller]
    pub fn put(&self, key: &str, value: &str) {
        self.put_bytes(key, value.as_bytes());
    }

    /// Puts a key with any bytes.
    #[track_caller]
    pub fn put_bytes(&self, key: &str, value: &[u8]) {
        self.try_put(key, value).unwrap_or_else(|reason| panic!("{reason}"));
    }

    /// Puts a key, or says why that failed.
    pub fn try_put(&self, key: &str, value: &[u8]) -> Result<(), String> {
        // Standard input takes any bytes, but not none.
        let done = if value.is_empty() { self.try_etcdctl(&["put", key, ""], None) } else { self.try_etcdctl(&["put", key], Some(value)) };
        done.map(|_| ())
    }

    /// Deletes a key.
    #[track_caller]
    pub fn delete(&self, key: &str) {
        self.etcdctl(&["del", key]);
    }

    /// One key; `None` when it is not there.
    #[track_caller]
    pub fn get(&self, key: &str) -> Option<Entry> {
        self.range(&["get", key]).remove(key)
    }

    /// All keys below a prefix.
    #[track_caller]
    pub fn get_prefix(&self, prefix: &str) -> BTreeMap<String, Entry> {
        self.range(&["get", "--prefix", prefix])
    }

    /// The newest revision.
    #[track_caller]
    pub fn revision(&self) -> i64 {
        let answer = self.json(&["get", "no-such-key"]);
        answer["header"]["revision"].as_i64().unwrap_or_else(|| panic!("no revision in {answer}"))
    }

    /// Its number among the members.
    #[track_caller]
    pub fn member_id(&self) -> u64 {
        let answer = self.json(&["get", "--consistency=s", "no-such-key"]);
        answer["header"]["member_id"].as_u64().unwrap_or_else(|| panic!("no member in {answer}"))
    }

    /// Forgets every revision before the newest one.
    #[track_caller]
    pub fn compact(&self) {
        self.etcdctl(&["compact", &self.revision().to_string()]);
    }

    /// Writes until the quota is reached and the alarm NOSPACE is raised.
    #[track_caller]
    pub fn fill(&self) {
        let megabyte = vec![b'f'; 1 << 20];
        for number in 0..200 {
            if let Err(reason) = self.try_put(&format!("filling/{number}"), &megabyte) {
                assert!(reason.contains("database space exceeded"), "{reason}");
                return;
            }
        }
        panic!("etcd takes 200 MB; start it with --quota-backend-bytes");
    }

    /// Makes room after [`Self::fill`] and ends the alarm.
    #[track_caller]
    pub fn make_room(&self) {
        // Deleting and compacting are allowed under the alarm; only then can the file shrink.
        self.etcdctl(&["del", "--prefix", "filling/"]);
        self.compact();
        self.etcdctl(&["defrag"]);
        self.etcdctl(&["alarm", "disarm"]);
    }

    /// Its version as it says itself.
    #[track_caller]
    pub fn version(&self) -> String {
        let answer = http::send("GET", &format!("{}/version", self.url()), &[], None).unwrap_or_else(|reason| panic!("{reason}")).json();
        answer["etcdserver"].as_str().unwrap_or_else(|| panic!("no version in {answer}")).to_owned()
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        super::process::tail(&self.folder.path().join("etcd.log"), 60)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join(DATA)
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["--write-out=json"];
        all.extend_from_slice(arguments);
        let printed = self.etcdctl(&all);
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"))
    }

    #[track_caller]
    fn range(&self, arguments: &[&str]) -> BTreeMap<String, Entry> {
        let answer = self.json(arguments);
        let pairs = answer["kvs"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| {
            let bytes = STANDARD.decode(value.as_str().unwrap_or_default()).expect("base64");
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let entry = |pair: &Value| Entry { value: text(&pair["value"]), mod_revision: pair["mod_revision"].as_i64().expect("a revision") };
        pairs.iter().map(|pair| (text(&pair["key"]), entry(pair))).collect()
    }

    fn launch(&self) -> Result<(), String> {
        self.spawn()?;
        self.wait_serving()
    }

    fn spawn(&self) -> Result<(), String> {
        let (client, peer) = (self.url(), format!("http://127.0.0.1:{}", self.peer_port));
        let data: &Path = &self.folder.folder(DATA);
        // etcd warns about a data folder that others can read.
        std::fs::set_permissions(data, std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .map_err(|error| format!("{}: {error}", data.display()))?;
        let mut command = Command::new(self.home.join("etcd"));
        command.arg(format!("--name={}", self.name)).arg(format!("--data-dir={}", data.display()));
        command.arg(format!("--listen-client-urls={client}")).arg(format!("--advertise-client-urls={client}"));
        command.arg(format!("--listen-peer-urls={peer}")).arg(format!("--initial-advertise-peer-urls={}", self.peer_url));
        command.arg(format!("--initial-cluster={}", self.cluster)).args(["--logger=zap", "--log-level=warn"]);
        command.args(self.options.lock().expect("no panic while changing options").iter());
        *self.process.lock().expect("no panic while starting") = Some(Process::start(&self.folder, "etcd", command));
        Ok(())
    }

    fn wait_serving(&self) -> Result<(), String> {
        let outcome = try_wait_until(START_WITHIN, || {
            let ended = self.process.lock().expect("no panic while starting").as_mut().and_then(Process::ended);
            if let Some(status) = ended {
                return Some(Err(format!("etcd ended with {status} while starting:\n{}", self.log_tail())));
            }
            // Under an alarm it serves, but does not call itself healthy.
            if !self.is_encrypted {
                let answer = http::send("GET", &format!("{}/version", self.url()), &[], None).ok()?;
                (answer.status == 200).then_some(())?;
            }
            // A user may be asked for; that too is an answer.
            let serves = self.try_etcdctl(&["get", "no-such-key"], None).map_or_else(|why| why.contains("user name"), |_| true);
            serves.then_some(Ok(()))
        });
        outcome.unwrap_or_else(|| Err(format!("etcd does not answer within {START_WITHIN:?}:\n{}", self.log_tail())))
    }
}

/// Three members, each behind one proxy for its clients and one for the other members.
#[derive(Debug)]
pub struct Cluster {
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    etcd: Etcd,
    clients: Proxy,
    peers: Proxy,
}

impl Cluster {
    /// Starts all three and waits until each answers.
    pub fn start(version: Version) -> Self {
        Self::try_start(version).unwrap_or_else(|reason| panic!("{reason}"))
    }

    fn try_start(version: Version) -> Result<Self, String> {
        let ports: Vec<(u16, Proxy)> = (0..3).map(|_| free_port()).map(|port| (port, Proxy::before(port))).collect();
        let urls: Vec<String> = ports.iter().enumerate().map(|(number, (_, proxy))| format!("m{number}={}", proxy.url())).collect();
        let cluster = urls.join(",");
        let mut members = Vec::new();
        for (number, (port, peers)) in ports.into_iter().enumerate() {
            let etcd = Etcd::member(version, &[], &format!("m{number}"), port, &peers.url(), &cluster)?;
            // None answers before two are there.
            etcd.spawn()?;
            members.push(Member { clients: Proxy::before(etcd.port), etcd, peers });
        }
        members.iter().try_for_each(|member| member.etcd.wait_serving())?;
        Ok(Self { members })
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Where clients find the members.
    pub fn urls(&self) -> Vec<String> {
        self.members.iter().map(|member| member.clients.url()).collect()
    }

    /// A member, around its proxies.
    pub fn member(&self, number: usize) -> &Etcd {
        &self.members[number].etcd
    }

    /// Cuts a member off from the others, in both directions. Its clients reach it as before.
    #[track_caller]
    pub fn isolate(&self, number: usize) {
        // What members send each other carries the sender (`rafthttp`): who dials them is told apart by it.
        let words = format!("X-Server-From: {:x}\r\n", self.member(number).member_id());
        for (other, member) in self.members.iter().enumerate() {
            if other == number {
                member.peers.set(Mode::Cut);
            } else {
                member.peers.refuse(Some(&words));
            }
        }
    }

    /// Ends every isolation.
    pub fn rejoin(&self) {
        for member in &self.members {
            member.peers.set(Mode::Pass);
            member.peers.refuse(None);
        }
    }
}

//! A real Elasticsearch or OpenSearch: one node, without security and TLS unless a test wants them, and what tests ask of it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::checker::Document;
use super::http::{self, Answer};
use super::pki::{CA, SERVER, SERVER_KEY, pki};
use super::process::{Process, RunFolder, User, free_port};
use super::servers::{fetched, java_home, newer_java_home};
use super::wait::try_wait_until;

/// About 12 s on two idle cores, 50 s were seen beside a compiler.
const START_WITHIN: Duration = Duration::from_secs(180);
/// A clean stop closes shards and takes a second or two.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// How long a new index may have no started shard.
const AVAILABLE_WITHIN: Duration = Duration::from_secs(30);
/// Documents of one page of a scan; the server's own limit is 10,000.
const PAGE: usize = 10_000;

/// Which program answers the bulk requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// Elasticsearch 8.19.
    Elasticsearch8,
    /// Elasticsearch 9.1.
    Elasticsearch9,
    /// OpenSearch 3.4.
    OpenSearch3,
}

impl Product {
    /// Its name for `tests/servers/fetch.sh`.
    fn fetch_name(self) -> &'static str {
        match self {
            Self::Elasticsearch8 => "elasticsearch",
            Self::Elasticsearch9 => "elasticsearch-9",
            Self::OpenSearch3 => "opensearch",
        }
    }

    /// The name of its program and of its own settings file.
    fn program(self) -> &'static str {
        if self == Self::OpenSearch3 { "opensearch" } else { "elasticsearch" }
    }

    /// What its environment variables begin with.
    fn prefix(self) -> &'static str {
        if self == Self::OpenSearch3 { "OPENSEARCH" } else { "ES" }
    }

    /// `None` where no Java is new enough for it.
    fn java_home(self) -> Result<Option<PathBuf>, String> {
        if self == Self::Elasticsearch8 { java_home().map(Some) } else { newer_java_home() }
    }

    /// Whether it can run here. When it is left out, that is printed.
    pub fn is_there(self) -> bool {
        let is_there = self.java_home().unwrap_or_else(|reason| panic!("{reason}")).is_some();
        if !is_there {
            eprintln!("LEFT OUT: {self:?} needs Java 21 or newer; see tests/servers/fetch.sh");
        }
        is_there
    }

    /// The error type of a document that is no JSON.
    pub fn parsing_error(self) -> &'static str {
        if self == Self::OpenSearch3 { "mapper_parsing_exception" } else { "document_parsing_exception" }
    }
}

/// Who is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Security {
    /// Everybody.
    Off,
    /// The users of a file.
    Files,
    /// Over TLS: users, API keys and certificates, and the superuser `elastic` with this password.
    Encrypted(String),
}

/// A real Elasticsearch or OpenSearch with one node on a free port.
#[derive(Debug)]
pub struct Elasticsearch {
    product: Product,
    home: PathBuf,
    java_home: PathBuf,
    port: u16,
    security: Security,
    process: Mutex<Option<Process>>,
    // After the process: the folder goes last.
    folder: RunFolder,
}

#[derive(Deserialize)]
struct Page {
    #[serde(rename = "_scroll_id")]
    scroll_id: String,
    hits: Hits,
}

#[derive(Deserialize)]
struct Hits {
    hits: Vec<Hit>,
}

#[derive(Deserialize)]
struct Hit {
    #[serde(rename = "_index")]
    index: String,
    #[serde(rename = "_id")]
    id: String,
    #[serde(rename = "_source")]
    source: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Found {
    docs: Vec<Hit>,
}

impl Hit {
    fn into_document(self) -> Option<Document> {
        let source = self.source?;
        Some(Document { index: self.index, id: self.id, source: Box::<str>::from(source).into_string().into_bytes() })
    }
}

impl Elasticsearch {
    /// Fetches what is missing, starts, and waits until the cluster is at least yellow.
    pub fn start(product: Product) -> Result<Self, String> {
        Self::start_with(product, "")
    }

    /// The same with more lines for `elasticsearch.yml` or `opensearch.yml`.
    pub fn start_with(product: Product, settings: &str) -> Result<Self, String> {
        Self::prepare(product, settings, Security::Off)?.launched()
    }

    /// An Elasticsearch 8 with security, in which the user `drover` has this password and may write. [`account`](Self::account) changes that.
    pub fn start_secured(password: &str) -> Result<Self, String> {
        let settings = "xpack.security.http.ssl.enabled: false\nxpack.security.transport.ssl.enabled: false\nresource.reload.interval.high: 1s";
        let server = Self::prepare(Product::Elasticsearch8, settings, Security::Files)?;
        server.folder.write("config/roles.yml", ROLES);
        server.account(password, true);
        server.launched()
    }

    /// An Elasticsearch 8 over TLS with a certificate of the private CA. Its superuser `elastic` has this password, from the keystore; there is the role `writer`. Who shows a certificate of the private CA is the
    /// user of its name, without any right until [`map_certificate`](Self::map_certificate).
    pub fn start_encrypted(password: &str) -> Result<Self, String> {
        let server = Self::prepare(Product::Elasticsearch8, ENCRYPTION, Security::Encrypted(password.to_owned()))?;
        for file in [CA, SERVER, SERVER_KEY] {
            server.folder.write(&format!("config/{file}"), &pki().read(file));
        }
        server.folder.write("config/roles.yml", ROLES);
        server.keep("bootstrap.password", password)?;
        server.launched()
    }

    /// Puts a secret setting into the keystore of a server that does not run yet.
    fn keep(&self, setting: &str, value: &str) -> Result<(), String> {
        let file = self.folder.write("secret", value);
        let mut command = self.command("elasticsearch-keystore");
        command.env("CLI_JAVA_OPTS", "-Xmx64m -XX:TieredStopAtLevel=1").args(["add-file", "--force", "--silent", setting]).arg(&file);
        let mut process = Process::start(&self.folder, "keystore", command);
        let status = process.wait(START_WITHIN);
        let _ = std::fs::remove_file(file);
        if status.is_some_and(|status| status.success()) {
            Ok(())
        } else {
            Err(format!("the keystore takes no {setting} ({status:?}):\n{}", process.log_tail()))
        }
    }

    /// Gives a user of an encrypted server this password and the role `writer`; makes the user where there is none.
    #[track_caller]
    pub fn put_user(&self, user: &str, password: &str) {
        self.request("PUT", &format!("/_security/user/{user}"), Some(&json!({"password": password, "roles": ["writer"]}))).ok();
    }

    /// Makes an API key that may write; answers its id and what clients send.
    #[track_caller]
    pub fn make_api_key(&self, name: &str) -> (String, String) {
        let answer = self.request("POST", "/_security/api_key", Some(&json!({"name": name}))).ok().json();
        let text = |field: &str| answer[field].as_str().unwrap_or_else(|| panic!("no {field} in {answer}")).to_owned();
        (text("id"), text("encoded"))
    }

    /// Takes an API key out of use.
    #[track_caller]
    pub fn invalidate_api_key(&self, id: &str) {
        self.request("DELETE", "/_security/api_key", Some(&json!({"ids": [id]}))).ok();
    }

    /// Gives the user of a certificate's common name the role `writer`.
    #[track_caller]
    pub fn map_certificate(&self, name: &str) {
        let rules = json!({"field": {"dn": format!("CN={name}")}});
        self.request("PUT", &format!("/_security/role_mapping/{name}"), Some(&json!({"roles": ["writer"], "enabled": true, "rules": rules}))).ok();
    }

    /// From now on, a second or two later, the user `drover` of a server with security has this password and may write or only read.
    pub fn account(&self, password: &str, may_write: bool) {
        // The server takes what has no mark of a hash for the password itself.
        self.folder.write("config/users", &format!("{ADMIN}:{ADMIN}\ndrover:{password}\n"));
        self.folder.write("config/users_roles", &format!("superuser:{ADMIN}\n{}:drover\n", if may_write { "writer" } else { "reader" }));
    }

    fn launched(self) -> Result<Self, String> {
        self.launch()?;
        Ok(self)
    }

    fn prepare(product: Product, settings: &str, security: Security) -> Result<Self, String> {
        // Users and API keys live in an index.
        let home = fetched(if matches!(security, Security::Encrypted(_)) { "elasticsearch-secured" } else { product.fetch_name() })?;
        let java_home = product.java_home()?.ok_or("no Java is new enough")?;
        let (port, transport_port) = (free_port(), free_port());
        let folder = RunFolder::new(product.fetch_name(), User::Unprivileged);
        let settings_file = format!("config/{}.yml", product.program());
        folder.write(&settings_file, &configuration(product, &folder, [port, transport_port], settings, security != Security::Off));
        folder.write("config/jvm.options", &jvm_options(product, &home));
        folder.write("config/log4j2.properties", LOGGING);
        folder.folder("tmp");
        Ok(Self { product, home, java_home, port, security, process: Mutex::new(None), folder })
    }

    /// Which program this is.
    pub fn product(&self) -> Product {
        self.product
    }

    /// `http://127.0.0.1:PORT`, or with `https`.
    pub fn url(&self) -> String {
        let scheme = if matches!(self.security, Security::Encrypted(_)) { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// The same for whoever may do everything: with the harness's credentials where the server wants some.
    pub fn admin_url(&self) -> String {
        match &self.security {
            Security::Off => self.url(),
            Security::Files => format!("http://{ADMIN}:{ADMIN}@127.0.0.1:{}", self.port),
            Security::Encrypted(password) => format!("https://elastic:{password}@127.0.0.1:{}", self.port),
        }
    }

    /// Ends the server cleanly.
    pub fn stop(&self) {
        if let Some(mut process) = self.process.lock().expect("no panic while stopping").take() {
            process.terminate(STOP_WITHIN);
        }
    }

    /// Ends the server by SIGKILL.
    pub fn kill(&self) {
        if let Some(mut process) = self.process.lock().expect("no panic while killing").take() {
            process.kill();
        }
    }

    /// Starts the stopped server again, on the same port and data folder.
    pub fn start_again(&self) {
        self.launch().unwrap_or_else(|reason| panic!("{reason}"));
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

    /// Brings the server back after whatever a test did to it.
    pub fn recover(&self) {
        self.resume();
        let runs = self.process.lock().is_ok_and(|mut process| process.as_mut().is_some_and(|process| process.ended().is_none()));
        if !runs && let Err(reason) = self.launch() {
            eprintln!("{:?} does not come back: {reason}", self.product);
        }
    }

    /// One request; panics when there is no answer at all.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        http::send_json(method, &format!("{}{path}", self.admin_url()), body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// One request that must answer 2xx; repeated while the answer is 503, as it is for a new index whose shards have not started.
    #[track_caller]
    fn request_when_available(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let answer = try_wait_until(AVAILABLE_WITHIN, || Some(self.request(method, path, body)).filter(|answer| answer.status != 503));
        answer.unwrap_or_else(|| panic!("{method} {path} answers 503 for {AVAILABLE_WITHIN:?}")).ok()
    }

    /// Makes everything indexed so far visible in `index` (a name or pattern).
    #[track_caller]
    pub fn refresh(&self, index: &str) {
        self.request("POST", &format!("/{index}/_refresh?ignore_unavailable=true"), None).ok();
    }

    /// How many documents `index` has, after a refresh; 0 when it does not exist.
    #[track_caller]
    pub fn count(&self, index: &str) -> u64 {
        self.refresh(index);
        let answer = self.request_when_available("GET", &format!("/{index}/_count?ignore_unavailable=true"), None).json();
        answer["count"].as_u64().unwrap_or_else(|| panic!("no count in {answer}"))
    }

    /// Every document of `index` (a name or pattern), after a refresh, with its source byte for byte. Without `filter_path`, with which the server writes the source anew.
    #[track_caller]
    pub fn scan(&self, index: &str) -> Vec<Document> {
        self.refresh(index);
        let first = json!({"size": PAGE, "sort": ["_doc"]});
        let mut answer = self.request_when_available("POST", &format!("/{index}/_search?scroll=2m&ignore_unavailable=true"), Some(&first));
        let mut documents = Vec::new();
        loop {
            let page: Page = serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.text()));
            let last = page.hits.hits.is_empty();
            documents.extend(page.hits.hits.into_iter().filter_map(Hit::into_document));
            if last {
                // 404 when there was nothing to scroll over.
                self.request("DELETE", "/_search/scroll", Some(&json!({"scroll_id": page.scroll_id})));
                return documents;
            }
            let next = json!({"scroll": "2m", "scroll_id": page.scroll_id});
            answer = self.request("POST", "/_search/scroll", Some(&next)).ok();
        }
    }

    /// The documents of one index with these ids, in the order of the ids, without a refresh; absent ones are left out.
    #[track_caller]
    pub fn documents(&self, index: &str, ids: &[String]) -> Vec<Document> {
        let mut documents = Vec::new();
        for chunk in ids.chunks(PAGE) {
            let answer = self.request("POST", &format!("/{index}/_mget"), Some(&json!({"ids": chunk}))).ok();
            let found: Found = serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.text()));
            documents.extend(found.docs.into_iter().filter_map(Hit::into_document));
        }
        documents
    }

    /// Creates an index with settings and mappings, such as `{"mappings": {"dynamic": "strict", "properties": {}}}`.
    #[track_caller]
    pub fn create_index(&self, index: &str, body: &Value) {
        self.request("PUT", &format!("/{index}"), Some(body)).ok();
    }

    /// Creates an index that refuses unknown fields and has these properties.
    #[track_caller]
    pub fn create_strict_index(&self, index: &str, properties: &Value) {
        self.create_index(index, &json!({"mappings": {"dynamic": "strict", "properties": properties}}));
    }

    /// Puts a composable index template.
    #[track_caller]
    pub fn put_template(&self, name: &str, body: &Value) {
        self.request("PUT", &format!("/_index_template/{name}"), Some(body)).ok();
    }

    /// Changes settings of an index, such as `{"index.blocks.write": true}`; `null` removes one.
    #[track_caller]
    pub fn put_settings(&self, index: &str, settings: &Value) {
        self.request("PUT", &format!("/{index}/_settings"), Some(settings)).ok();
    }

    /// Changes settings of the cluster, such as `{"cluster.max_shards_per_node": 1}`; `null` removes one.
    #[track_caller]
    pub fn put_cluster_settings(&self, settings: &Value) {
        self.request("PUT", "/_cluster/settings", Some(&json!({"persistent": settings}))).ok();
    }

    /// Closes an index.
    #[track_caller]
    pub fn close_index(&self, index: &str) {
        self.request("POST", &format!("/{index}/_close"), None).ok();
    }

    /// Opens an index.
    #[track_caller]
    pub fn open_index(&self, index: &str) {
        self.request("POST", &format!("/{index}/_open"), None).ok();
    }

    /// Deletes an index; one that does not exist is no error.
    #[track_caller]
    pub fn delete_index(&self, index: &str) {
        self.request("DELETE", &format!("/{index}?ignore_unavailable=true"), None).ok();
    }

    /// The last lines of the server's log.
    pub fn log_tail(&self) -> String {
        super::process::tail(&self.folder.path().join(format!("{}.log", self.product.program())), 60)
    }

    /// One of the server's programs, in its environment.
    fn command(&self, program: &str) -> Command {
        let (folder, prefix) = (self.folder.path(), self.product.prefix());
        let mut command = Command::new(self.home.join("bin").join(program));
        command.env(format!("{prefix}_JAVA_HOME"), &self.java_home).env(format!("{prefix}_PATH_CONF"), folder.join("config"));
        command.env(format!("{prefix}_TMPDIR"), folder.join("tmp")).env_remove("JAVA_TOOL_OPTIONS").env_remove("JAVA_HOME").env("HOME", folder);
        command
    }

    fn launch(&self) -> Result<(), String> {
        let program = self.product.program();
        let mut command = self.command(program);
        command.env(format!("{}_JAVA_OPTS", self.product.prefix()), "-Xms1g -Xmx1g -XX:-AlwaysPreTouch");
        let mut process = Process::start(&self.folder, program, command);
        let outcome = try_wait_until(START_WITHIN, || {
            if let Some(status) = process.ended() {
                return Some(Err(format!("{:?} ended with {status} while starting:\n{}", self.product, process.log_tail())));
            }
            let answer = http::send_json("GET", &format!("{}/_cluster/health?wait_for_status=yellow&timeout=5s", self.admin_url()), None).ok()?;
            (answer.status == 200).then_some(Ok(()))
        });
        outcome.unwrap_or_else(|| Err(format!("{:?} does not answer within {START_WITHIN:?}:\n{}", self.product, process.log_tail())))?;
        *self.process.lock().expect("no panic while starting") = Some(process);
        Ok(())
    }
}

/// The heap comes by the environment; the file must exist and not be empty. OpenSearch 3 does not start without its agent, which took the place of Java's security manager.
fn jvm_options(product: Product, home: &Path) -> String {
    let agent = match product {
        Product::OpenSearch3 => format!("-javaagent:{}\n", home.join("agent/opensearch-agent.jar").display()),
        Product::Elasticsearch8 | Product::Elasticsearch9 => String::new(),
    };
    format!("-XX:+UseG1GC\n-XX:+ExitOnOutOfMemoryError\n-Djava.io.tmpdir=${{{}_TMPDIR}}\n{agent}", product.prefix())
}

/// The harness's own user where there is security, and its password.
const ADMIN: &str = "harness";

const ROLES: &str = "\
writer: {cluster: [monitor], indices: [{names: ['*'], privileges: [all]}]}
reader: {cluster: [monitor], indices: [{names: ['*'], privileges: [read]}]}
";

/// Only a trial of the licence has the realm for certificates.
const ENCRYPTION: &str = "\
xpack.security.transport.ssl.enabled: false
xpack.security.http.ssl.enabled: true
xpack.security.http.ssl.certificate: server.pem
xpack.security.http.ssl.key: server-key.pem
xpack.security.http.ssl.certificate_authorities: [ca.pem]
xpack.security.http.ssl.client_authentication: optional
xpack.security.authc.api_key.enabled: true
xpack.security.authc.realms.native.users.order: 0
xpack.security.authc.realms.pki.certificates: {order: 1, certificate_authorities: [ca.pem]}
xpack.license.self_generated.type: trial";

const LOGGING: &str = "\
status=error
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=[%d{ISO8601}][%-5p][%-25c{1.}] %m%n
rootLogger.level=info
rootLogger.appenderRef.console.ref=console
";

/// Without the disk threshold a full disk turns every test red. An unknown setting stops the server: this distribution has few modules.
fn configuration(product: Product, folder: &RunFolder, [port, transport_port]: [u16; 2], settings: &str, is_secured: bool) -> String {
    let data: &Path = &folder.folder("data");
    let logs: &Path = &folder.folder("logs");
    let security = if product == Product::OpenSearch3 { String::new() } else { format!("xpack.security.enabled: {is_secured}") };
    format!(
        "\
cluster.name: drover-test
node.name: node-1
discovery.type: single-node
network.host: 127.0.0.1
http.port: {port}
transport.port: {transport_port}
path.data: {}
path.logs: {}
cluster.routing.allocation.disk.threshold_enabled: false
{security}
{settings}
",
        data.display(),
        logs.display()
    )
}

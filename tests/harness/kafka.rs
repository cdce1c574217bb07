//! A real Kafka: one node that is broker and controller, and what tests ask of it. Everything here goes around drover's own code.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Message, Offset, TopicPartitionList};

use super::coordinator::Coordinator;
use super::pki::{CA, SERVER, SERVER_KEY, pki};
use super::process::{Process, RunFolder, User, free_port};
use super::proxy::Proxy;
use super::servers::{fetched, java_home};
use super::wait::{try_wait_until, wait_until};

/// About 8 s on two idle cores, several times that beside a compiler.
const START_WITHIN: Duration = Duration::from_secs(180);
/// A clean stop writes indexes and takes a second or two.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// For one look-up.
const CALL_WITHIN: Duration = Duration::from_secs(20);

/// A real Kafka with one node on free ports.
#[derive(Debug)]
pub struct Kafka {
    home: PathBuf,
    java: PathBuf,
    port: u16,
    heap: String,
    /// What the listener `PROXIED` advertises, and where it really listens.
    proxied: (u16, u16),
    /// The listener with passwords.
    secured: u16,
    /// The listener with passwords and TLS, and the one where TLS names the client.
    encrypted: (u16, u16),
    process: Mutex<Option<Process>>,
    // After the process: the folder goes last.
    folder: RunFolder,
}

/// Where a batch on the broker's disk is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// A bit of its last record's value, which only the checksum knows of.
    Value,
    /// A bit of its records' first bytes: what they begin with cannot be made sense of.
    Records,
    /// The number of its format.
    Format,
}

/// A record as an independent consumer reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRecord {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The value; `None` for a tombstone.
    pub value: Option<Vec<u8>>,
}

impl Kafka {
    /// Fetches what is missing, formats a new log folder, starts, and waits until the broker answers.
    pub fn start() -> Result<Self, String> {
        Self::start_with_heap("-Xmx1g")
    }

    /// The same with another limit of the heap, as Java's option.
    pub fn start_with_heap(heap: &str) -> Result<Self, String> {
        let home = fetched("kafka")?;
        let java = java_home()?.join("bin/java");
        let (port, controller_port) = (free_port(), free_port());
        let (proxied, secured) = ((free_port(), free_port()), free_port());
        let encrypted = (free_port(), free_port());
        let folder = RunFolder::new("kafka", User::Unprivileged);
        folder.write("server.properties", &(properties(&folder, port, controller_port, proxied, secured, encrypted) + &encryption(&folder)));
        folder.write("log4j2.properties", LOGGING);
        let kafka = Self { home, java, port, heap: heap.to_owned(), proxied, secured, encrypted, process: Mutex::new(None), folder };
        kafka.format()?;
        kafka.launch()?;
        Ok(kafka)
    }

    /// `127.0.0.1:PORT`.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A proxy in front of the broker; whoever begins at its address stays behind it, because the broker advertises it there. One at a time.
    pub fn proxy(&self) -> Proxy {
        let (advertised, real) = self.proxied;
        Proxy::at(advertised, real)
    }

    /// Where clients show a password, by SCRAM-SHA-256 in plain text, at least every [`REAUTHENTICATE_MS`]: `127.0.0.1:PORT`. Who has none is anonymous, on the other listeners, and may do everything.
    pub fn secured(&self) -> String {
        format!("127.0.0.1:{}", self.secured)
    }

    /// Where clients show a password over TLS, by PLAIN (only [`PLAIN_USER`]) or SCRAM: `127.0.0.1:PORT`.
    pub fn encrypted(&self) -> String {
        format!("127.0.0.1:{}", self.encrypted.0)
    }

    /// Where clients show a certificate of the private CA: `127.0.0.1:PORT`.
    pub fn mutual(&self) -> String {
        format!("127.0.0.1:{}", self.encrypted.1)
    }

    /// Gives a user a password for SCRAM-SHA-256, who may then do everything that [`Kafka::deny`] does not take away.
    pub fn set_password(&self, user: &str, password: &str) {
        self.set_password_for("SCRAM-SHA-256", user, password);
    }

    /// The same for another mechanism of SCRAM.
    pub fn set_password_for(&self, mechanism: &str, user: &str, password: &str) {
        let password = format!("{mechanism}=[password={password}]");
        let user = ["--entity-type", "users", "--entity-name", user, "--add-config", &password];
        self.tool("kafka.admin.ConfigCommand", &[&["--bootstrap-server", &self.bootstrap(), "--alter"], user.as_slice()].concat());
    }

    /// Forbids a user an operation, such as `Read`, on a resource, such as `--topic orders`.
    pub fn deny(&self, user: &str, operation: &str, resource: [&str; 2]) {
        self.change_access("--add", user, operation, resource);
    }

    /// Takes such a ban away.
    pub fn allow_again(&self, user: &str, operation: &str, resource: [&str; 2]) {
        self.change_access("--remove", user, operation, resource);
    }

    fn change_access(&self, change: &str, user: &str, operation: &str, [kind, name]: [&str; 2]) {
        let user = format!("User:{user}");
        let arguments = ["--bootstrap-server", &self.bootstrap(), "--force", change, "--deny-principal", &user, "--operation", operation, kind, name];
        self.tool("org.apache.kafka.tools.AclCommand", &arguments);
    }

    /// The same, for what its group coordinator says; instead of the other one.
    pub fn coordinator(&self) -> Coordinator {
        let (advertised, real) = self.proxied;
        Coordinator::at(advertised, real)
    }

    /// Ends the broker cleanly.
    pub fn stop(&self) {
        if let Some(mut process) = self.process.lock().expect("no panic while stopping").take() {
            process.terminate(STOP_WITHIN);
        }
    }

    /// Ends the broker by SIGKILL.
    pub fn kill(&self) {
        if let Some(mut process) = self.process.lock().expect("no panic while killing").take() {
            process.kill();
        }
    }

    /// Starts the stopped broker again, on the same port and log folder.
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

    /// Brings the broker back after whatever a test did to it.
    pub fn recover(&self) {
        self.resume();
        let runs = self.process.lock().is_ok_and(|mut process| process.as_mut().is_some_and(|process| process.ended().is_none()));
        if !runs && let Err(reason) = self.launch() {
            eprintln!("Kafka does not come back: {reason}");
        }
    }

    /// Creates a topic and waits until every partition has a leader.
    pub fn create_topic(&self, name: &str, partitions: i32) {
        self.create_topic_with(name, partitions, &[]);
    }

    /// Creates a topic with settings of its own, such as `("retention.ms", "1000")`.
    pub fn create_topic_with(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let results = futures::executor::block_on(self.admin().create_topics([&topic], &options())).expect("an answer of the controller");
        for result in results {
            result.unwrap_or_else(|(topic, code)| panic!("topic {topic} cannot be created: {code}"));
        }
        wait_until(&format!("{name} has {partitions} led partitions"), CALL_WITHIN, || {
            (self.led_partitions(name) == partitions as usize).then_some(())
        });
    }

    /// Deletes a topic and waits until the broker no longer knows it.
    pub fn delete_topic(&self, name: &str) {
        let results = futures::executor::block_on(self.admin().delete_topics(&[name], &options())).expect("an answer of the controller");
        for result in results {
            result.unwrap_or_else(|(topic, code)| panic!("topic {topic} cannot be deleted: {code}"));
        }
        wait_until(&format!("{name} is gone"), CALL_WITHIN, || (self.led_partitions(name) == 0).then_some(()));
    }

    /// Raises the number of partitions to `total`.
    pub fn add_partitions(&self, name: &str, total: usize) {
        let wanted = NewPartitions::new(name, total);
        let results = futures::executor::block_on(self.admin().create_partitions([&wanted], &options())).expect("an answer of the controller");
        for result in results {
            result.unwrap_or_else(|(topic, code)| panic!("topic {topic} cannot grow: {code}"));
        }
        wait_until(&format!("{name} has {total} led partitions"), CALL_WITHIN, || (self.led_partitions(name) == total).then_some(()));
    }

    /// Deletes the records of a partition below `before`, as retention does.
    pub fn delete_records(&self, topic: &str, partition: i32, before: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(before)).expect("an offset");
        let done = futures::executor::block_on(self.admin().delete_records(&list, &options())).expect("an answer of the broker");
        for element in done.elements() {
            element.error().unwrap_or_else(|error| panic!("records of {topic}/{partition} cannot be deleted: {error}"));
        }
    }

    /// Deletes consumer groups, and with them what they have committed.
    pub fn delete_group(&self, group: &str) {
        let results = futures::executor::block_on(self.admin().delete_groups(&[group], &options())).expect("an answer of the coordinator");
        for result in results {
            result.unwrap_or_else(|(name, code)| panic!("group {name} cannot be deleted: {code}"));
        }
    }

    /// What a group has committed, by partition; partitions without a commit are absent.
    pub fn committed(&self, group: &str, topic: &str) -> BTreeMap<i32, i64> {
        let consumer = self.consumer(group);
        let list = self.partition_list(&consumer, topic);
        let committed = consumer.committed_offsets(list, CALL_WITHIN).unwrap_or_else(|error| panic!("offsets of {group}: {error}"));
        let known = committed.elements().into_iter().filter_map(|element| Some((element.partition(), element.offset().to_raw()?)));
        known.filter(|(_, offset)| *offset >= 0).collect()
    }

    /// The end of each partition's log: the offset of the next record.
    pub fn end_offsets(&self, topic: &str) -> BTreeMap<i32, i64> {
        self.watermarks(topic).into_iter().map(|(partition, (_, high))| (partition, high)).collect()
    }

    /// First offset and end of each partition's log.
    pub fn watermarks(&self, topic: &str) -> BTreeMap<i32, (i64, i64)> {
        let consumer = self.consumer("drover-test-look-up");
        let partitions = self.partition_list(&consumer, topic).elements().into_iter().map(|element| element.partition()).collect::<Vec<_>>();
        // A broker that has just come back says for a moment that it does not lead.
        let look = |partition| {
            let mut last = None;
            let found =
                try_wait_until(CALL_WITHIN, || consumer.fetch_watermarks(topic, partition, CALL_WITHIN).map_err(|error| last = Some(error)).ok());
            found.unwrap_or_else(|| panic!("{topic}/{partition}: {last:?}"))
        };
        partitions.into_iter().map(|partition| (partition, look(partition))).collect()
    }

    /// Every record that the topic holds now, by an independent consumer that joins no group.
    pub fn read_all(&self, topic: &str) -> Vec<ReadRecord> {
        let consumer = self.consumer("drover-test-read");
        let mut missing = BTreeMap::new();
        let mut list = TopicPartitionList::new();
        for (partition, (low, high)) in self.watermarks(topic) {
            if high > low {
                list.add_partition_offset(topic, partition, Offset::Offset(low)).expect("an offset");
                missing.insert(partition, high);
            }
        }
        consumer.assign(&list).expect("an assignment");
        let mut records = Vec::new();
        wait_until(&format!("all records of {topic} have been read"), Duration::from_secs(120), || {
            while !missing.is_empty() {
                let message = consumer.poll(Duration::from_millis(200))?;
                let message = message.unwrap_or_else(|error| panic!("reading {topic}: {error}"));
                records.push(ReadRecord { partition: message.partition(), offset: message.offset(), value: message.payload().map(<[u8]>::to_vec) });
                if missing.get(&message.partition()).is_some_and(|end| message.offset() + 1 >= *end) {
                    missing.remove(&message.partition());
                }
            }
            Some(())
        });
        records
    }

    /// How many members a group has now.
    pub fn group_members(&self, group: &str) -> usize {
        let consumer = self.consumer("drover-test-look-up");
        let list = consumer.fetch_group_list(Some(group), CALL_WITHIN).unwrap_or_else(|error| panic!("group {group}: {error}"));
        list.groups().iter().map(|found| found.members().len()).sum()
    }

    /// The topic's UUID as Kafka's own tool prints it; takes the two seconds that the tool takes.
    pub fn topic_id(&self, topic: &str) -> String {
        let text = self.tool("org.apache.kafka.tools.TopicCommand", &["--bootstrap-server", &self.bootstrap(), "--describe", "--topic", topic]);
        let after = text.split_once("TopicId:").unwrap_or_else(|| panic!("no TopicId in {text}")).1;
        after.split_whitespace().next().expect("an id").to_owned()
    }

    /// The topic's UUID as the broker keeps it beside the log of partition 0: as independent as [`Kafka::topic_id`], and at once.
    pub fn topic_id_on_disk(&self, topic: &str) -> String {
        let path = self.folder.path().join(format!("logs/{topic}-0/partition.metadata"));
        // Written a moment after the partition has a leader.
        let text = wait_until(&format!("{} is there", path.display()), CALL_WITHIN, || {
            std::fs::read_to_string(&path).ok().filter(|text| text.contains("topic_id"))
        });
        let id = text.lines().find_map(|line| line.strip_prefix("topic_id:"));
        id.unwrap_or_else(|| panic!("no topic_id in {text}")).trim().to_owned()
    }

    /// Runs one of Kafka's command line tools by its class and returns what it prints.
    pub fn tool(&self, class: &str, arguments: &[&str]) -> String {
        let mut command = self.java_command("-Xmx128m");
        command.arg("-XX:TieredStopAtLevel=1").arg(class).args(arguments);
        let output = command.output().unwrap_or_else(|error| panic!("{class}: {error}"));
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{class} {arguments:?} ended with {}: {printed}{}", output.status, String::from_utf8_lossy(&output.stderr));
        printed
    }

    /// CPU seconds of the broker's current life; 0 while it is stopped.
    pub fn cpu_seconds(&self) -> f64 {
        self.process.lock().expect("no panic while looking").as_ref().map_or(0.0, Process::cpu_seconds)
    }

    /// The last lines of the broker's log.
    pub fn log_tail(&self) -> String {
        super::process::tail(&self.folder.path().join("kafka.log"), 60)
    }

    /// Cuts a partition's log off before the batch that holds this offset, as a leader does that was not in sync; the broker must be stopped. Answers the new end.
    pub fn cut_off(&self, topic: &str, partition: i32, offset: i64) -> i64 {
        let folder = self.folder.path().join(format!("logs/{topic}-{partition}"));
        let segment = "00000000000000000000";
        let path = folder.join(format!("{segment}.log"));
        let log = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (at, first, _) = batch_of(&log, offset).unwrap_or_else(|| panic!("no batch of {} holds offset {offset}", path.display()));
        std::fs::write(&path, &log[..at]).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // They speak of what is gone, and are made anew.
        for kind in ["index", "timeindex"] {
            let _ = std::fs::remove_file(folder.join(format!("{segment}.{kind}")));
        }
        first
    }

    /// Damages the batch that holds this offset, in the partition's first segment; the broker must have been stopped cleanly, or it would check its log at the next start and cut it off there. Answers the first
    /// and the last offset of the batch.
    pub fn damage(&self, topic: &str, partition: i32, offset: i64, damage: Damage) -> (i64, i64) {
        let path = self.folder.path().join(format!("logs/{topic}-{partition}/00000000000000000000.log"));
        let mut log = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (at, first, last) = batch_of(&log, offset).unwrap_or_else(|| panic!("no batch of {} holds offset {offset}", path.display()));
        let place = match damage {
            // The last byte of a batch is the last record's number of headers.
            Damage::Value => at + 12 + int_at(&log, at + 8) as usize - 4,
            Damage::Records => at + 61,
            Damage::Format => at + 16,
        };
        log[place] ^= 0x40;
        std::fs::write(&path, log).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (first, last)
    }

    /// A client configuration for this broker.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap()).set("allow.auto.create.topics", "false");
        config
    }

    fn consumer(&self, group: &str) -> BaseConsumer {
        let mut config = self.client();
        config.set("group.id", group).set("enable.auto.commit", "false").set("auto.offset.reset", "error").set("isolation.level", "read_committed");
        config.create().expect("a consumer")
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().expect("an admin client")
    }

    fn led_partitions(&self, topic: &str) -> usize {
        let consumer = self.consumer("drover-test-look-up");
        let Ok(metadata) = consumer.fetch_metadata(Some(topic), CALL_WITHIN) else { return 0 };
        let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
        partitions.filter(|partition| partition.leader() >= 0 && partition.error().is_none()).count()
    }

    fn partition_list(&self, consumer: &BaseConsumer, topic: &str) -> TopicPartitionList {
        let metadata = consumer.fetch_metadata(Some(topic), CALL_WITHIN).unwrap_or_else(|error| panic!("metadata of {topic}: {error}"));
        let mut list = TopicPartitionList::new();
        for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
            list.add_partition(topic, partition.id());
        }
        list
    }

    fn java_command(&self, heap: &str) -> Command {
        let mut command = Command::new(&self.java);
        command.env_remove("JAVA_TOOL_OPTIONS").arg(heap).arg("-cp").arg(format!("{}/lib/*", self.home.display()));
        command
    }

    fn format(&self) -> Result<(), String> {
        // Kafka's ids must not begin with a dash, which its own command line would take for an option; 'd' in front keeps the 16 bytes.
        let mut bytes: [u8; 16] = rand::random();
        bytes[0] = 0x74;
        let cluster_id = URL_SAFE_NO_PAD.encode(bytes);
        let mut command = self.java_command("-Xmx128m");
        command.arg("-XX:TieredStopAtLevel=1").args([
            "kafka.tools.StorageTool",
            "format",
            "--standalone",
            "-t",
            &cluster_id,
            "-c",
            "server.properties",
        ]);
        let mut process = Process::start(&self.folder, "format", command);
        match process.wait(START_WITHIN) {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!("Kafka's log folder cannot be formatted ({status}):\n{}", process.log_tail())),
            None => Err(format!("Kafka's log folder was not formatted within {START_WITHIN:?}:\n{}", process.log_tail())),
        }
    }

    fn launch(&self) -> Result<(), String> {
        let mut command = self.java_command(&self.heap);
        let logging = self.folder.path().join("log4j2.properties");
        command.arg("-Xms256m").arg(format!("-Dlog4j2.configurationFile={}", logging.display())).args(["kafka.Kafka", "server.properties"]);
        let mut process = Process::start(&self.folder, "kafka", command);
        let consumer = self.consumer("drover-test-look-up");
        let outcome = try_wait_until(START_WITHIN, || {
            if let Some(status) = process.ended() {
                return Some(Err(format!("Kafka ended with {status} while starting:\n{}", process.log_tail())));
            }
            std::net::TcpStream::connect(("127.0.0.1", self.port)).ok()?;
            let metadata = consumer.fetch_metadata(None, Duration::from_secs(2)).ok()?;
            (!metadata.brokers().is_empty()).then_some(Ok(()))
        });
        outcome.unwrap_or_else(|| Err(format!("Kafka does not answer within {START_WITHIN:?}:\n{}", process.log_tail())))?;
        *self.process.lock().expect("no panic while starting") = Some(process);
        Ok(())
    }
}

/// Where the batch with this offset begins in a segment, its first and its last offset. <https://kafka.apache.org/documentation/#recordbatch>
fn batch_of(log: &[u8], offset: i64) -> Option<(usize, i64, i64)> {
    let mut at = 0;
    while at < log.len() {
        let first = i64::from_be_bytes(log[at..at + 8].try_into().expect("eight bytes"));
        let last = first + i64::from(int_at(log, at + 23));
        if (first..=last).contains(&offset) {
            return Some((at, first, last));
        }
        at += 12 + int_at(log, at + 8) as usize;
    }
    None
}

fn int_at(log: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(log[at..at + 4].try_into().expect("four bytes"))
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(CALL_WITHIN)).operation_timeout(Some(CALL_WITHIN))
}

const LOGGING: &str = "\
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=[%d] %p %m (%c)%n
rootLogger.level=INFO
rootLogger.appenderRef.console.ref=console
";

/// How often the clients of the secured listener must show their password again, or are disconnected.
pub const REAUTHENTICATE_MS: u32 = 5_000;

/// Who may show a password by PLAIN, and which.
pub const PLAIN_USER: (&str, &str) = ("plain-user", "canary-kafka-plain-5d1c");

/// What the listeners with TLS show and ask for.
fn encryption(folder: &RunFolder) -> String {
    let pki = pki();
    let store = folder.write("server-store.pem", &(pki.read(SERVER_KEY) + &pki.read(SERVER)));
    let [authority] = pki.copy([CA], folder);
    let (user, password) = PLAIN_USER;
    format!(
        "\
ssl.keystore.type=PEM
ssl.keystore.location={}
ssl.truststore.type=PEM
ssl.truststore.location={}
listener.name.passwords.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.passwords.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}=\"{password}\";
listener.name.passwords.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.passwords.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.certificates.ssl.client.auth=required
",
        store.display(),
        authority.display()
    )
}

/// Internal topics are small so that the broker starts quickly; short sessions are allowed so that tests of dead members need not wait.
fn properties(folder: &RunFolder, port: u16, controller_port: u16, (advertised, proxied): (u16, u16), secured: u16, encrypted: (u16, u16)) -> String {
    let (passwords, certificates) = encrypted;
    let tls = format!(",PASSWORDS://127.0.0.1:{passwords},CERTIFICATES://127.0.0.1:{certificates}");
    let logs = folder.path().join("logs");
    format!(
        "\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port},PROXIED://127.0.0.1:{proxied},SECURED://127.0.0.1:{secured}{tls}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port},PROXIED://127.0.0.1:{advertised},SECURED://127.0.0.1:{secured}{tls}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT,SECURED:SASL_PLAINTEXT,PASSWORDS:SASL_SSL,CERTIFICATES:SSL
listener.name.secured.sasl.enabled.mechanisms=SCRAM-SHA-256
listener.name.secured.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.secured.connections.max.reauth.ms={REAUTHENTICATE_MS}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
super.users=User:ANONYMOUS
log.dirs={}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.min.heartbeat.interval.ms=500
log.cleaner.dedupe.buffer.size=16777216
file.delete.delay.ms=1000
message.max.bytes=16777216
",
        logs.display()
    )
}

/// Asks again and again what a group has committed for a topic, with one client. Panics when there is no answer.
pub fn committed_watch(client: &ClientConfig, group: &str, topic: &str) -> impl FnMut() -> BTreeMap<i32, i64> + use<> {
    let mut watch = try_committed_watch(client, group, topic, CALL_WITHIN);
    let topic = topic.to_owned();
    move || watch().unwrap_or_else(|error| panic!("committed offsets of {topic}: {error}"))
}

/// The same for a broker that may be away: an answer is waited for this long.
pub fn try_committed_watch(
    client: &ClientConfig,
    group: &str,
    topic: &str,
    within: Duration,
) -> impl FnMut() -> Result<BTreeMap<i32, i64>, KafkaError> + use<> {
    let consumer: BaseConsumer = client.clone().set("group.id", group).create().expect("a consumer");
    let topic = topic.to_owned();
    move || {
        let mut list = TopicPartitionList::new();
        let metadata = consumer.fetch_metadata(Some(&topic), within)?;
        for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
            list.add_partition(&topic, partition.id());
        }
        let committed = consumer.committed_offsets(list, within)?;
        let known = committed.elements().into_iter().filter_map(|element| Some((element.partition(), element.offset().to_raw()?)));
        Ok(known.filter(|(_, offset)| *offset >= 0).collect())
    }
}

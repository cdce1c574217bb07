//! The machine: what it is, and how quiet it is.

use std::fs;
use std::process::Command;
use std::time::Instant;

use crate::harness::drover::Drover;
use crate::harness::kafka::Kafka;
use crate::harness::process::cpu_seconds_of;

/// One line: processors, memory, kernel.
pub fn words() -> String {
    let processors = read("/proc/cpuinfo");
    let models: Vec<&str> = processors.lines().filter_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name)).collect();
    let memory = read("/proc/meminfo");
    let kibibytes: f64 =
        memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse().ok()).unwrap_or(0.0);
    let kernel = read("/proc/sys/kernel/osrelease");
    let model = models.first().copied().unwrap_or("unknown processor");
    format!("{} x {model}, {:.0} GiB, Linux {}", models.len(), kibibytes / f64::from(1 << 20), kernel.trim())
}

/// One line: what was compared.
pub fn versions() -> String {
    let commit = printed("git", &["rev-parse", "--short=10", "HEAD"]);
    let changes = printed("git", &["status", "--porcelain", "--untracked-files=no", "--", "src", "Cargo.lock"]);
    let state = if changes.is_empty() { "" } else { " with changes" };
    let rust = printed("rustc", &["--version"]);
    let (_, librdkafka) = rdkafka::util::get_rdkafka_version();
    format!("drover {} ({commit}{state}), librdkafka {librdkafka}, {rust}, Kafka {}", env!("CARGO_PKG_VERSION"), kafka_version())
}

fn kafka_version() -> String {
    let project = read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/kafka/pom.xml"));
    let version = project.split_once("<kafka.version>").and_then(|(_, rest)| rest.split_once('<'));
    version.map_or("unknown", |(version, _)| version).to_owned()
}

/// What a command prints, on one line; empty when it cannot be run.
pub fn printed(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Threads of a process; 0 when it is gone.
pub fn threads_of(id: u32) -> u64 {
    status_number(id, "Threads:")
}

/// Resident bytes of a process; 0 when it is gone.
pub fn resident_bytes_of(id: u32) -> u64 {
    status_number(id, "VmRSS:") * 1024
}

fn status_number(id: u32, name: &str) -> u64 {
    let status = read(&format!("/proc/{id}/status"));
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// CPU seconds of this process so far.
pub fn own_cpu_seconds() -> f64 {
    cpu_seconds_of(std::process::id())
}

/// The machine's clock of used time.
#[derive(Debug, Clone, Copy)]
pub struct Ticks {
    at: Instant,
    used_seconds: f64,
}

impl Ticks {
    /// As it is now.
    pub fn now() -> Self {
        Self { at: Instant::now(), used_seconds: used_seconds() }
    }

    /// The share of all processors since then that went neither to idling nor to `ours` CPU seconds: other programs, and what the hypervisor stole.
    pub fn foreign_share(self, ours: f64) -> f64 {
        let capacity = self.at.elapsed().as_secs_f64() * std::thread::available_parallelism().map_or(1.0, |count| count.get() as f64);
        ((used_seconds() - self.used_seconds - ours) / capacity).max(0.0)
    }
}

/// Seconds that all processors together were not idle: user, nice, system, irq, softirq and steal of proc(5).
fn used_seconds() -> f64 {
    let stat = read("/proc/stat");
    let fields: Vec<u64> = stat.lines().next().unwrap_or_default().split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    let ticks: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|index| fields.get(*index)).sum();
    // A hundred a second on every Linux that anybody has: USER_HZ is part of its interface.
    ticks as f64 / 100.0
}

/// How much of the machine others have while a drover runs.
#[derive(Debug)]
pub struct Busy {
    ticks: Ticks,
    ours: f64,
}

impl Busy {
    /// From now.
    pub fn begin(kafka: &Kafka, drover: &Drover) -> Self {
        Self { ticks: Ticks::now(), ours: ours(kafka, drover) }
    }

    /// Their share until now.
    pub fn foreign(&self, kafka: &Kafka, drover: &Drover) -> f64 {
        self.ticks.foreign_share(ours(kafka, drover) - self.ours)
    }
}

fn ours(kafka: &Kafka, drover: &Drover) -> f64 {
    kafka.cpu_seconds() + drover.cpu_seconds() + own_cpu_seconds()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

//! The demo's records: orders, log lines, payments and clicks of a small web shop.
//!
//! Guarantees that the records are a function of the seed and of the times they are asked for, that each is of bounded size, and that what comes within any second is bounded. Pure: no clock, no I/O.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde::Serialize;

/// Orders as JSON; managed from the start.
pub const ORDERS: &str = "demo_orders";
/// Log lines as text; managed from the start in the collector's form.
pub const APP_LOG: &str = "demo_app_log";
/// Payments as JSON; for people to add.
pub const PAYMENTS: &str = "demo_payments";
/// Clicks as text; for people to add.
pub const CLICKS: &str = "demo_clickstream";

/// Records per second over all topics, in the mean.
pub const RATE: f64 = 200.0;
/// One in so many orders was cut off by its producer and is not legal JSON.
pub const ORDERS_PER_CUT: u64 = 1000;
/// The first of them, early enough to be seen by someone who looks on for a few seconds.
const FIRST_CUT: u64 = 150;
/// One in so many log lines is an error with a stack trace.
const LINES_PER_TRACE: u32 = 150;
/// Orders that are under way; what is older gets no further record.
const MOST_UNDER_WAY: usize = 500;

const CUSTOMERS: &[(&str, &str)] = &[
    ("Amira Haddad", "FR"),
    ("Björn Lindqvist", "SE"),
    ("Chen Wei", "CN"),
    ("Dolores Vega", "ES"),
    ("Emeka Obi", "NG"),
    ("Frieda Kurz", "DE"),
    ("Giulia Conti", "IT"),
    ("Hana Sato", "JP"),
    ("Ivana Novak", "HR"),
    ("Jack O'Neill", "IE"),
];
/// Name and price in cents.
const ARTICLES: &[(&str, &str, u64)] = &[
    ("SKU-1001", "enamel mug", 1290),
    ("SKU-1002", "wool blanket", 5900),
    ("SKU-1003", "desk lamp", 3450),
    ("SKU-1004", "notebook, dotted", 875),
    ("SKU-1005", "fountain pen", 2499),
    ("SKU-1006", "canvas bag", 1999),
    ("SKU-1007", "tea, 250 g", 1150),
    ("SKU-1008", "cast-iron pan", 4795),
];
const PAYMENT_METHODS: &[&str] = &["card", "card", "card", "invoice", "transfer", "voucher"];
/// What becomes of an order.
const STEPS: &[&str] = &["created", "paid", "packed", "shipped", "delivered"];
const SERVICES: &[&str] = &["gateway", "checkout", "catalog", "payment", "mailer"];
const PATHS: &[&str] = &["/", "/cart", "/checkout", "/api/articles", "/api/articles/1003", "/api/orders", "/login", "/search?q=lamp"];
const AGENTS: &[&str] = &["firefox/141", "chrome/139", "safari/18", "curl/8.15"];
const TRACES: &[&str] = &[
    "java.net.SocketTimeoutException: connect timed out after 2000 ms\n\tat shop.payment.BankClient.charge(BankClient.java:118)\n\tat shop.payment.PaymentService.pay(PaymentService.java:74)\n\tat shop.checkout.CheckoutController.submit(CheckoutController.java:52)",
    "java.lang.IllegalStateException: article SKU-1006 is reserved twice\n\tat shop.catalog.Stock.reserve(Stock.java:203)\n\tat shop.catalog.StockService.reserveAll(StockService.java:61)",
    "TemplateError: no translation of \"order.shipped\" for sv\n    at render (/srv/mailer/templates.js:88:13)\n    at async send (/srv/mailer/send.js:31:5)",
];

/// A record to be produced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The topic.
    pub topic: &'static str,
    /// The key: records of one thing are in one partition.
    pub key: Option<String>,
    /// The value.
    pub payload: Vec<u8>,
}

#[derive(Serialize)]
struct OrderDocument {
    #[serde(rename = "@timestamp")]
    timestamp: String,
    order_id: String,
    status: &'static str,
    customer: CustomerDocument,
    items: Vec<ItemDocument>,
    total: f64,
    currency: &'static str,
    payment: &'static str,
}

#[derive(Serialize)]
struct CustomerDocument {
    id: String,
    name: &'static str,
    country: &'static str,
}

#[derive(Serialize)]
struct ItemDocument {
    sku: &'static str,
    name: &'static str,
    quantity: u64,
    unit_price: f64,
}

#[derive(Serialize)]
struct PaymentDocument<'a> {
    #[serde(rename = "@timestamp")]
    timestamp: String,
    payment_id: String,
    order_id: &'a str,
    state: &'static str,
    amount: f64,
    currency: &'static str,
    method: &'static str,
}

fn json(document: &impl Serialize) -> Vec<u8> {
    // Texts and numbers are always representable.
    serde_json::to_vec(document).unwrap_or_default()
}

struct Order {
    number: u64,
    customer: usize,
    items: Vec<(usize, u64)>,
    method: &'static str,
    step: usize,
}

impl Order {
    fn id(&self) -> String {
        format!("ORD-{:07}", self.number)
    }

    fn cents(&self) -> u64 {
        self.items.iter().map(|(article, quantity)| article_of(*article).2 * quantity).sum()
    }
}

/// Makes records.
pub struct Generator {
    random: StdRng,
    under_way: VecDeque<Order>,
    /// Orders that were begun.
    orders: u64,
    /// Records about orders.
    order_records: u64,
    first_order: u64,
}

impl Generator {
    /// Another seed gives other records.
    pub fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let first_order = random.random_range(100_000..900_000);
        Self { random, under_way: VecDeque::new(), orders: 0, order_records: 0, first_order }
    }

    /// The next record, of something that happened at `now`.
    pub fn next_record(&mut self, now: Timestamp) -> Record {
        match self.random.random_range(0..100) {
            0..35 => self.order(now),
            35..85 => self.log_line(now),
            85..93 => self.payment(now),
            _ => self.click(now),
        }
    }

    fn order(&mut self, now: Timestamp) -> Record {
        let order = self.next_step();
        let (name, country) = CUSTOMERS.get(order.customer).copied().unwrap_or_default();
        let item = |(article, quantity): &(usize, u64)| {
            let (sku, name, cents) = article_of(*article);
            ItemDocument { sku, name, quantity: *quantity, unit_price: euros(cents) }
        };
        let document = OrderDocument {
            timestamp: time_text(now),
            order_id: order.id(),
            status: STEPS.get(order.step).copied().unwrap_or("cancelled"),
            customer: CustomerDocument { id: format!("C-{:04}", order.customer + 1), name, country },
            items: order.items.iter().map(item).collect(),
            total: euros(order.cents()),
            currency: "EUR",
            payment: order.method,
        };
        let key = Some(order.id());
        let is_over = order.step + 1 >= STEPS.len();
        if !is_over {
            self.under_way.push_back(order);
            if self.under_way.len() > MOST_UNDER_WAY {
                self.under_way.pop_front();
            }
        }
        let mut payload = json(&document);
        if self.order_records % ORDERS_PER_CUT == FIRST_CUT {
            // Within "payment", so that it does not end with a brace by chance.
            payload.truncate(payload.len().saturating_sub(12));
        }
        self.order_records += 1;
        Record { topic: ORDERS, key, payload }
    }

    /// A new order, or one that is under way and got further.
    fn next_step(&mut self) -> Order {
        let goes_on = self.random.random_bool(0.7);
        if goes_on && !self.under_way.is_empty() {
            let which = self.random.random_range(0..self.under_way.len());
            if let Some(order) = self.under_way.remove(which) {
                let is_cancelled = order.step <= 1 && self.random.random_bool(0.05);
                return Order { step: if is_cancelled { STEPS.len() } else { order.step + 1 }, ..order };
            }
        }
        let number = self.first_order + self.orders;
        self.orders += 1;
        let count = self.random.random_range(1..=4);
        let items = (0..count).map(|_| (self.random.random_range(0..ARTICLES.len()), self.random.random_range(1..=3))).collect();
        let customer = self.random.random_range(0..CUSTOMERS.len());
        Order { number, customer, items, method: self.pick(PAYMENT_METHODS), step: 0 }
    }

    fn log_line(&mut self, now: Timestamp) -> Record {
        let service = self.pick(SERVICES);
        let instance = format!("{service}-{}", self.random.random_range(1..=3));
        let request: u32 = self.random.random();
        let time = time_text(now);
        let payload = if self.random.random_range(0..LINES_PER_TRACE) == 0 {
            format!("{time} ERROR [{instance}] request={request:08x} unhandled exception\n{}", self.pick(TRACES))
        } else {
            let path = self.pick(PATHS);
            // Most answers are quick, a few are slow.
            let milliseconds = (4.0 * (1.0 / self.random.random_range(0.001..1.0_f64)).powf(0.9)) as u64;
            let (level, outcome) = match self.random.random_range(0..100) {
                0..80 => ("INFO", format!("GET {path} 200 in {milliseconds} ms")),
                80..88 => ("DEBUG", format!("cache hit for {path}")),
                88..92 => ("INFO", format!("GET {path} 304 in {milliseconds} ms")),
                92..96 => ("WARN", format!("GET {path} 200 in {} ms, slower than 2000 ms", 2000 + milliseconds)),
                96..98 => ("WARN", format!("GET {path} 404 in {milliseconds} ms")),
                _ => ("ERROR", format!("GET {path} 502 in {milliseconds} ms: upstream closed the connection")),
            };
            format!("{time} {level:<5} [{instance}] request={request:08x} {outcome}")
        };
        Record { topic: APP_LOG, key: Some(instance), payload: payload.into_bytes() }
    }

    fn payment(&mut self, now: Timestamp) -> Record {
        let number = self.first_order + self.random.random_range(0..=self.orders);
        let order = format!("ORD-{number:07}");
        let state = if self.random.random_bool(0.96) { "authorized" } else { "declined" };
        let document = PaymentDocument {
            timestamp: time_text(now),
            payment_id: format!("PAY-{:08x}", self.random.random::<u32>()),
            order_id: &order,
            state,
            amount: euros(self.random.random_range(875..30_000)),
            currency: "EUR",
            method: self.pick(PAYMENT_METHODS),
        };
        let payload = json(&document);
        Record { topic: PAYMENTS, key: Some(order), payload }
    }

    fn click(&mut self, now: Timestamp) -> Record {
        let session: u16 = self.random.random();
        let payload = format!("{} session={session:04x} path={} agent={}", time_text(now), self.pick(PATHS), self.pick(AGENTS));
        Record { topic: CLICKS, key: None, payload: payload.into_bytes() }
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from.choose(&mut self.random).copied().unwrap_or_default()
    }
}

fn article_of(index: usize) -> (&'static str, &'static str, u64) {
    ARTICLES.get(index).copied().unwrap_or_default()
}

fn euros(cents: u64) -> f64 {
    cents as f64 / 100.0
}

fn time_text(time: Timestamp) -> String {
    format!("{time:.3}")
}

/// How many records are due: a rate that swings and has bursts, but stays within bounds.
#[derive(Debug, Default)]
pub struct Rhythm {
    last: Duration,
    owed: f64,
}

/// After a pause of the process no more than this much time is made up for.
const LONGEST_GAP: Duration = Duration::from_millis(500);
/// The rate swings once in this many seconds,
const SWING_SECONDS: f64 = 60.0;
/// and within this many seconds there is one burst
const BURST_EVERY_SECONDS: f64 = 20.0;
/// of this many,
const BURST_SECONDS: f64 = 2.0;
/// in which so many times the mean comes on top.
const BURST_HEIGHT: f64 = 0.8;

impl Rhythm {
    /// Records that have become due by `now`, counted from the start.
    pub fn due(&mut self, now: Duration) -> u32 {
        let passed = now.saturating_sub(self.last).min(LONGEST_GAP);
        self.last = self.last.max(now);
        self.owed += rate(now) * passed.as_secs_f64();
        let whole = self.owed.floor();
        self.owed -= whole;
        // Bounded by the highest rate and the longest gap.
        whole as u32
    }
}

/// Records per second at a time since the start; its mean is [`RATE`].
fn rate(now: Duration) -> f64 {
    let seconds = now.as_secs_f64();
    let swing = 0.25 * (seconds / SWING_SECONDS * std::f64::consts::TAU).sin();
    let burst = if seconds % BURST_EVERY_SECONDS >= BURST_EVERY_SECONDS - BURST_SECONDS { BURST_HEIGHT } else { 0.0 };
    let mean_of_bursts = BURST_HEIGHT * BURST_SECONDS / BURST_EVERY_SECONDS;
    RATE * (1.0 - mean_of_bursts + swing + burst)
}

/// When tasks crash: for the first time soon enough to be seen, and then now and then.
pub struct CrashPlan {
    random: StdRng,
    next: Duration,
}

impl CrashPlan {
    /// Another seed gives other times.
    pub fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let next = Duration::from_millis(random.random_range(8_000..13_000));
        Self { random, next }
    }

    /// Whether a crash is due at `now`, counted from the start.
    pub fn due(&mut self, now: Duration) -> bool {
        if now < self.next {
            return false;
        }
        self.next = now + Duration::from_millis(self.random.random_range(20_000..40_000));
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn records(seed: u64, count: usize) -> Vec<Record> {
        let mut generator = Generator::new(seed);
        (0..count).map(|number| generator.next_record(Timestamp::from_millisecond(1_700_000_000_000 + number as i64 * 5).expect("a time"))).collect()
    }

    #[test]
    fn the_same_seed_makes_the_same_records_and_another_others() {
        assert_eq!(records(1, 500), records(1, 500));
        assert_ne!(records(1, 500), records(2, 500));
    }

    #[test]
    fn only_cut_orders_are_no_legal_json_and_they_do_not_end_like_it() {
        let orders: Vec<Record> = records(7, 10_000).into_iter().filter(|record| record.topic == ORDERS).collect();
        let is_legal = |record: &Record| serde_json::from_slice::<Value>(&record.payload).is_ok_and(|value| value.is_object());
        let cut: Vec<usize> = (0..orders.len()).filter(|index| !is_legal(&orders[*index])).collect();
        let expected: Vec<usize> = (150..orders.len()).step_by(1000).collect();
        assert!(expected.len() >= 3, "{} orders", orders.len());
        assert_eq!(cut, expected);
        assert!(cut.iter().all(|index| orders[*index].payload.last() != Some(&b'}')), "a cut order ends with a brace");
    }

    #[test]
    fn an_order_goes_its_way_step_by_step_under_one_key() {
        let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for record in records(3, 20_000).into_iter().filter(|record| record.topic == ORDERS) {
            let Ok(order) = serde_json::from_slice::<Value>(&record.payload) else { continue };
            assert_eq!(record.key.as_deref(), order["order_id"].as_str());
            seen.entry(record.key.expect("a key")).or_default().push(order["status"].as_str().expect("a status").to_owned());
        }
        let complete = seen.values().filter(|steps| steps.iter().map(String::as_str).eq(STEPS.iter().copied())).count();
        let cancelled = seen.values().filter(|steps| steps.last().is_some_and(|step| step == "cancelled")).count();
        assert!(complete > 100 && cancelled > 10, "{complete} complete, {cancelled} cancelled of {}", seen.len());
    }

    #[test]
    fn log_lines_have_a_time_and_now_and_then_a_stack_trace() {
        let lines: Vec<Record> = records(5, 10_000).into_iter().filter(|record| record.topic == APP_LOG).collect();
        let text = |record: &Record| String::from_utf8(record.payload.clone()).expect("UTF-8");
        assert!(lines.iter().all(|line| text(line).split(' ').next().is_some_and(|time| time.parse::<Timestamp>().is_ok())));
        let traces = lines.iter().filter(|line| text(line).contains('\n')).count();
        assert!((10..100).contains(&traces), "{traces} of {}", lines.len());
    }

    proptest! {
        #[test]
        fn every_topic_gets_its_share_and_no_record_is_large(seed: u64) {
            let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
            for record in records(seed, 2_000) {
                *counts.entry(record.topic).or_default() += 1;
                prop_assert!((20..2_000).contains(&record.payload.len()), "{} bytes", record.payload.len());
            }
            prop_assert_eq!(counts.len(), 4);
            prop_assert!(counts[CLICKS] > 60 && counts[PAYMENTS] > 80 && counts[ORDERS] > 500 && counts[APP_LOG] > 800, "{:?}", counts);
        }

        #[test]
        fn the_rate_is_kept_in_the_mean_and_bounded_at_any_time(step_ms in 1_u64..400) {
            let mut rhythm = Rhythm::default();
            let (mut total, mut now) = (0_u64, 0_u64);
            while now < 600_000 {
                now += step_ms;
                let due = rhythm.due(Duration::from_millis(now));
                prop_assert!(f64::from(due) <= 2.0 * RATE * step_ms as f64 / 1000.0 + 1.0, "{due} in {step_ms} ms");
                total += u64::from(due);
            }
            let mean = total as f64 / (now as f64 / 1000.0);
            prop_assert!((mean - RATE).abs() < RATE * 0.05, "{mean} records per second");
        }

        #[test]
        fn crashes_are_neither_early_nor_rare(seed: u64) {
            let mut plan = CrashPlan::new(seed);
            let mut times = Vec::new();
            for now in (0..300_000).step_by(50) {
                if plan.due(Duration::from_millis(now)) {
                    times.push(now);
                }
            }
            prop_assert!((8_000..=13_050).contains(&times[0]), "{times:?}");
            prop_assert!(times.windows(2).all(|pair| (20_000..=40_050).contains(&(pair[1] - pair[0]))), "{times:?}");
        }
    }

    #[test]
    fn a_process_that_was_asleep_does_not_make_up_for_hours() {
        let mut rhythm = Rhythm::default();
        rhythm.due(Duration::from_secs(1));
        assert!(rhythm.due(Duration::from_secs(7_200)) <= 200);
        assert!(rhythm.due(Duration::from_secs(7_100)) == 0, "time ran backwards");
    }
}

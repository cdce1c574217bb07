//! etcd over TLS that asks for a certificate of the private CA and then for a password, or takes the certificate's name for the user.

use std::time::Duration;

use drover::config::{EtcdConfig, Secret};
use drover::desired::store::suite;
use drover::status::SourceStatus;
use serde_json::{Value, json};

use super::{Flow, SOON, is_quiet, mends, probe, quoted};
use crate::etcd::{Side, new_folder};
use crate::harness::drover::Drover;
use crate::harness::etcd::{Etcd, Version};
use crate::harness::pki::{CA, CLIENT, CLIENT_KEY, CLIENT_NAME, SERVER, SERVER_KEY, STRANGER, pki};
use crate::harness::servers;
use crate::harness::wait::holds_for;

const ADMINISTRATOR: &str = "administrator-of-the-tests";
const PASSWORD: &str = "canary-etcd-2b6f";
/// How long a token lives. Shorter ones cannot be given.
const TOKEN_LIFE: Duration = Duration::from_secs(1);

/// What is written is written, and what others write is seen, while each token expires after a second.
async fn outlives_its_tokens(options: &[&str]) {
    if !Version::Built.is_there() {
        return;
    }
    let (etcd, folder) = (Etcd::start_encrypted(Version::Built, options), new_folder());
    etcd.ask_for_users(ADMINISTRATOR, PASSWORD, &[]);
    let config = EtcdConfig {
        endpoints: vec![etcd.url()],
        prefix: "drover".to_owned(),
        credentials: Some(("drover".to_owned(), Secret::new(PASSWORD.to_owned()))),
        ca_file: Some(pki().path(CA)),
        client_identity: Some((pki().path(CLIENT), pki().path(CLIENT_KEY))),
    };
    let side = Side::start_with(&config, &folder.path().join("cache"), &[]);
    side.ready().await;
    suite::contract(&*side.store).await;
    let is_well = || side.views.borrow().source.status == SourceStatus::Ok;
    tokio::task::block_in_place(|| holds_for("the source is well", 2 * TOKEN_LIFE, is_well));
    etcd.put("drover/topics/theirs", "{}");
    side.view("the watch lives", SOON, |view| view.topics.contains_key("theirs")).await;
    tokio::task::block_in_place(|| holds_for("the source is well", 2 * TOKEN_LIFE, is_well));
    side.put("ours").await.expect("written with a new token");
    side.view("the own write is seen", SOON, |view| view.topics.contains_key("ours")).await;
    side.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn simple_tokens_that_expire_break_no_promise_of_the_store() {
    outlives_its_tokens(&["--auth-token=simple", "--auth-token-ttl=1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_tokens_that_expire_break_no_promise_of_the_store() {
    outlives_its_tokens(&[&format!("--auth-token=jwt,pub-key={SERVER},priv-key={SERVER_KEY},sign-method=ES256,ttl=1s")]).await;
}

/// The row of the store; `None` while there is no answer.
fn store(drover: &Drover) -> Option<Value> {
    let answer = drover.try_request("GET", "/api/v1/sources", None).ok()?;
    let page = (answer.status == 200).then(|| answer.json())?;
    page["items"].as_array()?.iter().find(|row| row["kind"] == "store").cloned()
}

#[track_caller]
fn wait_store(drover: &mut Drover, status: &str) -> Value {
    drover.wait_for(&format!("the store is {status}"), SOON, |drover| store(drover).filter(|row| row["status"] == status))
}

/// Waits until the store is not read, for a reason that has these words.
#[track_caller]
fn is_refused(drover: &mut Drover, words: &str) {
    let row = wait_store(drover, "error");
    assert!(row["error"]["message"].as_str().is_some_and(|message| message.contains(words)), "{row}");
}

#[test]
fn without_the_right_password_the_last_lists_stay_in_force_and_nothing_is_restarted() {
    if !Version::Built.is_there() {
        return;
    }
    let servers = servers::together();
    let topic = "sec-etcd";
    let mut flow = Flow::new(&servers.kafka, topic);
    let etcd = Etcd::start_encrypted(Version::Built, &[]);
    etcd.put("collectors-key", &json!([{"path": "x", "topic": topic}]).to_string());
    etcd.put(&format!("drover/topics/{topic}"), r#"{"format": "json"}"#);
    etcd.ask_for_users(ADMINISTRATOR, PASSWORD, &["collectors-key"]);
    let with = |authority: &str, credentials: &str| {
        format!(
            "kafka: {{brokers: [\"{}\"], group_id: {topic}, properties: {{session.timeout.ms: 6000}}}}\nelasticsearch: {{urls: [\"{}\"]}}\n\
             etcd: {{endpoints: [\"{}\"], ca_file: {}, client_cert: {}, client_key: {}{credentials}}}\netcdkeys: [collectors-key]\ndead_letters: {{store: local}}\n",
            servers.kafka.bootstrap(),
            servers.elasticsearch.url(),
            etcd.url(),
            quoted(&pki().path(authority)),
            quoted(&pki().path(CLIENT)),
            quoted(&pki().path(CLIENT_KEY)),
        )
    };
    let password = |password: &str| format!(", username: drover, password: {password}");
    let wrong = "canary-etcd-wrong-80d4";
    let mut drover = Drover::start(&with(CA, &password(wrong)), &[]);
    // Nothing is known yet: no list, and so no topic.
    is_refused(&mut drover, "invalid user ID or password");
    is_quiet(&drover, |drover| store(drover).is_some_and(|row| row["status"] == "error"));
    let said = probe(&drover);
    assert!(said.contains("invalid user ID or password") && !said.contains(wrong), "{said}");
    let answer = drover.put(&format!("/api/v1/topics/{topic}"), &json!({"format": "json"}));
    assert_eq!((answer.status, &answer.json()["code"]), (503, &json!("store-unavailable")), "{}", answer.text());
    flow.send();

    etcd.set_password("drover", wrong);
    wait_store(&mut drover, "ok");
    drover.wait_caught_up(topic, super::CAUGHT_UP);
    let answer = drover.put("/api/v1/topics/sec-etcd-more", &json!({}));
    assert_eq!(answer.status, 201, "{}", answer.text());

    // The password is changed under a running instance, and then under the next one.
    etcd.set_password("drover", PASSWORD);
    let answer = drover.put("/api/v1/topics/sec-etcd-more", &json!({"format": "text"}));
    assert_eq!((answer.status, &answer.json()["code"]), (503, &json!("store-unavailable")), "{}", answer.text());
    flow.flows(&mut drover);
    drover.restart();
    is_refused(&mut drover, "invalid user ID or password");
    flow.flows(&mut drover);
    mends(&mut drover, &with(CA, &password(PASSWORD)), "etcd");
    wait_store(&mut drover, "ok");

    mends(&mut drover, &with(STRANGER, &password(PASSWORD)), "etcd");
    is_refused(&mut drover, "certificate");
    // Nobody but the certificate says who calls.
    mends(&mut drover, &with(CA, ""), "etcd");
    is_refused(&mut drover, "etcd refused the request");
    etcd.add_certificate_user(CLIENT_NAME);
    wait_store(&mut drover, "ok");
    let answer = drover.delete("/api/v1/topics/sec-etcd-more");
    assert_eq!(answer.status, 204, "{}", answer.text());
    flow.ends_well(drover, &servers.elasticsearch, &[PASSWORD, wrong]);
}

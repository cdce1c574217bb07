//! Elasticsearch over TLS with a private CA, that asks for a password, an API key or a certificate.

use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Flow, STOP, at_once, is_told, mends, probe, quoted, waits};
use crate::harness::drover::Drover;
use crate::harness::elasticsearch::Elasticsearch;
use crate::harness::pki::{CA, CLIENT, CLIENT_KEY, CLIENT_NAME, STRANGER, pki};
use crate::harness::servers::Servers;

/// One for all tests in here; it ends with the test process.
fn server() -> &'static Elasticsearch {
    static SERVER: OnceLock<Result<Elasticsearch, String>> = OnceLock::new();
    let started = SERVER.get_or_init(|| Elasticsearch::start_encrypted("harness-of-the-tests"));
    started.as_ref().unwrap_or_else(|reason| panic!("the secured Elasticsearch is not there: {reason}"))
}

/// A configuration with these lines of the sink and this authority.
fn config(servers: &Servers, topic: &str, authority: &str, credentials: &str) -> String {
    format!(
        "kafka: {{brokers: [\"{}\"], group_id: {topic}, properties: {{session.timeout.ms: 6000}}}}\nelasticsearch: {{urls: [\"{}\"], ca_file: {}, {credentials}}}\ntopics: [{{topic: {topic}, format: json}}]\n{STOP}",
        servers.kafka.bootstrap(),
        server().url(),
        quoted(&pki().path(authority))
    )
}

#[test]
fn elasticsearch_with_wrong_credentials_is_waited_for_and_then_has_every_record() {
    at_once(&[
        ("a_password_that_is_changed_on_the_server_waits_for_the_new_one", a_password_that_is_changed_on_the_server_waits_for_the_new_one),
        ("an_api_key_that_is_taken_out_of_use_waits_for_another", an_api_key_that_is_taken_out_of_use_waits_for_another),
        (
            "a_certificate_without_rights_and_a_foreign_authority_wait_for_the_right_ones",
            a_certificate_without_rights_and_a_foreign_authority_wait_for_the_right_ones,
        ),
    ]);
}

fn a_password_that_is_changed_on_the_server_waits_for_the_new_one(servers: &Servers) {
    let topic = "sec-password";
    let mut flow = Flow::new(&servers.kafka, topic);
    let (first, second) = ("canary-es-first-40aa", "canary-es-second-c3d8");
    let with = |password: &str| config(servers, topic, CA, &format!("username: {topic}, password: {password}"));
    // The user does not exist yet.
    let mut drover = Drover::start(&with(first), &[]);
    flow.send();
    waits(&mut drover, topic, "credentials");
    let said = probe(&drover);
    assert!(said.contains("refuses the credentials with status 401") && !said.contains(first), "{said}");
    server().put_user(topic, first);
    drover.wait_caught_up(topic, super::CAUGHT_UP);

    server().put_user(topic, second);
    flow.send();
    is_told(&mut drover, topic, "credentials");
    mends(&mut drover, &with(second), "elasticsearch");
    let encoded = [first, second].map(|password| STANDARD.encode(format!("{topic}:{password}")));
    flow.ends_well(drover, server(), &[first, second, &encoded[0], &encoded[1]]);
}

fn an_api_key_that_is_taken_out_of_use_waits_for_another(servers: &Servers) {
    let topic = "sec-api-key";
    let mut flow = Flow::new(&servers.kafka, topic);
    let ((id, first), (_, second)) = (server().make_api_key("first"), server().make_api_key("second"));
    let with = |key: &str| config(servers, topic, CA, &format!("api_key: \"{key}\""));
    let mut drover = Drover::start(&with(&first), &[]);
    flow.flows(&mut drover);

    server().invalidate_api_key(&id);
    flow.send();
    waits(&mut drover, topic, "credentials");
    mends(&mut drover, &with(&second), "elasticsearch");
    let decoded = [&first, &second].map(|key| String::from_utf8(STANDARD.decode(key).expect("base64")).expect("text"));
    let halves = decoded.each_ref().map(|key| key.split_once(':').expect("id and key").1);
    flow.ends_well(drover, server(), &[&first, &second, halves[0], halves[1]]);
}

fn a_certificate_without_rights_and_a_foreign_authority_wait_for_the_right_ones(servers: &Servers) {
    let topic = "sec-certificate";
    let mut flow = Flow::new(&servers.kafka, topic);
    let identity = format!("client_cert: {}, client_key: {}", quoted(&pki().path(CLIENT)), quoted(&pki().path(CLIENT_KEY)));
    let mut drover = Drover::start(&config(servers, topic, STRANGER, &identity), &[]);
    flow.send();
    // Whoever answers there is not the sink: nothing is sent to it.
    let told = is_told(&mut drover, topic, "sink_unreachable");
    assert!(told["message"].as_str().is_some_and(|message| message.contains("certificate")), "{told}");

    mends(&mut drover, &config(servers, topic, CA, &identity), "elasticsearch");
    waits(&mut drover, topic, "credentials");
    server().map_certificate(CLIENT_NAME);
    flow.flows(&mut drover);
    let secret = pki().read(CLIENT_KEY);
    let line = secret.lines().nth(1).expect("a line of the key");
    flow.ends_well(drover, server(), &[line]);
}

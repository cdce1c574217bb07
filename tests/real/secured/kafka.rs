//! Kafka that asks for a password, by SASL over TLS, or for a certificate.

use super::{Flow, PARTITIONS, SOON, STOP, at_once, is_told, mends, probe, quoted, waits};
use crate::harness::drover::Drover;
use crate::harness::kafka::PLAIN_USER;
use crate::harness::pki::{CA, CLIENT, CLIENT_KEY, STRANGER, pki};
use crate::harness::servers::Servers;

/// A configuration with this bootstrap server and these properties.
fn config(servers: &Servers, topic: &str, bootstrap: &str, properties: &str) -> String {
    format!(
        "kafka: {{brokers: [\"{bootstrap}\"], group_id: {topic}, properties: {{session.timeout.ms: 6000, {properties}}}}}\nelasticsearch: {{urls: [\"{}\"]}}\ntopics: [{{topic: {topic}, format: json}}]\n{STOP}",
        servers.elasticsearch.url()
    )
}

/// The properties of a password over TLS.
fn password(mechanism: &str, user: &str, password: &str) -> String {
    let authority = quoted(&pki().path(CA));
    format!(
        "security.protocol: sasl_ssl, ssl.ca.location: {authority}, sasl.mechanism: {mechanism}, sasl.username: {user}, sasl.password: {password}"
    )
}

#[test]
fn kafka_with_wrong_credentials_is_waited_for_and_then_has_every_record() {
    at_once(&[
        ("a_wrong_password_by_plain_waits_for_the_right_one_in_the_file", a_wrong_password_by_plain_waits_for_the_right_one_in_the_file),
        ("a_user_that_scram_does_not_know_yet_waits_until_the_broker_knows_it", a_user_that_scram_does_not_know_yet_waits_until_the_broker_knows_it),
        (
            "a_missing_certificate_and_a_foreign_authority_wait_for_the_right_ones",
            a_missing_certificate_and_a_foreign_authority_wait_for_the_right_ones,
        ),
    ]);
}

fn a_wrong_password_by_plain_waits_for_the_right_one_in_the_file(servers: &Servers) {
    let topic = "sec-plain";
    let mut flow = Flow::new(&servers.kafka, topic);
    let (user, right) = PLAIN_USER;
    let wrong = "canary-kafka-wrong-91b7";
    let with = |given: &str| config(servers, topic, &servers.kafka.encrypted(), &password("PLAIN", user, given));
    let mut drover = Drover::start(&with(right), &[]);
    flow.flows(&mut drover);

    mends(&mut drover, &with(wrong), "kafka");
    flow.send();
    let told = waits(&mut drover, topic, "credentials");
    assert!(told["message"].as_str().is_some_and(|message| message.contains("uthentication failed")), "{told}");
    let said = probe(&drover);
    assert!(said.contains("uthentication failed") && !said.contains(wrong), "{said}");

    mends(&mut drover, &with(right), "kafka");
    flow.ends_well(drover, &servers.elasticsearch, &[right, wrong]);
}

fn a_user_that_scram_does_not_know_yet_waits_until_the_broker_knows_it(servers: &Servers) {
    let topic = "sec-scram";
    let mut flow = Flow::of_a_topic_to_come(&servers.kafka, topic);
    let secret = "canary-kafka-scram-77e0";
    // By an environment variable, as it would be in a container.
    let properties = password("SCRAM-SHA-512", topic, "\"${SEC_SCRAM_PASSWORD}\"");
    let config = config(servers, topic, &servers.kafka.encrypted(), &properties);
    let mut drover = Drover::start(&config, &[("SEC_SCRAM_PASSWORD", secret)]);
    waits(&mut drover, topic, "credentials");

    servers.kafka.set_password_for("SCRAM-SHA-512", topic, secret);
    is_told(&mut drover, topic, "topic_missing");
    // Although there is no partition yet that Kafka could be asked about.
    drover.wait_for("Kafka is no trouble any more", SOON, |drover| {
        let parts = drover.get("/api/v1/info")["components"].take();
        let kafka = parts.as_array()?.iter().find(|part| part["name"] == "kafka")?.clone();
        kafka["reason"].is_null().then_some(())
    });
    servers.kafka.create_topic(topic, PARTITIONS);
    flow.flows(&mut drover);
    assert_eq!(drover.topic(topic).expect("the topic")["status"]["restarts_total"], 0);
    flow.ends_well(drover, &servers.elasticsearch, &[secret]);
}

fn a_missing_certificate_and_a_foreign_authority_wait_for_the_right_ones(servers: &Servers) {
    let topic = "sec-mutual";
    let mut flow = Flow::new(&servers.kafka, topic);
    let (certificate, key) = (quoted(&pki().path(CLIENT)), quoted(&pki().path(CLIENT_KEY)));
    let identity = format!(", ssl.certificate.location: {certificate}, ssl.key.location: {key}");
    let with = |authority: &str, identity: &str| {
        let properties = format!("security.protocol: ssl, ssl.ca.location: {}{identity}", quoted(&pki().path(authority)));
        config(servers, topic, &servers.kafka.mutual(), &properties)
    };
    let mut drover = Drover::start(&with(CA, ""), &[]);
    flow.send();
    let told = waits(&mut drover, topic, "credentials");
    assert!(told["message"].as_str().is_some_and(|message| message.contains("certificate")), "{told}");

    mends(&mut drover, &with(STRANGER, &identity), "kafka");
    let told = is_told(&mut drover, topic, "credentials");
    assert!(told["message"].as_str().is_some_and(|message| message.contains("certificate verify failed")), "{told}");

    mends(&mut drover, &with(CA, &identity), "kafka");
    flow.flows(&mut drover);
    let secret = pki().read(CLIENT_KEY);
    let line = secret.lines().nth(1).expect("a line of the key");
    flow.ends_well(drover, &servers.elasticsearch, &[line]);
}

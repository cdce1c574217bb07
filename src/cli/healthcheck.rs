//! The probe for containers and scripts: one request, one exit code.
//!
//! Guarantees an answer within seconds and at most one line on stderr. Where no server is named it asks the drover of this host: at the address that `run` with the same environment and
//! configuration listens on, a wildcard address taken as loopback. There the certificate is not checked, because no certificate names that address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;
use reqwest::Url;

use super::DEFAULT_SERVER;
use super::client::{Client, Patience, Trust, server_url};
use super::failure::Failure;
use super::output::tell;
use crate::config;
use crate::table::escape;

/// Shorter than the time that container engines and a kubelet usually give a probe.
const PATIENCE: Patience = Patience { connect: Duration::from_secs(2), answer: Duration::from_secs(4) };

/// The command `healthcheck`.
#[derive(Debug, Args)]
#[command(
    after_long_help = "Without --server it asks where the configuration says that drover listens, on this host.\nExamples:\n  drover healthcheck\n  drover healthcheck --path livez --server http://127.0.0.1:8080"
)]
pub struct HealthcheckArgs {
    /// The probe: readyz = it can work, livez = it is alive, healthz = nobody has to act
    #[arg(long, default_value = "readyz", value_parser = PossibleValuesParser::new(["readyz", "livez", "healthz"]))]
    path: String,
    /// The address of drover, instead of the configuration's
    #[arg(long, env = "DROVER_SERVER", value_name = "URL", value_parser = server_url)]
    server: Option<Url>,
    /// The configuration file, for the address
    #[arg(long, env = "DROVER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The address that drover was told to listen on instead of the configuration's
    #[arg(long, env = "DROVER_LISTEN", value_name = "ADDR", value_parser = crate::config::listen_address)]
    listen: Option<SocketAddr>,
    /// A file with the token, where probes are not open
    #[arg(long, env = "DROVER_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

pub(super) async fn run(arguments: HealthcheckArgs) -> u8 {
    match check(arguments).await {
        Ok(()) => 0,
        Err(why) => {
            tell(&format!("drover: {why}"));
            1
        }
    }
}

async fn check(arguments: HealthcheckArgs) -> Result<(), String> {
    let (server, trust) = match arguments.server {
        Some(server) => (server, Trust::Verified),
        None => (own_address(arguments.config.as_deref(), arguments.listen)?, Trust::Unverified),
    };
    let client = Client::new(server, arguments.token_file.as_deref(), trust, PATIENCE).map_err(|failure| failure.to_string())?;
    let (status, report) = client.probe(&arguments.path).await.map_err(|failure| match failure {
        Failure::Unreachable { server, why } => format!("{server} does not answer: {why}"),
        other => other.to_string(),
    })?;
    if status == 200 {
        return Ok(());
    }
    let unwell = report.items("checks").iter().filter(|check| check.text("status") != Some("ok"));
    let findings: Vec<String> = unwell.map(|check| format!("{} is {}: {}", check.cell("name"), check.cell("status"), check.cell("detail"))).collect();
    Err(escape(&format!("{} answers {status}: {}", arguments.path, findings.join("; "))))
}

/// Where the drover of this host listens.
fn own_address(config: Option<&Path>, listen: Option<SocketAddr>) -> Result<Url, String> {
    let path = config.unwrap_or(Path::new(config::DEFAULT_PATH));
    let loaded = config::load(path, &|name: &str| std::env::var(name).ok());
    let (address, has_tls) = match (loaded, listen) {
        (Ok(loaded), listen) => (listen.unwrap_or(loaded.config.listen), loaded.config.tls.is_some()),
        (Err(_), Some(listen)) => (listen, false),
        // A drover that needs no file, such as the demo's, listens on the default.
        (Err(_), None) if config.is_none() && !path.exists() => return server_url(DEFAULT_SERVER),
        (Err(error), None) => return Err(format!("the address is not known: {error}; name it with --server or DROVER_SERVER")),
    };
    server_url(&url_of(address, has_tls))
}

fn url_of(address: SocketAddr, has_tls: bool) -> String {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    let scheme = if has_tls { "https" } else { "http" };
    format!("{scheme}://{}", SocketAddr::new(ip, address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_address_is_asked_at_loopback() {
        for (listen, has_tls, expected) in [
            ("0.0.0.0:8080", false, "http://127.0.0.1:8080"),
            ("[::]:8080", true, "https://[::1]:8080"),
            ("10.0.0.7:80", false, "http://10.0.0.7:80"),
        ] {
            assert_eq!(url_of(listen.parse().expect("an address"), has_tls), expected);
        }
    }

    #[test]
    fn the_configuration_says_the_address_and_listen_wins() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config.yaml");
        std::fs::write(&path, "listen: 127.0.0.1:9999\nkafka: {brokers: ['127.0.0.1:1']}\nelasticsearch: {urls: ['http://127.0.0.1:1']}\n")
            .expect("a file");
        let shown = |listen: Option<&str>, path: &Path| {
            own_address(Some(path), listen.map(|text| text.parse().expect("an address"))).map(|url| url.to_string())
        };
        assert_eq!(shown(None, &path), Ok("http://127.0.0.1:9999/".to_owned()));
        assert_eq!(shown(Some("0.0.0.0:1234"), &path), Ok("http://127.0.0.1:1234/".to_owned()));
        assert!(shown(None, &folder.path().join("none.yaml")).is_err());
    }
}

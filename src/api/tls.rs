//! The certificate and the key of the API, read again while drover runs.
//!
//! Guarantees that a connection is greeted with the pair that was read last and could be used; that a pair which is broken, gone or does not belong together changes nothing, and the instance's warnings say so; that
//! connections which are open stay as they are. Owns nothing of the files' form: that is [`crate::config::tls`]'s.

use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::TlsConfig;
use crate::config::tls::{self, LoadedTls, TlsError};

/// How often the files' content is compared.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// The pair in force, and how reading its files goes.
#[derive(Debug, Clone)]
pub struct TlsView {
    /// What greets a new connection.
    pub server: Arc<ServerConfig>,
    /// Why the files cannot be used now; the pair is that of before. For people.
    pub error: Option<String>,
    content_hash: String,
}

impl TlsView {
    fn new(loaded: LoadedTls) -> Self {
        Self { server: Arc::new(loaded.server), error: None, content_hash: loaded.content_hash }
    }

    /// Takes the result of one reading; whether anything is different.
    fn apply(&mut self, result: Result<LoadedTls, TlsError>) -> bool {
        match result {
            Ok(loaded) if loaded.content_hash == self.content_hash => self.error.take().is_some(),
            Ok(loaded) => {
                *self = Self::new(loaded);
                true
            }
            Err(error) => {
                let told = Some(error.to_string());
                let is_same = self.error == told;
                self.error = told;
                !is_same
            }
        }
    }
}

/// Watches the two files: a hash of their content decides whether they are new, whichever way they were changed.
#[derive(Debug)]
pub struct TlsFiles {
    config: TlsConfig,
    out: watch::Sender<TlsView>,
}

impl TlsFiles {
    /// Reads the files for the first time.
    pub fn open(config: TlsConfig) -> Result<(Self, watch::Receiver<TlsView>), TlsError> {
        let (out, views) = watch::channel(TlsView::new(tls::load(&config)?));
        Ok((Self { config, out }, views))
    }

    /// Reads the files again and again until cancelled.
    pub async fn run(&self, cancel: CancellationToken) {
        let mut ticks = tokio::time::interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = ticks.tick() => self.read_again(),
            }
        }
    }

    fn read_again(&self) {
        let result = tls::load(&self.config);
        let is_different = self.out.send_if_modified(|view| view.apply(result));
        // Trouble is one of the instance's warnings, and told with them.
        if is_different && self.out.borrow().error.is_none() {
            tracing::info!(cert_file = %self.config.cert_file.display(), "the certificate and its key are read again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &str = include_str!("../../tests/it/golden/tls/cert.pem");
    const KEY: &str = include_str!("../../tests/it/golden/tls/key.pem");
    const OTHER_CERTIFICATE: &str = include_str!("../../tests/it/golden/tls/other-cert.pem");
    const OTHER_KEY: &str = include_str!("../../tests/it/golden/tls/other-key.pem");

    #[test]
    fn a_pair_that_breaks_or_goes_while_it_runs_changes_nothing_and_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = TlsConfig { cert_file: folder.path().join("cert.pem"), key_file: folder.path().join("key.pem") };
        let write = |certificate: &str, key: &str| {
            std::fs::write(&config.cert_file, certificate).expect("a file");
            std::fs::write(&config.key_file, key).expect("a file");
        };
        write(CERTIFICATE, KEY);
        let (files, views) = TlsFiles::open(config.clone()).expect("a pair");
        let first = views.borrow().server.clone();
        let is_first = || Arc::ptr_eq(&first, &views.borrow().server);
        let error = || views.borrow().error.clone().unwrap_or_default();
        files.read_again();
        assert!(is_first() && error().is_empty());

        for (certificate, key, told) in [
            (OTHER_CERTIFICATE, KEY, "the key cannot be used"),
            (CERTIFICATE, OTHER_KEY, "the key cannot be used"),
            ("", KEY, "holds no certificate"),
            (&CERTIFICATE[..CERTIFICATE.len() / 2], KEY, "the certificate cannot be used"),
            (CERTIFICATE, &KEY[..KEY.len() / 2], "holds no private key"),
        ] {
            write(certificate, key);
            files.read_again();
            assert!(is_first() && error().contains(told), "{told}: {}", error());
        }
        std::fs::remove_file(&config.key_file).expect("a file");
        files.read_again();
        assert!(is_first() && error().contains("cannot be read"), "{}", error());

        // The same content as before the trouble ends the trouble, and another pair that fits is taken.
        write(CERTIFICATE, KEY);
        files.read_again();
        assert!(is_first() && error().is_empty(), "{}", error());
        write(OTHER_CERTIFICATE, OTHER_KEY);
        files.read_again();
        assert!(!is_first() && error().is_empty(), "{}", error());
    }
}

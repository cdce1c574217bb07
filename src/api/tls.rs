//! The certificate and the key of the API, read again while drover runs.
//!
//! Guarantees that a connection is greeted with the pair that was read last and could be used; that a pair which is broken, gone or does not belong together changes nothing, and the instance's warnings say so; that
//! connections which are open stay as they are. Owns nothing of the files' form, which is [`crate::config::tls`]'s, nor of the reading, which is [`super::reread`]'s.

use rustls::ServerConfig;
use tokio::sync::watch;

use super::reread::{Reading, Reread, View};
use crate::config::TlsConfig;
use crate::config::tls::{self, LoadedTls, TlsError};

/// What greets a new connection.
pub type TlsView = View<ServerConfig>;

/// Reads both files for the first time.
pub fn tls_files(config: TlsConfig) -> Result<(Reread<ServerConfig>, watch::Receiver<TlsView>), TlsError> {
    let first = reading(tls::load(&config)?);
    Ok(Reread::after(first, "the certificate and its key", move || tls::load(&config).map(reading).map_err(|error| error.to_string())))
}

fn reading(loaded: LoadedTls) -> Reading<ServerConfig> {
    Reading { value: loaded.server, content_hash: loaded.content_hash }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

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
        let (files, views) = tls_files(config.clone()).expect("a pair");
        let first = views.borrow().value.clone();
        let is_first = || Arc::ptr_eq(&first, &views.borrow().value);
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

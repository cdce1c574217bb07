//! The certificate and the key of the API's TLS, from their files to what a server needs.
//!
//! Guarantees TLS 1.2 or 1.3 with rustls' own choice of suites, HTTP/1.1 as the only protocol, and that the key belongs to the certificate. Nothing of a key is ever in an error. Client certificates are not asked for: who
//! asks is told by tokens. Does not look at the files again: that is [`crate::api::tls_files`]'s.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::tokens::hash;
use super::{TlsConfig, read_regular_file};

/// Bytes of one of the files; a chain has some ten kilobytes.
const MAX_BYTES: u64 = 1 << 20;

/// Why the files make no server; each says what is wrong, for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The certificate's file cannot be used.
    #[error("the certificate cannot be used: {0}")]
    Certificate(String),
    /// The key's file cannot be used, or the key is not the certificate's.
    #[error("the key cannot be used: {0}")]
    Key(String),
}

/// The two files, read.
#[derive(Debug)]
pub struct LoadedTls {
    /// What a server needs.
    pub server: ServerConfig,
    /// SHA-256 of both files' bytes, in hexadecimal.
    pub content_hash: String,
}

/// Reads both files.
pub fn load(config: &TlsConfig) -> Result<LoadedTls, TlsError> {
    let certificate_pem = read(&config.cert_file).map_err(TlsError::Certificate)?;
    let key_pem = read(&config.key_file).map_err(TlsError::Key)?;
    let chain = certificates(&config.cert_file, &certificate_pem).map_err(TlsError::Certificate)?;
    let key = key(&config.key_file, &key_pem).map_err(TlsError::Key)?;
    // A hash of hashes: bytes that move from one file to the other are not the same content.
    let content_hash = hash([hash(&certificate_pem), hash(&key_pem)].concat().as_bytes());
    Ok(LoadedTls { server: server(chain, key)?, content_hash })
}

fn server(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = versions.map_err(|error| TlsError::Certificate(error.to_string()))?.with_no_client_auth();
    let mut server = builder.with_single_cert(chain, key).map_err(|error| TlsError::Key(error.to_string()))?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(server)
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|error| format!("{} is no PEM file ({error})", path.display()))?;
    if chain.is_empty() { Err(format!("{} holds no certificate in PEM form", path.display())) } else { Ok(chain) }
}

fn key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    // The parser's own error may hold a piece of the file.
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| format!("{} holds no private key in PEM form without a passphrase", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    read_regular_file(path, MAX_BYTES).map_err(|error| format!("{} cannot be read: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &str = include_str!("../../tests/it/golden/tls/cert.pem");
    const KEY: &str = include_str!("../../tests/it/golden/tls/key.pem");
    const OTHER_KEY: &str = include_str!("../../tests/it/golden/tls/other-key.pem");

    fn made(certificate: &str, key: &str) -> Result<(), TlsError> {
        let folder = tempfile::tempdir().expect("a folder");
        let config = TlsConfig { cert_file: folder.path().join("cert.pem"), key_file: folder.path().join("key.pem") };
        std::fs::write(&config.cert_file, certificate).expect("a file");
        std::fs::write(&config.key_file, key).expect("a file");
        load(&config).map(|loaded| assert_eq!(loaded.server.alpn_protocols, [b"http/1.1"]))
    }

    #[test]
    fn each_wrong_file_is_told_apart_without_the_key() {
        assert_eq!(made(CERTIFICATE, KEY), Ok(()));
        assert_eq!(made(&format!("a comment\n{CERTIFICATE}{CERTIFICATE}"), KEY), Ok(()), "a chain");
        for certificate in ["", "x", KEY, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", &CERTIFICATE[..CERTIFICATE.len() / 2]] {
            assert!(matches!(made(certificate, KEY), Err(TlsError::Certificate(_))), "{certificate}");
        }
        let half = &KEY[..KEY.len() / 2];
        for key in ["", CERTIFICATE, OTHER_KEY, half, &KEY.replace('M', "!")] {
            let error = made(CERTIFICATE, key).expect_err("wrong");
            assert!(matches!(error, TlsError::Key(_)), "{key}: {error}");
            let secret = KEY.lines().nth(1).expect("the key's first line");
            assert!(!format!("{error:?} {error}").contains(&secret[..16]), "{error}");
        }
    }
}

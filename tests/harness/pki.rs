//! A private certificate authority, what it has signed, and another authority that has signed nothing: made anew by `openssl` for each test process.
//!
//! Guarantees that no key outlives the process. Owns the files; a server that runs as another user gets copies.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use super::process::{RunFolder, User};

/// The authority's certificate.
pub const CA: &str = "ca.pem";
/// The certificate of an authority that signed nothing here.
pub const STRANGER: &str = "stranger.pem";
/// A server's certificate, for 127.0.0.1 and localhost.
pub const SERVER: &str = "server.pem";
/// Its key.
pub const SERVER_KEY: &str = "server-key.pem";
/// A client's certificate, whose common name is [`CLIENT_NAME`].
pub const CLIENT: &str = "client.pem";
/// Its key.
pub const CLIENT_KEY: &str = "client-key.pem";
/// The common name of the client's certificate.
pub const CLIENT_NAME: &str = "drover-client";

/// All files.
#[derive(Debug)]
pub struct Pki {
    folder: RunFolder,
}

/// The one of this process; its folder goes when the process ends.
pub fn pki() -> &'static Pki {
    static PKI: OnceLock<Pki> = OnceLock::new();
    PKI.get_or_init(Pki::make)
}

impl Pki {
    fn make() -> Self {
        let made = Self { folder: RunFolder::new("pki", User::Same) };
        let authority = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign"];
        made.certificate("ca", "private CA", false, &authority);
        made.certificate("stranger", "another CA", false, &authority);
        let server = ["basicConstraints=critical,CA:FALSE", "subjectAltName=IP:127.0.0.1,DNS:localhost", "extendedKeyUsage=serverAuth,clientAuth"];
        made.certificate("server", "server", true, &server);
        made.certificate("client", CLIENT_NAME, true, &["basicConstraints=critical,CA:FALSE", "extendedKeyUsage=clientAuth"]);
        made
    }

    fn certificate(&self, file: &str, name: &str, signed: bool, extensions: &[&str]) {
        let mut command = Command::new("openssl");
        command.current_dir(self.folder.path()).args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ]);
        command.args(["-keyout", &format!("{file}-key.pem"), "-out", &format!("{file}.pem"), "-subj", &format!("/CN={name}")]);
        if signed {
            command.args(["-CA", CA, "-CAkey", "ca-key.pem"]);
        }
        for extension in extensions {
            command.args(["-addext", extension]);
        }
        let output = command.output().unwrap_or_else(|error| panic!("openssl: {error}; run: bash .ci/prerequisites.sh"));
        assert!(output.status.success(), "openssl ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }

    /// Where a file is.
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// What a file holds.
    pub fn read(&self, file: &str) -> String {
        let path = self.path(file);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Copies files into a server's folder, for its user; answers where they are.
    pub fn copy<const N: usize>(&self, files: [&str; N], to: &RunFolder) -> [PathBuf; N] {
        files.map(|file| to.write(file, &self.read(file)))
    }
}

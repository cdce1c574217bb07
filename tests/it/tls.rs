//! The API by TLS: who trusts the certificate gets answers, nobody else gets anything, and who says nothing holds up nobody.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::process::free_port;
use crate::harness::wait::wait_until;

/// Longer than anything here takes when all is well, also on a busy machine.
const SOON: Duration = Duration::from_secs(30);

fn golden(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden/tls").join(name).display().to_string()
}

/// Killed when it is dropped.
struct Running {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn start() -> Self {
        Self::start_with(&golden("cert.pem"), &golden("key.pem"))
    }

    fn start_with(cert_file: &str, key_file: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let config = format!(
            "listen: 0.0.0.0:{port}\nkafka: {{brokers: ['127.0.0.1:1']}}\nelasticsearch: {{urls: ['http://127.0.0.1:1']}}\ntls: {{cert_file: '{cert_file}', key_file: '{key_file}'}}\nhttp: {{header_timeout: 1s}}\nsupervision: {{shutdown_timeout: 5s}}\n"
        );
        fs::write(folder.path().join("config.yaml"), config).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_drover"));
        for name in ["DROVER_CONFIG", "DROVER_LISTEN", "DROVER_LOG", "FAILPOINTS"] {
            command.env_remove(name);
        }
        command.args(["run", "--insecure"]).current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let running = Self { child: command.spawn().expect("the program"), port, folder };
        // Its own probe, as in a container: at loopback, where it looks at no name.
        wait_until("the own probe is well", SOON, || (running.drover(&["healthcheck", "--path", "livez"], None).0 == Some(0)).then_some(()));
        running
    }

    fn drover(&self, arguments: &[&str], authority: Option<&str>) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_drover"));
        for name in ["DROVER_CONFIG", "DROVER_LISTEN", "DROVER_SERVER", "DROVER_TOKEN_FILE", "SSL_CERT_FILE", "SSL_CERT_DIR"] {
            command.env_remove(name);
        }
        command.envs(authority.map(|path| ("SSL_CERT_FILE", path)));
        let output = command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null()).output().expect("the program");
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }
}

#[test]
fn who_trusts_the_certificate_gets_answers_and_nobody_else_gets_anything() {
    let running = Running::start();
    let url = format!("https://localhost:{}", running.port);
    let list = ["topics", "list", "--server", &url];
    let (code, said) = running.drover(&list, Some(&golden("cert.pem")));
    assert!(code == Some(0) && said.contains("NAME"), "{said}");
    let (code, said) = running.drover(&list, None);
    assert!(code == Some(69) && said.contains("certificate"), "{said}");

    // Plain HTTP, and no TLS at all.
    for hello in ["GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n", "\0\0\0\0"] {
        let mut stream = TcpStream::connect(("127.0.0.1", running.port)).expect("connected");
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        stream.write_all(hello.as_bytes()).expect("sent");
        let mut answer = Vec::new();
        // The end may be a reset.
        let _ = stream.read_to_end(&mut answer);
        assert!(!String::from_utf8_lossy(&answer).contains("HTTP/"), "{answer:?}");
    }
}

#[test]
fn a_handshake_that_is_never_made_is_cut_and_holds_up_nobody() {
    let running = Running::start();
    let mut silent = TcpStream::connect(("127.0.0.1", running.port)).expect("connected");
    silent.set_read_timeout(Some(SOON)).expect("a timeout");
    // The head of a TLS record whose rest never comes.
    silent.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00]).expect("sent");
    let since = Instant::now();
    let mut drip = silent.try_clone().expect("a second handle");
    // Byte by byte, so that a timer which began anew with each would never end.
    let dripping = std::thread::spawn(move || {
        let mut is_taken = |_: &u32| {
            std::thread::sleep(Duration::from_millis(50));
            drip.write_all(&[0]).is_ok()
        };
        (0..400_u32).take_while(|number| is_taken(number)).count()
    });
    assert_eq!(running.drover(&["healthcheck", "--path", "livez"], None).0, Some(0));
    let mut rest = Vec::new();
    let ended = silent.read_to_end(&mut rest);
    assert!(ended.is_ok() || ended.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset), "it was not cut");
    let kept_for = since.elapsed();
    // The configuration's header timeout, and then time for a busy machine.
    assert!(kept_for >= Duration::from_millis(900) && kept_for < SOON / 2, "{kept_for:?}");
    assert!(dripping.join().expect("no panic") < 400, "it went on being read");
}

#[test]
fn a_certificate_that_is_renewed_is_used_without_a_restart_and_a_broken_one_changes_nothing() {
    let files = tempfile::tempdir().expect("a folder");
    let path = |name: &str| files.path().join(name).display().to_string();
    let replace = |name: &str, source: &str| {
        // As a renewal does: another file in place of the old one.
        let next = path("next");
        fs::copy(golden(source), &next).expect("a file");
        fs::rename(next, path(name)).expect("a rename in our folder");
    };
    replace("cert.pem", "cert.pem");
    replace("key.pem", "key.pem");
    let running = Running::start_with(&path("cert.pem"), &path("key.pem"));
    let url = format!("https://localhost:{}", running.port);
    let is_trusted = |authority: &str| running.drover(&["topics", "list", "--server", &url], Some(&golden(authority))).0 == Some(0);
    let warnings = || {
        let (_, said) = running.drover(&["status", "--server", &url, "-o", "json"], Some(&golden("cert.pem")));
        said.contains("TLS files cannot be used")
    };
    assert!(is_trusted("cert.pem") && !is_trusted("other-cert.pem") && !warnings());

    // A certificate whose key is not there yet, then a file that is cut off: the old pair stays, and it is told.
    replace("cert.pem", "other-cert.pem");
    wait_until("the pair that does not fit is told", SOON, || warnings().then_some(()));
    assert!(is_trusted("cert.pem"));
    fs::write(path("cert.pem"), "-----BEGIN CERTIFICATE-----\nMIIB").expect("a file");
    wait_until("the pair still is told", SOON, || warnings().then_some(()));
    assert!(is_trusted("cert.pem"));

    // The renewal's end: the new pair is in force, and only that.
    replace("cert.pem", "other-cert.pem");
    replace("key.pem", "other-key.pem");
    wait_until("the new certificate is in force", SOON, || is_trusted("other-cert.pem").then_some(()));
    assert!(!is_trusted("cert.pem"));
}

//! A blocking HTTP client for tests; works in plain tests and inside an asynchronous one.

use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use reqwest::header::HeaderMap;
use serde_json::Value;

/// Longer than any request of the tests takes when all is well.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What a server answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON. Panics with the body when it is not.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("status {}, not JSON ({error}): {}", self.status, self.text()))
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// This answer, when its status is 2xx. Panics with the body when not.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!((200..300).contains(&self.status), "status {}: {}", self.status, self.text());
        self
    }
}

struct Client {
    runtime: tokio::runtime::Runtime,
    http: reqwest::Client,
}

fn client() -> &'static Client {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    CLIENT.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        // The servers with TLS are our own; whether their certificates are looked at is asked of drover, not of the harness.
        let http = reqwest::Client::builder()
            .danger_accept_invalid_certs(true)
            .timeout(TIMEOUT)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("a client");
        Client { runtime, http }
    })
}

/// One request. The error is the client's text: not connected, reset, timed out.
pub fn send(method: &str, url: &str, headers: &[(&str, &str)], body: Option<Vec<u8>>) -> Result<Answer, String> {
    let client = client();
    let method = method.parse().expect("an HTTP method");
    let mut request = client.http.request(method, url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(body) = body {
        request = request.body(body);
    }
    let (sender, receiver) = mpsc::channel();
    client.runtime.spawn(async move {
        let _ = sender.send(exchange(request).await.map_err(|error| format!("{error:?}")));
    });
    receiver.recv().expect("the request's task answers")
}

async fn exchange(request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
    let response = request.send().await?;
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let body = response.bytes().await?.to_vec();
    Ok(Answer { status, headers, body })
}

/// One request with a JSON body.
pub fn send_json(method: &str, url: &str, body: Option<&Value>) -> Result<Answer, String> {
    match body {
        Some(body) => send(method, url, &[("content-type", "application/json")], Some(body.to_string().into_bytes())),
        None => send(method, url, &[], None),
    }
}

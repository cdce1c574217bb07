//! The status page: its files out of the binary, and the page itself with the topics of this moment in it.
//!
//! Guarantees: whoever asks for `text/html` gets a page that shows verdict, causes and topics without any script, in English or Chinese; everybody else gets the list of paths. No text from
//! outside reaches the page unescaped, and nothing on it runs or loads that is not one of the files here. Files are under a name that changes with any of them, so that no cache serves a
//! file of another version. Owns the table of files. Does not change anything: the page's script uses the same API as everybody.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::LazyLock;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use sha2::{Digest as _, Sha256};

use super::auth::Caller;
use super::health::{self, Check, HealthReport};
use super::problem::ApiError;
use super::{ApiState, ProblemCode, Shared, document, text, topics};
use crate::status::{Health, Reason, Snapshot, TaskState, Topic};

/// What the page may load and do: only its own files, and only this server. `web/tests/fixture/server.js` sends the same.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
/// Topics that the page shows without script; a longer table is of no use to a reader, and a burden to the server.
const MAX_TOPICS: usize = 1000;

const PAGE: &str = include_str!("../../web/index.html");

macro_rules! files {
    ($($path:literal)*) => {
        &[$(($path, include_bytes!(concat!("../../web/", $path)).as_slice())),*]
    };
}

/// Every file that is served, by its path in `web/`.
const FILES: &[(&str, &[u8])] = files![
    "i18n/en.json"
    "i18n/zh-CN.json"
    "icons/favicon.svg"
    "icons/icons.svg"
    "src/api.js"
    "src/boot.js"
    "src/fields.js"
    "src/i18n.js"
    "src/lines.js"
    "src/listing.js"
    "src/main.js"
    "src/payload.js"
    "src/settings.js"
    "src/shortcuts.js"
    "src/store.js"
    "src/stream.js"
    "src/token.js"
    "src/verdict.js"
    "src/view/dialog.js"
    "src/view/help.js"
    "src/view/letters.js"
    "src/view/page.js"
    "src/view/parts.js"
    "src/view/pause.js"
    "src/view/preview.js"
    "src/view/remove.js"
    "src/view/token.js"
    "src/view/topic_detail.js"
    "src/view/topic_form.js"
    "src/view/topics.js"
    "src/view/verdict.js"
    "styles/page.css"
    "vendor/LICENSE-htm"
    "vendor/LICENSE-preact"
    "vendor/preact.js"
];

/// The folder of the files: modules import each other by relative paths, so one name for all of them is enough to change all their addresses at once.
static FOLDER: LazyLock<String> = LazyLock::new(|| {
    let mut hash = Sha256::new();
    for (path, bytes) in FILES {
        hash.update(format!("{path} {}\n", bytes.len()));
        hash.update(bytes);
    }
    hex(&hash.finalize())
});

fn hex(digest: &[u8]) -> String {
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The page and its files.
pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/", get(get_page)).route("/assets/{folder}/{*path}", get(get_file))
}

/// The page for browsers, the paths for everybody else.
async fn get_page(State(state): State<Shared>, uri: Uri, headers: HeaderMap, caller: Option<Extension<Caller>>) -> Response {
    if !wants_html(&headers) {
        let mut response = super::index().await.into_response();
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
        return response;
    }
    let words = Words::preferred(&uri, &headers);
    // A browser sends no token when it loads a page; the page's script asks for one and sends it with each of its requests.
    let is_locked = state.tokens.is_some() && caller.is_none();
    let page = render(&state, &words, is_locked);
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-cache"),
        (header::VARY, "accept, accept-language"),
        (header::CONTENT_LANGUAGE, words.tag),
    ];
    tagged(&headers, "text/html; charset=utf-8", &fixed, page.into_bytes())
}

async fn get_file(Path((folder, path)): Path<(String, String)>, headers: HeaderMap) -> Result<Response, ApiError> {
    let found = FILES.iter().find(|(name, _)| *name == path && folder == *FOLDER);
    let Some((name, bytes)) = found else {
        return Err(ApiError::new(ProblemCode::NotFound, "this version of drover has no such file; load the page again"));
    };
    let fixed = [(header::CACHE_CONTROL, "public, max-age=31536000, immutable")];
    Ok(tagged(&headers, media_type(name), &fixed, bytes.to_vec()))
}

/// An answer with a strong tag, or 304 when the client has it.
fn tagged(headers: &HeaderMap, media_type: &str, fixed: &[(HeaderName, &str)], body: Vec<u8>) -> Response {
    let etag = format!("\"{}\"", hex(&Sha256::digest(&body)));
    let mut response = if document::is_known(headers, &etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, media_type.to_owned())], body).into_response()
    };
    let tag = [(header::ETAG, etag.as_str())];
    for (name, value) in fixed.iter().cloned().chain(tag) {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn media_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("json") => "application/json",
        Some("svg") => "image/svg+xml",
        _ => text::PLAIN,
    }
}

/// Whether the client names `text/html`, as browsers do; curl's `*/*` does not.
fn wants_html(headers: &HeaderMap) -> bool {
    let mut ranges = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    ranges.any(|range| {
        let mut parts = range.split(';').map(|part| part.trim().to_ascii_lowercase());
        let is_html = parts.next().is_some_and(|name| name == "text/html");
        let is_refused = |part: String| part.strip_prefix("q=").and_then(|quality| quality.parse::<f32>().ok()) == Some(0.0);
        is_html && !parts.any(is_refused)
    })
}

/// The words of a language: the same file as the page's script uses.
struct Words {
    tag: &'static str,
    texts: &'static BTreeMap<String, String>,
}

static ENGLISH: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| texts("i18n/en.json"));
static CHINESE: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| texts("i18n/zh-CN.json"));

/// A dictionary; a test checks that it can be read.
fn texts(path: &str) -> BTreeMap<String, String> {
    let bytes = FILES.iter().find(|(name, _)| *name == path).map_or(&[][..], |(_, bytes)| *bytes);
    serde_json::from_slice(bytes).unwrap_or_default()
}

impl Words {
    /// `?lang=`, else the first language of the client's that there is.
    fn preferred(uri: &Uri, headers: &HeaderMap) -> Self {
        let asked = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.strip_prefix("lang="));
        let accepted = headers.get_all(header::ACCEPT_LANGUAGE).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
        for tag in asked.chain(accepted) {
            let language = tag.trim().split(['-', ';', '_']).next().unwrap_or_default().to_ascii_lowercase();
            match language.as_str() {
                "zh" => return Self { tag: "zh-CN", texts: &CHINESE },
                "en" => return Self::english(),
                _ => {}
            }
        }
        Self::english()
    }

    fn english() -> Self {
        Self { tag: "en", texts: &ENGLISH }
    }

    /// The text of a key, ready for the page; the key itself where there is none.
    fn text(&self, key: &str) -> String {
        html(self.texts.get(key).map_or(key, String::as_str))
    }

    /// The same with `{name}` replaced.
    fn with(&self, key: &str, values: &[(&str, &str)]) -> String {
        values.iter().fold(self.text(key), |text, (name, value)| text.replace(&format!("{{{name}}}"), &html(value)))
    }

    /// What the server calls `word`, in the reader's words where there are any.
    fn term(&self, prefix: &str, word: &str) -> String {
        self.texts.get(&format!("{prefix}.{word}")).map_or_else(|| html(word), |text| html(text))
    }
}

/// Text as HTML, in element content and in quoted attributes.
fn html(raw: &str) -> String {
    let mut escaped = String::with_capacity(raw.len() + 8);
    for character in text::escape(raw).chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// The template with each `{{name}}` replaced, in one pass: what is put in is never looked at again.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let (name, behind) = after.split_once("}}").unwrap_or((after, ""));
        out.push_str(values.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value));
        rest = behind;
    }
    out.push_str(rest);
    out
}

fn render(state: &ApiState, words: &Words, is_locked: bool) -> String {
    let assets = format!("/assets/{}", *FOLDER);
    let page = Drawing { words, assets: &assets };
    let (title, content) = if is_locked {
        ("drover".to_owned(), page.locked())
    } else {
        let snapshot = state.now();
        let report = health::overall(&snapshot);
        (format!("{} · drover", words.term("health", document::health_name(report.status))), page.content(state, &snapshot, &report))
    };
    let version = html(&state.info.version);
    let preloads = preloads(&assets);
    let values = [("lang", words.tag), ("version", &version), ("title", &title), ("assets", &assets), ("preloads", &preloads), ("content", &content)];
    fill(PAGE, &values)
}

/// Modules name each other one after the other; told of all at once, a browser far away waits for one round trip and not for four.
fn preloads(assets: &str) -> String {
    let modules = FILES.iter().map(|(path, _)| *path).filter(|path| path.ends_with(".js") && *path != "src/boot.js");
    let links: Vec<String> = modules.map(|path| format!("    <link rel=\"modulepreload\" href=\"{assets}/{path}\">")).collect();
    links.join("\n")
}

/// What is wrong. What many topics suffer from is named once; the table has each topic's own reason.
fn causes(report: &HealthReport) -> Vec<&Check> {
    let mut said = BTreeSet::new();
    let is_wrong = report.checks.iter().filter(|check| check.status != Health::Ok);
    is_wrong.filter(|check| said.insert(&check.detail) || !check.name.starts_with("topic/")).collect()
}

/// Draws the page without script. Every method returns HTML.
struct Drawing<'a> {
    words: &'a Words,
    assets: &'a str,
}

impl Drawing<'_> {
    /// The page for whoever has shown no token: nothing of the instance.
    fn locked(&self) -> String {
        format!(
            "<header class=\"bar\"><h1>drover</h1></header>\n<main>\n<noscript><div class=\"banner\"><p>{}</p></div></noscript>\n<p>{}</p>\n</main>",
            self.words.text("no_script.token"),
            self.words.text("token.needed")
        )
    }

    fn content(&self, state: &ApiState, snapshot: &Snapshot, report: &HealthReport) -> String {
        let words = self.words;
        let health_name = document::health_name(report.status);
        let causes: String = causes(report).into_iter().map(|check| self.cause(check)).collect();
        let taken_at = format!("{:.0}", snapshot.taken_at);
        format!(
            "<header class=\"bar\"><h1>drover <span class=\"instance\"><bdi>{instance}</bdi></span></h1></header>\n\
             <main>\n\
             <noscript><div class=\"banner\"><p>{no_script}</p></div></noscript>\n\
             <section class=\"verdict is-{health_name}\" aria-labelledby=\"verdict\">\n\
             <h2 id=\"verdict\">{icon}{verdict} <span class=\"gist\">{gist}</span></h2>\n\
             <ul class=\"causes\">{causes}</ul>\n\
             <p class=\"aside\">{as_of}</p>\n\
             </section>\n\
             <section aria-labelledby=\"topics\"><div class=\"section-head\"><h2 id=\"topics\">{topics_title}</h2></div>\n{table}</section>\n\
             </main>\n\
             <footer>drover <bdi>{version}</bdi> · <a href=\"/openapi.json\">{api}</a> · <a href=\"/metrics\">{metrics}</a> · <a href=\"/healthz?verbose\">{checks}</a></footer>",
            instance = html(&state.info.instance),
            no_script = words.text("no_script"),
            icon = self.icon(health_name),
            verdict = words.term("health", health_name),
            gist = words.text(&format!("verdict.{health_name}")),
            as_of = words.with("topics.as_of", &[("time", &taken_at)]),
            topics_title = words.text("topics"),
            table = self.table(&snapshot.topics),
            version = html(&state.info.version),
            api = words.text("footer.api"),
            metrics = words.text("footer.metrics"),
            checks = words.text("footer.health"),
        )
    }

    fn icon(&self, name: &str) -> String {
        format!("<svg class=\"icon\" aria-hidden=\"true\"><use href=\"{}/icons/icons.svg#{}\"/></svg>", self.assets, html(name))
    }

    fn cause(&self, check: &Check) -> String {
        let health_name = document::health_name(check.status);
        let (kind, subject) = check.name.split_once('/').unwrap_or((&check.name, ""));
        let title = match kind {
            "tasks" if !subject.is_empty() => self.words.term("reason", subject),
            _ => format!("{} <bdi>{}</bdi>", self.words.term("cause", kind), html(subject)),
        };
        let mut item = format!("<li class=\"is-{health_name}\">{}<div><strong>{title}</strong>", self.icon(health_name));
        if let Some(detail) = &check.detail {
            let _ = write!(item, "<br><bdi>{}</bdi>", html(detail));
        }
        if let Some(remedy) = &check.remedy {
            item.push_str(&self.remedy(remedy));
        }
        item.push_str("</div></li>\n");
        item
    }

    fn remedy(&self, remedy: &str) -> String {
        format!("<br><span class=\"remedy\">{} <bdi>{}</bdi></span>", self.words.text("remedy"), html(remedy))
    }

    fn table(&self, all: &[Topic]) -> String {
        let words = self.words;
        if all.is_empty() {
            return format!("<div class=\"empty\"><p><strong>{}</strong></p></div>\n", words.text("empty.none"));
        }
        let columns = [
            ("state", ""),
            ("name", ""),
            ("tasks", "number"),
            ("lag", "number"),
            ("behind", "number"),
            ("rate", "number"),
            ("restarts", "number"),
            ("dead_letters", "number"),
            ("index", "index"),
        ];
        let mut table = format!(
            "<div class=\"scroll\" role=\"region\" aria-label=\"{}\" tabindex=\"0\"><table id=\"topics-table\"><caption class=\"only-read\">{}</caption>\n<thead><tr>",
            words.text("topics.table"),
            words.text("topics.caption")
        );
        for (column, class) in columns {
            let _ = write!(table, "<th scope=\"col\" class=\"{class}\">{}</th>", words.text(&format!("column.{column}")));
        }
        table.push_str("</tr></thead>\n");
        for topic in all.iter().take(MAX_TOPICS) {
            table.push_str(&self.topic(topic));
        }
        table.push_str("</table></div>\n");
        if let Some(more) = all.len().checked_sub(MAX_TOPICS).filter(|more| *more > 0) {
            let _ = writeln!(table, "<p class=\"aside\">{}</p>", words.with("cause.more", &[("count", &more.to_string())]));
        }
        table
    }

    fn topic(&self, topic: &Topic) -> String {
        let status = &topic.status;
        let running = status.tasks.get(TaskState::Running.as_str()).copied().unwrap_or(0);
        let is_known = status.partitions > 0;
        let tasks = is_known.then(|| self.words.with("of", &[("some", &running.to_string()), ("all", &status.partitions.to_string())]));
        let mut kinds: Vec<&str> = topic.sources.iter().map(|source| topics::source_kind(source.kind)).collect();
        kinds.dedup();
        let badges: String = kinds.iter().map(|kind| format!("<span class=\"badge\">{}</span>", self.words.term("source", kind))).collect();
        let numbers = [
            self.number(tasks),
            self.number(status.lag.map(|lag| lag.to_string())),
            self.number(status.lag_seconds.map(|seconds| format!("{seconds:.0} s"))),
            format!("{:.1}", status.records_per_second),
            status.restarts_total.to_string(),
            status.dead_lettered_total.to_string(),
        ];
        let numbers: String = numbers.iter().map(|cell| format!("<td class=\"number\">{cell}</td>")).collect();
        let mut row = format!(
            "<tbody><tr><td><span class=\"state is-{health}\">{icon}{state}</span></td>\
             <th scope=\"row\" class=\"name\"><a href=\"/api/v1/tasks?topic={name}\"><bdi>{name}</bdi></a>{badges}</th>{numbers}<td class=\"index\"><bdi>{index}</bdi></td></tr>\n",
            health = document::health_name(status.health),
            icon = self.icon(status.state.as_str()),
            state = self.words.term("state", status.state.as_str()),
            name = html(topic.name.as_str()),
            index = html(topic.spec.index.as_str()),
        );
        if let Some(reason) = &status.reason {
            let _ = writeln!(row, "<tr class=\"why\"><td colspan=\"9\">{}</td></tr>", self.reason(reason));
        }
        row.push_str("</tbody>\n");
        row
    }

    /// What is not known is not 0.
    fn number(&self, value: Option<String>) -> String {
        value.unwrap_or_else(|| {
            let unknown = self.words.text("unknown");
            format!(
                "<span class=\"unknown\" title=\"{unknown}\"><span aria-hidden=\"true\">–</span><span class=\"only-read\">{unknown}</span></span>"
            )
        })
    }

    fn reason(&self, reason: &Reason) -> String {
        let title = self.words.term("reason", reason.code.as_str());
        let since = format!("{:.0}", reason.since_at);
        let remedy = if reason.remedy.is_empty() { String::new() } else { self.remedy(&reason.remedy) };
        format!(
            "<p class=\"reason\"><strong>{title}</strong> · <time datetime=\"{since}\">{since}</time><br><bdi>{}</bdi>{remedy}</p>",
            html(&reason.message)
        )
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path as FilePath, PathBuf};
    use std::sync::Arc;

    use axum::body::Body;
    use axum::http::Request;
    use proptest::prelude::*;
    use tokio::sync::watch;

    use super::super::tests::{Answer, send, state};
    use super::*;

    const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

    async fn ask(state: &ApiState, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().uri(path).header("host", "localhost:8080");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        send(state, request.body(Body::empty()).expect("a request")).await
    }

    fn web() -> PathBuf {
        FilePath::new(env!("CARGO_MANIFEST_DIR")).join("web")
    }

    fn files_below(folder: &FilePath, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                files_below(&path, found);
            } else {
                found.insert(path.strip_prefix(web()).expect("below").to_str().expect("UTF-8").to_owned());
            }
        }
    }

    #[tokio::test]
    async fn a_browser_gets_the_page_and_curl_the_paths() {
        for (accept, is_page) in [
            (BROWSER, true),
            ("text/html", true),
            ("TEXT/HTML;q=0.1", true),
            ("*/*", false),
            ("text/*", false),
            ("application/json", false),
            ("text/html;q=0, */*", false),
        ] {
            let answer = ask(&state(), "/", &[("accept", accept)]).await;
            assert_eq!(answer.status, StatusCode::OK, "{accept}");
            assert_eq!(answer.header("content-type").starts_with("text/html"), is_page, "{accept}");
            assert!(answer.header("vary").starts_with("accept"), "a cache must not give one to who wants the other");
        }
        assert!(ask(&state(), "/", &[]).await.text().contains("/api/v1/topics"));
    }

    #[tokio::test]
    async fn the_page_shows_topics_without_a_script() {
        let answer = ask(&state(), "/", &[("accept", BROWSER)]).await;
        let snapshot = state().now();
        assert!(!snapshot.topics.is_empty());
        for topic in &snapshot.topics {
            assert!(answer.text().contains(&format!("<bdi>{}</bdi>", topic.name)), "{}", topic.name);
        }
        assert!(answer.text().contains("<html lang=\"en\">"));
        assert!(!answer.text().contains("{{"), "a place of the template is not filled");
    }

    #[tokio::test]
    async fn the_reader_chooses_the_language() {
        for (query, accepted, tag) in [
            ("", "", "en"),
            ("", "zh-CN,zh;q=0.9,en;q=0.8", "zh-CN"),
            ("", "de, zh-TW;q=0.5", "zh-CN"),
            ("?lang=en", "zh", "en"),
            ("?lang=zh-CN", "en", "zh-CN"),
            ("?lang=<b>", "fr", "en"),
        ] {
            let answer =
                ask(&state(), &format!("/{}", query.replace('<', "%3C").replace('>', "%3E")), &[("accept", BROWSER), ("accept-language", accepted)])
                    .await;
            assert_eq!(answer.header("content-language"), tag, "{query} {accepted}");
            assert!(answer.text().contains(&format!("<html lang=\"{tag}\">")), "{query} {accepted}");
        }
    }

    #[tokio::test]
    async fn text_from_outside_is_never_markup() {
        let nasty = "<script>alert(1)</script>\"'&{{content}}\u{202e}\u{0}";
        let mut snapshot = Snapshot::clone(&state().now());
        for topic in &mut snapshot.topics {
            let reason =
                Reason { code: crate::status::ReasonCode::Crashed, message: nasty.to_owned(), remedy: nasty.to_owned(), since_at: snapshot.taken_at };
            topic.status.health = Health::Degraded;
            topic.status.reason = Some(reason);
        }
        let state = ApiState { snapshot: watch::channel(Arc::new(snapshot)).1, ..state() };
        let answer = ask(&state, "/", &[("accept", BROWSER)]).await;
        assert!(answer.text().contains("&lt;script&gt;alert(1)"), "{}", answer.text());
        assert!(!answer.text().contains("<script>"));
        assert!(answer.text().contains("{{content}}"), "what was put in is not a place of the template");
        assert!(!answer.text().contains('\u{202e}'));
    }

    #[tokio::test]
    async fn nothing_runs_or_loads_but_the_files_here() {
        let answer = ask(&state(), "/", &[("accept", BROWSER)]).await;
        assert_eq!(answer.header("content-security-policy"), POLICY);
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        let page = answer.text();
        for forbidden in [" style=", "<style", " onclick", "javascript:"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        let mut loaded = 0;
        for part in page.split(['"', '#']).filter(|part| part.starts_with("/assets/")) {
            let file = ask(&state(), part, &[]).await;
            assert_eq!(file.status, StatusCode::OK, "{part}");
            loaded += 1;
        }
        assert!(loaded >= 4, "style, icon and scripts");
        for (path, bytes) in FILES.iter().filter(|(path, _)| !path.contains("LICENSE")) {
            let text = std::str::from_utf8(bytes).expect("UTF-8").replace("http://www.w3.org/", "");
            assert!(!text.contains("http://") && !text.contains("https://"), "{path} names another server");
        }
    }

    #[tokio::test]
    async fn files_are_cached_for_ever_and_an_old_name_is_gone() {
        let path = format!("/assets/{}/src/main.js", *FOLDER);
        let answer = ask(&state(), &path, &[]).await;
        assert_eq!(answer.header("content-type"), "text/javascript; charset=utf-8");
        assert!(answer.header("cache-control").contains("immutable"));
        let etag = answer.header("etag").to_owned();
        assert!(etag.starts_with('"'), "strong: {etag}");
        let again = ask(&state(), &path, &[("if-none-match", &etag)]).await;
        assert_eq!(again.status, StatusCode::NOT_MODIFIED);
        assert!(again.body.is_empty());

        let of_this_version = ["src/none.js", "../Cargo.toml", "src/../../Cargo.toml", ""].map(|path| format!("/assets/{}/{path}", *FOLDER));
        for path in of_this_version.into_iter().chain(["/assets/0123456789abcdef/src/main.js".to_owned()]) {
            let gone = ask(&state(), &path, &[]).await;
            assert_eq!(gone.status, StatusCode::NOT_FOUND, "{path}");
            assert_eq!(gone.header("cache-control"), "no-store", "{path}: a later version may have it");
        }
    }

    #[tokio::test]
    async fn an_unchanged_page_is_not_sent_again() {
        let state = state();
        let etag = ask(&state, "/", &[("accept", BROWSER)]).await.header("etag").to_owned();
        let again = ask(&state, "/", &[("accept", BROWSER), ("if-none-match", &etag)]).await;
        assert_eq!(again.status, StatusCode::NOT_MODIFIED);
        let chinese = ask(&state, "/", &[("accept", BROWSER), ("accept-language", "zh"), ("if-none-match", &etag)]).await;
        assert_eq!(chinese.status, StatusCode::OK);
    }

    #[test]
    fn an_outage_that_every_topic_suffers_from_is_named_once() {
        let check = |name: &str, detail: &str| Check {
            name: name.to_owned(),
            status: Health::Degraded,
            detail: Some(detail.to_owned()),
            remedy: None,
            since_at: None,
        };
        let checks = vec![
            check("component/kafka", "no broker answers"),
            check("component/sink", "no broker answers"),
            check("topic/a", "no broker answers"),
            check("topic/b", "no such topic"),
            Check { status: Health::Ok, ..check("topic/c", "well") },
        ];
        let report = HealthReport { status: Health::Degraded, checks };
        let named: Vec<&str> = causes(&report).iter().map(|check| check.name.as_str()).collect();
        assert_eq!(named, ["component/kafka", "component/sink", "topic/b"]);
    }

    #[test]
    fn every_file_of_the_page_is_served() {
        let mut there = BTreeSet::new();
        for folder in ["src", "styles", "i18n", "icons", "vendor"] {
            files_below(&web().join(folder), &mut there);
        }
        let of_maintainers = ["vendor/bundle.mjs", "vendor/manifest.json"];
        let served: BTreeSet<String> = FILES.iter().map(|(path, _)| (*path).to_owned()).chain(of_maintainers.map(ToOwned::to_owned)).collect();
        assert_eq!(there, served);
    }

    #[test]
    fn both_languages_have_the_same_keys_and_places() {
        assert!(!ENGLISH.is_empty());
        let keys = |words: &BTreeMap<String, String>| words.keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&ENGLISH), keys(&CHINESE));
        let places = |text: &str| -> BTreeSet<String> {
            text.split('{').skip(1).filter_map(|part| part.split_once('}')).map(|(name, _)| name.to_owned()).collect()
        };
        for (key, text) in ENGLISH.iter() {
            let chinese = &CHINESE[key];
            assert_eq!(places(text), places(chinese), "{key}");
            assert!(!text.trim().is_empty() && !chinese.trim().is_empty(), "{key}");
        }
    }

    #[test]
    fn every_state_reason_and_health_has_a_word_and_every_state_an_icon() {
        let icons = include_str!("../../web/icons/icons.svg");
        for state in TaskState::ALL {
            assert!(ENGLISH.contains_key(&format!("state.{}", state.as_str())), "{state:?}");
            assert!(icons.contains(&format!("id=\"{}\"", state.as_str())), "{state:?}");
        }
        for health in [Health::Ok, Health::Degraded, Health::Down] {
            assert!(ENGLISH.contains_key(&format!("health.{}", document::health_name(health))), "{health:?}");
            assert!(icons.contains(&format!("id=\"{}\"", document::health_name(health))), "{health:?}");
        }
        let document = serde_json::to_value(super::super::document()).expect("a document");
        for (schema, prefix) in [("ReasonCode", "reason"), ("ExitCause", "exit"), ("SourceKind", "source"), ("Origin", "origin")] {
            let words = document["components"]["schemas"][schema]["enum"].as_array().cloned().unwrap_or_default();
            let described = document["components"]["schemas"][schema]["oneOf"].as_array().cloned().unwrap_or_default();
            let words: Vec<_> = words.into_iter().chain(described.into_iter().map(|one| one["enum"][0].clone())).collect();
            assert!(!words.is_empty(), "{schema}");
            for word in words {
                let key = format!("{prefix}.{}", word.as_str().expect("a word"));
                assert!(ENGLISH.contains_key(&key), "{key}");
            }
        }
    }

    #[test]
    fn the_vendored_module_is_the_one_that_was_looked_at() {
        let manifest: serde_json::Value = serde_json::from_str(include_str!("../../web/vendor/manifest.json")).expect("JSON");
        let digest: String = Sha256::digest(include_bytes!("../../web/vendor/preact.js")).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(manifest["sha256"], digest, "vendor/preact.js was changed by hand; run npm run vendor in web/");
    }

    proptest! {
        #[test]
        fn escaped_text_has_no_markup(raw in any::<String>()) {
            prop_assert!(!html(&raw).contains(['<', '>', '"', '\'']));
        }

        #[test]
        fn no_template_panics(template in "[{}a-z]{0,40}") {
            let _ = fill(&template, &[("a", "b")]);
        }
    }
}

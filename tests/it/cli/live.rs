//! Commands that go on: `--watch` and `--wait`.

use std::process::Child;
use std::sync::atomic::AtomicUsize;

use super::*;

const LIST: &str = "GET /api/v1/topics?limit=1000";
const TASKS: &str = "GET /api/v1/tasks?topic=x&limit=1000";
const EMPTY: &str = r#"{"items":[],"next":null,"scope":"instance"}"#;

fn interrupt(child: &Child) {
    let id = i32::try_from(child.id()).expect("a process id");
    // SAFETY: the child is ours and has not been waited for.
    assert_eq!(unsafe { libc::kill(id, libc::SIGINT) }, 0);
}

/// A command whose output is read while it runs.
struct Running {
    child: Child,
    seen: Arc<Mutex<String>>,
    messages: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let (seen, messages) = (Arc::default(), Arc::default());
        let readers =
            vec![gather(child.stdout.take().expect("piped"), Arc::clone(&seen)), gather(child.stderr.take().expect("piped"), Arc::clone(&messages))];
        Self { child, seen, messages, readers }
    }

    fn at_terminal(mut command: Command) -> Self {
        let (ours, theirs) = terminal();
        let duplicate = || theirs.try_clone().expect("a descriptor");
        let child = command.stdin(duplicate()).stdout(duplicate()).stderr(duplicate()).spawn().expect("it starts");
        let seen = Arc::default();
        let readers = vec![gather(ours, Arc::clone(&seen))];
        Self { child, seen, messages: Arc::default(), readers }
    }

    #[track_caller]
    fn await_output(&self, what: &str, is_there: impl Fn(&str) -> bool) {
        wait_until(what, SOON, || is_there(&self.seen.lock().expect("no panic")).then_some(()));
    }

    #[track_caller]
    fn await_message(&self, text: &str) {
        wait_until(text, SOON, || self.messages.lock().expect("no panic").contains(text).then_some(()));
    }

    /// The exit code, what was printed, and the messages.
    fn end(mut self) -> (i32, String, String) {
        let status = self.child.wait().expect("it ends");
        self.readers.into_iter().for_each(|reader| reader.join().expect("no panic"));
        let text = |of: &Mutex<String>| of.lock().expect("no panic").clone();
        (status.code().expect("no signal"), text(&self.seen), text(&self.messages))
    }

    fn interrupted(self) -> (i32, String, String) {
        interrupt(&self.child);
        self.end()
    }
}

fn gather(mut from: impl std::io::Read + Send + 'static, to: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        let mut bytes = Vec::new();
        // Reading a terminal fails when the program's end is closed.
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            bytes.extend_from_slice(&buffer[..count]);
            *to.lock().expect("no panic") = String::from_utf8_lossy(&bytes).into_owned();
        }
    })
}

/// Answers of one route, one after the other; the last one stays.
fn in_turn(answers: Vec<Scripted>) -> impl Fn() -> Scripted + Send {
    let count = AtomicUsize::new(0);
    move || answers[count.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1)].clone()
}

fn topics(name: &str, tag: &'static str) -> Scripted {
    let body = format!(
        r#"{{"items":[{{"name":"{name}","status":{{"state":"running","health":"ok","partitions":1,"tasks":{{"running":1}}}},"sources":[]}}],"next":null,"scope":"instance"}}"#
    );
    Scripted { headers: tag, ..Scripted::json(200, body) }
}

const UNCHANGED: fn() -> Scripted = || Scripted { status: 304, media_type: "application/json", headers: "etag: W/\"1\"\r\n", body: String::new() };

#[test]
fn a_watch_asks_for_what_is_new_only_and_outlives_a_server_that_is_away() {
    let answers = in_turn(vec![
        topics("one", "etag: W/\"1\"\r\n"),
        UNCHANGED(),
        Scripted::problem(503, "shutting-down", "[]"),
        Scripted { status: 502, media_type: "text/html", headers: "", body: "a proxy".to_owned() },
        topics("two", ""),
    ]);
    let server = Server::start(move |_| Some(answers()));
    let running = Running::start(command(&server.url(), &["topics", "list", "--watch=0.1"]));
    running.await_output("the new list", |text| text.contains("two"));
    let (code, shown, messages) = running.interrupted();
    assert_eq!(code, 0, "an interrupted watch has done what it should: {messages}");
    let head = "NAME  STATE    HEALTH  TASKS  LAG  RATE  RESTARTS  INDEX  SOURCES\n";
    let one = format!("{head}one   running  ok      1/1    -    -     -         -      -\n");
    let start = format!("{one}\n{one}\n{}", one.replace("one", "two"));
    assert!(shown.starts_with(&start), "{shown}");
    let expected = "drover: A title: what happened\\u{1b}[31m; trying again every 0.1 s\ndrover: it answers again\n";
    assert_eq!(messages, expected);
    let asked = server.asked();
    assert_eq!(&asked[..3], [LIST.to_owned(), format!("{LIST} [if-none-match: W/\"1\"]"), format!("{LIST} [if-none-match: W/\"1\"]")]);
    assert_eq!(asked[3], LIST, "what a round did not get is asked for as a whole");
}

#[test]
fn a_watch_waits_for_a_server_that_is_not_there_yet() {
    let port = free_port();
    let running = Running::start(command(&format!("http://127.0.0.1:{port}"), &["sources", "--watch=0.1"]));
    running.await_message("does not answer: connection refused; trying again every 0.1 s");
    let server = Server::at(&format!("127.0.0.1:{port}"), |_| Some(Scripted::file("sources.json")));
    running.await_output("the sources", |text| text.contains("collectlogkey1"));
    let (code, _, messages) = running.interrupted();
    assert_eq!((code, messages.lines().count()), (0, 2), "{messages}");
    drop(server);
}

#[test]
fn a_watch_of_documents_is_one_line_or_one_document_for_each_look() {
    let server = fixed();
    for (form, separator) in [("json", "{\"items\":"), ("yaml", "---\nitems:")] {
        let running = Running::start(command(&server.url(), &["tasks", "-w=0.1", "-o", form]));
        running.await_output("two documents", |text| text.matches(separator).count() >= 3);
        let (code, shown, _) = running.interrupted();
        assert!(code == 0 && shown.starts_with(separator), "{shown}");
        if form == "json" {
            assert!(shown.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{shown}");
        }
    }
}

#[test]
fn a_watch_ends_where_waiting_cannot_help() {
    let html = Scripted { status: 200, media_type: "text/html", headers: "", body: "<html>".to_owned() };
    for (answer, expected) in [
        (html, 69),
        (Scripted::problem(401, "unauthorized", "[]"), 1),
        (Scripted::problem(404, "not-found", "[]"), 4),
        (Scripted::problem(400, "invalid-request", "[]"), 1),
    ] {
        let (code, message) = refused(answer, &["topics", "get", "x", "--watch"]);
        assert_eq!(code, expected, "{message}");
    }
    for words in
        ["status --watch --fail-on down", "topics list --watch=0", "tasks --watch=2s", "sources --watch confirm etcd", "topics add x --watch"]
    {
        assert_eq!(code(&drover("http://127.0.0.1:1", &words.split(' ').collect::<Vec<_>>())), 2, "{words}");
    }
}

#[test]
fn a_reader_of_a_watch_that_has_enough_ends_it() {
    let server = fixed();
    let mut child = command(&server.url(), &["status", "--watch=0.1"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((code(&output), stderr(&output)), (0, String::new()));
}

#[test]
fn a_watch_at_a_terminal_draws_in_place_and_gives_it_back() {
    let answers = in_turn(vec![topics("日志-one", ""), Scripted::problem(503, "shutting-down", "[]"), topics("two", "")]);
    let server = Server::start(move |_| Some(answers()));
    let running = Running::at_terminal(command(&server.url(), &["topics", "list", "--watch=0.1"]));
    running.await_output("the new list", |text| text.contains("two"));
    let (code, shown, _) = running.interrupted();
    assert_eq!(code, 0);
    let (before, inside) = shown.split_once("\u{1b}[?1049h\u{1b}[?25l").expect("the alternate screen");
    let (inside, after) = inside.split_once("\u{1b}[?25h\u{1b}[?1049l").expect("the screen of before");
    assert_eq!(before, "");
    // Cleared once; after that each frame goes over the one before.
    assert_eq!(shown.matches("\u{1b}[2J").count(), 1, "{shown:?}");
    let frames: Vec<&str> = inside.split("\u{1b}[?2026h\u{1b}[H").skip(1).collect();
    assert!(frames.len() >= 3 && frames.iter().all(|frame| frame.ends_with("\u{1b}[J\u{1b}[?2026l")), "{frames:?}");
    assert!(frames[0].contains("every 0.1 s, until Ctrl-C") && frames[0].contains("日志-one"), "{:?}", frames[0]);
    assert!(frames[1].contains("\u{1b}[31mA title: what happened\\u{1b}[31m\u{1b}[0m, since ") && frames[1].contains("日志-one"), "{:?}", frames[1]);
    assert!(frames[2].contains("two") && !frames[2].contains("日志"), "{:?}", frames[2]);
    // A line of the frame before must not show through.
    assert!(frames[2].lines().all(|line| line.contains("\u{1b}[K")), "{:?}", frames[2]);
    assert!(after.contains("two") && !after.contains("\u{1b}[H"), "what was seen last stays: {after:?}");
}

#[test]
fn a_terminal_that_can_only_append_gets_plain_output() {
    let server = fixed();
    let mut plain = command(&server.url(), &["sources", "--watch=0.1"]);
    plain.env("TERM", "dumb");
    let running = Running::at_terminal(plain);
    running.await_output("two tables", |text| text.matches("KIND").count() >= 2);
    let (code, shown, _) = running.interrupted();
    assert!(code == 0 && !shown.contains('\u{1b}'), "{shown:?}");
}

fn tasks(states: &[&str]) -> Scripted {
    let rows: Vec<String> = states
        .iter()
        .enumerate()
        .map(|(partition, state)| format!(r#"{{"topic":"x","partition":{partition},"state":"{state}","incarnation":1,"reason":null}}"#))
        .collect();
    Scripted::json(200, format!(r#"{{"items":[{}],"next":null,"scope":"instance"}}"#, rows.join(",")))
}

fn topic(paused: &str, state: &str) -> Scripted {
    let body = format!(r#"{{"name":"x","sources":[],"paused":{paused},"status":{{"state":"{state}","partitions":2,"tasks":{{}}}}}}"#);
    Scripted::json(200, body)
}

const NO_CONTENT: fn() -> Scripted = || Scripted { status: 204, media_type: "text/plain", headers: "", body: String::new() };

/// A server with a topic `x` whose tasks are as these answers say.
fn with_tasks(answers: Vec<Scripted>, is_paused: bool) -> Server {
    let answers = in_turn(answers);
    Server::start(move |route| {
        Some(match route {
            TASKS => answers(),
            "GET /api/v1/topics/x" if is_paused => topic(r#"{"reason":null}"#, "paused"),
            "GET /api/v1/topics/x" => topic("null", "starting"),
            "PUT /api/v1/topics/x/pause" => topic(r#"{"reason":null}"#, "draining"),
            "POST /api/v1/topics/x/rewind" => Scripted::json(202, r#"{"items":[{"partition":0,"from":1,"to":0,"records":1,"error":null}]}"#),
            "DELETE /api/v1/topics/x" | "DELETE /api/v1/topics/x/pause" => NO_CONTENT(),
            _ => return None,
        })
    })
}

#[test]
fn a_wait_ends_when_it_is_so_and_prints_nothing_but_data() {
    let stopping = || {
        vec![
            tasks(&["running", "draining"]),
            tasks(&["draining", "paused"]),
            Scripted::problem(503, "shutting-down", "[]"),
            tasks(&["paused", "unassigned"]),
        ]
    };
    let starting = || vec![tasks(&["paused", "paused"]), tasks(&["starting", "running"]), tasks(&["running", "running"])];
    for (words, answers, is_paused, message) in [
        ("topics pause x --wait", stopping(), true, "paused x\n"),
        ("topics resume x --wait", starting(), false, "resumed x\n"),
        ("topics rewind x --to 0 --yes --wait", starting(), false, ""),
        ("topics remove x --wait", vec![tasks(&["draining", "running"]), Scripted::json(200, EMPTY)], false, "removed x\n"),
    ] {
        let count = answers.len();
        let server = with_tasks(answers, is_paused);
        let output = drover(&server.url(), &words.split(' ').collect::<Vec<_>>());
        assert_eq!((code(&output), stderr(&output)), (0, message.to_owned()), "{words}");
        assert_eq!(server.asked().iter().filter(|asked| *asked == TASKS).count(), count, "{words}");
        assert!(!stdout(&output).contains('\u{1b}'), "{words}: {output:?}");
    }
}

#[test]
fn a_wait_in_vain_is_1_and_says_what_is_missing() {
    for (words, answers, is_paused, message) in [
        ("topics pause x --wait", tasks(&["draining", "paused"]), true, "x has not stopped after 300ms: 1 of 2 tasks stopped; drover goes on trying"),
        ("topics remove x --wait", tasks(&["draining"]), false, "x still has tasks after 300ms: 1 task of x left"),
        ("topics resume x --wait", tasks(&["paused"]), true, "x does not run: it is paused; lift that with `drover topics resume`"),
        ("topics resume x --wait", tasks(&["paused"]), false, "x does not run after 300ms: the pause is lifted"),
        ("topics rewind x --to 0 --yes --wait", tasks(&["backoff"]), false, "x does not run after 300ms: 0 of 1 task running"),
    ] {
        let server = with_tasks(vec![answers], is_paused);
        let mut words: Vec<&str> = words.split(' ').collect();
        words.extend(["--timeout", "300ms"]);
        let output = drover(&server.url(), &words);
        assert!(code(&output) == 1 && stderr(&output).contains(message), "{words:?}: {output:?}");
    }
    // A server that stays away is told as such.
    let server = with_tasks(vec![Scripted::problem(503, "shutting-down", "[]")], false);
    let output = drover(&server.url(), &["topics", "remove", "x", "--wait", "--timeout", "300ms"]);
    assert!(code(&output) == 1 && stderr(&output).contains("shutting-down"), "{output:?}");
    for words in ["topics pause x --wait --dry-run", "topics rewind x --to 0 --wait --dry-run", "topics resume x --timeout 1s"] {
        assert_eq!(code(&drover(&server.url(), &words.split(' ').collect::<Vec<_>>())), 2, "{words}");
    }
}

#[test]
fn a_wait_shows_its_progress_at_a_terminal() {
    let server = with_tasks(vec![tasks(&["running", "draining"]), tasks(&["paused", "draining"]), tasks(&["paused", "paused"])], true);
    let (code, shown) = at_terminal(command(&server.url(), &["topics", "pause", "x", "--wait"]), "");
    assert!(code == 0 && shown.contains("0/2") && shown.contains("1/2") && shown.contains("1 of 2 tasks stopped"), "{shown:?}");
}

#[test]
fn a_redrive_is_waited_for_until_every_letter_was_tried() {
    let letter = |id: &str, redriven_at: &str, truncated: bool| {
        format!(r#"{{"id":"{id}","cause":"rejected","redriven_at":{redriven_at},"truncated":{truncated}}}"#)
    };
    let list = format!(
        r#"{{"items":[{},{},{}],"next":null,"scope":"instance"}}"#,
        letter("a", "null", false),
        letter("b", "\"1\"", true),
        letter("c", "\"1\"", false)
    );
    for (refused_again, keeps_payload, expected, message) in [
        (false, true, 0, "3 dead letters will be sent again\n3 dead letters sent\n"),
        (true, true, 1, "3 dead letters will be sent again\ndrover: of 3 dead letters 1 refused again; `drover dead-letters list` shows why\n"),
        (
            true,
            false,
            1,
            "3 dead letters will be sent again\ndrover: of 3 dead letters 1 refused again, 1 not sent because the store could not keep the payload; `drover dead-letters list` shows why\n",
        ),
    ] {
        let gone = || Scripted::problem(404, "not-found", "[]");
        let first = in_turn(vec![Scripted::json(200, letter("a", "null", false)), gone()]);
        let second = in_turn(vec![if keeps_payload { gone() } else { Scripted::json(200, letter("b", "\"1\"", true)) }]);
        let third = in_turn(vec![
            Scripted::json(200, letter("c", "\"1\"", false)),
            if refused_again { Scripted::json(200, letter("c", "\"2\"", false)) } else { gone() },
        ]);
        let list = list.clone();
        let server = Server::start(move |route| {
            Some(match route {
                "GET /api/v1/dead-letters?topic=x&limit=1000" => Scripted::json(200, list.clone()),
                "POST /api/v1/dead-letters/redrive?topic=x" => Scripted::json(202, r#"{"accepted":3}"#),
                "GET /api/v1/dead-letters/a" => first(),
                "GET /api/v1/dead-letters/b" => second(),
                "GET /api/v1/dead-letters/c" => third(),
                _ => return None,
            })
        });
        let output = drover(&server.url(), &["dead-letters", "redrive", "--topic", "x", "--wait"]);
        assert_eq!((code(&output), stderr(&output).as_str()), (expected, message));
        assert_eq!(stdout(&output), "ACCEPTED\n3\n");
    }
    let server = fixed();
    let id = "HK2wYQabcdefghijklmnop:3:123";
    let output = drover(&server.url(), &["dead-letters", "redrive", id, "--wait", "--timeout", "300ms"]);
    assert!(
        code(&output) == 1 && stderr(&output).contains("not every dead letter was tried after 300ms: 0 of 1 dead letter tried, 0 refused again"),
        "{output:?}"
    );
}

/// The columns at which words of the header begin.
fn columns(header: &str) -> Vec<usize> {
    let letters: Vec<char> = header.chars().collect();
    let begins = |at: &usize| letters[*at] != ' ' && (*at == 0 || letters[*at - 1] == ' ');
    (0..letters.len()).filter(begins).collect()
}

#[test]
fn wide_and_combining_characters_leave_every_column_in_its_place() {
    let server = Server::of(&[
        ("GET /api/v1/topics?limit=1000", Scripted::file("wide-topics.json")),
        ("GET /api/v1/tasks?limit=1000", Scripted::file("wide-tasks.json")),
        ("GET /api/v1/events?limit=1000", Scripted::file("wide-events.json")),
        ("GET /api/v1/dead-letters?limit=1000", Scripted::file("wide-dead-letters.json")),
        ("GET /api/v1/sources", Scripted::file("wide-sources.json")),
    ]);
    for (name, words) in [
        ("wide-topics.txt", "topics list"),
        ("wide-tasks.txt", "tasks"),
        ("wide-events.txt", "events"),
        ("wide-dead-letters.txt", "dead-letters list"),
        ("wide-sources.txt", "sources"),
    ] {
        let shown = ok(&server.url(), &words.split(' ').collect::<Vec<_>>());
        check_golden(name, &shown);
        let header = shown.lines().next().expect("a header").to_owned();
        for line in shown.lines().skip(1) {
            // Each column of the terminal: the character that begins there; none in the second half of a wide one.
            let mut cells = Vec::new();
            for character in line.chars() {
                match unicode_width::UnicodeWidthChar::width(character).unwrap_or(0) {
                    0 => {}
                    1 => cells.push(Some(character)),
                    _ => cells.extend([Some(character), None]),
                }
            }
            for at in columns(&header) {
                assert!(at == 0 || cells[at - 2..at] == [Some(' '), Some(' ')], "{words}: nothing before column {at} of {line}");
                assert!(!matches!(cells[at], Some(' ') | None), "{words}: nothing at column {at} of {line}");
            }
        }
    }
}

//! A real browser, headless, driven over a pipe by Chromium's DevTools protocol: JSON messages that end with a zero byte.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::tools::have;
use super::wait::{PATIENCE, eventually};

/// How long a browser may take to start, and to answer, on a machine that does much else.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);

/// Without what needs a display, a sandbox of its own or the network.
const FLAGS: [&str; 10] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-extensions",
    "--no-first-run",
    "--no-proxy-server",
    "--window-size=1280,1400",
    "--remote-debugging-pipe",
];

/// A browser with one page open. It is ended when this is dropped.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    last_id: u64,
    session: Option<String>,
    /// What has happened on the page, in its order.
    events: Vec<Value>,
}

impl Browser {
    /// Starts it with its files in `dir`; `None` if there is no browser here.
    pub fn start(test: &str, dir: &Path) -> Option<Browser> {
        if !have(test, "chromium", Command::new("chromium").arg("--version")) {
            return None;
        }
        // The protocol is spoken over the descriptors 3 and 4.
        let mut command = Command::new("sh");
        command.args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 0</dev/null 1>/dev/null 2>/dev/null"#, "chromium"]);
        command.args(FLAGS).arg(format!("--user-data-dir={}", dir.join("browser").display()));
        command.env("HOME", dir).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("there is a shell");
        let commands = child.stdin.take().expect("it is a pipe");
        let mut answers = BufReader::new(child.stdout.take().expect("it is a pipe"));
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while answers.read_until(0, &mut message).is_ok_and(|length| length > 0) {
                message.pop();
                let parsed = serde_json::from_slice(&message).expect("the browser speaks JSON");
                if sender.send(parsed).is_err() {
                    break;
                }
                message.clear();
            }
        });
        let mut browser = Browser { child, commands, messages, last_id: 0, session: None, events: Vec::new() };
        browser.attach();
        Some(browser)
    }

    fn attach(&mut self) {
        let target = self.ask("Target.createTarget", json!({"url": "about:blank"}));
        let attached = self.ask("Target.attachToTarget", json!({"targetId": target["targetId"], "flatten": true}));
        self.session = Some(attached["sessionId"].as_str().expect("a session").to_owned());
        for domain in ["Page", "Runtime", "Log", "Network"] {
            self.ask(&format!("{domain}.enable"), json!({}));
        }
    }

    /// Whether the system prefers dark pages.
    pub fn set_dark(&mut self, is_dark: bool) {
        let scheme = if is_dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.ask("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// Has the page go to an address.
    pub fn open(&mut self, url: &str) {
        let answer = self.ask("Page.navigate", json!({"url": url}));
        assert!(answer.get("errorText").is_none(), "{url}: {answer}");
    }

    /// The value of an expression in the page.
    #[track_caller]
    pub fn value(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.ask("Runtime.evaluate", params);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression in the page is true.
    #[track_caller]
    pub fn await_true(&mut self, expression: &str) {
        let mut last = Value::Null;
        let deadline = Instant::now() + PATIENCE;
        eventually(2 * PATIENCE, expression, || {
            last = self.value(expression);
            if last != true && Instant::now() > deadline {
                panic!("not within {PATIENCE:?}: {expression}: {last}; the page says:\n{}", self.text());
            }
            (last == true).then_some(())
        });
    }

    /// All that can be read on the page.
    pub fn text(&mut self) -> String {
        self.value("document.body.innerText").as_str().unwrap_or_default().to_owned()
    }

    /// Writes a picture of the whole page to a file.
    pub fn screenshot(&mut self, file: &Path) {
        let size = self.ask("Page.getLayoutMetrics", json!({}))["cssContentSize"].clone();
        let clip = json!({"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1});
        let shot = self.ask("Page.captureScreenshot", json!({"captureBeyondViewport": true, "clip": clip}));
        let picture = STANDARD.decode(shot["data"].as_str().expect("a picture")).expect("base64");
        std::fs::write(file, picture).expect("written");
    }

    /// What the page was told to be wrong: exceptions, and errors and warnings on its console. A request that got no
    /// answer, which the browser writes there by itself, is told apart by [`Complaint::is_network`].
    pub fn complaints(&mut self) -> Vec<Complaint> {
        self.collect_events();
        let complaint = |event: &Value| {
            let params = &event["params"];
            let is_bad = |level: &Value| ["error", "warning", "assert"].iter().any(|bad| level == bad);
            match event["method"].as_str()? {
                "Runtime.exceptionThrown" => Some(Complaint { is_network: false, words: params.to_string() }),
                "Runtime.consoleAPICalled" if is_bad(&params["type"]) => {
                    Some(Complaint { is_network: false, words: params.to_string() })
                }
                "Log.entryAdded" if is_bad(&params["entry"]["level"]) => {
                    Some(Complaint { is_network: params["entry"]["source"] == "network", words: params.to_string() })
                }
                _ => None,
            }
        };
        self.events.iter().filter_map(complaint).collect()
    }

    /// The address of every request that the page has made.
    pub fn requests(&mut self) -> Vec<String> {
        self.collect_events();
        let sent = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        sent.filter_map(|event| event["params"]["request"]["url"].as_str().map(str::to_owned)).collect()
    }

    fn collect_events(&mut self) {
        // What it has sent before an answer has come before the answer.
        self.value("0");
    }

    #[track_caller]
    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.last_id += 1;
        let id = self.last_id;
        let mut message = json!({"id": id, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.commands.write_all(&bytes).unwrap_or_else(|error| panic!("the browser has ended: {error}"));
        loop {
            let message = match self.messages.recv_timeout(ANSWER_PATIENCE) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => panic!("no answer to {method} within {ANSWER_PATIENCE:?}"),
                Err(RecvTimeoutError::Disconnected) => panic!("the browser has ended before it answered {method}"),
            };
            if message["id"] == id {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
            if message.get("method").is_some() {
                self.events.push(message);
            }
        }
    }
}

/// One thing that was told to be wrong.
#[derive(Debug)]
pub struct Complaint {
    /// A request got no answer, or a refusal.
    pub is_network: bool,
    /// All that was told.
    pub words: String,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its other processes end when this one does.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

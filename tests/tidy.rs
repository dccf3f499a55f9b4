//! The rules of the code base that the compiler cannot hold, each as a test over the files of the repository: who may
//! import whom, where `unsafe` and clocks may stand, how long a function may be, and that what is named exists.
//! The tables are here; how they are read is in `tests/tidy/`, where each rule is also tried on a bad sample.
//!
//! That each `unsafe` block says why it is sound is clippy's to hold (`undocumented_unsafe_blocks`).

#[path = "tidy/exhibits.rs"]
mod exhibits;
#[path = "tidy/imports.rs"]
mod imports;
#[path = "tidy/mutants.rs"]
mod mutants;
#[path = "tidy/references.rs"]
mod references;
#[path = "tidy/size.rs"]
mod size;
#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/text.rs"]
mod text;

use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use imports::Layer;
use source::{Source, Violation};
use text::{Confined, Tests};

/// What a deterministic layer must not touch: the same input gives the same output, on every node and in every run.
const WORLD: &[&str] = &[
    "std::fs",
    "std::net",
    "std::io",
    "std::env",
    "std::process",
    "std::thread",
    "std::sync::mpsc",
    "std::sync::atomic",
    "std::sync::Mutex",
    "std::sync::RwLock",
    "std::time::SystemTime",
    "std::time::Instant::now",
    "libc",
    "mio",
    "socket2",
    "memmap2",
    "crossbeam_channel",
    "rand",
];

/// Who may know whom. Tests inside a module may reach further than its code.
const LAYERS: &[Layer] = &[
    Layer {
        files: "src/raft/",
        module: "raft",
        uses: &["protocol::types", "protocol::peer", "protocol::client", "blocks"],
        never: WORLD,
        why: "consensus knows the protocol's types only, and no file, socket, clock, thread or randomness",
    },
    Layer {
        files: "src/state_machine/",
        module: "state_machine",
        uses: &["protocol::types", "protocol::client", "limits"],
        never: WORLD,
        why: "apply is deterministic: it knows commands and the map, and nothing of the world",
    },
    Layer {
        files: "src/storage/data_dir/",
        module: "storage::data_dir",
        uses: &["protocol::types", "error"],
        never: &["mio", "std::net"],
        why: "a node's identity on disk stands by itself",
    },
    Layer {
        files: "src/storage/",
        module: "storage",
        uses: &["protocol::types", "metrics::histogram", "metrics::figures", "limits", "error", "boottime", "blocks"],
        never: &["std::net", "mio::net", "socket2", "rand"],
        why: "storage knows entries and the disk; who wrote them and why is not its business",
    },
    Layer {
        files: "src/shard/",
        module: "shard",
        uses: &[
            "protocol::types",
            "protocol::peer",
            "protocol::client",
            "protocol::health",
            "raft",
            "storage",
            "state_machine",
            "error",
            "limits",
            "metrics",
        ],
        never: &["std::fs", "std::net", "std::thread", "std::time::Instant::now", "mio", "socket2", "libc", "rand"],
        why: "a shard is Raft, its part of the log and its state: no connection, no API, no thread",
    },
    Layer {
        files: "src/event_loop/",
        module: "event_loop",
        uses: &["protocol::frame", "socket", "limits", "metrics", "error", "boottime"],
        never: &["std::fs"],
        why: "the event loop moves bytes and knows no Raft, no API and no shard",
    },
    Layer {
        files: "src/api/",
        module: "api",
        uses: &["protocol", "limits", "metrics", "error"],
        never: &["std::fs", "std::net", "std::thread", "std::time::Instant::now", "mio", "libc"],
        why: "an API turns bytes into requests and replies into bytes; it owns no socket and knows no shard",
    },
    Layer {
        files: "src/config/",
        module: "config",
        // A configuration names the data directory, so its path is checked and read where that is defined.
        uses: &["protocol::types", "storage::data_dir", "limits", "error"],
        never: &["mio", "std::net::TcpStream", "std::net::TcpListener", "std::thread::spawn"],
        why: "the configuration is values; it starts nothing",
    },
    Layer {
        files: "src/server/",
        module: "server",
        uses: &[
            "protocol",
            "socket",
            "event_loop",
            "api",
            "shard",
            "storage",
            "raft",
            "state_machine",
            "config",
            "metrics",
            "limits",
            "error",
            "boottime",
        ],
        never: &[],
        why: "the server is where the layers meet, but it is no client of itself",
    },
    Layer {
        files: "src/client/",
        module: "client",
        uses: &["protocol", "socket"],
        never: &["libc", "memmap2", "clap", "std::fs"],
        why: "the client is built without the server: it knows the protocol only",
    },
    Layer {
        files: "src/main.rs",
        module: "main",
        uses: &["server", "config", "error"],
        never: &[],
        why: "the program reads its configuration and starts the server",
    },
    Layer {
        files: "src/logging.rs",
        module: "logging",
        uses: &["protocol::types"],
        never: &["std::fs", "std::net"],
        why: "a part of the program: lines to stderr, whoever logs them",
    },
    Layer {
        files: "src/reload.rs",
        module: "reload",
        uses: &["config", "logging"],
        never: &["std::fs", "std::net"],
        why: "a part of the program: what a running one takes over from its settings",
    },
    Layer {
        files: "src/lib.rs",
        module: "lib",
        uses: &["client"],
        never: &[],
        why: "the library only lists its modules",
    },
    Layer {
        files: "src/socket.rs",
        module: "socket",
        uses: &[],
        never: &["std::fs", "std::thread", "std::time::Instant::now"],
        why: "server and client share it: sockets and readiness, and nothing of what they carry",
    },
    Layer {
        files: "src/mutants/",
        module: "mutants",
        uses: &[],
        never: &["std::fs", "std::net", "std::thread", "std::time::Instant::now"],
        why: "every layer has mutants, so they know none; which one is chosen is all the state there is",
    },
    Layer {
        files: "src/limits.rs",
        module: "limits",
        uses: &["protocol"],
        never: WORLD,
        why: "limits are numbers and the relations between them",
    },
    Layer {
        files: "src/blocks.rs",
        module: "blocks",
        uses: &[],
        never: WORLD,
        why: "it is a queue, and what is in it is not its business",
    },
    Layer {
        files: "src/boottime.rs",
        module: "boottime",
        uses: &[],
        never: &["std::fs", "std::net", "std::thread", "mio", "rand"],
        why: "it tells the time, and to whom it is told is not its business",
    },
    Layer {
        files: "src/error.rs",
        module: "error",
        uses: &[],
        never: WORLD,
        why: "every layer uses it, so it uses none",
    },
    Layer {
        files: "src/metrics/",
        module: "metrics",
        uses: &["protocol::types", "protocol::client"],
        never: &["std::fs", "std::net", "std::thread", "mio"],
        why: "metrics are counters; who counts and who shows them is not their business",
    },
    Layer {
        files: "protocol/",
        module: "protocol",
        uses: &[],
        never: WORLD,
        why: "the protocol is types and bytes: it uses no other crate of the repository and does no I/O",
    },
    Layer {
        files: "tools/bench/",
        module: "bench",
        uses: &["protocol", "client"],
        never: &[],
        why: "the load generator is a client like any other",
    },
    Layer {
        files: "tools/http-load/",
        module: "http_load",
        // And the client that is generated for gRPC.
        uses: &["bench", "grpc_check"],
        never: &[],
        why: "the load over HTTP is the load generator's, so that all are measured alike",
    },
    Layer {
        files: "tools/codegen/",
        module: "codegen",
        uses: &[],
        never: &[],
        why: "what generates code knows the descriptions of services only",
    },
    Layer {
        files: "tools/grpc-check/",
        module: "grpc_check",
        // With the harness of `tests/`, which has clients.
        uses: &["protocol", "client", "support"],
        never: &[],
        why: "tests of the gRPC face know what any client of it knows",
    },
    Layer {
        files: "tools/nc/",
        module: "nc",
        // Its `log` and `check` read a data directory with the code that wrote it.
        uses: &["protocol", "client", "storage", "state_machine"],
        never: &[],
        why: "a debugging tool is a client, and reads directories with the code that wrote them",
    },
    Layer {
        files: "tools/manual/",
        module: "manual",
        uses: &["config", "bench", "nc"],
        never: &[],
        why: "pages and completions are made of the programs' own definitions of their command lines",
    },
    Layer {
        files: "tools/history/",
        module: "history",
        uses: &[],
        never: WORLD,
        why: "whether a history is linearizable depends on nothing but the history",
    },
    Layer {
        files: "tools/fuzz/",
        module: "fuzz",
        uses: &["protocol", "raft", "storage", "state_machine", "shard", "api", "limits", "error"],
        never: &[],
        why: "the fuzz targets feed bytes and inputs to the layers below the server",
    },
    Layer {
        files: "tools/sim/",
        module: "sim",
        uses: &[
            "protocol",
            "socket",
            "mutants",
            "history",
            "client",
            "server",
            "event_loop",
            "shard",
            "raft",
            "state_machine",
            "storage",
            "config",
            "limits",
            "metrics",
            "error",
        ],
        never: &[],
        why: "the simulator runs whole nodes and clients, and looks at all of it",
    },
    Layer {
        files: "benches/",
        module: "benches",
        uses: &["protocol", "raft", "storage", "state_machine", "shard", "event_loop", "metrics", "limits", "error"],
        never: &[],
        why: "the benches measure the layers below the server",
    },
    Layer {
        files: "tests/",
        module: "tests",
        uses: &["protocol", "client", "history"],
        never: &[],
        why: "tests of whole processes are clients of them",
    },
];

/// Where memory safety is the author's word. Each block's reason stands at the block.
const UNSAFE: Confined = Confined {
    words: &["unsafe"],
    within: &[],
    listed: &[
        ("src/storage/disk.rs", "maps segments"),
        ("src/server/local_cluster.rs", "child processes that die with their parent"),
        ("protocol/tests/wire/counting_allocator.rs", "counts what a decoder allocates"),
    ],
    tests: Tests::Held,
    why: "memory safety stays in few files: use a safe call, or list the file with its reason in tests/tidy.rs",
};

/// Where the time of day or of the machine is read. Everything else is handed the time, so that one seed is one run.
const CLOCKS: Confined = Confined {
    words: &["Instant::now", "SystemTime", "UNIX_EPOCH", ".elapsed()"],
    within: &["src/", "protocol/"],
    listed: &[
        ("src/boottime.rs", "the clock of a node, which the loops read, and whoever is compared with them"),
        ("src/server/start.rs", "how long it waits for an address, and how soon a second signal comes"),
        ("src/server/logs.rs", "when a log was found to be damaged, for people"),
        ("src/server/local_cluster.rs", "waits for child processes"),
        ("src/client/io_thread.rs", "the client's own thread, which hands its driver the time"),
        ("src/client/mod.rs", "a call's deadline counts from the moment it is made"),
        ("src/client/pipeline.rs", "and so does a pipelined one's"),
    ],
    tests: Tests::Free,
    why: "time is handed in; read the loop's clock, or list the file with its reason in tests/tidy.rs",
};

/// Where data lives, a panic is a decision: it names the invariant that makes it impossible.
const UNWRAP: Confined = Confined {
    words: &[".unwrap()"],
    within: &["src/"],
    listed: &[],
    tests: Tests::Free,
    why: "a panic stops a node: return the error, or `expect` with the invariant that makes it impossible",
};

/// Lints are not switched off: `expect` says why and complains when it is no longer needed.
const ALLOW: Confined = Confined {
    words: &["#[allow", "#![allow"],
    within: &[],
    listed: &[],
    tests: Tests::Held,
    why: "use #[expect(…, reason = \"…\")]",
};

/// Longest function, in lines.
const FUNCTION_LINES_MAX: usize = 70;
/// Functions that may be longer: (file, function, reason).
const FUNCTIONS_EXCEPTED: &[(&str, &str, &str)] = &[];
/// Longest file that is not a test, in lines.
const FILE_LINES_MAX: usize = 700;

/// Words for unfinished work and for looking around. Put together here, or this file would hold them.
fn banned() -> Vec<(String, &'static str)> {
    let unfinished = "finish it, or say in the documents that it is not there";
    vec![
        (["TO", "DO"].concat(), unfinished),
        (["FIX", "ME"].concat(), unfinished),
        (["X", "XX"].concat(), unfinished),
        (["todo", "!"].concat(), unfinished),
        (["unimpl", "emented!"].concat(), unfinished),
        (["dbg", "!"].concat(), "a look while debugging is not for those who come after"),
        (["#[ign", "ore"].concat(), "a test that does not run holds nothing"),
    ]
}

/// Folders of the machine that the code was written on.
fn machine_folders() -> Vec<String> {
    ["work", "root", "home"].iter().map(|folder| format!("/{folder}")).collect()
}

static REPOSITORY: LazyLock<Vec<Source>> = LazyLock::new(|| source::repository(Path::new(env!("CARGO_MANIFEST_DIR"))));

#[track_caller]
fn none(mut violations: Vec<Violation>) {
    violations.sort();
    violations.dedup();
    let lines: Vec<String> = violations.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "{} violations\n{}\n", lines.len(), lines.join("\n"));
}

#[test]
fn the_repository_is_read() {
    for path in ["Cargo.toml", ".ci/run", "src/lib.rs", "src/raft/mod.rs", "protocol/README.md"] {
        assert!(REPOSITORY.iter().any(|source| source.path == path), "{path} is missing");
    }
}

#[test]
fn layers_import_only_what_they_may_know() {
    none(imports::check(LAYERS, &REPOSITORY));
}

#[test]
fn every_row_of_the_layer_table_has_files() {
    for layer in LAYERS {
        let fits = |source: &Source| source.is_rust() && imports::covers(layer.files, &source.path);
        assert!(REPOSITORY.iter().any(fits), "{} has no files: take the row out", layer.files);
    }
}

#[test]
fn unsafe_stays_in_listed_files() {
    none(text::confined(&UNSAFE, &REPOSITORY));
}

#[test]
fn time_is_read_in_listed_files_only() {
    none(text::confined(&CLOCKS, &REPOSITORY));
}

#[test]
fn nothing_unwraps_outside_tests() {
    none(text::confined(&UNWRAP, &REPOSITORY));
}

#[test]
fn no_lint_is_switched_off() {
    none(text::confined(&ALLOW, &REPOSITORY));
}

#[test]
fn nothing_is_left_unfinished() {
    none(text::banned(&banned(), &REPOSITORY));
}

#[test]
fn no_path_of_a_machine_is_written_down() {
    none(text::machine_paths(&machine_folders(), &REPOSITORY));
}

#[test]
fn every_mutant_stands_in_one_place_and_in_the_table() {
    none(mutants::check("src/mutants/table.rs", &REPOSITORY));
}

#[test]
fn functions_fit_on_a_screen() {
    none(size::functions(FUNCTION_LINES_MAX, FUNCTIONS_EXCEPTED, &REPOSITORY));
}

#[test]
fn files_hold_one_subject() {
    none(size::files(FILE_LINES_MAX, &REPOSITORY));
}

#[test]
fn documents_and_comments_name_files_that_exist() {
    none(references::dangling(&REPOSITORY));
}

#[test]
fn golden_files_are_read() {
    none(references::unread_golden(&REPOSITORY));
}

#[test]
fn every_exhibit_and_rule_has_its_tests() {
    none(exhibits::violations("tools/sim/EXHIBITS.md", &REPOSITORY));
}

#[test]
fn every_package_has_lints() {
    let manifests = REPOSITORY.iter().filter(|source| source.path.ends_with("Cargo.toml"));
    // A package outside the workspace cannot inherit its lints and lists its own.
    let has_lints = |text: &str| match text.contains("[workspace]\n\n[package]") {
        true => text.contains("[lints.rust]"),
        false => text.contains("[lints]\nworkspace = true"),
    };
    let without = manifests.filter(|manifest| !has_lints(&manifest.text));
    none(without.map(|manifest| manifest.violation(0, "has no lints: `[lints]`, `workspace = true`")).collect());
}

/// A link leads into the folders of one machine.
#[test]
fn no_symbolic_link_is_committed() {
    let listed = Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR"), "ls-files", "--stage"]).output();
    let Some(listed) = listed.ok().filter(|listed| listed.status.success()) else {
        eprintln!("skipped: this is no clone, or git is missing");
        return;
    };
    let listed = String::from_utf8_lossy(&listed.stdout);
    let links: Vec<&str> = listed.lines().filter(|line| line.starts_with("120000 ")).collect();
    assert_eq!(links, [""; 0]);
}

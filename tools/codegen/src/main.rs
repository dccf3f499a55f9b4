//! Generates the Rust code of the gRPC face from `protocol/proto/`: `cargo run --manifest-path tools/codegen/Cargo.toml`.
//! The result is checked in, and `.ci/run` compares it with what this writes (`-- --check`).

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use prost::Message;

/// Ours, below `protocol/proto/`.
const OWN: [&str; 2] = ["raftkv/v1/kv.proto", "raftkv/v1/cluster.proto"];
/// The standard's that the server has no crate for: `tonic-reflection` links tokio's runtime.
const REFLECTION: [&str; 2] = ["grpc/reflection/v1/reflection.proto", "grpc/reflection/v1alpha/reflection.proto"];
/// The standard's whose code is that of `tonic-health`; reflection tells of it.
const HEALTH: &str = "grpc/health/v1/health.proto";

/// What becomes of the services in a crate.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Server,
    Client,
}

/// Where the results go, from the repository's root.
const GENERATED: [(&str, Side); 2] =
    [("src/api/grpc/generated", Side::Server), ("tools/grpc-check/src/generated", Side::Client)];
/// The messages of reflection's first version; those of its alpha version are the same.
const REFLECTION_MESSAGES: &str = "crate::api::grpc::generated::reflection";
/// How the server encodes and decodes messages.
const CODEC: &str = "crate::api::grpc::codec::Bounded";
/// The descriptions of all files, as server reflection tells them.
const DESCRIPTORS: &str = "descriptors.bin";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let is_check = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--check"] => true,
        _ => {
            eprintln!("raftkv-codegen: usage: raftkv-codegen [--check]");
            return ExitCode::from(2);
        }
    };
    match run(is_check) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("raftkv-codegen: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(is_check: bool) -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (place, side) in GENERATED {
        let checked_in = root.join(place);
        if !is_check {
            fs::create_dir_all(&checked_in)?;
            generate(&root, side, &checked_in)?;
            continue;
        }
        let fresh = std::env::temp_dir().join(format!("raftkv-codegen-{}", std::process::id()));
        fs::create_dir_all(&fresh)?;
        let compared = generate(&root, side, &fresh).and_then(|()| compare(place, &checked_in, &fresh));
        fs::remove_dir_all(&fresh)?;
        compared?;
    }
    Ok(())
}

/// Generates the code of one side into `out`.
fn generate(root: &Path, side: Side, out: &Path) -> Result<(), Box<dyn Error>> {
    let compile = |files: &[&str]| protox::compile(files, [root.join("protocol/proto")]);
    let mut files = OWN.to_vec();
    if side == Side::Server {
        // What reflection tells comes without comments.
        let mut told = compile(&[&OWN[..], &[HEALTH], &REFLECTION].concat())?;
        told.file.iter_mut().for_each(|file| file.source_code_info = None);
        fs::write(out.join(DESCRIPTORS), told.encode_to_vec())?;
        files.extend(REFLECTION);
    }
    tonic_prost_build::configure()
        .build_transport(false)
        .build_client(side == Side::Client)
        .build_server(side == Side::Server)
        .codec_path(if side == Side::Server { CODEC } else { "tonic_prost::ProstCodec" })
        .bytes(".")
        .btree_map(".")
        .extern_path(".grpc.reflection.v1alpha", REFLECTION_MESSAGES)
        .out_dir(out)
        .compile_fds(compile(&files)?)?;
    Ok(())
}

/// Whether two directories hold the same files.
fn compare(place: &str, checked_in: &Path, fresh: &Path) -> Result<(), Box<dyn Error>> {
    let (ours, theirs) = (read(checked_in)?, read(fresh)?);
    if ours == theirs {
        return Ok(());
    }
    let mut names: Vec<&PathBuf> =
        ours.keys().chain(theirs.keys()).filter(|name| ours.get(*name) != theirs.get(*name)).collect();
    names.dedup();
    Err(format!("{place} is not what protocol/proto/ generates: {names:?}; run this without --check").into())
}

/// The files of a directory by name.
fn read(dir: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>, Box<dyn Error>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        files.insert(PathBuf::from(entry.file_name()), fs::read(entry.path())?);
    }
    Ok(files)
}

//! Tells the tests where the server's program lies, as Cargo does for those of the server's own package.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-env-changed=CARGO_TARGET_DIR");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |target| root.join(target));
    println!("cargo::rustc-env=CARGO_BIN_EXE_raftkv-server={}", target.join("debug/raftkv-server").display());
}

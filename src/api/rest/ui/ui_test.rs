use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::{BODY, HASHES, HEAD, LIBRARY, PAGE, SCRIPT, STYLE, policy};

/// So that it comes at once over a slow line too.
const BYTES_MAX: usize = 150 << 10;

#[test]
fn the_policy_names_what_the_page_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/rest/ui/hashes");
    for ((name, text), written) in [("style", STYLE), ("library", LIBRARY), ("script", SCRIPT)].into_iter().zip(HASHES)
    {
        let hash = format!("sha256-{}\n", STANDARD.encode(Sha256::digest(text)));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(folder.join(name), &hash).expect("written");
            continue;
        }
        assert_eq!(
            written, hash,
            "the {name} of the page has changed, and its hash must be written anew:\n\
             UPDATE_GOLDEN=1 cargo test -p raftkv --lib ui_test"
        );
    }
}

#[test]
fn the_page_is_one_small_file_that_needs_no_other() {
    assert!(PAGE.text.len() <= BYTES_MAX, "{} bytes", PAGE.text.len());
    let markup = format!("{HEAD}{BODY}");
    for outside in
        [" src=", " style=", "<style", "<script", "<iframe", "rel=\"stylesheet", "http://", "https://", "//cdn"]
    {
        // The name of a language, which nobody asks for.
        let markup = markup.replace("http://www.w3.org/2000/svg", "");
        assert!(!markup.contains(outside), "{outside}");
    }
    let handlers = markup.split_whitespace().filter(|word| word.starts_with("on") && word.contains("=\""));
    assert_eq!(handlers.collect::<Vec<_>>(), [""; 0]);
    assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
    for part in [STYLE, LIBRARY, SCRIPT] {
        assert!(!part.contains("</style") && !part.contains("</script"), "a part would end before its end");
    }
    assert!(!policy().contains("unsafe") && !policy().contains("http"), "{}", policy());
}

#[test]
fn the_licence_of_the_library_is_in_the_page() {
    assert!(PAGE.text.contains("Copyright (c) 2022 Leon Sorokin") && PAGE.text.contains("THE SOFTWARE IS PROVIDED"));
}

/// What the node holds may be any bytes: the page shows them as text, and never as markup.
#[test]
fn the_scripts_make_no_markup_of_data() {
    for way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"] {
        assert!(!SCRIPT.contains(way), "{way}");
    }
}

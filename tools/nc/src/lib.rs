//! What others need of `raftkv-nc`: its command line, of which its man page and completions are made.

pub mod arguments;

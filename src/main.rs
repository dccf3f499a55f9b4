//! The server: reads its settings and does what they say.

mod logging;
#[cfg(test)]
mod logging_test;
mod reload;

use std::env;
use std::io::{self, Write};
use std::process;

use raftkv::config::{self, Mode, Reading};
use raftkv::error::Fatal;
use raftkv::server;

fn main() {
    let result = run();
    logging::flush();
    if let Err(error) = result {
        eprintln!("raftkv-server: {error}");
        process::exit(error.exit_code());
    }
}

fn run() -> Result<(), Fatal> {
    let Reading { mode, settings, warnings } = config::read(env::args_os().skip(1).collect(), env::vars_os())?;
    let warn = |warning| eprintln!("raftkv-server: {warning}");
    match mode {
        Mode::Print(text) => {
            warnings.iter().for_each(warn);
            // Whoever closes the pipe has read enough.
            _ = io::stdout().write_all(text.as_bytes());
        }
        Mode::LocalCluster(cluster) => {
            warnings.iter().for_each(warn);
            return server::local_cluster::run(cluster);
        }
        Mode::Node(config) => {
            logging::start(config.node_id, config.log_level);
            logging::end_on_panic();
            warnings.iter().for_each(|warning| log::warn!("{warning}"));
            return server::run(*config, move || reload::reload(&settings));
        }
    }
    Ok(())
}

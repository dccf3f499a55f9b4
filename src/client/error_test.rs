use raftkv_protocol::client::Code;

use super::{Error, ErrorKind};

// rule 31
#[test]
fn every_code_is_a_kind_and_back() {
    for code in Code::all() {
        let kind = ErrorKind::from(code);
        assert_eq!(kind.code(), Some(code));
        assert_eq!(kind.to_string(), code.name());
    }
}

// rule 31
#[test]
fn a_write_that_may_have_happened_is_never_called_retryable() {
    for kind in [ErrorKind::Timeout, ErrorKind::ConnectionLost, ErrorKind::Closed] {
        let error = Error::new(kind, "what happened").unknown_outcome();
        assert!(error.maybe_applied() && !error.is_retryable());
    }
}

#[test]
fn what_the_protocol_calls_retryable_is() {
    for code in Code::all().filter(|code| *code != Code::Timeout) {
        assert_eq!(Error::new(code.into(), "").is_retryable(), code.is_retryable(), "{code}");
    }
    for kind in [ErrorKind::Unreachable, ErrorKind::QueueFull, ErrorKind::ConnectionLost] {
        assert!(Error::new(kind, "").is_retryable());
    }
    for kind in [ErrorKind::WrongCluster, ErrorKind::Version, ErrorKind::Protocol, ErrorKind::Closed] {
        assert!(!Error::new(kind, "").is_retryable());
    }
}

#[test]
fn an_error_reads_as_one_line() {
    let error = Error::new(ErrorKind::ConnectionLost, "the connection to a:1 was lost");
    assert_eq!(error.to_string(), "connection_lost: the connection to a:1 was lost");
    let unknown = "connection_lost: the connection to a:1 was lost (the write may have been applied)";
    assert_eq!(error.unknown_outcome().to_string(), unknown);
}

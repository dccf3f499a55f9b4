//! Placeholder: client.

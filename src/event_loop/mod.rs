//! Placeholder: event_loop.

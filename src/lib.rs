//! opsctl.

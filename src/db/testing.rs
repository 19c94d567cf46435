//! Throwaway servers for tests, shared by all tests of one process.
//!
//! They are made by `tests/integration/support/postgres.sh` and end with the process, however that
//! ends: the script stops the server when the pipe to it closes.

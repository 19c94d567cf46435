//! What comes out of `load`: precedence, choices, and the files under `tests/fixtures/config`.

//! Connections to PostgreSQL as libpq's users expect them.

//! The whole binary against real servers: PostgreSQL clusters of their own and a real S3 server.
//!
//! `make test` runs them and installs what they need; a server that is missing fails the tests that need it.
//! One binary for all, so that its tests share the servers, which are started by the first that asks.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "these are tests: a surprise must end them"
)]

mod archive_audit;
mod archive_audit_delete;
mod archive_encrypted;
mod archive_glacier;
mod archive_parquet;
mod archive_partitions;
mod archive_prove;
mod archive_restore;
mod backup;
mod cleanup_sessions;
mod cleanup_sessions_faults;
mod cleanup_sessions_frameworks;
mod cleanup_sessions_incident;
mod cli;
mod config;
mod contributing;
mod db_maintain;
mod db_maintain_findings;
mod db_maintain_limits;
mod db_maintain_reindex;
mod db_maintain_report;
mod demo;
mod doctor;
mod documents;
mod exit_statuses;
mod faults;
mod generate;
mod health_brokers;
mod health_check;
mod health_host;
mod health_incident;
mod health_network;
mod health_operations;
mod health_postgres;
mod health_replication;
mod health_serve;
mod health_service;
mod history;
mod history_on_a_server;
mod init;
mod kill;
mod locks;
mod metrics;
mod moving_source;
mod notify;
mod packaging;
mod ping;
mod pooler;
mod pushgateway;
mod restore;
mod restore_by_stock_tools;
mod restore_faults;
mod restore_notes;
mod retention;
mod runbook;
mod runbook_backup;
mod runbook_database;
mod runbook_disaster;
mod runbook_disk;
mod runbook_evidence;
mod runbook_maintain;
mod runbook_network;
mod runbook_operations;
mod runbook_sessions;
mod s3_faults;
mod schedule;
mod screenshots;
mod secrets;
mod setup;
mod several_repositories;
mod shrink;
mod signals;
mod silence;
mod status;
mod support;
mod tls;
mod verify_backup;
mod verify_damage;
mod verify_in_s3;
mod verify_restored;
mod windows;

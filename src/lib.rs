//! opsctl takes the place of a team's operations shell scripts around PostgreSQL: one binary that cron runs
//! at night, that people run by hand during incidents, and that CI runs as a check. In this version it takes
//! backups, proves that what lies in their repositories is what was dumped, by restoring it if asked, restores them,
//! cleans expired sessions, does the maintenance that autovacuum left, archives old audit rows as evidence, remembers what
//! ran, says what is late, asks everything that the person on call looks at first, tells whoever should know, prints what
//! starts all of it, and says what is wrong with its own installation.
//! This page is the map.
//!
//! # Promises
//!
//! 1. Proof, not hope: what is claimed was compared, and the evidence is stored beside the backup.
//! 2. Stock tools can read all that opsctl writes: `pg_restore`, `gunzip`, `zstd`, `age`, `sha256sum`, `jq`.
//! 3. Nothing is removed before what replaces it is proven.
//! 4. Nothing fails silently: an exit status, one line on stderr, a line in the history; success is never inferred, and
//!    what never ran is late.
//! 5. Bounded by construction: memory, chunk sizes and waits have limits that do not grow with the data.
//! 6. Secrets never appear in the arguments of a child, in a log, an error or a report.
//!
//! # Words
//!
//! One word per idea, in code, help, documents and messages alike.
//!
//! | word | means | not called |
//! |---|---|---|
//! | run | one invocation: id, start, lock, deadline, log, report, exit status | job |
//! | database | one PostgreSQL database that opsctl looks after | instance |
//! | repository | where backups live: a directory, or a prefix in an S3 bucket | bucket, vault |
//! | storage | a place that holds bytes under keys; a repository sits on one | backend, driver |
//! | backup | the state of one database at one moment, known by its id | dump; a snapshot is PostgreSQL's |
//! | artifact | one file of a backup as stock tools see it: a table's rows, the table of contents, the globals | blob |
//! | chunk | a piece of an artifact that decompresses by itself: one gzip member or one zstd frame | part, block |
//! | manifest | what a backup consists of: artifacts, chunks, sizes, SHA-256, rows, digests, versions | metadata, index |
//! | digest | the order-independent fingerprint of a table's rows | checksum: that is the SHA-256 of bytes |
//! | lease | the note by which a run says that it is at work in a backup's folder | lock |
//! | leftover | a folder without manifest at which nobody is at work any more | orphan |
//! | verification | reading a whole backup back and comparing it; and the record of that | check |
//! | restore test | restoring a backup into a throwaway server, or a given one, and comparing what came out with what was dumped | |
//! | piece | a part of a backup's rows and large objects that one verification looks at, if it takes a sample | |
//! | ping | a word to a monitor, such as healthchecks.io: a run begins, a run ended so | heartbeat |
//! | history | what ran, and how it ended: in `history.db` in the state directory, or in a PostgreSQL schema | journal |
//! | incident | one thing that is not well, from when it is first seen until it is seen to be well | alert |
//! | channel | a way to tell somebody: a webhook, a chat, mail | |
//! | silence | a time in which nobody is told of anything | mute, maintenance |
//! | contact | who is called, under a name of the configuration's own; the runbooks have places for it | channel: that is told by itself |
//! | check | one named question to the system; its kind is the part of the name before the slash | probe, test |
//! | outcome | ok, warning, unknown or critical, in this order of badness | state, severity |
//! | reading | what a check found: outcome, message, numbers | result |
//! | inquiry | one conversation that answers one or several checks | |
//! | schedule | when commands are expected to run, and what cron, systemd or Kubernetes are told of it | |
//! | window | a time at which a command may work; `--window` keeps it to one | |
//! | service | what Docker or systemd, its keeper, keeps running: a container, a unit | job |
//! | shape | a message of a log without its numbers, ids and secrets, by which it is counted | pattern: that is the operator's |
//! | rule | which rows of which table expire when, and what goes with them | policy |
//! | preset | the rules for the tables of a framework, which must be exactly those | template |
//! | cutoff | the moment before which a time is over: the server's, less the grace | threshold |
//! | bloat | the part of a table or an index that is waste, measured or estimated | fragmentation |
//! | segment | the archived rows of one window of an audit table, with their manifest | archive file |
//! | evidence | the rows of a segment as lines that anybody can read and hash | |
//! | copy | the rows of a segment as Parquet, for questions; no evidence | |
//! | hold | what keeps the rows of a time in the table, until somebody ends it | lock |
//! | anchor | the newest segment that was seen, written down elsewhere | checkpoint |
//! | finding | one thing that a verification, or `doctor`, found not as it should be | problem |
//! | plan, apply | what a run would change, and changing it; `--dry-run` stops between the two | |
//! | report | what a run says at its end on stdout, as text or JSON | output |
//!
//! # Layers
//!
//! Imports point down only; `tests/tidy.rs` has this picture as a table and checks it.
//!
//! ```text
//! run                      one invocation from arguments to exit status; the one place that ends a run
//! commands/*               thin: read, plan, apply, report; they do not import each other
//! cli, failure             what can be typed; which error has which exit status and hint
//! backup/                  what the commands are about:
//!   take publish verify restore prune    the stories, from beginning to end
//!   description copy sink    pg_dump's word on what there is; rows out of the server; chunks into repositories
//!   repository lease chunk   names and folders; who is at work in them; one chunk, read and compared
//!   manifest toc objects rows plan retention shrink notes sample verified
//!                            decisions and formats, without I/O: they take `now` and their inputs as arguments
//! archive/                 old audit rows as evidence:
//!   run verify deletion    the stories, from beginning to end; a row, or a partition, goes only by what was read back
//!   hold                   what must not be deleted, as signed records beside the segments
//!   source folder evidence    the table in one snapshot; names; the rows of a segment, written and read back
//!   query_copy parquet     the rows of a segment as Parquet, for questions; the format
//!   questions duckdb       the statements that ask them; who answers
//!   signature              who wrote it, as ssh-keygen knows it
//!   proof export restore   one row, to somebody who may not see the others; rows of a time; rows back into a table
//!   thaw                   what is in Glacier
//!   window row line merkle manifest retention    what is closed, COPY's text, a row's line, the tree, the format, for how long: pure
//! sessions/                what is expired goes, and locks that have lapsed:
//!   plan apply unlock revoke    looking and refusing; deleting in short transactions; accounts; incidents
//!   audit catalogue replicas sample    the table that is told; what the server says of tables; who is behind; a few rows
//!   rule preset expired batch walk    what expires where, frameworks' tables, the condition, how much at once: pure
//! maintain/                what autovacuum left:
//!   look past              the catalogue, in one statement for all tables; what earlier runs noted
//!   need bloat leftover plan statement latency    what is needed, what is waste, what may go, in which order, as SQL; who suffers: pure
//!   apply reindex          statements side by side, no more processes than cores; an index anew
//!   guard watch progress   when to wait and when to stop; how far it is
//!   report                 what is worth a look, as text, JSON and a page; it changes nothing
//! health/                  checks: asked all at once, answered in several formats
//!   kind limits select steady    the table of kinds, when a number is bad, which checks are wanted, what lasts: pure
//!   check run format       one check, asking all of them, writing the answers down
//!   endpoint               the same over HTTP
//!   incident               the evidence at the start of an incident
//!   postgres network       what is asked of a server; of names, ports, certificates, Redis, queues
//!   host service log       what the figures of the machine, its services and its logs mean
//!   operations             backups, their proof, repositories, the schedule
//! doctor/                  what is wrong with an installation, and what to do:
//!   examine                asking every part at once
//!   files database probe host    what is looked at: who may read, what a role and a storage allow, room, crontabs
//!   crontab started        lines of crontabs; what starts what, and in which environment: pure
//! db/ storage/ child       connect, copy, lock; put, get, list, remove; programs. No configuration, no command
//! network/ http            names, ports, certificates, Redis, queues of messages: looked at, not judged; requests
//! host/ service/ logs/     figures of the machine; what Docker and systemd say; the lines of a window, counted
//! notify/                  who is told of what, once: incidents, messages, channels
//! history/                 every run, what became of each database, the runs that never ended; incidents and silences
//! ping/ metrics/           what a monitor, and Prometheus, are told of each run
//! setup/                   before the first run: roles and privileges as SQL, a configuration to begin with
//! schedule/                a crontab, units and manifests as text
//! runbook                  the pages, inside of the program, and the places in them for who is called
//! manual                   man pages, out of the definition of the command line
//! config/                  file, environment and flags, merged and checked once; only values leave it
//! window                   when a maintenance window is open
//! certificate compression encryption json_path lock log id stop sync exit environment secret clock text
//! ```
//!
//! Threads with bounded queues, not async: the `postgres` crate blocks, and `rust-s3`'s tokio is driven from
//! one small runtime inside `storage/s3`. The reasons for this and for other choices that would be costly to
//! reverse are in `docs/decisions/`.
//!
//! # A run
//!
//! Parse (exit 2) → log → signals → configuration (10) → window (11) → deadline → for each database: locks (11), the work,
//! its part of the report → history → report on stdout → ping, metrics, notifications → exit status. stdout carries the report
//! and nothing else
//! (`--json`: one document, errors included); stderr carries the log. A `stop::Stop` tells everything that
//! waits of a signal or the deadline; a second one, `abort`, ends the cleaning up ten seconds later. `exit`
//! has the table of statuses, `failure` decides which error has which. `health-check` alone ends as monitoring plugins do
//! (0 ok, 1 warning, 2 critical, 3 unknown), also where it cannot begin.
//!
//! # A backup in its repository
//!
//! ```text
//! <repository>/<database>/<backup id>/
//!     lease.json            while a run is at work here; removed when the backup is complete
//!     toc.dat               as pg_dump's directory format has it
//!     <dump id>.dat.gz      one table's rows: gzip members (or .zst frames), each one chunk
//!     blobs.toc, blob_*.dat.gz
//!     globals.sql           roles and tablespaces
//!     RESTORE.md            how to restore this very backup with stock tools
//!     SHA256SUMS            every object, as sha256sum reads it
//!     manifest.json         written last: a backup exists when its manifest does; removed first
//!     verifications/<time>-<depth>-<result>.json     added by verify-backup; nothing is ever overwritten
//! ```
//!
//! In a directory the chunks of an artifact stand in one file, so that stock `pg_restore` reads it as it is.
//! In S3, and wherever chunks are encrypted, each chunk is an object of its own: `cat` joins them.
//! `docs/formats.md` has every name and field, for programs other than this one.
//!
//! How one is taken: a transaction exports its snapshot; `pg_dump -Fc --snapshot` writes the table of contents
//! into a pipe and is left waiting there, holding its locks; workers join the snapshot and copy tables, or ranges of
//! pages of one table, with `COPY … TO STDOUT`; rows are counted and summed up on the way, compressed chunk by
//! chunk, and each chunk is written once to all repositories; when everything is stored, `SHA256SUMS` and the
//! manifest follow.
//!
//! How one is restored: a database is made under a name of its own; `pg_restore` makes the objects in it before and after
//! the rows, which workers read chunk by chunk from the repository, compare, and send by `COPY … FROM STDIN`; then it
//! gets its name, and what had that name another, in one transaction. A restore test does the same in a throwaway
//! server, looks at the result as a backup would, and compares that with the manifest.
//!
//! # What always holds, and the test that guards it
//!
//! | invariant | guarded by |
//! |---|---|
//! | the digest is the documented one and knows no order | `the_digest_is_the_documented_one`, `neither_order_nor_pieces_matter` |
//! | a row is copied by exactly one task | `every_page_is_in_exactly_one_range` |
//! | a manifest that contradicts itself, or of another version, is refused | `refuses_contradictions`, `refuses_a_future_version_before_anything_else` |
//! | the documents list every field that is stored | `the_document_lists_every_field` |
//! | a table of contents is pg_dump's own, byte for byte where the formats agree | `a_custom_toc_becomes_a_directory_toc` |
//! | a chunk that was cut or changed is noticed, and cannot fill the memory | `notices_a_flipped_bit_or_a_cut`, `refuses_more_than_the_limit_and_anything_behind_the_end` |
//! | a restored database that differs in any row, large object or definition is noticed | `whatever_differs_is_said`, `values_in_another_column_are_found`, `a_sequence_that_is_behind_is_found` |
//! | a restore never takes the old database away before the new one is whole | `a_killed_restore_leaves_the_old_database_and_the_next_run_cleans_up`, `nothing_is_overwritten_unless_it_is_named` |
//! | it is so at every step of a restore, on a full disk, and with a server that dies | `killed_while_the_databases_change_places` and its sisters, `the_disk_of_the_server_is_full`, `the_server_is_killed` |
//! | damage that was found stands until all was found good, as thoroughly | `damage_stands_until_all_of_it_was_found_good_as_thoroughly` |
//! | the pieces of a backup are the whole of it | `the_pieces_are_the_whole_and_have_nothing_in_common` |
//! | a history that is broken stops no run, and a killed run is seen | `a_broken_history_is_set_aside_and_begun_anew`, `a_killed_run_is_shown_as_killed_and_blocks_nobody` |
//! | the history is the same in both places, and a server that is frozen stops no run | `of_a_transaction_all_or_nothing_is_done` and its sisters, `a_server_that_is_frozen_in_the_middle_costs_seconds` |
//! | an incident is told once and so is its end, by however many runs | `everything_is_told_once_and_no_end_without_a_beginning`, `two_runs_at_once_do_not_tell_twice` |
//! | what cannot be told changes no result and is told later | `what_cannot_be_delivered_waits_and_changes_nothing`, `killed_while_it_tells_it_is_told_again_later` |
//! | only rows that are over by the server's clock are deleted | `only_what_is_over_by_the_servers_clock_goes_whatever_the_column`, `in_the_hour_that_a_change_of_the_clocks_repeats_the_later_reading_counts` |
//! | a table that is not surely the one that is meant is not touched | `a_table_that_is_not_sure_to_be_meant_is_refused`, `a_fingerprint_counts_every_column` |
//! | a row whose time is prolonged meanwhile stays, wherever the time is | `a_session_that_is_just_being_prolonged_stays`, `a_time_in_another_table_that_is_just_being_prolonged_keeps_its_row` |
//! | what one rule or one row meets keeps no other from being cleaned or revoked | `a_rule_that_fails_keeps_no_other_and_says_what_it_did`, `one_locked_row_keeps_no_other_and_what_was_done_is_said` |
//! | a cleaning leaves no half of anything, killed at any moment | `killed_at_any_moment_it_leaves_no_half_batch_and_the_next_run_goes_on` |
//! | what a row has is archived as the server writes it, whatever its type | `every_type_is_archived_as_the_server_writes_it` |
//! | every closed moment is covered once, and what comes late is archived, too | `every_moment_is_in_exactly_one_window`, `by_any_schedule_every_row_is_in_the_archive_once` |
//! | a row is never in neither place, whatever happens between and in runs | `by_any_schedule_no_row_is_in_neither_place`, `killed_at_any_moment_and_disturbed_by_others_no_row_is_in_neither_place` |
//! | rows go only by lines that were proven in the same run | `what_the_storage_says_after_the_proof_changes_nothing` |
//! | nothing goes under a legal hold, or where the owner protects it | `nothing_goes_while_any_condition_fails`, `runs_delete_where_the_configuration_says_so_and_hold_still_under_a_hold`, `what_its_owner_protects_is_not_touched_and_the_ways_are_named` |
//! | the tree is that of RFC 6962 | `the_root_is_that_of_the_definition` |
//! | what is done to an archive is named, also without opsctl | `whatever_is_done_to_an_archive_is_named_here_and_by_the_reference_verifier` |
//! | a copy for questions has the rows of its segment, and no row is in two of them | `duckdb_pyarrow_and_spark_read_what_postgresql_has`, `killed_at_any_moment_no_row_is_twice_among_the_copies` |
//! | an archive that was begun is completed, and nothing in it is overwritten | `killed_at_any_moment_the_next_run_completes_it`, `a_storage_that_fails_at_any_call_leaves_an_archive_that_the_next_run_completes`, `a_day_later_in_the_same_month_nothing_of_the_day_before_is_touched` |
//! | nobody is unlocked or revoked of whom the audit table was not told | `what_the_audit_table_was_not_told_did_not_happen` |
//! | a failure does not hide when the last success was | `a_failure_does_not_hide_the_last_success` |
//! | what becomes of a ping or of metrics changes no result | `a_monitor_that_is_not_there_changes_nothing`, `a_monitor_that_hangs_holds_nobody_for_long`, `a_pushgateway_that_hangs_or_is_gone_is_a_warning` |
//! | a refused run does not speak for the one at work | `a_refused_run_leaves_the_word_to_the_one_at_work_and_a_killed_one_says_no_more` |
//! | a probe of a right leaves nothing behind, and says so where it must | `a_sound_installation_has_no_findings`, `what_a_bucket_refuses_is_said_and_a_lock_is_seen`, `an_archive_that_nobody_can_clean_is_as_it_should_be_and_at_most_one_probe_stays` |
//! | what did not run is late | `three_days_are_judged_rightly`, `what_never_ran_is_late` |
//! | no check keeps the others from being answered, or the run from ending | `nothing_that_one_does_keeps_the_others_from_being_answered`, `all_together_take_no_longer_than_they_may` |
//! | a literal of a query shows itself nowhere | `no_literal_is_left` |
//! | what lasts one run is no alarm, and a history that fails holds none back | `what_lasts_one_run_is_no_alarm`, `a_history_that_cannot_be_used_holds_no_alarm_back` |
//! | monitoring leaves nothing in a session that others use, and locks no thousands of sequences | `behind_a_pooler_nothing_is_left_in_a_session_that_others_use`, `thousands_of_sequences_are_not_locked_at_once` |
//! | every form of an answer is valid for every kind and outcome | `every_form_is_what_it_should_be_for_all_kinds_and_outcomes` |
//! | a flood of requests causes one check | `a_flood_of_questions_causes_one_check`, `a_flood_does_not_reach_the_database` |
//! | nobody's data is in the evidence of an incident | `the_evidence_is_whole_and_has_nobodys_data` |
//! | no more of a log is read than its window and a limit, across a rotation | `no_more_is_read_than_the_window_needs`, `a_rotation_is_followed` |
//! | what is shown of a log has no secret, and takes no more memory for more of it | `no_secret_is_left`, `a_flood_of_different_messages_takes_no_more_memory` |
//! | every kind of check is explained, in one place | `every_kind_is_explained_and_every_explanation_has_its_kind` |
//! | timers elapse when cron would run, and every line of the crontab runs as cron runs it | `timers_elapse_when_cron_would_run`, `every_line_of_the_crontab_runs_as_cron_runs_it` |
//! | a window is never open outside of its hours, also where clocks are changed | `it_is_never_open_outside`, `it_opens_as_soon_as_it_may` |
//! | a run is over before its window closes | `inside_it_works_and_stops_before_it_closes` |
//! | no failure, however long it lasts, makes retention remove a backup | `a_week_of_failures_removes_nothing`, `what_must_never_be_removed_is_kept` |
//! | the work of a living run is not taken for a leftover | `a_holder_of_this_machine_is_asked_for_and_another_is_given_time` |
//! | a listing that fails half way is an error, never a short listing | `a_listing_that_fails_half_way_is_an_error` |
//! | an answer of the storage that says success and is none is not believed | `a_success_that_is_none_is_not_believed`, `a_wrong_etag_is_corruption_and_the_object_is_taken_back` |
//! | two hosts do not do the same to a database at once, however short it takes | `a_living_holder_gives_it_to_nobody_who_waits`, `of_two_hosts_that_begin_at_the_same_moment_one_is_refused_a_hundred_times` |
//! | a lock file is never unlinked | `the_second_is_told_of_the_first_and_the_file_stays` |
//! | a child sees the environment that was stated for it, and no password is in its arguments | `children_see_only_the_stated_environment`, `children_connect_and_show_no_password` |
//! | TLS that was asked for is never given up | `each_mode_verifies_as_much_as_it_says`, `weak_modes_try_the_other_way_and_strong_ones_do_not` |
//! | a secret shows itself nowhere | `never_shows_itself`, `redacts_urls_and_keywords`, `messages_quote_no_value` |
//! | no error of a request shows more of its URL than host and port | `errors_say_what_is_wrong_and_show_host_and_port_only` |
//! | every wait ends at an interruption | `an_interruption_ends_every_wait`, `a_stop_cancels_the_statement`, `a_stop_ends_the_wait` |
//! | no check waits longer than its time, even for a resolver that keeps silent | `a_name_server_that_keeps_silent_is_not_waited_for` |
//! | a certificate is judged as clients judge it | `certificates_are_judged_as_clients_do`, `each_mode_verifies_as_much_as_it_says` |
//! | what a table needs is decided as autovacuum would, and more never needs less | `thresholds_are_those_of_autovacuum`, `more_never_needs_less` |
//! | a report does not wait behind an ALTER TABLE, and says of what it could not know that it is unknown | `a_waiting_alter_table_holds_nothing_up`, `every_version_is_reported_on_by_whoever_asks_and_what_is_not_known_is_said` |
//! | a name is no markup in a page | `nothing_that_is_escaped_is_markup`, `a_page_needs_nothing_else_and_names_are_no_markup` |
//! | no valid index is dropped, whatever it is called, and no invalid one that may be somebody's | `of_invalid_indexes_only_what_a_rebuild_left_goes_and_no_valid_one_whatever_its_name`, `nothing_goes_that_fails_one_of_the_conditions` |
//! | of an index that was not built to its end nothing is left | `ended_in_the_middle_it_removes_what_it_began`, `killed_in_the_middle_the_next_run_removes_what_it_began_and_nothing_of_others` |
//! | maintenance waits for nobody for long, and nobody for it | `what_is_locked_is_left_and_a_waiting_alter_table_hangs_nothing`, `for_a_replica_that_is_behind_nothing_is_done`, `a_slot_that_holds_wal_back_and_a_probe_that_fails_stop_it`, `while_the_application_is_slower_nothing_more_is_begun` |
//! | every help fits one screen and ends with its exit statuses, and every page says the same | `every_help_fits_one_screen_and_ends_with_its_exit_statuses`, `every_command_has_a_man_page_that_is_sound_and_says_its_exit_statuses` |
//! | a page does not lie: its lines are typed where it is needed, and show what it says | `every_page_is_read_by_a_test`, `every_command_of_the_documents_is_understood` |
//! | from the bucket, the identity and the program alone everything comes back | `from_the_bucket_and_the_identity_alone_everything_is_back_by_the_page` |
//! | what packages install is what opsctl prints, and all of it is removed again | `the_units_of_packages_are_what_is_printed`, `the_base_for_kubernetes_is_what_is_printed_and_an_overlay_says_the_rest`, `what_is_installed_is_complete_and_all_of_it_is_removed` |
//! | every command works with exactly the privileges that are printed for it | `nothing_is_done_without_grants_and_all_of_it_with_them_in_every_version` |
//! | in ten minutes from nothing to a backup that is proven and scheduled | `in_ten_minutes_from_nothing_to_a_backup_that_is_proven_and_scheduled` |
//! | exit statuses are the same in code and documents | `exit_statuses_are_the_same_everywhere` |
//!
//! # How to add a command
//!
//! 1. A variant of `cli::Command`, with its help and the exit statuses at the end of it.
//! 2. `commands/<name>.rs` in the common shape: read the configuration, open what is needed, plan, apply, report.
//!    What it is about goes into a module of its own below the commands, decisions apart from the I/O.
//! 3. An arm in `commands::dispatch`.
//! 4. `runbooks/<name>.md` (Symptom, Check, Act, Verify, Escalate), and a row in `config/schedule.rs` if it runs by itself;
//!    `opsctl schedule print` then prints its line, its units and its manifest, and `crontab.example` anew. Each line of a page
//!    is typed by a test in `tests/integration/runbook_*.rs`, by a `Reader`, in the situation that the page is about.
//! 5. `tests/integration/<name>.rs`, which runs the binary against real servers.
//!
//! Five names, one word. The compiler asks for the first three, `tests/tidy.rs` for the rest.

mod archive;
mod backup;
mod certificate;
mod child;
mod cli;
mod clock;
mod commands;
mod compression;
mod config;
mod db;
mod doctor;
mod encryption;
mod environment;
mod exit;
mod failure;
#[cfg(fuzzing)]
pub mod fuzzing;
mod health;
mod history;
mod host;
mod http;
mod id;
mod json_path;
mod lock;
mod log;
mod logs;
mod maintain;
mod manual;
mod metrics;
mod network;
mod notify;
mod ping;
mod run;
mod runbook;
mod schedule;
mod secret;
mod service;
mod sessions;
mod setup;
mod stop;
mod storage;
mod sync;
mod text;
mod window;

use std::process::ExitCode;

/// Runs opsctl with the arguments and environment of this process, and returns its exit status.
pub fn main() -> ExitCode {
    run::main()
}

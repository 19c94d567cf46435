//! The presets themselves, each with the place that its condition was taken from. Data; `mod.rs` says what it means.

use super::{Grace, Known, KnownLock, Preset, Print, Stated, Type, Zone};
use crate::config::ChildAction::{Delete, Keep, SetNull};

/// A table that all versions have.
const fn print(table: &'static str, columns: &'static [(&'static str, Type)]) -> Print {
    Print { table, columns, absent: &[], optional: false }
}

/// Rows that go when a `timestamptz` is over.
const fn known(suffix: &'static str, table: &'static str, column: &'static str) -> Known {
    Known {
        suffix,
        table,
        column,
        time: Type::Timestamptz,
        milliseconds: false,
        grace: Grace::Usual(0),
        condition: "",
        via: None,
        children: &[],
    }
}

const fn preset(
    name: &'static str,
    framework: &'static str,
    tables: &'static [Print],
    rules: &'static [Known],
) -> Preset {
    Preset { name, framework, tables, rules, lock: None, grace: None, zone: Zone::None }
}

const LARAVEL_MINUTES: Stated = Stated { source: "`lifetime` of config/session.php", usual: "2h" };

/// All of them, in the order of their names.
pub(crate) const PRESETS: &[Preset] = &[
    // authjs.dev, "PostgreSQL adapter"; @auth/pg-adapter 1.11. `accounts.expires_at` is no expiry of a row: see LEFT_ALONE.
    preset(
        "authjs",
        "Auth.js (NextAuth) with its PostgreSQL adapter",
        &[
            print(
                "sessions",
                &[
                    ("expires", Type::Timestamptz),
                    ("sessionToken", Type::Text),
                    ("userId", Type::Id),
                ],
            ),
            print(
                "verification_token",
                &[
                    ("identifier", Type::Text),
                    ("token", Type::Text),
                    ("expires", Type::Timestamptz),
                ],
            ),
        ],
        &[
            known("sessions", "sessions", "expires"),
            known("verification", "verification_token", "expires"),
        ],
    ),
    // authjs.dev, "Prisma adapter": Prisma's DateTime is timestamp(3), always UTC.
    Preset {
        zone: Zone::Utc,
        ..preset(
            "authjs-prisma",
            "Auth.js (NextAuth) with Prisma",
            &[
                print(
                    "Session",
                    &[
                        ("expires", Type::Timestamp),
                        ("sessionToken", Type::Text),
                        ("userId", Type::Id),
                    ],
                ),
                print(
                    "VerificationToken",
                    &[
                        ("identifier", Type::Text),
                        ("token", Type::Text),
                        ("expires", Type::Timestamp),
                    ],
                ),
            ],
            &[
                Known { time: Type::Timestamp, ..known("sessions", "Session", "expires") },
                Known {
                    time: Type::Timestamp,
                    ..known("verification", "VerificationToken", "expires")
                },
            ],
        )
    },
    // better-auth 1.7, the tables of its own migrations.
    preset(
        "better-auth",
        "better-auth",
        &[
            print(
                "session",
                &[
                    ("expiresAt", Type::Timestamptz),
                    ("token", Type::Text),
                    ("userId", Type::Id),
                    ("userAgent", Type::Text),
                ],
            ),
            print(
                "verification",
                &[
                    ("identifier", Type::Text),
                    ("value", Type::Text),
                    ("expiresAt", Type::Timestamptz),
                ],
            ),
        ],
        &[
            known("sessions", "session", "expiresAt"),
            known("verification", "verification", "expiresAt"),
        ],
    ),
    // The same with Drizzle, whose `timestamp` is naive; the application's driver writes UTC.
    Preset {
        zone: Zone::Utc,
        ..preset(
            "better-auth-drizzle",
            "better-auth with Drizzle",
            &[
                print(
                    "session",
                    &[
                        ("expires_at", Type::Timestamp),
                        ("token", Type::Text),
                        ("user_id", Type::Id),
                        ("user_agent", Type::Text),
                    ],
                ),
                print(
                    "verification",
                    &[
                        ("identifier", Type::Text),
                        ("value", Type::Text),
                        ("expires_at", Type::Timestamp),
                    ],
                ),
            ],
            &[
                Known { time: Type::Timestamp, ..known("sessions", "session", "expires_at") },
                Known {
                    time: Type::Timestamp,
                    ..known("verification", "verification", "expires_at")
                },
            ],
        )
    },
    // connect-pg-simple 10, table.sql and `pruneSessions`: `expire < to_timestamp(…)`, in the connection's zone.
    Preset {
        zone: Zone::Stated,
        ..preset(
            "connect-pg-simple",
            "Express with connect-pg-simple",
            &[print(
                "session",
                &[("sid", Type::Text), ("sess", Type::Json), ("expire", Type::Timestamp)],
            )],
            &[Known { time: Type::Timestamp, ..known("", "session", "expire") }],
        )
    },
    // Devise 4.8, lib/devise/models/lockable.rs: `unlock_access!`; lapses only if unlock_strategy is :time or :both.
    Preset {
        zone: Zone::Utc,
        grace: Some(Stated {
            source: "`unlock_in` of config/initializers/devise.rs, and only if `unlock_strategy` is :time or :both",
            usual: "1h",
        }),
        lock: Some(&KnownLock {
            table: "users",
            column: "locked_at",
            time: Type::Timestamp,
            set_null: &["unlock_token"],
            set_zero: &["failed_attempts"],
        }),
        ..preset(
            "devise",
            "Devise, lockable",
            &[print(
                "users",
                &[
                    ("encrypted_password", Type::Text),
                    ("failed_attempts", Type::Integer),
                    ("locked_at", Type::Timestamp),
                ],
            )],
            &[],
        )
    },
    // Django 5.2, contrib/sessions/backends/db.py: `clear_expired`.
    preset(
        "django",
        "Django sessions",
        &[print(
            "django_session",
            &[
                ("session_key", Type::Text),
                ("session_data", Type::Text),
                ("expire_date", Type::Timestamptz),
            ],
        )],
        &[known("", "django_session", "expire_date")],
    ),
    // django-axes 8.3, handlers/database.py: `clean_expired_user_attempts` without AXES_USE_ATTEMPT_EXPIRATION.
    Preset {
        grace: Some(Stated { source: "AXES_COOLOFF_TIME", usual: "1h" }),
        ..preset(
            "django-axes",
            "django-axes, attempts",
            &[
                print(
                    "axes_accessattempt",
                    &[
                        ("id", Type::Id),
                        ("attempt_time", Type::Timestamptz),
                        ("failures_since_start", Type::Integer),
                        ("username", Type::Text),
                    ],
                ),
                Print {
                    optional: true,
                    ..print("axes_accessattemptexpiration", &[("access_attempt_id", Type::Id)])
                },
            ],
            &[Known {
                grace: Grace::Stated,
                children: &[("axes_accessattemptexpiration", "access_attempt_id", "id", Delete)],
                ..known("", "axes_accessattempt", "attempt_time")
            }],
        )
    },
    // The same with it.
    preset(
        "django-axes-expiration",
        "django-axes, attempts with AXES_USE_ATTEMPT_EXPIRATION",
        &[
            print(
                "axes_accessattempt",
                &[
                    ("id", Type::Id),
                    ("attempt_time", Type::Timestamptz),
                    ("failures_since_start", Type::Integer),
                    ("username", Type::Text),
                ],
            ),
            print(
                "axes_accessattemptexpiration",
                &[("access_attempt_id", Type::Id), ("expires_at", Type::Timestamptz)],
            ),
        ],
        &[Known {
            via: Some(("axes_accessattemptexpiration", "access_attempt_id", "id")),
            children: &[("axes_accessattemptexpiration", "access_attempt_id", "id", Delete)],
            ..known("", "axes_accessattempt", "expires_at")
        }],
    ),
    // django-axes 8.3, axes_reset_logs and axes_reset_failure_logs: 30 days.
    preset(
        "django-axes-logs",
        "django-axes, logs",
        &[
            print(
                "axes_accesslog",
                &[("attempt_time", Type::Timestamptz), ("logout_time", Type::Timestamptz)],
            ),
            print(
                "axes_accessfailurelog",
                &[("attempt_time", Type::Timestamptz), ("locked_out", Type::Boolean)],
            ),
        ],
        &[
            Known { grace: Grace::Usual(720), ..known("access", "axes_accesslog", "attempt_time") },
            Known {
                grace: Grace::Usual(720),
                ..known("failures", "axes_accessfailurelog", "attempt_time")
            },
        ],
    ),
    // django-oauth-toolkit 3.4, models.py: `clear_expired`, as with REFRESH_TOKEN_REUSE_PROTECTION: what was revoked is kept as long as
    // what was not, so that its reuse is noticed. In the order of the references, which Django emulates.
    Preset {
        grace: Some(Stated {
            source: "REFRESH_TOKEN_EXPIRE_SECONDS; without it nothing expires",
            usual: "14d",
        }),
        ..preset(
            "django-oauth-toolkit",
            "django-oauth-toolkit",
            &[
                print(
                    "oauth2_provider_refreshtoken",
                    &[
                        ("id", Type::Bigint),
                        ("access_token_id", Type::Bigint),
                        ("revoked", Type::Timestamptz),
                        ("updated", Type::Timestamptz),
                    ],
                ),
                print(
                    "oauth2_provider_accesstoken",
                    &[
                        ("id", Type::Bigint),
                        ("expires", Type::Timestamptz),
                        ("source_refresh_token_id", Type::Bigint),
                        ("id_token_id", Type::Bigint),
                    ],
                ),
                print(
                    "oauth2_provider_idtoken",
                    &[("id", Type::Bigint), ("expires", Type::Timestamptz)],
                ),
                print(
                    "oauth2_provider_grant",
                    &[("code", Type::Text), ("expires", Type::Timestamptz)],
                ),
            ],
            &[
                Known {
                    grace: Grace::Stated,
                    children: REFRESH_CHILDREN,
                    ..known("revoked", "oauth2_provider_refreshtoken", "revoked")
                },
                Known {
                    grace: Grace::Stated,
                    condition: "t.revoked IS NULL AND t.access_token_id IS NULL",
                    children: REFRESH_CHILDREN,
                    ..known("orphaned", "oauth2_provider_refreshtoken", "updated")
                },
                Known {
                    grace: Grace::Stated,
                    condition: "t.revoked IS NULL",
                    via: Some(("oauth2_provider_accesstoken", "id", "access_token_id")),
                    children: REFRESH_CHILDREN,
                    ..known("refresh", "oauth2_provider_refreshtoken", "expires")
                },
                Known {
                    grace: Grace::Fixed(0),
                    children: &[("oauth2_provider_refreshtoken", "access_token_id", "id", Keep)],
                    ..known("access", "oauth2_provider_accesstoken", "expires")
                },
                Known {
                    grace: Grace::Fixed(0),
                    children: &[("oauth2_provider_accesstoken", "id_token_id", "id", Keep)],
                    ..known("id", "oauth2_provider_idtoken", "expires")
                },
                Known {
                    grace: Grace::Fixed(0),
                    ..known("grant", "oauth2_provider_grant", "expires")
                },
            ],
        )
    },
    // Accounts as FastAPI applications with SQLAlchemy have them; the counter is reset with the lock, or the next slip locks again.
    Preset {
        lock: Some(&KnownLock {
            table: "users",
            column: "locked_until",
            time: Type::Timestamptz,
            set_null: &[],
            set_zero: &["failed_login_attempts"],
        }),
        ..preset(
            "fastapi-lockout",
            "accounts with locked_until and failed_login_attempts",
            &[print(
                "users",
                &[
                    ("id", Type::Id),
                    ("locked_until", Type::Timestamptz),
                    ("failed_login_attempts", Type::Integer),
                ],
            )],
            &[],
        )
    },
    // Their tokens. An expired one is refused whatever it is; it stays a day so that its reuse can still be looked into.
    preset(
        "fastapi-refresh-tokens",
        "refresh_tokens and email_tokens with expires_at",
        &[
            print(
                "refresh_tokens",
                &[
                    ("token_hash", Type::Text),
                    ("user_id", Type::Id),
                    ("expires_at", Type::Timestamptz),
                    ("is_revoked", Type::Boolean),
                    ("revoked_at", Type::Timestamptz),
                ],
            ),
            print(
                "email_tokens",
                &[
                    ("token_hash", Type::Text),
                    ("user_id", Type::Id),
                    ("expires_at", Type::Timestamptz),
                    ("is_used", Type::Boolean),
                ],
            ),
        ],
        &[
            Known { grace: Grace::Usual(24), ..known("refresh", "refresh_tokens", "expires_at") },
            Known { grace: Grace::Usual(24), ..known("email", "email_tokens", "expires_at") },
        ],
    ),
    // Laravel 8 to 12, Session/DatabaseSessionHandler.php: `gc`.
    Preset {
        grace: Some(LARAVEL_MINUTES),
        ..preset(
            "laravel",
            "Laravel sessions",
            &[print(
                "sessions",
                &[
                    ("id", Type::Text),
                    ("payload", Type::Text),
                    ("last_activity", Type::Integer),
                    ("user_agent", Type::Text),
                ],
            )],
            &[Known {
                time: Type::Integer,
                grace: Grace::Stated,
                ..known("", "sessions", "last_activity")
            }],
        )
    },
    // Laravel Passport, passport:purge: seven days. A token stays while one for its refreshing does.
    Preset {
        zone: Zone::Utc,
        ..preset(
            "laravel-passport",
            "Laravel Passport",
            &[
                print(
                    "oauth_refresh_tokens",
                    &[
                        ("id", Type::Id),
                        ("access_token_id", Type::Id),
                        ("revoked", Type::Boolean),
                        ("expires_at", Type::Timestamp),
                    ],
                ),
                print(
                    "oauth_access_tokens",
                    &[
                        ("id", Type::Id),
                        ("client_id", Type::Id),
                        ("revoked", Type::Boolean),
                        ("expires_at", Type::Timestamp),
                    ],
                ),
                print(
                    "oauth_auth_codes",
                    &[
                        ("id", Type::Id),
                        ("revoked", Type::Boolean),
                        ("expires_at", Type::Timestamp),
                    ],
                ),
            ],
            &[
                Known {
                    time: Type::Timestamp,
                    grace: Grace::Usual(168),
                    ..known("refresh", "oauth_refresh_tokens", "expires_at")
                },
                Known {
                    time: Type::Timestamp,
                    grace: Grace::Usual(168),
                    children: &[("oauth_refresh_tokens", "access_token_id", "id", Keep)],
                    ..known("access", "oauth_access_tokens", "expires_at")
                },
                Known {
                    time: Type::Timestamp,
                    grace: Grace::Usual(168),
                    ..known("codes", "oauth_auth_codes", "expires_at")
                },
            ],
        )
    },
    // Laravel 10 and later, Auth/Passwords/DatabaseTokenRepository.php: `deleteExpired`.
    Preset {
        zone: Zone::Utc,
        grace: Some(Stated { source: "`passwords.*.expire` of config/auth.php", usual: "1h" }),
        ..preset(
            "laravel-password-resets",
            "Laravel password resets",
            &[print(
                "password_reset_tokens",
                &[("email", Type::Text), ("token", Type::Text), ("created_at", Type::Timestamp)],
            )],
            &[Known {
                time: Type::Timestamp,
                grace: Grace::Stated,
                ..known("", "password_reset_tokens", "created_at")
            }],
        )
    },
    // Laravel Sanctum, sanctum:prune-expired: 24 hours.
    Preset {
        zone: Zone::Utc,
        ..preset(
            "laravel-tokens",
            "Laravel Sanctum",
            &[print(
                "personal_access_tokens",
                &[
                    ("tokenable_type", Type::Text),
                    ("token", Type::Text),
                    ("abilities", Type::Text),
                    ("expires_at", Type::Timestamp),
                ],
            )],
            &[Known {
                time: Type::Timestamp,
                grace: Grace::Usual(24),
                ..known("", "personal_access_tokens", "expires_at")
            }],
        )
    },
    // Phoenix, `mix phx.gen.auth`: user_token.ex says how long each kind is valid; it writes UTC.
    Preset {
        zone: Zone::Utc,
        grace: Some(Stated {
            source: "`@session_validity_in_days` of user_token.ex",
            usual: "60d, or 14d from Phoenix 1.8",
        }),
        ..preset(
            "phoenix",
            "Phoenix, phx.gen.auth",
            &[print(
                "users_tokens",
                &[
                    ("context", Type::Text),
                    ("user_id", Type::Id),
                    ("sent_to", Type::Text),
                    ("inserted_at", Type::Timestamp),
                ],
            )],
            &[
                Known {
                    time: Type::Timestamp,
                    grace: Grace::Stated,
                    condition: "t.context = 'session'",
                    ..known("sessions", "users_tokens", "inserted_at")
                },
                // The longest of these is valid for seven days.
                Known {
                    time: Type::Timestamp,
                    grace: Grace::Fixed(168),
                    condition: "t.context IN ('confirm', 'reset_password', 'login') OR t.context LIKE 'change:%'",
                    ..known("mails", "users_tokens", "inserted_at")
                },
            ],
        )
    },
    // Rails 8, `bin/rails generate authentication`: sessions never expire, the cookie is permanent; `updated_at` is the login.
    Preset {
        zone: Zone::Utc,
        grace: Some(Stated {
            source: "how long somebody may stay logged in, from the login on: Rails itself never ends a session, nor writes its row again",
            usual: "90d",
        }),
        ..preset(
            "rails-authentication",
            "Rails 8 authentication",
            &[Print {
                absent: &["session_id", "payload", "expires_at", "expires", "token"],
                ..print(
                    "sessions",
                    &[
                        ("id", Type::Id),
                        ("user_id", Type::Id),
                        ("ip_address", Type::Text),
                        ("user_agent", Type::Text),
                        ("created_at", Type::Timestamp),
                        ("updated_at", Type::Timestamp),
                    ],
                )
            }],
            &[Known {
                time: Type::Timestamp,
                grace: Grace::Stated,
                ..known("", "sessions", "updated_at")
            }],
        )
    },
    // activerecord-session_store, lib/tasks/database.rake: db:sessions:trim. Its 30 days are too few where `expire_after` is longer.
    Preset {
        zone: Zone::Utc,
        grace: Some(Stated {
            source: "SESSION_DAYS_TRIM_THRESHOLD of `rails db:sessions:trim`, and no less than `expire_after` of the session store",
            usual: "30d",
        }),
        ..preset(
            "rails-session-store",
            "Rails with activerecord-session_store",
            &[Print {
                absent: &["payload", "last_activity", "expires", "expires_at", "expire", "token"],
                ..print(
                    "sessions",
                    &[
                        ("session_id", Type::Text),
                        ("data", Type::Text),
                        ("created_at", Type::Timestamp),
                        ("updated_at", Type::Timestamp),
                    ],
                )
            }],
            &[Known {
                time: Type::Timestamp,
                grace: Grace::Stated,
                ..known("", "sessions", "updated_at")
            }],
        )
    },
    // djangorestframework-simplejwt 5.5, flushexpiredtokens. A token stays on the blacklist until it expires.
    preset(
        "simplejwt",
        "Simple JWT, token_blacklist",
        &[
            print(
                "token_blacklist_outstandingtoken",
                &[("id", Type::Id), ("jti", Type::Text), ("expires_at", Type::Timestamptz)],
            ),
            print(
                "token_blacklist_blacklistedtoken",
                &[("token_id", Type::Id), ("blacklisted_at", Type::Timestamptz)],
            ),
        ],
        &[Known {
            children: &[("token_blacklist_blacklistedtoken", "token_id", "id", Delete)],
            ..known("", "token_blacklist_outstandingtoken", "expires_at")
        }],
    ),
    // Spring Session JDBC, schema-postgresql.sql; the attributes go by ON DELETE CASCADE. Long.MAX_VALUE is never.
    preset(
        "spring-session",
        "Spring Session JDBC",
        &[print(
            "spring_session",
            &[
                ("primary_id", Type::Text),
                ("session_id", Type::Text),
                ("expiry_time", Type::Bigint),
                ("max_inactive_interval", Type::Integer),
            ],
        )],
        &[Known {
            time: Type::Bigint,
            milliseconds: true,
            ..known("", "spring_session", "expiry_time")
        }],
    ),
];

const REFRESH_CHILDREN: &[(&str, &str, &str, crate::config::ChildAction)] =
    &[("oauth2_provider_accesstoken", "source_refresh_token_id", "id", SetNull)];

/// Tables that look as if something expired in them, the only schema they are in, and why nothing may be deleted.
pub(crate) const LEFT_ALONE: &[(Print, Option<&str>, &str)] = &[
    (
        print("sessions", &[("aal", Type::Anything), ("factor_id", Type::Id)]),
        Some("auth"),
        SUPABASE,
    ),
    (
        print("refresh_tokens", &[("parent", Type::Text), ("session_id", Type::Id)]),
        Some("auth"),
        SUPABASE,
    ),
    (
        print(
            "offline_user_session",
            &[("user_session_id", Type::Text), ("last_session_refresh", Type::Integer)],
        ),
        None,
        "Keycloak cleans its sessions itself; what is deleted beside it stays in its caches",
    ),
];

const SUPABASE: &str =
    "Supabase Auth cleans its tables itself, and keeps what was revoked to notice its reuse";

/// The links of accounts to OAuth providers, as Auth.js and better-auth have them with each of their adapters. Applications give
/// the table names of their own, so that its columns have to do.
pub(super) const LINKS: [[&str; 2]; 4] = [
    ["provider", "providerAccountId"],
    ["provider", "provider_account_id"],
    ["providerId", "accountId"],
    ["provider_id", "account_id"],
];
/// The names by which `detect` looks for them.
pub(super) const LINK_TABLES: [&str; 5] =
    ["account", "accounts", "Account", "Accounts", "oauth_accounts"];
pub(super) const IS_LINK: &str = "these are the links of accounts to OAuth providers, and may hold passwords: `expires_at` is that of \
                                  the provider's token, and a deleted row locks its user out";

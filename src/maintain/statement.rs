//! The statements themselves, by what a version understands. Pure.
//!
//! VACUUM never cuts a table short here: that takes a lock that keeps everybody out, and replicas' queries are cancelled for it.

use super::plan::Act;

/// Returns the statement of an act.
pub(crate) fn of(act: &Act, major: u32) -> String {
    match act {
        Act::Vacuum { name, analyze, freeze, toast_only, .. } => {
            let mut options = vec!["SKIP_LOCKED", "TRUNCATE false", "PROCESS_TOAST"];
            if major >= 16 {
                // The last statement of a run says so for all of them.
                options.extend(["BUFFER_USAGE_LIMIT '8 MB'", "SKIP_DATABASE_STATS"]);
                if *toast_only {
                    options.push("PROCESS_MAIN false");
                }
            }
            if *freeze {
                options.push("FREEZE");
            }
            if *analyze {
                options.push("ANALYZE");
            }
            format!("VACUUM ({}) {}", options.join(", "), name.quoted())
        }
        Act::Analyze { name, only, .. } => {
            let mut options = vec!["SKIP_LOCKED"];
            if major >= 16 {
                options.push("BUFFER_USAGE_LIMIT '8 MB'");
            }
            let only = if *only { "ONLY " } else { "" };
            format!("ANALYZE ({}) {only}{}", options.join(", "), name.quoted())
        }
        Act::Drop(invalid) => {
            format!("DROP INDEX CONCURRENTLY IF EXISTS {}", invalid.name.quoted())
        }
        Act::Reindex(index) => format!("REINDEX INDEX CONCURRENTLY {}", index.name.quoted()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::look::Name;
    use super::*;

    #[test]
    fn each_version_gets_what_it_understands_and_names_stay_names() {
        let name = Name { schema: "public".to_owned(), name: "a\"; DROP TABLE b".to_owned() };
        let act = Act::Vacuum { table: 1, name, analyze: true, freeze: false, toast_only: true };
        assert_eq!(
            of(&act, 14),
            "VACUUM (SKIP_LOCKED, TRUNCATE false, PROCESS_TOAST, ANALYZE) \"public\".\"a\"\"; DROP TABLE b\""
        );
        assert!(
            of(&act, 16)
                .contains("BUFFER_USAGE_LIMIT '8 MB', SKIP_DATABASE_STATS, PROCESS_MAIN false")
        );
        let name = Name { schema: "s".to_owned(), name: "t".to_owned() };
        assert_eq!(
            of(&Act::Analyze { table: 1, name, only: true }, 18),
            "ANALYZE (SKIP_LOCKED, BUFFER_USAGE_LIMIT '8 MB') ONLY \"s\".\"t\""
        );
    }
}

//! What a rule is: which rows of which table expire when, and what must go with them. Values; nothing is decided here.

use std::time::Duration;

use crate::config::{Child, TableName, Time};

/// Rows that go when their time is over.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    /// As the report calls it.
    pub(crate) name: String,
    pub(crate) table: TableName,
    /// Where the time is: in the table, or in that of `via`.
    pub(crate) column: String,
    pub(crate) time: Time,
    /// The table that has the time, where it is another.
    pub(crate) via: Option<Via>,
    /// How long a row stays after its time.
    pub(crate) grace: Duration,
    /// SQL that must be true as well; the table is `t` in it. It is the operator's, or a preset's.
    pub(crate) conditions: Vec<String>,
    pub(crate) children: Vec<Child>,
    /// More of the table than this is refused at first.
    pub(crate) max_percent: u32,
}

/// Another table that has the time of a row, such as the access token of a refresh token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Via {
    pub(crate) table: TableName,
    /// The column of the other table by which a row is found.
    pub(crate) key: String,
    /// The column of the rule's table that has the same value.
    pub(crate) column: String,
}

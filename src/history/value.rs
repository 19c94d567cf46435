//! Values on their way into and out of either place of the history. What they mean, the statements know.

use postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use rusqlite::types::{ToSqlOutput, ValueRef};

use super::Error;
use crate::clock::Moment;

/// Moments as they sort in `SQLite`: all in UTC, all of one length.
const TIME: &str = "%Y-%m-%dT%H:%M:%S%.6fZ";

/// What a column can hold. `SQLite` has moments as text and flags as numbers.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Text(String),
    Number(i64),
    Flag(bool),
    Moment(Moment),
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Number(number)
    }
}

impl From<u8> for Value {
    fn from(number: u8) -> Value {
        Value::Number(number.into())
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Value {
        Value::Flag(flag)
    }
}

impl From<Moment> for Value {
    fn from(moment: Moment) -> Value {
        Value::Moment(moment)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, T::into)
    }
}

impl rusqlite::ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Value::Null => ToSqlOutput::Borrowed(ValueRef::Null),
            Value::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Value::Number(number) => ToSqlOutput::Borrowed(ValueRef::Integer(*number)),
            Value::Flag(flag) => ToSqlOutput::Borrowed(ValueRef::Integer((*flag).into())),
            Value::Moment(moment) => ToSqlOutput::from(moment.format(TIME).to_string()),
        })
    }
}

impl ToSql for Value {
    fn to_sql(
        &self,
        of: &Type,
        out: &mut bytes::BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Value::Null => Ok(IsNull::Yes),
            Value::Text(text) => text.to_sql(of, out),
            Value::Number(number) => number.to_sql(of, out),
            Value::Flag(flag) => flag.to_sql(of, out),
            Value::Moment(moment) => moment.to_sql(of, out),
        }
    }

    fn accepts(of: &Type) -> bool {
        [Type::TEXT, Type::INT8, Type::BOOL, Type::TIMESTAMPTZ].contains(of)
    }

    to_sql_checked!();
}

/// The columns of a row, taken one after the other.
#[derive(Debug)]
pub(super) struct Row(std::vec::IntoIter<Value>);

impl Row {
    pub(super) fn of_sqlite(row: &rusqlite::Row<'_>, n_columns: usize) -> rusqlite::Result<Row> {
        let value = |n| {
            Ok(match row.get_ref(n)? {
                ValueRef::Integer(number) => Value::Number(number),
                ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
                ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_) => Value::Null,
            })
        };
        Ok(Row((0..n_columns).map(value).collect::<rusqlite::Result<Vec<_>>>()?.into_iter()))
    }

    pub(super) fn of_postgres(row: &postgres::Row) -> Result<Row, postgres::Error> {
        let value = |n: usize| {
            Ok(match *row.columns()[n].type_() {
                Type::INT8 => row.try_get::<_, Option<i64>>(n)?.into(),
                Type::BOOL => row.try_get::<_, Option<bool>>(n)?.into(),
                Type::TIMESTAMPTZ => row.try_get::<_, Option<Moment>>(n)?.into(),
                _ => row.try_get::<_, Option<&str>>(n)?.into(),
            })
        };
        let values = (0..row.len()).map(value).collect::<Result<Vec<_>, postgres::Error>>();
        Ok(Row(values?.into_iter()))
    }

    pub(super) fn text(&mut self) -> Result<String, Error> {
        self.maybe_text()?.ok_or(Error::Value)
    }

    pub(super) fn maybe_text(&mut self) -> Result<Option<String>, Error> {
        match self.0.next() {
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(Value::Null) => Ok(None),
            _ => Err(Error::Value),
        }
    }

    pub(super) fn number<T: TryFrom<i64>>(&mut self) -> Result<T, Error> {
        self.maybe_number()?.ok_or(Error::Value)
    }

    pub(super) fn maybe_number<T: TryFrom<i64>>(&mut self) -> Result<Option<T>, Error> {
        match self.0.next() {
            Some(Value::Number(number)) => T::try_from(number).map(Some).map_err(|_| Error::Value),
            Some(Value::Null) => Ok(None),
            _ => Err(Error::Value),
        }
    }

    pub(super) fn flag(&mut self) -> Result<bool, Error> {
        match self.0.next() {
            Some(Value::Flag(flag)) => Ok(flag),
            Some(Value::Number(number)) => Ok(number != 0),
            _ => Err(Error::Value),
        }
    }

    pub(super) fn moment(&mut self) -> Result<Moment, Error> {
        self.maybe_moment()?.ok_or(Error::Value)
    }

    pub(super) fn maybe_moment(&mut self) -> Result<Option<Moment>, Error> {
        match self.0.next() {
            Some(Value::Moment(moment)) => Ok(Some(moment)),
            Some(Value::Text(text)) => text.parse().map(Some).map_err(|_| Error::Value),
            Some(Value::Null) => Ok(None),
            _ => Err(Error::Value),
        }
    }
}

//! Which type a column of PostgreSQL has in a Parquet file. Pure.
//!
//! A type is taken only where all four readers (`DuckDB`, Spark, Trino, pyarrow) take it for the same thing, and where every value but
//! the odd one (infinity, NaN, 24:00) can stand in it; everything else is PostgreSQL's own text. So `uuid` is text, because Spark
//! does not read files that have Parquet's, and so is a `time`; `jsonb` is, because an annotated string is read as bytes by some; `interval`, `inet`,
//! arrays, ranges and composites are, because no type holds all that they do.

use std::sync::Arc;

use parquet::basic::{LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::errors::ParquetError;
use parquet::schema::types::{Type, TypePtr};

/// The most digits that Parquet's readers take for a number.
const MOST_DIGITS: u8 = 38;

/// How the values of a column stand in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Boolean,
    /// Of 16 or 32 bits.
    Integer {
        bits: u8,
    },
    Bigint,
    Real,
    Double,
    /// So many digits, of which so many stand behind the point.
    Decimal {
        digits: u8,
        scale: u8,
    },
    /// In days since 1970.
    Date,
    /// In microseconds since 1970; of UTC, or of a clock on some wall.
    Timestamp {
        utc: bool,
    },
    Bytes,
    Text,
}

impl Kind {
    /// Returns the kind for a type as `format_type` writes it, such as `numeric(12,2)`.
    pub(crate) fn of(type_name: &str) -> Kind {
        let (name, modifier) = without_modifier(type_name);
        match name.as_str() {
            "boolean" => Kind::Boolean,
            "smallint" => Kind::Integer { bits: 16 },
            "integer" => Kind::Integer { bits: 32 },
            "bigint" | "oid" => Kind::Bigint,
            "real" => Kind::Real,
            "double precision" => Kind::Double,
            "numeric" => decimal(modifier),
            "date" => Kind::Date,
            "timestamp without time zone" => Kind::Timestamp { utc: false },
            "timestamp with time zone" => Kind::Timestamp { utc: true },
            "bytea" => Kind::Bytes,
            _ => Kind::Text,
        }
    }

    /// Returns the name under which the manifest has it.
    pub(crate) fn name(self) -> String {
        match self {
            Kind::Boolean => "boolean".to_owned(),
            Kind::Integer { bits } => format!("int{bits}"),
            Kind::Bigint => "int64".to_owned(),
            Kind::Real => "float".to_owned(),
            Kind::Double => "double".to_owned(),
            Kind::Decimal { digits, scale } => format!("decimal({digits},{scale})"),
            Kind::Date => "date".to_owned(),
            Kind::Timestamp { utc: true } => "timestamp(us, UTC)".to_owned(),
            Kind::Timestamp { utc: false } => "timestamp(us)".to_owned(),
            Kind::Bytes => "bytes".to_owned(),
            Kind::Text => "text".to_owned(),
        }
    }

    /// Returns how many bytes a decimal of this kind takes, if it is not stored as an integer.
    pub(super) fn decimal_bytes(digits: u8) -> Option<usize> {
        // The fewest bytes whose signed integers reach 10^digits - 1.
        let needed = (1..=16).find(|bytes| 2f64.powi(8 * bytes - 1) > 10f64.powi(digits.into()));
        (digits > 18).then_some(needed.and_then(|n| usize::try_from(n).ok()).unwrap_or(16))
    }

    /// Returns the column of the file's schema. All may be NULL: what was NOT NULL once is not for ever.
    pub(super) fn column(self, name: &str) -> Result<TypePtr, ParquetError> {
        let micros = TimeUnit::MICROS;
        let (physical, logical) = match self {
            Kind::Boolean => (Physical::BOOLEAN, None),
            Kind::Integer { bits: 16 } => (Physical::INT32, Some(LogicalType::integer(16, true))),
            Kind::Integer { .. } => (Physical::INT32, None),
            Kind::Bigint => (Physical::INT64, None),
            Kind::Real => (Physical::FLOAT, None),
            Kind::Double => (Physical::DOUBLE, None),
            Kind::Decimal { digits, scale } => {
                let physical = match digits {
                    0..=9 => Physical::INT32,
                    10..=18 => Physical::INT64,
                    _ => Physical::FIXED_LEN_BYTE_ARRAY,
                };
                (physical, Some(LogicalType::decimal(scale.into(), digits.into())))
            }
            Kind::Date => (Physical::INT32, Some(LogicalType::Date)),
            Kind::Timestamp { utc } => (Physical::INT64, Some(LogicalType::timestamp(utc, micros))),
            Kind::Bytes => (Physical::BYTE_ARRAY, None),
            Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        };
        let mut column = Type::primitive_type_builder(name, physical)
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(logical);
        if let Kind::Decimal { digits, scale } = self {
            column = column.with_precision(digits.into()).with_scale(scale.into());
            let bytes = Kind::decimal_bytes(digits).and_then(|bytes| i32::try_from(bytes).ok());
            column = column.with_length(bytes.unwrap_or(-1));
        }
        column.build().map(Arc::new)
    }
}

/// Takes the parentheses out of the name of a type: `time(3) without time zone` is `time without time zone` with `3`.
fn without_modifier(type_name: &str) -> (String, &str) {
    let parts = || {
        let (name, rest) = type_name.split_once('(')?;
        let (modifier, rest) = rest.split_once(')')?;
        Some((format!("{name}{rest}"), modifier))
    };
    parts().unwrap_or_else(|| (type_name.to_owned(), ""))
}

/// Reads the digits and the scale of a `numeric`.
fn decimal(modifier: &str) -> Kind {
    let (digits, scale) = modifier.split_once(',').unwrap_or((modifier, "0"));
    match (digits.parse(), scale.parse()) {
        (Ok(digits @ 1..=MOST_DIGITS), Ok(scale)) if scale <= digits => {
            Kind::Decimal { digits, scale }
        }
        _ => Kind::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_one_where_readers_can_hold_all_its_digits() {
        assert_eq!(Kind::of("numeric(10,2)"), Kind::Decimal { digits: 10, scale: 2 });
        assert_eq!(Kind::of("numeric(38,38)"), Kind::Decimal { digits: 38, scale: 38 });
        for text in ["numeric(39,0)", "numeric(3,5)", "numeric(3,-2)", "numeric", "numeric(3,2)[]"]
        {
            assert_eq!(Kind::of(text), Kind::Text, "{text}");
        }
    }

    #[test]
    fn a_type_is_known_whatever_is_in_its_parentheses() {
        assert_eq!(Kind::of("timestamp(3) with time zone"), Kind::Timestamp { utc: true });
        for text in [
            "uuid",
            "jsonb",
            "inet",
            "interval(3)",
            "integer[]",
            "time without time zone",
            "time with time zone",
            "money",
            "public.mood",
        ] {
            assert_eq!(Kind::of(text), Kind::Text, "{text}");
        }
    }

    #[test]
    fn decimals_take_as_few_bytes_as_hold_them() {
        let bytes = [18, 19, 20, 28, 38].map(Kind::decimal_bytes);
        assert_eq!(bytes, [None, Some(9), Some(9), Some(12), Some(16)]);
    }
}

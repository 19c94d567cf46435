//! One condition on a JSON document: `$.status == "healthy"`, `$.queues[0].workers`. Pure.
//!
//! It is the part of RFC 9535 that names one value, by keys and indices: no wildcards, slices or filters. Without `==` the
//! value must be there and be neither `null` nor `false`.

use serde_json::Value;

/// A path, and what is expected there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Condition {
    text: String,
    steps: Vec<Step>,
    equals: Option<Value>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

impl std::str::FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Condition, String> {
        let wrong = || {
            let like = r#"like `$.status == "healthy"` or `$.queues[0].name`"#;
            format!("`{}` is not {like}", text.trim())
        };
        let mut rest = text.trim().strip_prefix('$').ok_or_else(wrong)?;
        let mut steps = Vec::new();
        loop {
            let (step, behind) = if let Some(dotted) = rest.strip_prefix('.') {
                let is_key = |c: char| c.is_alphanumeric() || "_-".contains(c);
                let end = dotted.find(|c| !is_key(c)).unwrap_or(dotted.len());
                let (key, behind) = dotted.split_at(end);
                (Step::Key(key.to_owned()).filled(), behind)
            } else if let Some(bracket) = rest.strip_prefix('[') {
                bracketed(bracket).ok_or_else(wrong)?
            } else {
                break;
            };
            steps.push(step.ok_or_else(wrong)?);
            rest = behind;
        }
        let equals = match rest.trim() {
            "" => None,
            rest => {
                let value = rest.strip_prefix("==").ok_or_else(wrong)?.trim();
                let said =
                    |_| format!("`{value}` is not a value of JSON: text stands in double quotes");
                Some(serde_json::from_str(value).map_err(said)?)
            }
        };
        Ok(Condition { text: text.trim().to_owned(), steps, equals })
    }
}

impl Step {
    fn filled(self) -> Option<Step> {
        Some(self).filter(|step| *step != Step::Key(String::new()))
    }
}

/// Reads `0]…` or `"a key"]…`, and returns what is behind.
fn bracketed(text: &str) -> Option<(Option<Step>, &str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let step = match values.next()?.ok()? {
        Value::String(key) => Step::Key(key),
        Value::Number(index) => Step::Index(usize::try_from(index.as_u64()?).ok()?),
        _ => return None,
    };
    let behind = text.get(values.byte_offset()..)?.trim_start().strip_prefix(']')?;
    Some((Some(step), behind))
}

impl Condition {
    /// Tells whether it holds; if not, what is there in place of what is expected.
    pub(crate) fn holds(&self, document: &Value) -> Result<(), String> {
        let found = self.steps.iter().try_fold(document, |value, step| match step {
            Step::Key(key) => value.get(key),
            Step::Index(index) => value.get(index),
        });
        let Some(found) = found else {
            return Err(format!("`{}`: there is no such value", self.text));
        };
        let holds = match &self.equals {
            Some(expected) => is_equal(found, expected),
            None => !matches!(found, Value::Null | Value::Bool(false)),
        };
        if holds {
            return Ok(());
        }
        let shown: String = found.to_string().chars().take(80).collect();
        Err(format!("`{}`: it is {shown}", self.text))
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// Compares values as people read them: 1 is 1.0.
fn is_equal(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Number(found), Value::Number(expected)) => {
            found == expected || found.as_f64() == expected.as_f64()
        }
        _ => found == expected,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_condition_holds_or_says_what_is_there() {
        let document = json!({
            "status": "healthy", "checks": [{"db": {"up": true, "lag": 1.0}}, null], "a key": {"x-y": 0}, "no": false
        });
        let check = |condition: &str| condition.parse::<Condition>().unwrap().holds(&document);
        for condition in [
            r#"$.status == "healthy""#,
            r#" $["status"]=="healthy" "#,
            "$.checks[0].db.up == true",
            "$.checks[ 0 ].db.lag == 1",
            "$.checks[1] == null",
            r#"$["a key"].x-y == 0"#,
            r#"$.checks[0].db == {"lag": 1.0, "up": true}"#,
            "$.checks[0].db",
            "$",
        ] {
            assert_eq!(check(condition), Ok(()), "{condition}");
        }
        for (condition, said) in [
            (r#"$.status == "sick""#, r#"`$.status == "sick"`: it is "healthy""#),
            ("$.none", "`$.none`: there is no such value"),
            ("$.checks[2] == null", "`$.checks[2] == null`: there is no such value"),
            ("$.status[0]", "`$.status[0]`: there is no such value"),
            ("$.checks[1]", "`$.checks[1]`: it is null"),
            ("$.no", "`$.no`: it is false"),
        ] {
            assert_eq!(check(condition), Err(said.to_owned()), "{condition}");
        }
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        for text in [
            "",
            "status",
            "$.",
            "$..a",
            "$.a.",
            "$[",
            "$[a]",
            "$[-1]",
            "$[1.5]",
            "$[0",
            "$.*",
            "$.a ==",
            "$.a = 1",
            "$.a == healthy",
            "$.a == 1 2",
            "$.a != 1",
            "$ a",
        ] {
            assert!(text.parse::<Condition>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_key_and_index_is_found(keys in prop::collection::vec(".*", 1..5), index in 0usize..4) {
            let mut document = json!("here");
            let mut path = String::new();
            for key in keys.iter().rev() {
                let mut list = vec![Value::Null; 4];
                list[index] = document;
                document = json!({ key.as_str(): list });
                path = format!("[{}][{index}]{path}", json!(key));
            }
            let condition: Condition = format!("${path} == \"here\"").parse().unwrap();
            prop_assert_eq!(condition.holds(&document), Ok(()));
        }

        #[test]
        fn never_panics(text in any::<String>(), tail in r#"[$.\[\]"=a0 ]{0,20}"#) {
            for text in [text, tail.clone(), format!("${tail}")] {
                if let Ok(condition) = text.parse::<Condition>() {
                    condition.holds(&json!([{"a": [0]}])).ok();
                }
            }
        }
    }
}

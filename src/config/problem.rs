//! What is wrong with a configuration, told so that it can be put right.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: a key of the file, a flag, a variable, or a path.
    pub at: String,
    /// What was found there; never a secret.
    pub found: String,
    /// What belongs there.
    pub expected: String,
    /// A value that would do.
    pub example: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.at, self.found)?;
        writeln!(f, "  expected   {}", self.expected)?;
        write!(f, "  example    {}", self.example)
    }
}

/// Everything that is wrong, in one list; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        let noun = if count == 1 { "problem" } else { "problems" };
        writeln!(f, "{count} configuration {noun}")?;
        for problem in &self.0 {
            write!(f, "\n{problem}\n")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Text from outside as it may be quoted: one line, not endless.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN_MAX: usize = 120;
    let mut shown: String = text.chars().take(SHOWN_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_told_with_what_was_expected() {
        let problem = |at: &str| Problem {
            at: at.to_owned(),
            found: "\"x\" is not host:port".to_owned(),
            expected: "a host and a port".to_owned(),
            example: "db:5432".to_owned(),
        };
        let text = Problems(vec![problem("a"), problem("b")]).to_string();
        assert_eq!(
            text,
            "2 configuration problems\n\n\
             a: \"x\" is not host:port\n  expected   a host and a port\n  example    db:5432\n\n\
             b: \"x\" is not host:port\n  expected   a host and a port\n  example    db:5432\n"
        );
    }

    #[test]
    fn what_is_quoted_stays_on_one_line_and_ends() {
        assert_eq!(quoted("a\nb"), r#""a\nb""#);
        assert!(quoted(&"x".repeat(9_000)).chars().count() < 130);
    }
}

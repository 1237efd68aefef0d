//! Passwords in a file, as clients of PostgreSQL have them in `.pgpass`.

use std::io;
use std::path::Path;

use tokio::io::AsyncReadExt;

use crate::protocols::postgres::Upstream;
use crate::redact::Secret;

use super::NoLogin;

/// Longest file, bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The password of the first line that is for this login, as the file is now.
pub(super) async fn password(
    path: &Path,
    server: &Upstream,
    database: &str,
    role: &str,
) -> Result<Option<Secret>, NoLogin> {
    let text = read(path).await.map_err(NoLogin::File)?;
    let port = server.port.to_string();
    // A folder is this machine, which clients call so.
    let host = match server.host.starts_with('/') {
        true => "localhost",
        false => &server.host,
    };
    Ok(found(text.expose(), [host, &port, database, role]))
}

async fn read(path: &Path) -> io::Result<Secret> {
    let file = tokio::fs::File::open(path).await?;
    let mut text = String::new();
    let mut most = file.take(FILE_BYTES_MAX);
    let read = most.read_to_string(&mut text).await;
    // Wiped, whether it was read or not.
    let text = Secret::new(text);
    read?;
    if most.limit() == 0 {
        let why = format!("it is longer than {FILE_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(text)
}

fn found(text: &str, wanted: [&str; 4]) -> Option<Secret> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let mut rest = line;
            for wanted in wanted {
                let (field, behind) = field(rest);
                let is_it = field.expose() == wanted || rest.starts_with("*:");
                rest = behind.filter(|_| is_it)?;
            }
            Some(field(rest).0)
        })
        .find(|password| !password.expose().is_empty())
}

/// A field without its escapes, up to the next colon; and what is behind that.
fn field(line: &str) -> (Secret, Option<&str>) {
    let mut text = String::with_capacity(line.len());
    let mut letters = line.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            ':' => return (text.into(), line.get(at.saturating_add(1)..)),
            '\\' => text.extend(letters.next().map(|(_, escaped)| escaped)),
            other => text.push(other),
        }
    }
    (text.into(), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pg_8_the_first_line_for_a_login_has_its_password() {
        const FILE: &str = "# db:1:d:r:comment\nother:1:d:r:no\ndb:1:d:r:one\\:\\\\two\n*:*:*:r2:any\ndb:1:d:*:last\ndb:1:short\n\n";
        for (wanted, expected) in [
            (["db", "1", "d", "r"], Some("one:\\two")),
            (["db", "1", "d", "r2"], Some("any")),
            (["x", "9", "y", "r2"], Some("any")),
            (["db", "1", "d", "x"], Some("last")),
            (["db", "1", "short", "x"], None),
            (["db", "2", "d", "r"], None),
            (["*", "1", "d", "r"], None),
        ] {
            let found = found(FILE, wanted);
            assert_eq!(found.as_ref().map(Secret::expose), expected, "{wanted:?}");
        }
    }
}

//! The commands of the protocol, and what becomes of each.

use crate::metrics::Passage;

use super::answer::Form;

/// The first byte of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Code(pub(super) u8);

impl Code {
    pub(super) const QUIT: Self = Self(0x01);
    pub(super) const INIT_DB: Self = Self(0x02);
    pub(super) const QUERY: Self = Self(0x03);
    pub(super) const FIELD_LIST: Self = Self(0x04);
    pub(super) const CREATE_DB: Self = Self(0x05);
    pub(super) const DROP_DB: Self = Self(0x06);
    pub(super) const REFRESH: Self = Self(0x07);
    pub(super) const SHUTDOWN: Self = Self(0x08);
    pub(super) const STATISTICS: Self = Self(0x09);
    pub(super) const PROCESS_INFO: Self = Self(0x0a);
    pub(super) const PROCESS_KILL: Self = Self(0x0c);
    pub(super) const DEBUG: Self = Self(0x0d);
    pub(super) const PING: Self = Self(0x0e);
    pub(super) const CHANGE_USER: Self = Self(0x11);
    pub(super) const BINLOG_DUMP: Self = Self(0x12);
    pub(super) const REGISTER_SLAVE: Self = Self(0x15);
    pub(super) const STMT_PREPARE: Self = Self(0x16);
    pub(super) const STMT_EXECUTE: Self = Self(0x17);
    pub(super) const STMT_SEND_LONG_DATA: Self = Self(0x18);
    pub(super) const STMT_CLOSE: Self = Self(0x19);
    pub(super) const STMT_RESET: Self = Self(0x1a);
    pub(super) const SET_OPTION: Self = Self(0x1b);
    pub(super) const STMT_FETCH: Self = Self(0x1c);
    pub(super) const BINLOG_DUMP_GTID: Self = Self(0x1e);
    pub(super) const RESET_CONNECTION: Self = Self(0x1f);
    pub(super) const STMT_BULK_EXECUTE: Self = Self(0xfa);
}

/// What becomes of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Treatment {
    /// It is judged, and answered like this.
    Judge(Form),
    /// It passes, and is answered like this.
    Pass(Passage, Form),
    /// It passes, and is never answered.
    PassSilently(Passage),
    /// It is of a server that follows another, and judged by its name where such may come.
    Replicate(Form),
    /// It is a login of its own.
    Login,
    /// It ends the session.
    Goodbye,
    /// It is judged, and does not go on, since its answer cannot be followed.
    Refuse(&'static str),
}

impl Code {
    pub(super) fn treatment(self) -> Treatment {
        use Treatment::{Judge, Pass, PassSilently, Refuse};
        match self {
            Self::QUIT => Treatment::Goodbye,
            Self::QUERY | Self::STMT_EXECUTE | Self::STMT_BULK_EXECUTE | Self::PROCESS_INFO => {
                Judge(Form::Results)
            }
            Self::INIT_DB
            | Self::CREATE_DB
            | Self::DROP_DB
            | Self::REFRESH
            | Self::SHUTDOWN
            | Self::PROCESS_KILL
            | Self::DEBUG => Judge(Form::Done),
            Self::FIELD_LIST => Judge(Form::Columns),
            Self::STATISTICS => Judge(Form::Text),
            Self::PING | Self::SET_OPTION | Self::RESET_CONNECTION => {
                Pass(Passage::DatabaseFlow, Form::Done)
            }
            Self::STMT_FETCH => Pass(Passage::DatabaseFlow, Form::Rows),
            Self::STMT_RESET => Pass(Passage::DatabasePreparation, Form::Done),
            Self::STMT_PREPARE => Pass(Passage::DatabasePreparation, Form::Prepared),
            Self::STMT_SEND_LONG_DATA | Self::STMT_CLOSE => {
                PassSilently(Passage::DatabasePreparation)
            }
            Self::CHANGE_USER => Treatment::Login,
            Self::REGISTER_SLAVE => Treatment::Replicate(Form::Done),
            Self::BINLOG_DUMP | Self::BINLOG_DUMP_GTID => Treatment::Replicate(Form::Changes),
            Self(0x13 | 0x14) => Refuse("replication of old servers is not relayed here"),
            Self(0x20) => Refuse("cloning a server is not relayed here"),
            Self(0xfe) => Refuse("several commands in one packet are not understood"),
            Self(_) => Refuse("this command is not known"),
        }
    }
}

/// What policy and the journal call a command that says nothing to be read.
pub(super) fn called(code: Code) -> String {
    let name = match code {
        Code::BINLOG_DUMP => "BINLOG_DUMP",
        Code(0x13) => "TABLE_DUMP",
        Code(0x14) => "CONNECT_OUT",
        Code::REGISTER_SLAVE => "REGISTER_SLAVE",
        Code::BINLOG_DUMP_GTID => "BINLOG_DUMP_GTID",
        Code(0x20) => "CLONE",
        Code(0xfe) => "MULTI",
        Code(other) => return format!("COM_{other}"),
    };
    format!("COM_{name}")
}

/// The statement that says the same as a command without one.
pub(super) fn as_statement(code: Code, body: &[u8]) -> Option<String> {
    let name = |bytes: &[u8]| {
        let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = std::str::from_utf8(bytes).ok()?;
        Some(format!("`{}`", name.replace('`', "``")))
    };
    let number = || {
        let bytes = *body.first_chunk::<4>()?;
        Some(u32::from_le_bytes(bytes))
    };
    Some(match code {
        Code::INIT_DB => format!("USE {}", name(body)?),
        Code::CREATE_DB => format!("CREATE DATABASE {}", name(body)?),
        Code::DROP_DB => format!("DROP DATABASE {}", name(body)?),
        Code::FIELD_LIST => format!("SHOW COLUMNS FROM {}", name(body)?),
        Code::REFRESH => refreshes(*body.first()?)?.to_owned(),
        Code::SHUTDOWN => "SHUTDOWN".to_owned(),
        Code::STATISTICS => "SHOW STATUS".to_owned(),
        Code::PROCESS_INFO => "SHOW PROCESSLIST".to_owned(),
        Code::PROCESS_KILL => format!("KILL {}", number()?),
        Code::DEBUG => "FLUSH LOGS".to_owned(),
        Code(_) => return None,
    })
}

/// What is shown of a command whose name cannot be read.
pub(super) fn shown(code: Code, body: &[u8]) -> String {
    let lossy = String::from_utf8_lossy(body);
    as_statement(code, lossy.as_bytes()).unwrap_or_default()
}

/// What a refresh of this one kind says; `None` for several at once.
fn refreshes(kinds: u8) -> Option<&'static str> {
    Some(match kinds {
        0x01 => "FLUSH PRIVILEGES",
        0x02 => "FLUSH LOGS",
        0x04 => "FLUSH TABLES",
        0x08 => "FLUSH HOSTS",
        0x10 => "FLUSH STATUS",
        0x40 => "RESET SLAVE",
        0x80 => "RESET MASTER",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn my_19_my_20_every_command_is_judged_named_or_refused() {
        let mut counts = [0; 7];
        for code in 0..=255 {
            let index = match Code(code).treatment() {
                Treatment::Judge(_) => 0,
                Treatment::Pass(_, _) => 1,
                Treatment::PassSilently(_) => 2,
                Treatment::Login => 3,
                Treatment::Goodbye => 4,
                Treatment::Refuse(_) => 5,
                Treatment::Replicate(_) => 6,
            };
            counts[index] += 1;
        }
        assert_eq!(counts, [13, 6, 2, 1, 1, 230, 3]);
    }

    #[test]
    fn a_command_without_a_text_is_told_as_the_statement_that_it_is() {
        for (code, body, expected) in [
            (Code::INIT_DB, &b"a`b"[..], Some("USE `a``b`")),
            (Code::FIELD_LIST, b"t\0%", Some("SHOW COLUMNS FROM `t`")),
            (Code::PROCESS_KILL, &[7, 0, 0, 0], Some("KILL 7")),
            (Code::PROCESS_KILL, &[7], None),
            (Code::REFRESH, &[0x80], Some("RESET MASTER")),
            (Code::REFRESH, &[0x05], None),
            (Code::INIT_DB, b"\xff", None),
            (Code::PING, b"", None),
        ] {
            assert_eq!(as_statement(code, body).as_deref(), expected);
        }
    }
}

//! The functions of servers that do more than compute. What users define, and
//! extensions not named here, is not known: a text cannot tell.

use super::analysis::{Class, Flags};

/// What calling a function does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// As its class says.
    Class(Class),
    /// It touches files of the server.
    ServerFile,
    /// It runs a text that it is given.
    RunsText,
    /// It sets what `SET` sets, so also who one is and what names mean.
    Sets,
}

impl Effect {
    pub(super) fn class(self) -> Class {
        match self {
            Self::Class(class) => class,
            Self::ServerFile | Self::Sets => Class::Admin,
            Self::RunsText => Class::Opaque,
        }
    }

    pub(super) fn flags(self) -> Flags {
        match self {
            Self::ServerFile => Flags {
                server_file: true,
                ..Flags::default()
            },
            Self::Sets => Flags::UNCERTAIN,
            Self::Class(_) | Self::RunsText => Flags::default(),
        }
    }
}

/// What calling `name`, lower case and without its schema, does beyond
/// computing; `None` for a function that nothing is known of.
pub(super) fn effect(name: &str) -> Option<Effect> {
    let by_prefix = [
        ("pg_ls_", Effect::ServerFile),
        ("pg_file_", Effect::ServerFile),
        ("pg_read_", Effect::ServerFile),
        ("dblink", Effect::RunsText),
        ("query_to_xml", Effect::RunsText),
        ("crosstab", Effect::RunsText),
        ("lo_", Effect::Class(Class::Write)),
        ("pg_create_", Effect::Class(Class::Admin)),
        ("pg_drop_", Effect::Class(Class::Admin)),
        ("pg_copy_", Effect::Class(Class::Admin)),
        ("pg_logical_", Effect::Class(Class::Admin)),
        ("pg_replication_", Effect::Class(Class::Admin)),
        ("pg_wal_replay_", Effect::Class(Class::Admin)),
        ("pg_stat_reset", Effect::Class(Class::Admin)),
        ("pg_restore_", Effect::Class(Class::Admin)),
        ("sys_e", Effect::Class(Class::Admin)),
        ("group_replication_", Effect::Class(Class::Admin)),
        (
            "asynchronous_connection_failover_",
            Effect::Class(Class::Admin),
        ),
        ("audit_log_", Effect::Class(Class::Admin)),
        ("set_firewall_", Effect::Class(Class::Admin)),
        ("mysql_firewall_", Effect::Class(Class::Admin)),
        ("firewall_", Effect::Class(Class::Admin)),
        ("version_tokens_", Effect::Class(Class::Admin)),
        ("innodb_redo_log_", Effect::ServerFile),
        ("keyring_", Effect::Class(Class::Admin)),
        ("pg_clear_", Effect::Class(Class::Admin)),
    ];
    Some(match name {
        "lo_import" | "lo_export" | "pg_stat_file" | "pg_current_logfile" | "load_file" => {
            Effect::ServerFile
        }
        "ts_stat" | "ts_rewrite" | "connectby" | "table_to_xml" | "schema_to_xml"
        | "database_to_xml" | "cursor_to_xml" | "query_to_json" => Effect::RunsText,
        "nextval"
        | "setval"
        | "lowrite"
        | "pg_notify"
        | "brin_summarize_new_values"
        | "gin_clean_pending_list" => Effect::Class(Class::Write),
        "set_config" => Effect::Sets,
        "pg_terminate_backend"
        | "pg_cancel_backend"
        | "pg_reload_conf"
        | "pg_rotate_logfile"
        | "pg_switch_wal"
        | "pg_promote"
        | "pg_start_backup"
        | "pg_stop_backup"
        | "pg_backup_start"
        | "pg_backup_stop"
        | "pg_export_snapshot"
        | "pg_import_system_collations"
        | "pg_extension_config_dump"
        | "pg_log_backend_memory_contexts"
        | "pg_sync_replication_slots" => Effect::Class(Class::Admin),
        // Read-only ones of a family that writes.
        "lo_get" | "lo_open" | "lo_close" | "lo_tell" | "lo_lseek" | "lo_lseek64" | "lo_tell64" => {
            Effect::Class(Class::Read)
        }
        _ => {
            let found = by_prefix
                .iter()
                .find(|(prefix, _)| name.starts_with(prefix));
            return found.map(|(_, effect)| *effect);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pg_27_functions_that_reach_out_of_the_database_are_known() {
        for (name, class) in [
            ("pg_read_binary_file", Some(Class::Admin)),
            ("pg_ls_waldir", Some(Class::Admin)),
            ("lo_import", Some(Class::Admin)),
            ("lo_unlink", Some(Class::Write)),
            ("lo_get", Some(Class::Read)),
            ("dblink_exec", Some(Class::Opaque)),
            ("query_to_xml_and_xmlschema", Some(Class::Opaque)),
            ("nextval", Some(Class::Write)),
            ("innodb_redo_log_archive_start", Some(Class::Admin)),
            ("version_tokens_set", Some(Class::Admin)),
            ("lower", None),
        ] {
            assert_eq!(effect(name).map(Effect::class), class, "{name}");
        }
        assert!(Effect::ServerFile.flags().server_file);
    }
}

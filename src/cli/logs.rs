//! Structured logs on standard error.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{LogConfig, LogFormat};

/// Sends logs of the whole process to standard error.
///
/// # Errors
/// They are sent somewhere already.
pub(super) fn install(
    config: &LogConfig,
) -> Result<(), tracing::dispatcher::SetGlobalDefaultError> {
    tracing::dispatcher::set_global_default(to(config, std::io::stderr))
}

fn to<W>(config: &LogConfig, writer: W) -> tracing::Dispatch
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::new(&config.filter);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(writer);
    match config.format {
        LogFormat::Text => builder.with_target(false).finish().into(),
        LogFormat::Json => builder.json().flatten_event(true).finish().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    fn logged(format: LogFormat) -> String {
        let text = Arc::new(Mutex::new(Vec::<u8>::new()));
        let config = LogConfig {
            format,
            filter: "info".to_owned(),
        };
        struct Into(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Into {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let writer = text.clone();
        let dispatch = to(&config, move || Into(writer.clone()));
        tracing::dispatcher::with_default(&dispatch, || {
            tracing::info!(verdict = "block", "decided");
            tracing::debug!("unseen");
        });
        let bytes = text.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_lines_carry_fields_and_the_filter_holds() {
        let text = logged(LogFormat::Json);
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(line["verdict"], "block");
        assert_eq!(line["message"], "decided");
    }

    #[test]
    fn text_lines_are_for_people() {
        let text = logged(LogFormat::Text);
        assert!(text.contains("INFO decided verdict=\"block\""), "{text}");
        assert_eq!(text.lines().count(), 1);
    }
}

//! `env`: the environment that sends a program through a serving sidecar.

use std::io;

use crate::app::env_text;
use crate::app::environment::{Environment, databases, leg};
use crate::config::{self, Flags, For, Listener, Source};
use crate::redact::Secret;

use super::{Streams, exit, report};

/// Which sidecar.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Configuration file of the sidecar [env: OPENBOX_CONFIG]
    #[arg(short, long, value_name = "FILE")]
    config: Option<String>,
    /// State folder of the sidecar [env: OPENBOX_STATE_DIR; key: state_dir]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<String>,
    /// Where its HTTP proxy listens [env: OPENBOX_HTTP_LISTEN; key: listen.http]
    #[arg(long, value_name = "ADDR:PORT|off")]
    http_listen: Option<String>,
    /// Where its agent API listens [env: OPENBOX_AGENT_LISTEN; key: listen.agent]
    #[arg(long, value_name = "ADDR:PORT|off")]
    agent_listen: Option<String>,
    /// PostgreSQL server that it governs, as it was told; repeatable [env: OPENBOX_PG; key: postgres.servers]
    #[arg(long, value_name = "LISTEN=URL")]
    pg: Vec<String>,
    /// Redis or Valkey server that it governs, as it was told; repeatable [env: OPENBOX_REDIS; key: redis.servers]
    #[arg(long, value_name = "LISTEN=URL")]
    redis: Vec<String>,
    /// MySQL or MariaDB server that it governs, as it was told; repeatable [env: OPENBOX_MYSQL; key: mysql.servers]
    #[arg(long, value_name = "LISTEN=URL")]
    mysql: Vec<String>,
    /// How it is written
    #[arg(long, value_name = "sh|dotenv|json", default_value = "sh")]
    format: env_text::Format,
}

impl Args {
    fn flags(&self) -> Flags {
        let all = [
            ("--config", &self.config),
            ("--state-dir", &self.state_dir),
            ("--http-listen", &self.http_listen),
            ("--agent-listen", &self.agent_listen),
        ];
        let mut flags = Flags::default();
        for (name, value) in all {
            if let Some(value) = value {
                flags.push(name, value.clone());
            }
        }
        for (name, servers) in [
            ("--pg", &self.pg),
            ("--mysql", &self.mysql),
            ("--redis", &self.redis),
        ] {
            for server in servers {
                flags.push(name, server.clone());
            }
        }
        flags
    }
}

pub(super) fn env(args: &Args, env: &Source, streams: &mut Streams<'_>) -> io::Result<u8> {
    let config = match config::check(&args.flags(), env, For::Serve) {
        Ok(config) => config,
        Err(problems) => return report::problems(&problems, streams),
    };
    let path = config.state_dir.join("agent-token");
    let token = match std::fs::read_to_string(&path) {
        Ok(token) => Secret::new(token.trim()),
        Err(error) => {
            writeln!(
                streams.err,
                "openbox-sidecar: {}: {error}; is the sidecar serving with this --state-dir?",
                path.display()
            )?;
            return Ok(exit::FAILED);
        }
    };
    let address = |listener: Listener| match listener {
        Listener::At(address) => Some(address),
        Listener::Off => None,
    };
    let environment = Environment {
        http: address(config.listen.http),
        agent: address(config.listen.agent),
        agent_socket: config.listen.agent_socket.map(|socket| socket.path),
        databases: databases(
            (
                &config.postgres.upstreams,
                leg(config.postgres.agent_tls.as_ref()),
            ),
            (
                &config.mysql.upstreams,
                leg(config.mysql.agent_tls.as_ref()),
            ),
            &config.redis.upstreams,
        ),
        token,
        state_dir: config.state_dir,
    };
    match env_text::render(&environment.changes(), args.format) {
        Ok(text) => streams.out.write_all(text.as_bytes())?,
        Err(error) => {
            writeln!(streams.err, "openbox-sidecar: {error}")?;
            return Ok(exit::FAILED);
        }
    }
    Ok(exit::OK)
}

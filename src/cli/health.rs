//! `health`: whether a sidecar is ready, for container images without a shell.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::app::child_env::reachable;
use crate::config::{self, Flags, For, Listener, Source};

use super::question::{self, Bounds};
use super::{Streams, exit, report};

/// How much the answer may take.
const BOUNDS: Bounds = Bounds {
    // Who asks by the image's HEALTHCHECK gives it 5 s.
    within: Duration::from_secs(4),
    bytes_max: 8_192,
};

/// Which sidecar.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Configuration file [env: OPENBOX_CONFIG]
    #[arg(short, long, value_name = "FILE")]
    config: Option<String>,
    /// Where the sidecar serves health [env: OPENBOX_HEALTH_LISTEN; key: listen.health; default: 127.0.0.1:15820]
    #[arg(long, value_name = "ADDR:PORT")]
    health_listen: Option<String>,
}

/// Where the sidecar serves health; otherwise the exit code, and what is wrong has been told.
///
/// # Errors
/// A stream cannot be written.
pub(super) fn listener(
    args: &Args,
    env: &Source,
    streams: &mut Streams<'_>,
) -> io::Result<Result<SocketAddr, u8>> {
    let mut flags = Flags::default();
    if let Some(file) = &args.config {
        flags.push("--config", file.clone());
    }
    if let Some(address) = &args.health_listen {
        flags.push("--health-listen", address.clone());
    }
    let config = match config::check(&flags, env, For::Serve) {
        Ok(config) => config,
        Err(problems) => return report::problems(&problems, streams).map(Err),
    };
    let Listener::At(address) = config.listen.health else {
        writeln!(
            streams.err,
            "openbox-sidecar: the health listener is off (--health-listen)"
        )?;
        return Ok(Err(exit::FAILED));
    };
    Ok(Ok(reachable(address)))
}

pub(super) fn health(args: &Args, env: &Source, streams: &mut Streams<'_>) -> io::Result<u8> {
    let address = match listener(args, env, streams)? {
        Ok(address) => address,
        Err(code) => return Ok(code),
    };
    match ask(address) {
        Ok((200, body)) => {
            writeln!(streams.out, "{}", body.trim())?;
            Ok(exit::OK)
        }
        Ok((status, body)) => {
            writeln!(
                streams.err,
                "openbox-sidecar: not ready ({status}): {}",
                body.trim()
            )?;
            Ok(exit::FAILED)
        }
        Err(error) => {
            writeln!(
                streams.err,
                "openbox-sidecar: no answer from {address}: {error}"
            )?;
            Ok(exit::FAILED)
        }
    }
}

/// Status and body of `/readyz`.
pub(super) fn ask(address: SocketAddr) -> io::Result<(u16, String)> {
    let request = format!("GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    question::ask(address, request.as_bytes(), BOUNDS)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// What `health` answers when the sidecar answers `answer`.
    fn answered(answer: &'static str) -> (u8, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            let mut head = [0; 512];
            let read = peer.read(&mut head).unwrap();
            assert!(head[..read].starts_with(b"GET /readyz HTTP/1.1\r\n"));
            peer.write_all(answer.as_bytes()).unwrap();
        });
        let args = Args {
            config: None,
            health_listen: Some(address.to_string()),
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut streams = Streams {
            out: &mut out,
            err: &mut err,
        };
        let code = health(&args, &Source::new([], "host"), &mut streams).unwrap();
        server.join().unwrap();
        out.extend(err);
        (code, String::from_utf8(out).unwrap())
    }

    #[test]
    fn only_a_200_is_ready() {
        let ready = answered("HTTP/1.1 200 OK\r\n\r\nready\n");
        assert_eq!(ready, (exit::OK, "ready\n".to_owned()));
        let (code, text) = answered("HTTP/1.1 503 Service Unavailable\r\n\r\nwaiting for policy\n");
        assert_eq!(code, exit::FAILED);
        assert!(text.contains("waiting for policy"), "{text}");
        assert_eq!(answered("SSH-2.0-x\r\n").0, exit::FAILED);
        assert_eq!(answered("").0, exit::FAILED);
    }

    #[test]
    fn a_sidecar_that_is_not_there_is_not_ready() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert!(ask(address).is_err());
    }

    #[test]
    fn a_listener_on_every_address_is_asked_on_loopback() {
        assert_eq!(
            reachable("0.0.0.0:1".parse().unwrap()).to_string(),
            "127.0.0.1:1"
        );
        assert_eq!(reachable("[::]:1".parse().unwrap()).to_string(), "[::1]:1");
        assert_eq!(
            reachable("10.0.0.1:1".parse().unwrap()).to_string(),
            "10.0.0.1:1"
        );
    }
}

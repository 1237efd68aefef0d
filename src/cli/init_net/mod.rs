//! `init-net`: has the kernel send every connection of the pod through the sidecar, whatever its programs
//! think of proxy variables.
//!
//! The rules are nftables' own language, handed to `nft` as one transaction: they are all there or none is.
//! A pod's init container runs it, the only one with NET_ADMIN, and gone before the app begins.

mod device;
mod routing;
mod rules;
mod tproxy;
mod users;

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Streams, exit};

pub(super) use rules::TABLE;

use device::Device;
use rules::{OPERATOR_PORT, PORT, Rules, Way};
use users::Users;

/// Longest file of name servers that is read, bytes.
const RESOLV_CONF_BYTES_MAX: u64 = 64 * 1024;

/// Where systemd-resolved keeps the name servers that it asks itself.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// What is done with the rules.
#[derive(Debug, clap::Subcommand)]
#[command(arg_required_else_help = true)]
pub(super) enum Verb {
    /// Put the rules into this network namespace, in place of earlier ones; needs root, NET_ADMIN and nft
    Install(Args),
    /// Take them out
    Remove(Tool),
    /// Print them
    Print(Args),
}

/// What the rules are about.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The sidecar's user, the only one whose connections leave as they are
    #[arg(long, value_name = "UID", default_value_t = rules::USER)]
    uid: u32,
    /// Port of the sidecar for captured connections (listen.transparent)
    #[arg(long, value_name = "PORT", default_value_t = PORT)]
    port: u16,
    /// Port of the operator API, to which nobody else connects; repeatable
    #[arg(long, value_name = "PORT", default_values_t = [OPERATOR_PORT])]
    operator_port: Vec<u16>,
    /// File whose name servers may be asked for names
    #[arg(long, value_name = "FILE", default_value = "/etc/resolv.conf")]
    resolv_conf: PathBuf,
    /// A user whose traffic is governed, or a range of them, and nobody else's of this machine; repeatable.
    /// Without it, everybody's but the sidecar's
    #[arg(long, value_name = "UID[-UID]")]
    capture_uid: Vec<Users>,
    /// Lead connections by TPROXY, under the addresses that they were made with (listen.transparent_mode)
    #[arg(long)]
    tproxy: bool,
    /// With --tproxy: what this device brings from other machines to be routed on is governed too; repeatable
    #[arg(long, value_name = "DEVICE", requires = "tproxy")]
    from: Vec<Device>,
    #[command(flatten)]
    tool: Tool,
}

/// What puts rules into the kernel.
#[derive(clap::Args, Debug)]
pub(super) struct Tool {
    /// The program nft, of nftables 1.0 or later
    #[arg(long, value_name = "PATH", default_value = "nft")]
    nft: PathBuf,
    /// The program ip, of iproute2, which TPROXY needs
    #[arg(long, value_name = "PATH", default_value = "ip")]
    ip: PathBuf,
}

/// Where a sidecar listens to whom the rules lead as they are when nobody says otherwise, by the variables that
/// say so.
pub(super) fn listeners() -> [(&'static str, String); 2] {
    [
        ("OPENBOX_TRANSPARENT_LISTEN", format!("127.0.0.1:{PORT}")),
        // Or a file of the pod's could move it away from the rules.
        (
            "OPENBOX_OPERATOR_LISTEN",
            format!("127.0.0.1:{OPERATOR_PORT}"),
        ),
    ]
}

pub(super) fn init_net(verb: &Verb, streams: &mut Streams<'_>) -> io::Result<u8> {
    match verb {
        Verb::Install(args) => match install(args) {
            Ok(servers) => {
                warned(args, &servers, streams)?;
                told("installed", streams)
            }
            Err(why) => refused(&why, streams),
        },
        Verb::Remove(tool) => match remove(tool) {
            Ok(()) => told("removed", streams),
            Err(why) => refused(&why, streams),
        },
        Verb::Print(args) => match name_servers(&args.resolv_conf) {
            Ok(servers) => {
                let rules = args.rules(&servers);
                write!(streams.out, "{rules}")?;
                Ok(exit::OK)
            }
            Err(why) => refused(&why, streams),
        },
    }
}

impl Args {
    /// As `nft` reads them.
    fn rules(&self, servers: &[IpAddr]) -> String {
        let captured = Users::merged(&self.capture_uid);
        let rules = Rules {
            user: self.uid,
            captured: &captured,
            port: self.port,
            operator_ports: &self.operator_port,
            name_servers: servers,
            way: match self.tproxy {
                true => Way::Tproxy(&self.from),
                false => Way::Redirect,
            },
        };
        rules.to_string()
    }

    /// Why names would not be resolved behind the rules, where all of `servers` are on loopback: whoever answers
    /// there asks others, and of those the file says nothing.
    fn cuts_names_off(&self, servers: &[IpAddr]) -> Option<String> {
        let here =
            !servers.is_empty() && servers.iter().all(|one| one.to_canonical().is_loopback());
        if !here || !self.capture_uid.is_empty() {
            return None;
        }
        let (file, user) = (self.resolv_conf.display(), self.uid);
        Some(format!(
            "{file} names only name servers on loopback: what answers there (systemd-resolved at 127.0.0.53) may not ask others by UDP unless it is user {user}, so names may not be resolved; name the file with the servers that it asks, for example --resolv-conf {RESOLVED}"
        ))
    }
}

/// Says what may not work behind the rules.
fn warned(args: &Args, servers: &[IpAddr], streams: &mut Streams<'_>) -> io::Result<()> {
    match args.cuts_names_off(servers) {
        Some(why) => writeln!(streams.err, "openbox-sidecar: warning: {why}"),
        None => Ok(()),
    }
}

/// What is marked must be routed here before anything is marked, and after. Where the rules are not taken the earlier
/// ones stay, and so does the routing that they need. Gives the name servers that may be asked.
fn install(args: &Args) -> Result<Vec<IpAddr>, String> {
    let servers = name_servers(&args.resolv_conf)?;
    let (rules, tool) = (args.rules(&servers), &args.tool);
    if args.tproxy {
        let added = routing::install(&tool.ip)?;
        fed(&tool.nft, &rules).inspect_err(|_| added.take_back(&tool.ip))?;
    } else {
        fed(&tool.nft, &rules)?;
        routing::remove(&tool.ip)?;
    }
    Ok(servers)
}

fn remove(tool: &Tool) -> Result<(), String> {
    fed(&tool.nft, &rules::removal())?;
    routing::remove(&tool.ip)
}

fn told(done: &str, streams: &mut Streams<'_>) -> io::Result<u8> {
    let table = TABLE;
    writeln!(streams.out, "{done} the rules of table inet {table}")?;
    Ok(exit::OK)
}

fn refused(told: &str, streams: &mut Streams<'_>) -> io::Result<u8> {
    writeln!(streams.err, "openbox-sidecar: {told}")?;
    Ok(exit::FAILED)
}

/// The name servers that `file` names; others of its lines are nobody's business here.
///
/// # Errors
/// It cannot be read. What it names and is no address is refused too: names would not be resolved, and nobody
/// would know why.
fn name_servers(file: &Path) -> Result<Vec<IpAddr>, String> {
    let at = file.display();
    let size = std::fs::metadata(file).map(|found| found.len());
    let text = match size {
        Ok(size) if size <= RESOLV_CONF_BYTES_MAX => std::fs::read_to_string(file),
        Ok(size) => return Err(format!("{at} has {size} bytes; expected name servers")),
        Err(error) => Err(error),
    };
    let text = text.map_err(|error| {
        format!(
            "cannot read {at}: {error}; --resolv-conf names the file with the pod's name servers"
        )
    })?;
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some("nameserver"), Some(address)) = (words.next(), words.next()) else {
            continue;
        };
        // A zone belongs to this machine, and nft has no word for it.
        let bare = address.split('%').next().unwrap_or_default();
        let address = bare.parse().map_err(|_| {
            format!(
                "{at}: nameserver {address} is no address; expected one, for example 10.96.0.10"
            )
        })?;
        servers.push(address);
    }
    Ok(servers)
}

/// Has `nft` do what `rules` say, all of it or nothing.
fn fed(nft: &Path, rules: &str) -> Result<(), String> {
    let name = nft.display();
    let child = Command::new(nft)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|error| {
        format!("cannot start {name}: {error}; it comes with the package nftables, and is in the image openbox-sidecar-init-net")
    })?;
    // Closed at the end of the statement, which is how nft knows that this is all. Where it left early, its
    // own words are worth more than a broken pipe.
    let written = child
        .stdin
        .take()
        .map(|mut to| to.write_all(rules.as_bytes()));
    let output = child
        .wait_with_output()
        .map_err(|error| format!("{name} was lost: {error}"))?;
    if output.status.success() && matches!(written, Some(Ok(()))) {
        return Ok(());
    }
    Err(format!(
        "{name} did not take the rules ({}): {}; nothing was changed. It needs root with NET_ADMIN, and a kernel with nf_tables, nf_nat and nf_conntrack",
        output.status,
        first_words(&output.stderr)
    ))
}

/// What is wrong first; the rest follows from it.
fn first_words(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let lines = said.lines().take(2);
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
}

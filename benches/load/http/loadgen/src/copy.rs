//! A proxy that reads nothing and decides nothing: it copies bytes between the client and the origin.

use clap::Args;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};

use crate::loopback::Loopback;
use crate::threads;

/// Most bytes taken at once, each way: all of a large body, if it is there.
const BUFFER_BYTES: usize = 64 * 1024;

#[derive(Args)]
pub(crate) struct Options {
    /// Address to listen on
    #[arg(long)]
    listen: Loopback,
    /// Address that every connection leads to
    #[arg(long)]
    to: Loopback,
}

/// Runs until the process is ended.
pub(crate) async fn run(options: Options) -> Result<(), String> {
    let to = options.to;
    threads::serve(options.listen, move |mut client| async move {
        let mut origin = threads::dial(to).await?;
        between(&mut client, &mut origin).await;
        Ok(())
    })
    .await
}

/// Copies until both ends are done, or one is lost.
pub(crate) async fn between<A, B>(client: &mut A, origin: &mut B)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    // What is lost is told by the client, whose request it was.
    let _lost = copy_bidirectional_with_sizes(client, origin, BUFFER_BYTES, BUFFER_BYTES).await;
}

//! Threads that serve connections, one runtime each: what stands in the place of a proxy is threaded as the sidecar is.

use std::future::Future;
use std::io;
use std::num::NonZero;
use std::thread;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};

use crate::loopback::Loopback;
use crate::server;

/// Serves each connection in a task of the next thread, of as many as there are cores, until the process is ended.
pub(crate) async fn serve<F>(
    address: Loopback,
    serve: impl Fn(TcpStream) -> F + Clone + Send + 'static,
) -> Result<(), String>
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let listener = server::listen(address).await?;
    let count = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = (0..count)
        .map(|_| start())
        .collect::<io::Result<Vec<_>>>()
        .map_err(|error| format!("cannot start a thread: {error}"))?;
    for thread in threads.iter().cycle() {
        let stream = listener.accept().await.and_then(|(stream, _)| {
            stream.set_nodelay(true)?;
            stream.into_std()
        });
        match stream {
            Ok(stream) => {
                let serve = serve.clone();
                thread.spawn(async move {
                    // Registered here, for events of this thread.
                    let served = match TcpStream::from_std(stream) {
                        Ok(stream) => serve(stream).await,
                        Err(error) => Err(error.to_string()),
                    };
                    if let Err(error) = served {
                        eprintln!("loadgen: {error}");
                    }
                });
            }
            Err(error) => eprintln!("loadgen: accept: {error}"),
        }
    }
    Ok(())
}

fn start() -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    thread::Builder::new().spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(handle)
}

/// Dials with TCP_NODELAY set.
pub(crate) async fn dial(address: Loopback) -> Result<TcpStream, String> {
    let dialed = async {
        let stream = TcpStream::connect(address.0).await?;
        stream.set_nodelay(true)?;
        io::Result::Ok(stream)
    };
    dialed.await.map_err(|error| format!("{address}: {error}"))
}

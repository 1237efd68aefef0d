//! Closed-loop load: each connection has one request in flight, and the next follows the last byte of its response.
//!
//! Over HTTP/2 that holds of each stream instead ([`crate::multiplexed`]).

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::client::{self, After, Connection, Expect};
use crate::multiplexed;
use crate::plan::{ANSWER_WITHIN, ERROR_PAUSE, Mode, Options, Plan};
use crate::tally::Tally;

/// Runs to the end and prints the report.
pub(crate) async fn run(options: Options) -> Result<(), String> {
    let plan = Rc::new(Plan::new(options)?);
    let tally = Rc::new(RefCell::new(Tally::default()));
    let tasks = LocalSet::new();
    for worker in 0..plan.connections {
        let (plan, tally) = (Rc::clone(&plan), Rc::clone(&tally));
        if plan.mode.is_multiplexed() {
            tasks.spawn_local(multiplexed::work(plan, tally));
        } else {
            tasks.spawn_local(work(plan, tally, worker));
        }
    }
    tasks.await;
    let report = tally.take().report(plan.measured_from);
    let line = serde_json::to_string(&report).map_err(|error| error.to_string())?;
    println!("{line}");
    Ok(())
}

/// A connection of either kind.
enum Open {
    Plain(Connection<TcpStream>),
    Tls(Box<Connection<TlsStream<TcpStream>>>),
}

impl Open {
    async fn new(plan: &Plan) -> Result<Self, String> {
        let connection = plan.open().await?;
        match &plan.tls {
            None => Ok(Self::Plain(connection)),
            Some((config, name)) => {
                let connection =
                    client::secure(connection, Arc::clone(config), name.clone()).await?;
                Ok(Self::Tls(Box::new(connection)))
            }
        }
    }

    async fn exchange(&mut self, request: &[u8], body: &[u8]) -> Result<After, String> {
        match self {
            Self::Plain(connection) => exchange(connection, request, body).await,
            Self::Tls(connection) => exchange(connection, request, body).await,
        }
    }

    async fn finish(self) {
        match self {
            Self::Plain(connection) => connection.finish().await,
            Self::Tls(connection) => connection.finish().await,
        }
    }
}

async fn exchange<S>(
    connection: &mut Connection<S>,
    request: &[u8],
    body: &[u8],
) -> Result<After, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    connection.exchange(request, &Expect::Body(body)).await
}

async fn work(plan: Rc<Plan>, tally: Rc<RefCell<Tally>>, worker: usize) {
    let mut open: Option<Open> = None;
    let mut request = Vec::new();
    let mut number = 0;
    while plan.goes_on(&tally.borrow()) {
        number += 1;
        plan.write_request(&mut request, worker, number);
        let begun = Instant::now();
        let outcome = timeout(ANSWER_WITHIN, async {
            let mut connection = match open.take() {
                Some(connection) => connection,
                None => Open::new(&plan).await?,
            };
            let after = connection.exchange(&request, &plan.answer).await?;
            Ok((connection, after))
        })
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", ANSWER_WITHIN.as_secs())));
        let done = Instant::now();
        match outcome {
            Ok((connection, after)) => {
                tally
                    .borrow_mut()
                    .answered(begun, done, plan.measured_from, 1);
                if plan.mode == Mode::TlsNew {
                    connection.finish().await;
                } else if after == After::Keep {
                    open = Some(connection);
                } else {
                    tally.borrow_mut().reconnects();
                    connection.finish().await;
                }
            }
            Err(error) => {
                tally.borrow_mut().failed(error);
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
    if let Some(connection) = open {
        connection.finish().await;
    }
}

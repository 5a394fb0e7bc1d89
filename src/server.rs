//! Listening, and stopping: connections are served until the signal, requests under way until they are done.

mod head;
mod rest;

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};

use rest::Lent;

/// Answers requests of many connections.
pub(crate) trait Answer: Clone + Send + 'static {
    /// The same for the requests of one connection.
    fn for_peer(self, peer: IpAddr) -> Self;

    fn answer(
        self,
        request: Request<Lent>,
    ) -> impl Future<Output = axum::http::Response<Body>> + Send;
}

impl Answer for crate::http::Api {
    fn for_peer(self, peer: IpAddr) -> Self {
        Self::for_peer(self, peer)
    }

    fn answer(
        self,
        request: Request<Lent>,
    ) -> impl Future<Output = axum::http::Response<Body>> + Send {
        Self::answer(self, request)
    }
}

impl Answer for axum::Router {
    fn for_peer(self, _: IpAddr) -> Self {
        self
    }

    async fn answer(mut self, request: Request<Lent>) -> axum::http::Response<Body> {
        let Ok(response) = tower::Service::call(&mut self, request.map(Body::new)).await;
        response
    }
}

/// How patient a listener is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// The time that the head of a request may take.
    pub(crate) header: Duration,
    /// The time that requests under way may take once the server is told to stop.
    pub(crate) shutdown: Duration,
}

/// Serves until `stop` is ready; then takes no more connections and finishes what runs.
pub(crate) async fn listen(
    listener: TcpListener,
    face: impl Answer,
    patience: Patience,
    stop: impl Future<Output = ()>,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(patience.header);
    let graceful = GracefulShutdown::new();
    tokio::pin!(stop);
    loop {
        let (stream, peer) = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    refuse(&error).await;
                    continue;
                }
            },
        };
        serve(stream, &http, face.clone().for_peer(peer.ip()), &graceful);
    }
    drop(listener);
    if tokio::time::timeout(patience.shutdown, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("some requests were not finished in time");
    }
}

fn serve(stream: TcpStream, http: &http1::Builder, face: impl Answer, graceful: &GracefulShutdown) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection is gone already");
    }
    let service = service_fn(move |request| {
        let refused = head::refuse(&request);
        let (request, rest) = rest::lend(request);
        let face = face.clone();
        async move {
            if let Some(refused) = refused {
                return Ok::<_, std::convert::Infallible>(refused);
            }
            let mut answer = face.answer(request).await;
            rest.settle(&mut answer);
            Ok(answer)
        }
    });
    let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection ended early");
        }
    });
}

/// A connection that could not be accepted is the client's, or there are too many: then a pause gives others the time
/// to end.
async fn refuse(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    ) {
        tracing::error!(%error, "cannot accept connections");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

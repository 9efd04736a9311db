//! Connections. By hyper's own loop: axum's lacks the limits that a server among strangers needs.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::Peer;

/// Limits of connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many at once.
    pub connections: usize,
    /// Longest time for a handshake, for the headers of a request, and for an answer to begin.
    pub timeout: Duration,
}

/// Serves until `ending` is true, and then what has begun, for as long as `grace`.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: Limits,
    mut ending: watch::Receiver<bool>,
    grace: Duration,
) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    loop {
        let accepted = async {
            // Beyond the limit, connections wait in the listener's queue.
            let slot = slots.clone().acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, (stream, peer)) = tokio::select! {
            (slot, accepted) = accepted => match (slot, accepted) {
                (Ok(slot), Ok(accepted)) => (slot, accepted),
                (_, Err(error)) => {
                    // Out of descriptors, say: it passes, and others would spin here.
                    tracing::warn!(%error, "no connection is taken");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
                (Err(_), _) => break,
            },
            // A sender that is gone ends it as well.
            () = ended(&mut ending) => break,
        };
        let (router, tls, ending) = (router.clone(), tls.clone(), ending.clone());
        tokio::spawn(async move {
            let _slot = slot;
            if let Err(error) = connection(stream, peer, tls, router, limits, ending).await {
                tracing::debug!(%error, %peer, "connection");
            }
        });
    }
    drop(listener);
    let all = slots.acquire_many(u32::try_from(limits.connections).unwrap_or(u32::MAX));
    if tokio::time::timeout(grace, all).await.is_err() {
        tracing::warn!("requests are still running");
    }
}

async fn ended(ending: &mut watch::Receiver<bool>) {
    let _ = ending.wait_for(|ending| *ending).await;
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: Limits,
    ending: watch::Receiver<bool>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match tls {
        Some(tls) => {
            let shaken = tokio::time::timeout(limits.timeout, tls.accept(stream)).await;
            let stream = shaken.map_err(|_| io::ErrorKind::TimedOut)??;
            exchange(stream, peer, router, limits, ending).await
        }
        None => exchange(stream, peer, router, limits, ending).await,
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    router: Router,
    limits: Limits,
    mut ending: watch::Receiver<bool>,
) -> io::Result<()> {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer.ip()));
        let router = router.clone();
        async move {
            let answer = answer(router, request);
            Ok::<_, std::convert::Infallible>(
                match tokio::time::timeout(limits.timeout, answer).await {
                    Ok(response) => response,
                    Err(_) => {
                        use axum::response::IntoResponse as _;
                        super::Problem::new(
                            axum::http::StatusCode::REQUEST_TIMEOUT,
                            "it took too long",
                        )
                        .into_response()
                    }
                },
            )
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.timeout)
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let done = tokio::select! {
        done = connection.as_mut() => return done.map_err(io::Error::other),
        () = ended(&mut ending) => {
            // Answers what has begun, and takes no more.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    done.map_err(io::Error::other)
}

async fn answer(mut router: Router, request: Request<Incoming>) -> axum::response::Response {
    use tower_service::Service as _;
    let request = request.map(axum::body::Body::new);
    match router.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

//! An HTTP server on port 8080 that uses what tokio has: its reactor, its threads for blocking
//! work, timers, files, signals and channels.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, body::Bytes, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::{spawn, spawn_blocking},
    time::sleep,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind(SocketAddr::from(([0u16; 8], 8080))).await?;
    let mut stop = signal(SignalKind::terminate())?;
    println!("listening");
    loop {
        tokio::select! {
            accepted = listener.accept() => drop(spawn(serve(accepted?.0))),
            _ = stop.recv() => break,
        }
    }
    println!("stopping");
    Ok(())
}

async fn serve(stream: TcpStream) {
    if let Err(error) =
        http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await
    {
        eprintln!("connection: {error}");
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let text = match request.uri().path() {
        "/nap" => {
            sleep(Duration::from_millis(100)).await;
            "napped\n".to_owned()
        }
        "/blocking" => {
            let sums =
                (0..4u64).map(|part| spawn_blocking(move || (part..1000).step_by(4).sum::<u64>()));
            let mut total = 0;
            for sum in sums.collect::<Vec<_>>() {
                total += sum.await.unwrap_or(0);
            }
            format!("{total}\n")
        }
        "/file" => match tokio::fs::read("/proc/self/comm").await {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) => format!("{error}\n"),
        },
        "/channel" => {
            let (sender, mut receiver) = mpsc::channel(1);
            spawn(async move {
                for number in 0..1000u32 {
                    let _ = sender.send(number).await;
                }
            });
            let mut count = 0;
            while receiver.recv().await.is_some() {
                count += 1;
            }
            format!("{count}\n")
        }
        "/echo" => match request.into_body().collect().await {
            Ok(body) => return Ok(Response::new(Full::new(body.to_bytes()))),
            Err(error) => format!("{error}\n"),
        },
        path => format!("hello from rust, {path}\n"),
    };
    Ok(Response::new(Full::new(text.into())))
}

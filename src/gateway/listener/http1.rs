//! A client's HTTP/1.1 connection: usual exchanges first, hyper from the first other one on.

use std::{
    cell::Cell,
    convert::Infallible,
    future::{Future as _, poll_fn},
    mem,
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
};

use http::{Request, Response};
use hyper::{server::conn::http1, service::service_fn};

use super::Thread;
use crate::gateway::{
    conn::{
        Guard, Stream,
        turns::{Turns, take_turns},
    },
    proxy::{Answer, Client, Given, serve},
};

/// Serves a connection to its end.
pub(super) async fn serve_connection(here: &Rc<Thread>, client: Rc<Client>, mut guard: Guard<Stream>) {
    let mut called = pin!(here.ending.called.notified());
    // It wakes this task; the flag says why.
    poll_fn(|cx| Poll::Ready(called.as_mut().poll(cx).is_ready())).await;
    let handle = guard.handle();
    let turns = take_turns(
        &mut guard,
        || here.ending.begun.get(),
        |head, body| {
            let (worker, client) = (Rc::clone(&here.worker), Rc::clone(&client));
            serve(worker, client, Some(handle.clone()), head, Given::Whole(body))
        },
    );
    match turns.await {
        Turns::Ended => guard.finish().await,
        Turns::Other(first) => Box::pin(by_hyper(here, client, guard, first)).await,
    }
}

/// `first`: the answer to the first request that hyper reads.
async fn by_hyper(
    here: &Rc<Thread>,
    client: Rc<Client>,
    guard: Guard<Stream>,
    first: Option<Response<Answer>>,
) {
    let (worker, handle) = (Rc::clone(&here.worker), guard.handle());
    let first = Cell::new(first);
    let service = service_fn(move |request: Request<_>| {
        let served = first.take().ok_or_else(|| {
            let (head, body) = request.into_parts();
            let (worker, client) = (Rc::clone(&worker), Rc::clone(&client));
            serve(worker, client, Some(handle.clone()), Box::new(head), Given::Incoming(body))
        });
        async move {
            Ok::<_, Infallible>(match served {
                Ok(response) => response,
                Err(serving) => serving.await,
            })
        }
    });
    let mut builder = http1::Builder::new();
    builder.max_buf_size(64 * 1024).half_close(false);
    let mut connection = builder.serve_connection(guard, service);
    let mut ends = false;
    // Polled for every packet: what is only of use once is asked once.
    let ended = poll_fn(|cx| {
        if here.ending.begun.get() && !mem::replace(&mut ends, true) {
            Pin::new(&mut connection).graceful_shutdown();
        }
        Pin::new(&mut connection).poll(cx)
    });
    let _ = ended.await;
    connection.into_parts().io.finish().await;
}

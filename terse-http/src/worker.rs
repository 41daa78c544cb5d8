//! A web worker: one thread with a runtime of its own that accepts on its own
//! socket, so that no connection is handed from thread to thread.
//!
//! Bounds: so many connections at a time, beyond which new ones wait in the
//! kernel's queue, until idle ones were closed for them or others end; so many
//! of one address, beyond which they are closed; so many accepted in one go, so
//! that those that are there get their turn. Where the system has no more descriptors or memory, the
//! worker pauses before it tries again, and tells of it once a second.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use actix_http::{HttpService, KeepAlive, Protocol};
use actix_service::{IntoServiceFactory, Service, ServiceFactory, map_config};
use actix_web::dev::AppConfig;
use actix_web::middleware::from_fn;
use actix_web::{App, web};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{Either, select};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::io::unix::AsyncFd;
use tokio::runtime::LocalOptions;
use tokio::sync::watch;
use tokio::task::{spawn_local, yield_now};
use tokio::time::{Instant, sleep, timeout};

use crate::addresses::{Addresses, Counted};
use crate::api::places::Places;
use crate::connection::Connection;
use crate::docs::Description;
use crate::front::FrontFactory;
use crate::health::StartedMs;
use crate::lane::{self, Lane, Upper};
use crate::open::{Open, Place};
use crate::redirect::Redirects;
use crate::{State, layer, routes};

/// Connections accepted before those that are there get their turn.
const ACCEPT_BATCH: usize = 16;
/// How long nothing is accepted after the system refused.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often it is told that the system refuses.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Until a client that was answered must have closed its side, where its request was not read to its end.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// What is left for connections to end once the server is told to stop. The caller drains before that.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// What the workers are told to do; they never go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Order {
    /// Accept and answer.
    Serve,
    /// Accept nothing more, and end when the connections have.
    Finish,
    /// End now.
    Cut,
}

/// All that a worker serves.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) state: State,
    pub(crate) started: StartedMs,
    pub(crate) description: Bytes,
    pub(crate) places: Places,
    /// Whether redirects are answered beneath the HTTP server where they can be.
    pub(crate) lane: bool,
}

/// What serves the connections of one worker.
struct Serving<H> {
    handler: Rc<H>,
    lane: Option<Rc<Lane>>,
    open: Rc<Open>,
    addresses: Rc<Addresses>,
}

/// Serves on `listener`, which is non-blocking, until ordered to end.
///
/// # Errors
/// When the runtime or the services can't be made.
pub(crate) fn run(listener: TcpListener, site: Site, orders: &mut watch::Receiver<Order>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    // What is left of the connections is cut when the runtime is dropped.
    runtime.block_on(serve(listener, site, orders))
}

async fn serve(listener: TcpListener, site: Site, orders: &mut watch::Receiver<Order>) -> io::Result<()> {
    let bounds = site.state.settings.bounds;
    let open = Rc::new(Open::default());
    let (address, listener) = (listener.local_addr()?, watch_listener(listener)?);
    let finishing = Rc::clone(&open);
    let refused = site.state.metrics.connections_refused();
    let addresses =
        Addresses::new(bounds.connections_per_address, site.state.settings.trusted_proxies.clone(), refused);
    let redirects = Rc::new(Redirects::new(&site.state));
    let lane = site.lane.then(|| Rc::new(Lane::new(site.state.clone(), Rc::clone(&redirects))));
    let service = HttpService::build()
        .graceful_shutdown_signal(move || {
            let open = Rc::clone(&finishing);
            async move { open.finishing().await }
        })
        // Closing idle connections is ours; actix would set a timer with each answer.
        .keep_alive(if bounds.keep_alive.is_zero() { KeepAlive::Disabled } else { KeepAlive::Os })
        .on_connect_ext(|connection: &Upper, data| drop(data.insert(Rc::clone(connection.activity()))))
        .client_request_timeout(bounds.head_timeout)
        .client_disconnect_timeout(DISCONNECT_TIMEOUT)
        .local_addr(address)
        .finish(map_config(front(site, redirects), |()| AppConfig::default()));
    let handler = service.new_service(()).await.map_err(|()| io::Error::other("the services can't be made"))?;
    let serving = Serving { handler: Rc::new(handler), lane, open: Rc::clone(&open), addresses };
    let closing = Rc::clone(&open);
    let patience = bounds.keep_alive.max(bounds.body_timeout);
    spawn_local(async move { closing.close_idle(bounds.keep_alive, patience).await });
    let order = {
        let accepting = pin!(accept(listener, &serving, bounds.connections_per_worker));
        let ordered = pin!(ordered(orders, Order::Finish));
        match select(accepting, ordered).await {
            Either::Left((failure, _)) => return failure.map(|never| match never {}),
            Either::Right((order, _)) => order,
        }
    };
    if order == Order::Finish {
        open.finish();
        let ended = pin!(timeout(STOP_TIMEOUT, open.ended()));
        select(ended, pin!(ordered(orders, Order::Cut))).await;
    }
    Ok(())
}

/// The front with all routes behind it.
fn front(
    site: Site,
    redirects: Rc<Redirects>,
) -> impl ServiceFactory<
    actix_http::Request,
    Config = AppConfig,
    Response = actix_http::Response<crate::front::Counted>,
    Error = actix_web::Error,
    InitError = (),
    Service = impl Service<
        actix_http::Request,
        Response = actix_http::Response<crate::front::Counted>,
        Error = actix_web::Error,
        Future = crate::front::Answer,
    >,
> {
    let state = site.state.clone();
    let app = App::new()
        .app_data(web::Data::new(site.state.clone()))
        .app_data(web::Data::new(site.started))
        .app_data(web::Data::new(site.places))
        .app_data(web::Data::new(Description(site.description)))
        .configure(move |config| routes::register(config, &site.state))
        .wrap(from_fn(layer::around));
    FrontFactory::new(app.into_factory(), state, redirects)
}

/// The order, once it is at least `least`. Without anybody left to give orders: to end at once.
async fn ordered(orders: &mut watch::Receiver<Order>, least: Order) -> Order {
    orders.wait_for(|order| *order >= least).await.map_or(Order::Cut, |order| *order)
}

#[allow(deprecated, reason = "its successor is unsafe for types that could swap their descriptor; a listener doesn't")]
fn watch_listener(listener: TcpListener) -> io::Result<AsyncFd<TcpListener>> {
    AsyncFd::new(listener)
}

/// Accepts for ever, as long as fewer than `most` connections are open.
///
/// # Errors
/// When the reactor or the services fail.
async fn accept<H>(
    listener: AsyncFd<TcpListener>,
    serving: &Serving<H>,
    most: usize,
) -> io::Result<std::convert::Infallible>
where
    H: Service<(Upper, Protocol, Option<SocketAddr>)> + 'static,
    H::Future: 'static,
{
    let open = &serving.open;
    let mut told: Option<Instant> = None;
    loop {
        let mut ready = listener.readable().await?;
        // It may have been ready before, and nobody wait any more: no idle connection is closed for that.
        if open.count() >= most && !somebody_waits(listener.get_ref())? {
            ready.clear_ready();
            continue;
        }
        open.room(most).await;
        poll_fn(|cx| serving.handler.poll_ready(cx)).await.map_err(|_| io::Error::other("the services have failed"))?;
        let mut accepted = Ok(0);
        while let Ok(count) = accepted
            && count < ACCEPT_BATCH
            && open.count() < most
        {
            accepted = match ready.try_io(|listener| accept_one(listener.get_ref())) {
                Ok(Ok(Some((socket, peer)))) => {
                    serving.start(socket, peer);
                    Ok(count + 1)
                }
                // The client is gone already.
                Ok(Ok(None)) => Ok(count + 1),
                Ok(Err(error)) => Err(error),
                Err(_nobody_waits) => break,
            };
        }
        match accepted {
            Ok(_) => yield_now().await,
            Err(error) => {
                if told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
                    told = Some(Instant::now());
                    tracing::error!(%error, connections = open.count(), "no connection can be accepted");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl<H> Serving<H>
where
    H: Service<(Upper, Protocol, Option<SocketAddr>)> + 'static,
    H::Future: 'static,
{
    /// Starts serving `socket`, on which `peer` was accepted, unless that has too many.
    fn start(&self, socket: TcpStream, peer: Option<SocketAddr>) {
        let Some(counted) = self.addresses.enter(peer) else { return };
        let activity = self.open.activity();
        let connection = Connection::bare(socket, Rc::clone(&activity));
        self.open.add(activity, |place| match &self.lane {
            Some(lane) => {
                let (handler, open) = (Rc::clone(&self.handler), Rc::clone(&self.open));
                let served = lane::serve(Rc::clone(lane), handler, open, connection, peer);
                spawn_local(until_ended((place, counted), served)).abort_handle()
            }
            None => {
                let served = self.handler.call((Upper::whole(connection), Protocol::Http1, peer));
                // What went wrong on a connection was logged where it did.
                spawn_local(until_ended((place, counted), served.map(|_| ()))).abort_handle()
            }
        });
    }
}

/// Holds a connection's place and its address' until `served` has ended.
async fn until_ended(places: (Place, Counted), served: impl Future<Output = ()>) {
    served.await;
    drop(places);
}

/// Whether there is a connection in the kernel's queue.
fn somebody_waits(listener: &TcpListener) -> io::Result<bool> {
    let mut listeners = [PollFd::new(listener, PollFlags::IN)];
    loop {
        match poll(&mut listeners, Some(&Timespec::default())) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Takes one connection out of the kernel's queue. `None` = it broke while it waited there.
fn accept_one(listener: &TcpListener) -> io::Result<Option<(TcpStream, Option<SocketAddr>)>> {
    match acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
        Ok((socket, peer)) => Ok(Some((TcpStream::from(socket), peer.and_then(|peer| peer.try_into().ok())))),
        // What `accept(2)` says of the connection itself, not of this process.
        Err(
            Errno::CONNABORTED
            | Errno::CONNRESET
            | Errno::PERM
            | Errno::PROTO
            | Errno::NETDOWN
            | Errno::NETUNREACH
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::INTR,
        ) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

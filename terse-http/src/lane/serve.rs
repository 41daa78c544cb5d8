//! A connection's life: in the lane, in the HTTP server's hands, and back.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_http::Protocol;
use actix_service::Service;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::consume_budget;
use tokio::time::{Sleep, sleep};

use super::head::Extent;
use super::line::{Line, Upper};
use super::{Buffers, Lane, OUT_BYTES, Step, TURNS};
use crate::connection::Connection;
use crate::open::Open;

/// Serves `connection` until it ends.
pub(crate) async fn serve<H>(
    lane: Rc<Lane>,
    handler: Rc<H>,
    open: Rc<Open>,
    connection: Connection,
    peer: Option<SocketAddr>,
) where
    H: Service<(Upper, Protocol, Option<SocketAddr>)>,
{
    let line = Rc::new(RefCell::new(Line::new(connection)));
    let mut travel = Travel::new(&lane, Rc::clone(&line), peer);
    let mut finishing = pin!(open.finishing());
    let mut upper: Option<Pin<Box<H::Future>>> = None;
    let mut told = false;
    loop {
        // What is kept may be many requests, none of which has to wait for anything.
        consume_budget().await;
        let next = poll_fn(|cx| {
            // Whoever was told to wake this task once does so; until then a look at the mark is enough.
            if !travel.finish && (!told || open.is_finishing()) {
                told = true;
                travel.finish = finishing.as_mut().poll(cx).is_ready();
            }
            travel.poll(cx)
        });
        if next.await == Next::End {
            return;
        }
        let service = match &mut upper {
            Some(service) => service,
            None => {
                if poll_fn(|cx| handler.poll_ready(cx)).await.is_err() {
                    return;
                }
                upper.insert(Box::pin(handler.call((Upper::new(&line), Protocol::Http1, peer))))
            }
        };
        let back = poll_fn(|cx| {
            loop {
                match service.as_mut().poll(cx) {
                    // What went wrong on a connection was logged where it did.
                    Poll::Ready(_) => return Poll::Ready(false),
                    Poll::Pending if line.borrow().is_back() => return Poll::Ready(true),
                    Poll::Pending if line.borrow().is_left_unread() => {
                        line.borrow_mut().hand_all(&std::mem::take(&mut travel.kept));
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        if !back.await {
            return;
        }
    }
}

/// Why a connection leaves the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// It has ended.
    End,
    /// Something was handed on.
    Upper,
}

/// A connection in the lane.
struct Travel<'l> {
    lane: &'l Lane,
    line: Rc<RefCell<Line>>,
    peer: Option<SocketAddr>,
    /// What was read and is not answered.
    kept: Vec<u8>,
    /// There may be a whole head in that.
    look: bool,
    /// Answers that could not leave yet.
    unsent: Vec<u8>,
    /// How much of them has left.
    sent: usize,
    /// Nothing more is answered.
    finish: bool,
    /// Runs until the first head is there.
    head_timer: Option<Pin<Box<Sleep>>>,
    begun: bool,
}

impl<'l> Travel<'l> {
    fn new(lane: &'l Lane, line: Rc<RefCell<Line>>, peer: Option<SocketAddr>) -> Self {
        Self {
            lane,
            line,
            peer,
            kept: Vec::new(),
            look: false,
            unsent: Vec::new(),
            sent: 0,
            finish: false,
            head_timer: None,
            begun: false,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        for _ in 0..TURNS {
            // A connection that broke has ended.
            if ready!(self.poll_unsent(cx)).is_err() {
                return Poll::Ready(Next::End);
            }
            if self.finish {
                // The client learns of the end in any case, since the socket is closed next.
                return self.poll_shutdown(cx).map(|_| Next::End);
            }
            match self.poll_turn(cx) {
                Poll::Ready(Ok(None)) => {}
                Poll::Ready(Ok(Some(next))) => return Poll::Ready(next),
                Poll::Ready(Err(_)) => return Poll::Ready(Next::End),
                Poll::Pending => ready!(self.poll_head_timer(cx)),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads once, and answers what can be.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Next>>> {
        let lane = self.lane;
        let mut buffers = lane.buffers.borrow_mut();
        let Buffers { input, output } = &mut *buffers;
        let kept = self.kept.len();
        input[..kept].copy_from_slice(&self.kept);
        let mut filled = kept;
        if !std::mem::take(&mut self.look) {
            let mut buffer = ReadBuf::new(&mut input[kept..]);
            ready!(Pin::new(&mut self.line.borrow_mut().connection).poll_read(cx, &mut buffer))?;
            filled += buffer.filled().len();
            if filled == kept {
                self.finish = true;
                return Poll::Ready(Ok(None));
            }
        }
        output.clear();
        let next = self.answer(input, filled, output);
        let mut sent = 0;
        while sent < output.len() {
            match Pin::new(&mut self.line.borrow_mut().connection).poll_write(cx, &output[sent..])? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(bytes) => sent += bytes,
                Poll::Pending => {
                    self.unsent.extend_from_slice(&output[sent..]);
                    break;
                }
            }
        }
        Poll::Ready(Ok(next))
    }

    /// Answers what `input` holds up to `filled`, as far as the lane can, and keeps or hands on the rest.
    fn answer(&mut self, input: &[u8], filled: usize, output: &mut Vec<u8>) -> Option<Next> {
        let mut at = 0;
        while at < filled && output.len() < OUT_BYTES {
            let rest = &input[at..filled];
            match self.lane.step(rest, self.peer, output) {
                Step::Answered { length, keep } => {
                    self.begin();
                    at += length;
                    if !keep {
                        self.finish = true;
                        return None;
                    }
                }
                Step::Partial if rest.len() < input.len() => {
                    self.keep(rest, false);
                    return None;
                }
                // Answers leave in the order of the requests: those that are made are sent first.
                Step::Alone(_) | Step::Strange if at > 0 => break,
                Step::Alone(Extent { head, body }) => {
                    self.begin();
                    let here = usize::try_from(body).unwrap_or(usize::MAX).min(rest.len() - head);
                    self.line.borrow_mut().hand(&rest[..head + here], body - here as u64);
                    self.keep(&rest[head + here..], true);
                    return Some(Next::Upper);
                }
                Step::Strange | Step::Partial => {
                    self.begin();
                    self.line.borrow_mut().hand_all(rest);
                    return Some(Next::Upper);
                }
            }
        }
        self.keep(&input[at..filled], true);
        None
    }

    /// A first head has come.
    fn begin(&mut self) {
        self.begun = true;
        self.head_timer = None;
    }

    /// Keeps `rest`, in which there may be a whole head.
    fn keep(&mut self, rest: &[u8], look: bool) {
        self.look = look && !rest.is_empty();
        self.kept.clear();
        self.kept.extend_from_slice(rest);
        if rest.is_empty() && self.kept.capacity() > 0 {
            self.kept = Vec::new();
        }
    }

    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unsent.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while let Some(rest) = self.unsent.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.line.borrow_mut().connection).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                bytes => self.sent += bytes,
            }
        }
        (self.unsent, self.sent) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line.borrow_mut().connection).poll_shutdown(cx)
    }

    /// Ready when who has sent no head is told so.
    fn poll_head_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.begun {
            return Poll::Pending;
        }
        let Some(timeout) = self.lane.head_timeout() else {
            return Poll::Pending;
        };
        ready!(self.head_timer.get_or_insert_with(|| Box::pin(sleep(timeout))).as_mut().poll(cx));
        self.begin();
        self.lane.too_late(&mut self.unsent);
        self.finish = true;
        Poll::Ready(())
    }
}

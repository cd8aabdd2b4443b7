//! One watch as a source of frames.

use crate::serve::body::Body;
use crate::serve::counters::Watching;
use crate::serve::dispatch::{Call, State};
use crate::wire::error::{ApiError, too_large_version};
use crate::wire::frames::EventForm;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Frame;
use reddwarf_registry::{ListQuery, RawWatch, RegistryError, WatchError, WatchEventType};
use reddwarf_store::Revision;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFutureOwned;

/// Bytes of stored objects that the initial list has in memory at a time.
const PIECE: usize = 64 << 10;

/// How a watch begins and how long it lasts.
pub(super) struct Start {
    /// What its frames look like.
    pub(super) form: EventForm,
    /// The version to start after; what there is comes first when absent.
    pub(super) from: Option<Revision>,
    /// What there is does not come first all the same.
    pub(super) skip_initial: bool,
    /// A bookmark says when what there is has come.
    pub(super) mark: bool,
    /// Time between bookmarks, if the client wants them.
    pub(super) bookmarks: Option<Duration>,
    /// Time until it ends.
    pub(super) time: Duration,
}

/// A watch. It is small (a thousand of them idle most of the time) and does something only when polled.
pub(super) struct Feed {
    state: Arc<State>,
    form: EventForm,
    /// What is still to be sent before the first live event.
    initial: Option<Box<Initial>>,
    /// The live events, or why there are none.
    watch: Result<RawWatch, Box<WatchError>>,
    /// The next bookmark or the end, whichever comes first.
    timer: Pin<Box<Sleep>>,
    end: Instant,
    bookmarks: Option<Duration>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    /// A table's columns were told.
    told: bool,
    ended: bool,
    _counted: Watching,
    _place: OwnedSemaphorePermit,
}

/// What there is, read in pieces over one snapshot.
struct Initial {
    /// The rest of it; `None` when all was read.
    query: Option<ListQuery>,
    frames: VecDeque<Bytes>,
    mark: bool,
}

impl Feed {
    /// Begins a watch of what `query` selects.
    ///
    /// # Errors
    /// 429 for too many of them; what reading the store says.
    pub(super) fn start(call: &Call, query: ListQuery, start: Start) -> Result<Self, ApiError> {
        let place = call.stream_place()?;
        let registry = &call.state.deps.registry;
        let mut told = false;
        let (initial, watch) = match start.from {
            Some(revision) => (None, registry.watch_raw(&query, revision)),
            None if start.skip_initial => (None, registry.watch_raw(&query, registry.revision())),
            None => {
                let (initial, revision) = Initial::begin(call, &query, &start, &mut told)?;
                (Some(Box::new(initial)), registry.watch_raw(&query, revision))
            }
        };
        let now = Instant::now();
        let end = now + start.time;
        let first = start.bookmarks.map_or(end, |every| end.min(now + every));
        Ok(Self {
            form: start.form,
            initial,
            watch: watch.map_err(Box::new),
            timer: Box::pin(sleep_until(first)),
            end,
            bookmarks: start.bookmarks,
            stop: Box::pin(call.state.stop.clone().cancelled_owned()),
            told,
            ended: false,
            _counted: Watching::new(call.state.clone(), query.kind.plural),
            _place: place,
            state: call.state.clone(),
        })
    }

    /// As the body of an answer.
    pub(super) fn into_body(self) -> Body {
        FeedBody(self).boxed_unsync()
    }

    /// The next frame; `None` at the end.
    pub(super) fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.ended || self.stop.as_mut().poll(context).is_ready() {
            self.ended = true;
            return Poll::Ready(None);
        }
        if let Some(frame) = self.next_initial() {
            return Poll::Ready(Some(frame));
        }
        match self.poll_event(context) {
            Poll::Ready(Ok(frame)) => return Poll::Ready(Some(frame)),
            Poll::Ready(Err(error)) => {
                self.ended = true;
                return Poll::Ready(error.map(|error| self.form.error(&error)));
            }
            Poll::Pending => {}
        }
        ready!(self.timer.as_mut().poll(context));
        let now = Instant::now();
        match (self.bookmarks, &self.watch) {
            (Some(every), Ok(watch)) if now < self.end => {
                self.timer.as_mut().reset(self.end.min(now + every));
                let frame = self.form.bookmark(watch.revision(), false);
                // Polled again at once, so that the timer knows whom to wake.
                context.waker().wake_by_ref();
                Poll::Ready(Some(frame))
            }
            _ => {
                self.ended = true;
                Poll::Ready(None)
            }
        }
    }

    /// What there is, or the mark that this was all.
    fn next_initial(&mut self) -> Option<Bytes> {
        let initial = self.initial.as_mut()?;
        match initial.next(&self.state, &self.form, &mut self.told) {
            Ok(Some(frame)) => return Some(frame),
            Ok(None) => {}
            Err(error) => {
                self.ended = true;
                self.initial = None;
                return Some(self.form.error(&error.into()));
            }
        }
        let mark = initial.mark;
        self.initial = None;
        let watch = self.watch.as_ref().ok().filter(|_| mark)?;
        Some(self.form.bookmark(watch.revision(), true))
    }

    /// The next live event; `Err(None)` when the store is closed.
    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, Option<ApiError>>> {
        let watch = match &mut self.watch {
            Ok(watch) => watch,
            Err(error) => return Poll::Ready(Err(told(error))),
        };
        match ready!(watch.poll_next(context)) {
            Ok(event) => {
                let columns = !std::mem::replace(&mut self.told, true);
                let frame = self.form.event(&self.state, event.kind, &event.object, columns);
                Poll::Ready(frame.map_err(|error| Some(error.into())))
            }
            Err(error) => Poll::Ready(Err(told(&error))),
        }
    }
}

/// What a client is told of the end of its watch; nothing when the daemon ends.
fn told(error: &WatchError) -> Option<ApiError> {
    match error {
        WatchError::Closed => None,
        WatchError::Expired { .. } => Some(ApiError::new(410, "Expired", error.to_string())),
        WatchError::TooLarge { .. } => Some(too_large_version(error.to_string())),
        WatchError::Failed(_) => Some(ApiError::internal(error)),
    }
}

impl Initial {
    /// The first piece, and the revision that all of it is true for.
    fn begin(call: &Call, query: &ListQuery, start: &Start, told: &mut bool) -> Result<(Self, Revision), ApiError> {
        let mut initial = Self { query: Some(query.clone()), frames: VecDeque::new(), mark: start.mark };
        let revision = initial.read_piece(&call.state, &start.form, told)?;
        Ok((initial, revision.unwrap_or(Revision::ZERO)))
    }

    /// Reads on: the next frames, of one or more ADDED events each.
    fn read_piece(
        &mut self,
        state: &State,
        form: &EventForm,
        told: &mut bool,
    ) -> Result<Option<Revision>, RegistryError> {
        let Some(query) = &mut self.query else { return Ok(None) };
        let (frames, mut frame) = (&mut self.frames, Vec::new());
        let end = state.deps.registry.visit(query, Some(PIECE), |object| {
            let columns = !std::mem::replace(told, true);
            form.write_event(state, WatchEventType::Added, object, columns, &mut frame)?;
            if form.is_one_a_frame() {
                frames.push_back(std::mem::take(&mut frame).into());
            }
            Ok(())
        })?;
        if !frame.is_empty() {
            frames.push_back(frame.into());
        }
        query.after = end.next;
        if query.after.is_none() {
            self.query = None;
        }
        Ok(Some(end.revision))
    }

    /// The next frame; `None` when all was sent.
    fn next(&mut self, state: &State, form: &EventForm, told: &mut bool) -> Result<Option<Bytes>, RegistryError> {
        while self.frames.is_empty() && self.query.is_some() {
            self.read_piece(state, form, told)?;
        }
        Ok(self.frames.pop_front())
    }
}

/// A feed as a body: the connection asks for the next frame when it can send one.
struct FeedBody(Feed);

impl hyper::body::Body for FeedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_frame(context).map(|frame| frame.map(|bytes| Ok(Frame::data(bytes))))
    }
}

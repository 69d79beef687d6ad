//! Calls of many partitions in one exchange: what comes while exchanges are under way shares the next one. An idle store answers each call
//! at once and alone; a busy one is asked less often for more, which costs it and the worker less per event.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::oneshot, task::JoinSet};

use crate::engine::ports::StoreError;

/// Exchanges under way at once: while Redis works on one, the next is made and the one before is taken apart.
const UNDER_WAY: usize = 2;
/// Events of one exchange, for which nobody else is answered meanwhile: a few milliseconds of Redis' time. A call of more goes alone.
const EVENTS: usize = 4096;
/// Fewer events than this are worth waiting for others: from here on an exchange costs little per event, and whoever waits is idle.
const COMPANY: usize = 256;

/// One call with its events' number, and who waits for its answer.
struct Waiting<C, A> {
    call: C,
    events: usize,
    answer: oneshot::Sender<Result<A, StoreError>>,
}

struct State<C, A> {
    waiting: VecDeque<Waiting<C, A>>,
    under_way: usize,
    tasks: JoinSet<()>,
}

/// Gathers calls of one kind. Dropping it gives up what is under way.
pub(super) struct Gather<C, A>(Arc<Mutex<State<C, A>>>);

impl<C, A> Default for Gather<C, A> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State { waiting: VecDeque::new(), under_way: 0, tasks: JoinSet::new() })))
    }
}

impl<C: Send + 'static, A: Send + 'static> Gather<C, A> {
    /// Makes a call, which counts so many events, in an exchange with others; `exchange` answers each in its place. Whoever is dropped meanwhile
    /// may have been heard.
    ///
    /// # Errors
    /// The call's own.
    pub(super) async fn call<E, F>(&self, call: C, events: usize, exchange: E) -> Result<A, StoreError>
    where
        E: Fn(Vec<C>) -> F + Send + 'static,
        F: Future<Output = Vec<Result<A, StoreError>>> + Send + 'static,
    {
        let (answer, told) = oneshot::channel();
        {
            let mut state = lock(&self.0);
            state.waiting.push_back(Waiting { call, events, answer });
            if state.under_way < UNDER_WAY {
                while state.tasks.try_join_next().is_some() {}
                state.under_way += 1;
                state.tasks.spawn(serve(Arc::clone(&self.0), exchange));
            }
        }
        told.await.unwrap_or_else(|_| Err(StoreError::Unavailable("redis: the exchange was given up".to_owned())))
    }
}

impl<C, A> Drop for Gather<C, A> {
    fn drop(&mut self) {
        lock(&self.0).tasks.abort_all();
    }
}

/// Exchanges, one after the other, until nobody waits.
async fn serve<C, A, E, F>(state: Arc<Mutex<State<C, A>>>, exchange: E)
where
    E: Fn(Vec<C>) -> F,
    F: Future<Output = Vec<Result<A, StoreError>>>,
{
    let mut under_way = UnderWay { state, given_up: false };
    loop {
        // While Redis has something to do, what others ask who can go on now goes along.
        if under_way.is_worth_waiting() {
            tokio::task::yield_now().await;
        }
        let Some((calls, waiters)) = under_way.next() else { break };
        for (answer, waiter) in exchange(calls).await.into_iter().zip(waiters) {
            let _gone = waiter.send(answer);
        }
    }
}

/// The calls of an exchange, and who waits for each.
type Calls<C, A> = (Vec<C>, Vec<oneshot::Sender<Result<A, StoreError>>>);

/// One exchange's place among those under way, given up with it.
struct UnderWay<C, A> {
    state: Arc<Mutex<State<C, A>>>,
    given_up: bool,
}

impl<C, A> UnderWay<C, A> {
    /// Whether another exchange is under way, and this one would be small.
    fn is_worth_waiting(&self) -> bool {
        let state = lock(&self.state);
        state.under_way > 1 && state.waiting.iter().map(|waiting| waiting.events).sum::<usize>() < COMPANY
    }

    /// The calls of the next exchange; `None`: nobody waits, and whoever comes next begins one.
    fn next(&mut self) -> Option<Calls<C, A>> {
        let mut state = lock(&self.state);
        let (mut calls, mut waiters, mut events) = (Vec::new(), Vec::new(), 0);
        while let Some(next) = state.waiting.pop_front() {
            if !calls.is_empty() && events + next.events > EVENTS {
                state.waiting.push_front(next);
                break;
            }
            // Nobody waits for those any more: their events come again.
            if !next.answer.is_closed() {
                events += next.events;
                calls.push(next.call);
                waiters.push(next.answer);
            }
        }
        if calls.is_empty() {
            state.under_way -= 1;
            self.given_up = true;
            return None;
        }
        Some((calls, waiters))
    }
}

impl<C, A> Drop for UnderWay<C, A> {
    fn drop(&mut self) {
        if self.given_up {
            return;
        }
        let mut state = lock(&self.state);
        state.under_way -= 1;
        if state.under_way == 0 {
            // It broke off, and nobody else would serve those: they ask again.
            state.waiting.clear();
        }
    }
}

fn lock<C, A>(state: &Mutex<State<C, A>>) -> MutexGuard<'_, State<C, A>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

//! What `GET /stats` shows: figures that handlers keep in the store, the same from whatever replica is asked.

use std::sync::{Arc, OnceLock};

use futures_util::future::{BoxFuture, FutureExt, join_all, ready, try_join_all};
use serde_json::{Map, Value, json};

use crate::engine::ports::StoreError;

/// A handler's figures.
pub trait Page: Send + Sync + 'static {
    /// Reads them: an object with the handler's `kind`.
    fn read(&self) -> BoxFuture<'_, Result<Value, StoreError>>;

    /// Brings its gauges up to date, where it has some; called before each scrape.
    fn refresh(&self) -> BoxFuture<'_, ()> {
        ready(()).boxed()
    }
}

/// The pages of every handler. The listener is there before the handlers are made, so they come later, by [`Stats::open`].
#[derive(Clone, Default)]
pub struct Stats(Arc<OnceLock<Pages>>);

/// Handlers' names and pages.
pub type Pages = Vec<(Arc<str>, Arc<dyn Page>)>;

impl Stats {
    /// Shows these from now on. Only the first call counts.
    pub fn open(&self, pages: Pages) {
        let _first_counts = self.0.set(pages);
    }

    /// As [`Page::refresh`], of every page.
    pub async fn refresh(&self) {
        join_all(self.0.get().into_iter().flatten().map(|(_, page)| page.refresh())).await;
    }

    /// `{"handlers": {"<name>": {..}}}`; empty where no handler keeps figures.
    ///
    /// # Errors
    /// Where the store is away.
    pub async fn read(&self) -> Result<Value, String> {
        let pages = self.0.get().map(Vec::as_slice).unwrap_or_default();
        let read = pages.iter().map(async |(name, page)| Ok((name.to_string(), page.read().await?)));
        let figures: Map<_, _> = try_join_all(read).await.map_err(|error: StoreError| error.to_string())?.into_iter().collect();
        Ok(json!({ "handlers": figures }))
    }
}

//! Routes of an app that declares them as Dapr's apps do: `/dapr/subscribe`, asked by GET, and by POST where GET is answered 404 or 405.

use std::time::Duration;

use reqwest::{Client, Method, Url, header::HeaderValue};
use tokio::sync::watch;

use super::{
    client,
    routes::{Current, Routes, join},
};
use crate::{
    config::{handlers::RouteConfig, subscription},
    health::Reporter,
};

/// Longest answer that is read.
const MAX_ANSWER: usize = 1 << 20;
/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time between two questions to an app that is away: quick at first, as apps start beside their worker, then patient.
const PAUSES: [Duration; 5] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(5)];

/// Why an app's routes are not known yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiscoverError {
    /// The app is away, or answers that it has no such page (yet).
    #[error("{0}")]
    Away(String),
    /// The app asks for something that is not offered: its answer must change.
    #[error("/dapr/subscribe: {0}")]
    Refused(String),
}

/// An app that is asked for its routes.
pub struct App {
    /// The handler that it is behind.
    pub name: String,
    /// Its base URL.
    pub url: Url,
    /// The client of its handler.
    pub http: Client,
    /// Sent as `dapr-api-token`.
    pub token: Option<HeaderValue>,
    /// Sent as `dapr-app-id`.
    pub app_id: Option<HeaderValue>,
    /// Routes that it need not tell.
    pub declared: Vec<RouteConfig>,
    /// The worker's own dead-letter topic.
    pub dlq: String,
    /// Time between two questions once it has answered.
    pub every: Duration,
    /// Told whether it is there.
    pub report: Reporter,
}

impl App {
    /// Asks until it tells its routes. An app that is away, or asks for what is not offered, is asked again: never an error, so that
    /// app and worker may start, or be mended, in any order. What is wrong is logged when it changes and stands in the report.
    pub async fn discover(&self) -> Routes {
        let mut pauses = PAUSES.iter();
        let mut pause = PAUSES[0];
        let mut told = None;
        loop {
            match self.ask().await {
                Ok(routes) => {
                    self.report.ok();
                    self.tell("the app told its routes", &routes);
                    return routes;
                }
                Err(error) => self.complain(&mut told, error, "waiting for the app to tell its routes"),
            }
            tokio::time::sleep(pause).await;
            pause = pauses.next().copied().unwrap_or(pause);
        }
    }

    /// Asks again at the interval and at each of `reloads`, and sets what changed. Resolves when other topics are to be read, or the same
    /// ones in another way; an app that is away keeps its routes.
    pub async fn changed(&self, current: &Current, mut reloads: watch::Receiver<u64>) {
        let mut told = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.every) => {}
                Ok(()) = reloads.changed() => {}
            }
            let routes = match self.ask().await {
                Ok(routes) => routes,
                Err(error) => {
                    self.complain(&mut told, error, "the app does not tell its routes; those known stay in force");
                    continue;
                }
            };
            if told.take().is_some() {
                self.report.ok();
            }
            let known = current.get();
            if routes != *known {
                self.tell("the app changed its routes", &routes);
                let other = !routes.reads_as(&known);
                current.set(routes);
                if other {
                    return;
                }
            }
        }
    }

    /// Asks once.
    ///
    /// # Errors
    /// Where the app is away, or its answer cannot be used.
    pub async fn ask(&self) -> Result<Routes, DiscoverError> {
        let page = join(&self.url, "dapr/subscribe").ok_or_else(|| DiscoverError::Refused("not a base URL".to_owned()))?;
        let mut answer = self.question(Method::GET, &page).await?;
        if matches!(answer.0, 404 | 405) {
            answer = self.question(Method::POST, &page).await?;
        }
        let told = match answer {
            (200..=299, body) => subscription::parse(&body).map_err(DiscoverError::Refused)?,
            // It has no such page: what is declared for it is all there is.
            (404 | 405, _) if !self.declared.is_empty() => Vec::new(),
            (status, _) => return Err(DiscoverError::Away(format!("/dapr/subscribe answered {status}"))),
        };
        Routes::compile(&self.url, &self.declared, &told, &self.dlq).map_err(DiscoverError::Refused)
    }

    async fn question(&self, method: Method, page: &Url) -> Result<(u16, Vec<u8>), DiscoverError> {
        let mut request = self.http.request(method, page.clone()).header("content-type", "application/json");
        for (name, value) in [("dapr-api-token", &self.token), ("dapr-app-id", &self.app_id)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        let exchange = async {
            let mut response = request.send().await?;
            let body = client::read_bounded(&mut response, MAX_ANSWER).await?;
            Ok::<_, reqwest::Error>((response.status().as_u16(), body))
        };
        match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(Ok((status, Some(body)))) => Ok((status, body)),
            Ok(Ok((_, None))) => Err(DiscoverError::Refused("the answer is longer than 1 MiB".to_owned())),
            Ok(Err(error)) => Err(DiscoverError::Away(client::reason(&error))),
            Err(_) => Err(DiscoverError::Away(format!("no answer within {}", humantime::format_duration(PATIENCE)))),
        }
    }

    fn tell(&self, what: &str, routes: &Routes) {
        let topics: Vec<_> = routes.topics().collect();
        tracing::info!(handler = self.name, app = client::shown(&self.url), topics = topics.join(","), "{what}");
        if topics.is_empty() {
            tracing::warn!(handler = self.name, "the app subscribes to nothing: this handler gets no events");
        }
    }

    /// Reports what is wrong, and logs it where it is not what was wrong before.
    fn complain(&self, told: &mut Option<DiscoverError>, error: DiscoverError, consequence: &str) {
        self.report.fail(error.to_string());
        if told.as_ref() != Some(&error) {
            match &error {
                DiscoverError::Away(error) => {
                    tracing::warn!(handler = self.name, app = client::shown(&self.url), error, "{consequence}");
                }
                DiscoverError::Refused(_) => {
                    tracing::error!(handler = self.name, app = client::shown(&self.url), %error, "the app's routes cannot be used as they are");
                }
            }
        }
        *told = Some(error);
    }
}

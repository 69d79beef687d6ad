//! A TCP proxy between a worker and its broker or store, which misbehaves when it is told to.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{broadcast, watch},
    task::JoinSet,
};

/// What happens to bytes on their way.
#[derive(Debug, Clone, Copy, Default)]
struct Weather {
    /// Each piece is held back for this long.
    delay: Duration,
    /// While anybody holds it, nothing passes; what was sent arrives late.
    holds: usize,
}

/// What happens to the connections of this moment.
#[derive(Debug, Clone, Copy)]
enum Order {
    /// RST to both ends.
    Reset,
    /// Nothing passes any more and neither end is told; the next connection works.
    Strand,
}

/// A running proxy; its connections end with it.
pub struct Proxy {
    address: String,
    target: Arc<Mutex<String>>,
    weather: Arc<watch::Sender<Weather>>,
    orders: broadcast::Sender<Order>,
    server: tokio::task::JoinHandle<()>,
}

/// While it lives, nothing passes.
pub struct Hold(Arc<watch::Sender<Weather>>);

impl Proxy {
    /// Listens on a free port of 127.0.0.1. Connections are refused, by closing them, until there is a target.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (target, weather) = (Arc::<Mutex<String>>::default(), Arc::new(watch::channel(Weather::default()).0));
        let orders = broadcast::channel(16).0;
        let server = tokio::spawn(serve(listener, Arc::clone(&target), Arc::clone(&weather), orders.clone()));
        Self { address, target, weather, orders, server }
    }

    /// Where clients connect to.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where connections go from now on.
    pub fn set_target(&self, address: &str) {
        address.clone_into(&mut self.target.lock().unwrap());
    }

    /// Holds every piece of bytes back for this long, until told otherwise.
    pub fn set_delay(&self, delay: Duration) {
        self.weather.send_modify(|weather| weather.delay = delay);
    }

    /// Lets nothing pass until the hold is dropped; then everything arrives, late.
    pub fn hold(&self) -> Hold {
        self.weather.send_modify(|weather| weather.holds += 1);
        Hold(Arc::clone(&self.weather))
    }

    /// Resets every connection.
    pub fn reset(&self) {
        drop(self.orders.send(Order::Reset));
    }

    /// Swallows every connection, as a firewall does that has forgotten it: half-open, and never told.
    pub fn strand(&self) {
        drop(self.orders.send(Order::Strand));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.send_modify(|weather| weather.holds -= 1);
    }
}

async fn serve(listener: TcpListener, target: Arc<Mutex<String>>, weather: Arc<watch::Sender<Weather>>, orders: broadcast::Sender<Order>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((near, _)) = accepted else { continue };
                let target = target.lock().unwrap().clone();
                connections.spawn(carry(near, target, weather.subscribe(), orders.subscribe()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection, until either end closes it or it is reset.
async fn carry(mut near: TcpStream, target: String, mut weather: watch::Receiver<Weather>, mut orders: broadcast::Receiver<Order>) {
    // A connection made while nothing passes is made late too.
    drop(weather.wait_for(|weather| weather.holds == 0).await);
    let Ok(mut far) = TcpStream::connect(target).await else { return };
    // As the ends themselves do: what is small goes at once.
    drop((near.set_nodelay(true), far.set_nodelay(true)));
    let order = {
        let ((mut from_near, mut to_near), (mut from_far, mut to_far)) = (near.split(), far.split());
        tokio::select! {
            _ = pass(&mut from_near, &mut to_far, weather.clone()) => return,
            _ = pass(&mut from_far, &mut to_near, weather.clone()) => return,
            order = orders.recv() => order,
        }
    };
    match order {
        // Until a reset: even such a firewall is mended some time.
        Ok(Order::Strand) => {
            while matches!(orders.recv().await, Ok(Order::Strand)) {}
            drop((near.set_zero_linger(), far.set_zero_linger()));
        }
        Ok(Order::Reset) | Err(_) => drop((near.set_zero_linger(), far.set_zero_linger())),
    }
}

async fn pass(from: &mut ReadHalf<'_>, to: &mut WriteHalf<'_>, mut weather: watch::Receiver<Weather>) -> io::Result<()> {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let count = from.read(&mut bytes).await?;
        if count == 0 {
            return Ok(());
        }
        let delay = weather.borrow().delay;
        tokio::time::sleep(delay).await;
        if weather.wait_for(|weather| weather.holds == 0).await.is_err() {
            return Ok(());
        }
        to.write_all(&bytes[..count]).await?;
    }
}

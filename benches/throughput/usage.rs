//! What processes cost: CPU time to the nanosecond, from the kernel's own books (`/proc`).

use std::{fs, time::Instant};

/// CPU time of the measured process and of what it talks to, at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot {
    /// When.
    pub at: Instant,
    /// Nanoseconds of the measured process.
    pub own: u64,
    /// Of the broker, where it runs here.
    pub broker: Option<u64>,
    /// Of Redis, where it runs here.
    pub redis: Option<u64>,
    /// Of the app, or of the clients.
    pub app: Option<u64>,
    /// Of every process of the machine.
    pub machine: u64,
}

/// The processes to look at.
#[derive(Debug, Clone, Copy, Default)]
pub struct Processes {
    /// The measured one; `None`: this one.
    pub own: Option<u32>,
    /// The broker's, where it runs on this machine.
    pub broker: Option<u32>,
    /// Redis'.
    pub redis: Option<u32>,
    /// The app's that events are posted to, or that of the clients that post.
    pub app: Option<u32>,
}

impl Processes {
    /// The measured process.
    pub fn measured(&self) -> u32 {
        self.own.unwrap_or_else(std::process::id)
    }

    /// What they have used so far.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            at: Instant::now(),
            own: cpu_of(self.measured()).unwrap_or_default(),
            broker: self.broker.and_then(cpu_of),
            redis: self.redis.and_then(cpu_of),
            app: self.app.and_then(cpu_of),
            machine: machine_cpu(),
        }
    }
}

/// Nanoseconds on a CPU of every living thread of a process.
pub fn cpu_of(pid: u32) -> Option<u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let times = tasks.flatten().filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Some(times.sum())
}

/// Nanoseconds that all CPUs together were not idle, to the clock tick (10 ms).
fn machine_cpu() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<u64> = stat.lines().next().unwrap_or_default().split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    // user, nice, system; idle and iowait; irq, softirq, steal.
    let busy: u64 = fields.iter().enumerate().filter(|(index, _)| matches!(index, 0..=2 | 5..=7)).map(|(_, ticks)| ticks).sum();
    busy * 10_000_000
}

/// Most memory that a process ever had resident, in bytes.
pub fn peak_rss(pid: u32) -> u64 {
    status(pid, "VmHWM:")
}

/// Memory that a process has resident now, in bytes.
pub fn rss(pid: u32) -> u64 {
    status(pid, "VmRSS:")
}

/// The part of it that is pages of files, above all of its own program: the kernel can drop them, and replicas on a node share them.
pub fn rss_of_files(pid: u32) -> u64 {
    status(pid, "RssFile:")
}

fn status(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() * 1024
}

/// The process that listens on a port of this machine.
pub fn listener(port: u16) -> Option<u32> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().find_map(|table| {
        let table = fs::read_to_string(table).ok()?;
        table.lines().skip(1).find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let here = u16::from_str_radix(fields.get(1)?.rsplit(':').next()?, 16).ok()?;
            (here == port && *fields.get(3)? == "0A").then(|| fields.get(9).map(|inode| format!("socket:[{inode}]")))?
        })
    })?;
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid = process.file_name().to_str()?.parse::<u32>().ok()?;
        let mut open = fs::read_dir(process.path().join("fd")).ok()?.flatten();
        open.any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target.to_str() == Some(&inode))).then_some(pid)
    })
}

/// The load of the last minute.
pub fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default()
}

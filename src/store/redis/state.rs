//! State in Redis, as Dapr's state.redis lays it out: a hash per key with `data`, `version` and, where it was asked for, `first-write`.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use redis::{Pipeline, RedisError, Value, aio::MultiplexedConnection};

use super::{
    link::{Link, Ready, Timing},
    probe::ServerInfo,
    scripts::Script,
};
use crate::{
    config::secret::SecretUrl,
    engine::ports::StoreError,
    store::state::{Change, Read, StateStore, Stored, Ttl},
};

/// Keys of one call: what Redis does without a break.
const STEP: usize = 128;

/// A [`StateStore`] in Redis; one primary, no cluster.
pub struct RedisState {
    link: Link<Scripts>,
}

/// KEYS. Answers for each: nothing, `{data, version}`, `{text}` for a plain string, or 0 for anything else.
const GET: &str = "local found = {}
for i, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key)['ok']
  local read = 0
  if kind == 'none' then
    read = {}
  elseif kind == 'string' then
    read = { redis.call('GET', key) }
  elseif kind == 'hash' then
    local fields = redis.call('HMGET', key, 'data', 'version')
    if fields[1] and fields[2] then read = fields end
  end
  found[i] = read
end
return found";

/// KEYS. ARGV version that is expected or 0, data, whether it is a first write, seconds to live (0: for ever; empty: as before) of each.
/// Answers 1 for each that was written. What stands under a key and is no hash gives way, as it does in Dapr.
const SAVE: &str = "local saved = {}
for i, key in ipairs(KEYS) do
  local expected, data, first, ttl = ARGV[4 * i - 3], ARGV[4 * i - 2], ARGV[4 * i - 1], ARGV[4 * i]
  local kind = redis.call('TYPE', key)['ok']
  if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', key) end
  local is = redis.call('HMGET', key, 'version', 'first-write')
  local free = not is[1] or is[1] == '' or is[1] == expected or (expected == '0' and not is[2])
  if free then
    redis.call('HSET', key, 'data', data)
    if first == '1' then redis.call('HSET', key, 'first-write', 0) end
    redis.call('HINCRBY', key, 'version', 1)
    if ttl == '0' then redis.call('PERSIST', key) elseif ttl ~= '' then redis.call('EXPIRE', key, ttl) end
  end
  saved[i] = free and 1 or 0
end
return saved";

/// KEYS key. ARGV version that is expected, or empty. Answers 1 where the key is gone.
const DELETE: &str = "local version = false
if redis.call('TYPE', KEYS[1])['ok'] == 'hash' then version = redis.call('HGET', KEYS[1], 'version') end
if ARGV[1] ~= '' and version and version ~= '' and version ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
return 1";

struct Scripts {
    get: Script,
    save: Script,
    delete: Script,
}

impl Ready for Scripts {
    fn load_all(&self) -> Pipeline {
        Script::load([&self.get, &self.save, &self.delete])
    }

    async fn ready(
        &self,
        connection: &mut MultiplexedConnection,
        explain: &(dyn Fn(&RedisError) -> StoreError + Sync),
    ) -> Result<(), StoreError> {
        match redis::cmd("INFO").query_async::<String>(connection).await {
            Ok(text) => ServerInfo::parse(&text).usable()?,
            // A user that may not ask can still read and write.
            Err(error) if error.to_string().contains("NOPERM") => {}
            Err(error) => return Err(explain(&error)),
        }
        self.load_all().exec_async(connection).await.map_err(|error| explain(&error))
    }
}

impl RedisState {
    /// Reads the address; connects when first used.
    ///
    /// # Errors
    /// [`StoreError::Refused`] where the address is none, or needs what this build lacks.
    pub fn new(url: &SecretUrl) -> Result<Self, StoreError> {
        let scripts = Scripts { get: Script::new(GET), save: Script::new(SAVE), delete: Script::new(DELETE) };
        Ok(Self { link: Link::new(url, Timing::default(), scripts)? })
    }

    fn scripts(&self) -> &Scripts {
        self.link.setup()
    }

    async fn get_now(&self, keys: &[String]) -> Result<Vec<Read>, StoreError> {
        let mut pipeline = redis::pipe();
        for keys in keys.chunks(STEP) {
            pipeline.add_command(self.scripts().get.call(keys.len()).arg(keys).to_owned());
        }
        let answers: Vec<Vec<Value>> = self.link.run(&pipeline, self.link.timing().answer).await?;
        Ok(answers.into_iter().flatten().map(read).collect())
    }

    async fn save_now(&self, changes: Vec<Change>) -> Result<Vec<bool>, StoreError> {
        let mut pipeline = redis::pipe();
        for changes in changes.chunks(STEP) {
            let mut call = self.scripts().save.call(changes.len());
            for change in changes {
                call.arg(&change.key);
            }
            for change in changes {
                call.arg(change.version.unwrap_or(0)).arg(&change.data[..]).arg(u8::from(change.first_write));
                match change.ttl {
                    Ttl::Keep => call.arg(""),
                    Ttl::Never => call.arg(0),
                    Ttl::Seconds(seconds) => call.arg(seconds),
                };
            }
            pipeline.add_command(call);
        }
        let answers: Vec<Vec<bool>> = self.link.run(&pipeline, self.link.timing().answer).await?;
        Ok(answers.into_iter().flatten().collect())
    }

    async fn delete_now(&self, key: &str, etag: Option<&str>) -> Result<bool, StoreError> {
        let mut pipeline = redis::pipe();
        pipeline.add_command(self.scripts().delete.call(1).arg(key).arg(etag.unwrap_or_default()).to_owned());
        let (gone,) = self.link.run(&pipeline, self.link.timing().answer).await?;
        Ok(gone)
    }
}

fn read(value: Value) -> Read {
    let Value::Array(fields) = value else {
        return Err("what stands under this key is no state".to_owned());
    };
    let mut texts = fields.into_iter().map(|field| match field {
        Value::BulkString(bytes) => Bytes::from(bytes),
        _ => Bytes::new(),
    });
    let Some(data) = texts.next() else { return Ok(None) };
    Ok(Some(Stored { data, etag: texts.next().map(|version| String::from_utf8_lossy(&version).into_owned()) }))
}

impl StateStore for RedisState {
    fn get<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Result<Vec<Read>, StoreError>> {
        Box::pin(self.get_now(keys))
    }

    fn save(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<Vec<bool>, StoreError>> {
        Box::pin(self.save_now(changes))
    }

    fn delete<'a>(&'a self, key: &'a str, etag: Option<&'a str>) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(self.delete_now(key, etag))
    }
}

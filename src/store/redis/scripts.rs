//! What Redis itself decides, each in one step: who holds a lease, and what only its holder may write.
//!
//! Every time in here is Redis' own (`TIME`): two workers' clocks never meet. Numbers are written with `%.0f`, since Lua's own text of a
//! number above 10^14 is not exact. A lease is the hash `owner, epoch, end, released, clean, waiter, seq`; an empty owner is nobody: the place is
//! kept free for an owner whose lease Redis lost.

use redis::Cmd;

use super::{accounts, outbox, reminders, tally, ticks};

/// Answer of a script: this owner's lease is not there (Redis lost it, or fell back to an older state); renewing writes it again.
pub(super) const LOST: i64 = -1;
/// Answer of a script: the lease is another's.
pub(super) const FENCED: i64 = -2;
/// Answer of a script: a later save of this process was there before, so this one must not undo it.
pub(super) const STALE: i64 = -3;

/// Begins every script that asks whose a lease is: `standing(key, owner, epoch)` is 1, or why that owner may write nothing.
macro_rules! leased {
    ($body:literal) => {
        concat!(
            "local function standing(key, owner, epoch)
  local l = redis.call('HMGET', key, 'owner', 'epoch', 'released')
  if not l[1] or l[1] == '' or tonumber(l[2]) < tonumber(epoch) then return -1 end
  if l[1] ~= owner or l[2] ~= epoch or l[3] == '1' then return -2 end
  return 1
end
",
            $body
        )
    };
}

/// Begins every script that only the holder of one lease may run: `KEYS[1]` lease, `ARGV[1]` owner, `ARGV[2]` epoch.
macro_rules! held {
    ($body:literal) => {
        concat!(
            leased!(
                "local ours = standing(KEYS[1], ARGV[1], ARGV[2])
if ours < 0 then return ours end
"
            ),
            $body
        )
    };
}

/// Begins every script that needs the time: `now`, milliseconds since 1970.
macro_rules! timed {
    ($body:literal) => {
        concat!(
            "local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local function text(n) return string.format('%.0f', n) end
",
            $body
        )
    };
}

/// A script and the name under which Redis knows it once it is loaded.
pub(super) struct Script {
    code: &'static str,
    hash: String,
}

impl Script {
    pub(super) fn new(code: &'static str) -> Self {
        Self { code, hash: redis::Script::new(code).get_hash().to_owned() }
    }

    /// A call, to be followed by keys (`keys` of them), then arguments.
    pub(super) fn call(&self, keys: usize) -> Cmd {
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(&self.hash).arg(keys);
        cmd
    }

    /// Makes Redis know these, in one exchange.
    pub(super) fn load<'s>(scripts: impl IntoIterator<Item = &'s Self>) -> redis::Pipeline {
        let mut pipeline = redis::pipe();
        for script in scripts {
            pipeline.cmd("SCRIPT").arg("LOAD").arg(script.code).ignore();
        }
        pipeline
    }
}

/// Every script of the store.
pub(super) struct Scripts {
    /// KEYS lease, mark, records of each of several owners. ARGV ttl, then of each: owner, epoch, mark or '', epoch as 8 bytes, the number of
    /// starts, offset and id of each start. Answers whether each holds its lease: of one that does not, nothing is written.
    pub(super) begin: Script,
    /// KEYS leases, sets. ARGV the number of leases, expiry time or '', owner and epoch of each, the number of members of each set, then the
    /// members. Answers how many are new; or, where one does not hold its lease, which do, and nothing is written.
    pub(super) finish: Script,
    /// KEYS lease, records. ARGV owner, epoch, ttl, sequence number, then offset and record (or '' to remove) of each.
    pub(super) save: Script,
    /// KEYS lease, mark. ARGV owner, epoch, ttl. Answers 1 and the highest mark of any owner, if there is one.
    pub(super) load: Script,
    /// KEYS lease. ARGV owner, map's epoch, lease time, ttl. Answers {0, wait} or {1, epoch, clean, now}.
    pub(super) acquire: Script,
    /// KEYS lease. ARGV owner, epoch, lease time, ttl, end of the lease as its owner knows it. Answers {ours, waiter, now}.
    pub(super) renew: Script,
    /// KEYS lease. ARGV as renew.
    pub(super) release: Script,
    /// Of [`super::ticks`].
    pub(super) tick_enter: Script,
    pub(super) tick_claim: Script,
    pub(super) tick_keep: Script,
    /// Of [`super::reminders`].
    pub(super) reminder_claim: Script,
    pub(super) reminder_replace: Script,
    pub(super) reminder_renew: Script,
    /// Of [`super::outbox`].
    pub(super) outbox_admit: Script,
    pub(super) outbox_defer: Script,
    pub(super) outbox_claim: Script,
    pub(super) outbox_take: Script,
    /// Of [`super::accounts`].
    pub(super) account_post: Script,
    /// Of [`super::tally`].
    pub(super) tally_count: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            begin: Script::new(BEGIN),
            finish: Script::new(FINISH),
            save: Script::new(SAVE),
            load: Script::new(LOAD),
            acquire: Script::new(ACQUIRE),
            renew: Script::new(RENEW),
            release: Script::new(RELEASE),
            tick_enter: Script::new(ticks::ENTER),
            tick_claim: Script::new(ticks::CLAIM),
            tick_keep: Script::new(ticks::KEEP_OR_FINISH),
            reminder_claim: Script::new(reminders::CLAIM),
            reminder_replace: Script::new(reminders::REPLACE),
            reminder_renew: Script::new(reminders::RENEW),
            outbox_admit: Script::new(outbox::ADMIT),
            outbox_defer: Script::new(outbox::DEFER),
            outbox_claim: Script::new(outbox::CLAIM),
            outbox_take: Script::new(outbox::TAKE),
            account_post: Script::new(accounts::POST),
            tally_count: Script::new(tally::COUNT),
        }
    }

    /// Makes Redis know all of them, in one exchange.
    pub(super) fn load_all(&self) -> redis::Pipeline {
        let leases = [&self.begin, &self.finish, &self.save, &self.load, &self.acquire, &self.renew, &self.release];
        let ticks = [&self.tick_enter, &self.tick_claim, &self.tick_keep];
        let reminders = [&self.reminder_claim, &self.reminder_replace, &self.reminder_renew];
        let outbox = [&self.outbox_admit, &self.outbox_defer, &self.outbox_claim, &self.outbox_take];
        let books = [&self.account_post, &self.tally_count];
        Script::load(leases.into_iter().chain(ticks).chain(reminders).chain(outbox).chain(books))
    }
}

/// Starts and their epoch stand at the same place in versions 1 and 2 of a record.
///
/// The mark never goes back, not even when an older call arrives late. A start is counted once per owner until it is answered, however
/// often a slow Redis makes the owner ask: an owner that died left one unanswered run.
const BEGIN: &str = leased!(
    "local answer = {}
local at = 2
for k = 1, #KEYS, 3 do
  local epoch, mark, starter = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local first = at + 5
  local last = first + 2 * tonumber(ARGV[at + 4]) - 1
  local ours = standing(KEYS[k], ARGV[at], epoch)
  if ours == 1 then
    if mark ~= '' then
      local old = redis.call('HGET', KEYS[k + 1], epoch)
      if not old or tonumber(old) < tonumber(mark) then
        redis.call('HSET', KEYS[k + 1], epoch, mark)
        redis.call('PEXPIRE', KEYS[k + 1], ARGV[1])
      end
    end
    for i = first, last, 2 do
      local offset, id = ARGV[i], ARGV[i + 1]
      local old = redis.call('HGET', KEYS[k + 2], offset)
      local new
      if old and old:byte(1) <= 2 and old:sub(2, 17) == id then
        local starts = struct.unpack('>I4', old, 18)
        if starts == 0 or old:sub(22, 29) ~= starter then
          new = old:sub(1, 17) .. struct.pack('>I4', starts + 1) .. starter .. old:sub(30)
        end
      else
        new = '\\2' .. id .. struct.pack('>I4', 1) .. starter .. string.rep('\\0', 10)
      end
      if new then redis.call('HSET', KEYS[k + 2], offset, new) end
    end
    if last >= first then redis.call('PEXPIRE', KEYS[k + 2], ARGV[1]) end
  end
  answer[#answer + 1] = ours
  at = last + 1
end
return answer"
);

/// `unpack` is called with 1000 members at most: Lua's stack takes 8000.
const FINISH: &str = leased!(
    "local leases = tonumber(ARGV[1])
local answer, fenced = {}, false
for k = 1, leases do
  answer[k] = standing(KEYS[k], ARGV[1 + 2 * k], ARGV[2 + 2 * k])
  fenced = fenced or answer[k] ~= 1
end
if fenced then return answer end
local added = 0
local count = 2 + 2 * leases
local from = count + #KEYS - leases + 1
for k = leases + 1, #KEYS do
  count = count + 1
  local to = from + tonumber(ARGV[count]) - 1
  for i = from, to, 1000 do
    added = added + redis.call('SADD', KEYS[k], unpack(ARGV, i, math.min(i + 999, to)))
  end
  from = to + 1
  if ARGV[2] ~= '' then
    local t = redis.call('TIME')
    local ttl = redis.call('PTTL', KEYS[k])
    if ttl < tonumber(ARGV[2]) - (t[1] * 1000 + math.floor(t[2] / 1000)) then redis.call('PEXPIREAT', KEYS[k], ARGV[2]) end
  end
end
return added"
);

/// A save that a dead connection delivers late must not undo a newer one.
const SAVE: &str = held!(
    "local seq = redis.call('HGET', KEYS[1], 'seq')
if seq and tonumber(seq) >= tonumber(ARGV[4]) then return -3 end
redis.call('HSET', KEYS[1], 'seq', ARGV[4])
for i = 5, #ARGV, 2 do
  local offset, new = ARGV[i], ARGV[i + 1]
  if new == '' then
    redis.call('HDEL', KEYS[2], offset)
  else
    local old = redis.call('HGET', KEYS[2], offset)
    if old and old:byte(1) <= 2 and old:sub(2, 17) == new:sub(2, 17) then new = new:sub(1, 21) .. old:sub(22, 29) .. new:sub(30) end
    redis.call('HSET', KEYS[2], offset, new)
  end
end
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1"
);

/// The new owner folds the marks of those before into its own, so that the hash does not grow with every owner.
const LOAD: &str = held!(
    "local highest
for _, mark in ipairs(redis.call('HVALS', KEYS[2])) do
  if not highest or tonumber(mark) > tonumber(highest) then highest = mark end
end
if not highest then return {1} end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], ARGV[2], highest)
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return {1, tonumber(highest)}"
);

/// An owner that asks again, or whose first request comes late, has the lease that it has: another epoch would fence its own writes.
/// An end further away than a lease lasts was written by a clock that has since gone back: it counts from now. An owner that asks again,
/// because it missed the answer, is told the same about the one before it.
const ACQUIRE: &str = timed!(
    "local map, lease = tonumber(ARGV[2]), tonumber(ARGV[3])
local l = redis.call('HMGET', KEYS[1], 'owner', 'epoch', 'end', 'released', 'clean')
local stored, clean = 0, 1
if not l[1] then
  if map > 0 then
    redis.call('HSET', KEYS[1], 'owner', '', 'epoch', ARGV[2], 'end', text(now + lease), 'released', '0')
    redis.call('PEXPIRE', KEYS[1], ARGV[4])
    return {0, lease}
  end
else
  stored = tonumber(l[2])
  local left = tonumber(l[3]) - now
  if l[4] ~= '1' then
    clean = 0
    if l[1] == ARGV[1] then
      redis.call('HSET', KEYS[1], 'end', text(now + lease))
      redis.call('PEXPIRE', KEYS[1], ARGV[4])
      return {1, stored, tonumber(l[5]) or 0, now}
    elseif left > 0 then
      if left > lease then
        left = lease
        redis.call('HSET', KEYS[1], 'end', text(now + lease))
      end
      if l[1] ~= '' then redis.call('HSET', KEYS[1], 'waiter', '1') end
      return {0, left}
    end
  end
end
local epoch = math.max(stored + 1, map + 1, now)
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'epoch', text(epoch), 'end', text(now + lease), 'released', '0', 'clean', clean)
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {1, epoch, clean, now}"
);

/// Expired and still ours is ours. Lost is ours only before our own end: later, somebody else may have had it and been lost as well.
const RENEW: &str = timed!(
    "local l = redis.call('HMGET', KEYS[1], 'owner', 'epoch', 'released', 'waiter')
local waiter = 0
if not l[1] or l[1] == '' or tonumber(l[2]) < tonumber(ARGV[2]) then
  if now >= tonumber(ARGV[5]) then return {0, 0, now} end
  if l[1] then waiter = 1 end
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'epoch', ARGV[2], 'released', '0')
elseif l[1] ~= ARGV[1] or l[2] ~= ARGV[2] or l[3] == '1' then
  return {0, 0, now}
elseif l[4] then
  waiter = 1
  redis.call('HDEL', KEYS[1], 'waiter')
end
redis.call('HSET', KEYS[1], 'end', text(now + tonumber(ARGV[3])))
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {1, waiter, now}"
);

const RELEASE: &str = timed!(
    "local l = redis.call('HMGET', KEYS[1], 'owner', 'epoch')
local lost = not l[1] or l[1] == '' or tonumber(l[2]) < tonumber(ARGV[2])
if lost and now < tonumber(ARGV[5]) or l[1] == ARGV[1] and l[2] == ARGV[2] then
  redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'epoch', ARGV[2], 'end', text(now), 'released', '1')
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
return 1"
);

"""
The scripts of a store on a server.

Each is atomic and does a constant amount of work: it reads at most the token of a lock, and nothing
else that others may have written.
"""

from __future__ import annotations

__all__ = ["PUBLISH", "RELEASE", "RENEW", "USE"]

# A lock has a signature of 64 characters, then the token of its holder; see `manifests`.
_UNLESS_HELD = "if redis.call('GETRANGE', KEYS[1], 64, 95) ~= ARGV[1] then return 0 end"

# KEYS: lock, manifest, used, sizes. ARGV: token, new manifest, maximum age in ms or 0, key, bytes.
PUBLISH = f"""
{_UNLESS_HELD}
if tonumber(ARGV[3]) > 0 then redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
else redis.call('SET', KEYS[2], ARGV[2]) end
local now = redis.call('TIME')
redis.pcall('ZADD', KEYS[3], now[1] * 1000 + math.floor(now[2] / 1000), ARGV[4])
redis.pcall('HSET', KEYS[4], ARGV[4], ARGV[5])
return 1
"""
# KEYS: lock. ARGV: token, new content, ms.
RENEW = f"""
{_UNLESS_HELD}
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""
# KEYS: lock. ARGV: token, channel.
RELEASE = f"""
{_UNLESS_HELD}
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', ARGV[2], 'done')
return 1
"""
# KEYS: used. ARGV: key.
USE = """
local now = redis.call('TIME')
redis.call('ZADD', KEYS[1], 'XX', now[1] * 1000 + math.floor(now[2] / 1000), ARGV[1])
return 1
"""

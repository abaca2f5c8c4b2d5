-- What wrk runs: requests drawn at random from a pool that was made before; exact figures at the end.
-- Arguments: the pool's file, a seed. Each thread of wrk reads the pool for itself.

local pool = {}

function init(args)
  math.randomseed(tonumber(args[2]))
  local file = assert(io.open(args[1], "rb"))
  while true do
    local length = file:read("*l")
    if not length then break end
    pool[#pool + 1] = file:read(tonumber(length))
  end
  file:close()
end

function request()
  return pool[math.random(#pool)]
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\nFIGURES {"duration_us":%d,"requests":%d,"bytes":%d,"status":%d,"connect":%d,"read":%d,' ..
    '"write":%d,"timeout":%d,"p50_us":%d,"p99_us":%d,"max_us":%d}\n',
    summary.duration, summary.requests, summary.bytes, errors.status, errors.connect, errors.read,
    errors.write, errors.timeout, latency:percentile(50), latency:percentile(99), latency.max))
end

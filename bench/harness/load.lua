-- wrk script. Arguments after `--`: depth=N (requests in one write), body=FILE (POST it as JSON),
-- path=/x. Prints one line `RESULT {json}`.
--
-- wrk.init() calls our init() and then asks wrk.format() once for the text of every request. So we
-- change what wrk.format() returns and leave the global `request` alone: the text stays fixed, and
-- the load generator spends no Lua call per request. wrk counts the answers of a pipelined text
-- by itself.

function init(args)
   local depth, path = 1, "/"
   for _, arg in ipairs(args) do
      local key, value = arg:match("^(%w+)=(.*)$")
      if key == "depth" then depth = tonumber(value) end
      if key == "path" then path = value end
      if key == "body" then
         local file = assert(io.open(value, "rb"))
         wrk.body = file:read("*a")
         file:close()
         wrk.method = "POST"
         wrk.headers["Content-Type"] = "application/json"
      end
   end
   local format = wrk.format
   wrk.format = function() return string.rep(format(nil, path), depth) end
end

function done(summary, latency, requests)
   local e = summary.errors
   io.write(string.format(
      'RESULT {"requests":%d,"duration_us":%d,"bytes":%d,"p50_us":%d,"p99_us":%d,"max_us":%d,' ..
      '"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}\n',
      summary.requests, summary.duration, summary.bytes, latency:percentile(50),
      latency:percentile(99), latency.max, e.connect, e.read, e.write, e.status, e.timeout))
end

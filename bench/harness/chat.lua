-- Posts the file named after `--` to the URL, over and over; counts answers that are not 200.
local answers = {}

function setup(thread)
    table.insert(answers, thread)
end

function init(args)
    local file = assert(io.open(args[1], "rb"), "chat.lua needs the file with the request body")
    wrk.method = "POST"
    wrk.body = file:read("*a")
    wrk.headers["Content-Type"] = "application/json"
    file:close()
    refused = 0
end

function response(status)
    if status ~= 200 then
        refused = refused + 1
    end
end

function done(summary, latency)
    local refusals = 0
    for _, thread in ipairs(answers) do
        refusals = refusals + thread:get("refused")
    end
    local e = summary.errors
    print(string.format("RESULT requests=%d refused=%d errors=%d p50_us=%d", summary.requests, refusals,
        e.connect + e.read + e.write + e.timeout, latency:percentile(50)))
end

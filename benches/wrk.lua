-- What wrk asks for: KIND is one (a hot document), uniform (IDS documents, evenly), open (as many
-- documents that are not over), window (a POST); CLIENTS keys in turn, if there are more than one.
local kind, ids, clients = os.getenv("KIND"), tonumber(os.getenv("IDS") or 1), tonumber(os.getenv("CLIENTS") or 1)
local base = "/agentassist/api/v1/public/st-1/conversations/"
local window = "/agentassist/api/public/analytics/account/a-1/v2/interactionDetails?limit=100&offset=0"
local body = '{"startDate":"2025-08-24 00:00:00","endDate":"2025-08-30 00:00:00","timeZoneOffset":-330}'
local sent = 0

function init()
    math.randomseed(7)
    wrk.headers["Accept-Encoding"] = os.getenv("CODING")
    wrk.headers["X-Api-Key"] = "bench-key-0"
    if kind == "window" then
        wrk.headers["Content-Type"] = "application/json"
        whole = wrk.format("POST", window, nil, body)
    elseif kind == "one" and clients == 1 then
        whole = wrk.format("GET", base .. "c-0")
    end
end

function request()
    if whole then return whole end
    sent = sent + 1
    local headers = wrk.headers
    if clients > 1 then headers["X-Api-Key"] = "bench-key-" .. (sent % clients) end
    if kind == "uniform" then return wrk.format("GET", base .. "c-" .. math.random(0, ids - 1), headers) end
    if kind == "open" then return wrk.format("GET", base .. "c-open-" .. math.random(0, ids - 1), headers) end
    return wrk.format("GET", base .. "c-0", headers)
end

function done(summary)
    local errors = summary.errors
    local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    io.write(string.format('{"answers":%d,"failed":%d,"us":%d}\n', summary.requests, failed, summary.duration))
end

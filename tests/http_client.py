"""One HTTP client for all tests: httpx's own functions read all certificates again at each call."""

import httpx

# No connection is kept: each request comes as a new client's would.
http = httpx.Client(limits=httpx.Limits(max_keepalive_connections=0))

"""Exit 0 when the server in this container is ready, 1 otherwise. The standard library alone.

Asks /readyz on loopback, over TLS where the server has a certificate. That is not verified:
it names the hosts that clients dial, and nothing secret is sent.
"""

import os
import ssl
import sys
import urllib.request

TIMEOUT_S = 3.0


def main() -> int:
    """Ask once."""
    port = os.environ.get("PD_SERVER_HTTP_PORT", "8080")
    secure = bool(os.environ.get("PD_SERVER_TLS_CERT"))
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # No proxy: a proxy's loopback is another machine's.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    url = f"{'https' if secure else 'http'}://127.0.0.1:{port}/readyz"
    try:
        with opener.open(url, timeout=TIMEOUT_S) as answer:
            return 0 if answer.status == 200 else 1
    except OSError as error:
        sys.stderr.write(f"not ready: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())

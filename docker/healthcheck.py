"""The container's health check: exit code 0 if the node in this container answers 200, else 1.

    python healthcheck.py            is it alive?          GET /health
    python healthcheck.py --ready    can it do its work?   GET /health?ready=true

It runs every few seconds beside nodes whose latency is being measured, so it imports as little as
it can (urllib would take four times as long), and it knows of no proxy.
"""

import os
import socket
import sys

TIMEOUT_SECONDS = 3.0


def status_line(path: str, port: int) -> str:
    """What the node answers, as far as it matters here. Raises OSError."""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS) as connection:
        connection.sendall(request.encode("ascii"))
        answer = b""
        while b"\r\n" not in answer and (received := connection.recv(4096)):
            answer += received
    return answer.partition(b"\r\n")[0].decode("latin-1")


def main(arguments: list[str]) -> int:
    path = "/health?ready=true" if "--ready" in arguments else "/health"
    try:
        line = status_line(path, int(os.environ.get("PORT", "8000")))
    except OSError as error:
        print(f"GET {path}: {error}")
        return 1
    print(f"GET {path}: {line}")
    return 0 if line.split()[1:2] == ["200"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

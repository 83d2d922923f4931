"""Files that a browser loads from beside a module: read once, and sent anew only when they have changed."""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response


def asset(
    file: Path, media_type: str, headers: Mapping[str, str] | None = None
) -> Callable[[Request], Awaitable[Response]]:
    """What answers a GET with a file: `router.add_route(path, asset(…), include_in_schema=False)`.

    A browser asks each time whether its copy is still good (`no-cache`), and is told so by the ETag (RFC 9110
    §13.1.2): a page and its script never come from two versions of the app for longer than one reload.

    Args:
        headers: more of them.

    Raises OSError, at once, when there is no such file.
    """
    content = file.read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    more = {"Cache-Control": "no-cache", "ETag": etag, **(headers or {})}

    async def answer(request: Request) -> Response:
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=more)
        return Response(content, media_type=media_type, headers=more)

    return answer

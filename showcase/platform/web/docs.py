"""The OpenAPI page at `/docs`, from assets that lie beside this module: it works offline (Swagger UI, Apache-2.0)."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

ASSETS = Path(__file__).resolve().parent / "assets"


def install(app: FastAPI) -> None:
    """Serve the page and its assets."""
    # What is on the page is its own. It has one script and some styles in its text.
    inline = "'self' 'unsafe-inline'"
    policy = (
        f"default-src 'self'; script-src {inline}; style-src {inline}; img-src 'self' data:; frame-ancestors 'none'"
    )
    app.mount("/assets", StaticFiles(directory=ASSETS), name="assets")

    @app.get("/docs", include_in_schema=False)
    async def page() -> HTMLResponse:
        html = get_swagger_ui_html(
            openapi_url=str(app.openapi_url),
            title=app.title,
            swagger_js_url="/assets/swagger-ui-bundle.js",
            swagger_css_url="/assets/swagger-ui.css",
            swagger_favicon_url="/assets/favicon-32x32.png",
            swagger_ui_parameters={"validatorUrl": None},  # it would ask another host
        )
        html.headers["Content-Security-Policy"] = policy
        return html

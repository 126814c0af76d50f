"""GET /docs: what the server takes, on one page that needs nothing from anywhere else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

# Whatever the page might come to hold, a browser loads nothing of it from another place.
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'"
}

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 54rem; margin: 2rem auto; padding: 0 1rem }
details { border: 1px solid #8886; border-radius: 4px; margin: .4rem 0; padding: .4rem .8rem }
summary { cursor: pointer } summary b { display: inline-block; min-width: 3.5rem }
code, pre, textarea, input { font: 14px/1.4 ui-monospace, monospace }
pre { background: #8882; padding: .6rem; overflow: auto; max-height: 24rem; white-space: pre-wrap }
textarea { width: 100%; min-height: 7rem; box-sizing: border-box }
:root { color-scheme: light dark }
"""

_SCRIPT = """
document.querySelectorAll("form").forEach(form => form.addEventListener("submit", async event => {
  event.preventDefault();
  const shown = form.querySelector("pre"), body = form.querySelector("textarea");
  let path = form.dataset.path;
  form.querySelectorAll("input").forEach(each =>
    path = path.replace("{" + each.name + "}", encodeURIComponent(each.value)));
  const key = document.getElementById("key").value, headers = {};
  if (key) headers.authorization = "Bearer " + key;
  if (body) headers["content-type"] = "application/json";
  try {
    const answer = await fetch(path, {method: form.dataset.method, headers, body: body?.value});
    shown.textContent = answer.status + " " + answer.statusText + "\\n" + await answer.text();
  } catch (error) { shown.textContent = error; }
}));
"""


def docs_page(described: Mapping[str, Any]) -> str:
    """`described`: an OpenAPI document."""
    about = described["info"]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width'>",
        f"<title>{escape(about['title'])}</title><style>{_STYLE}</style>",
        f"<h1>{escape(about['title'])}</h1><p>{escape(about.get('description', ''))}</p>",
        "<p>The same for programs: <a href=/openapi.json>/openapi.json</a>.</p>",
        "<p><label>Key, where one is needed: <input id=key type=password autocomplete=off>",
        "</label></p>",
    ]
    for tag in [*described.get("tags", ()), {"name": ""}]:
        parts.append(f"<h2>{escape(tag['name'])}</h2><p>{escape(tag.get('description', ''))}</p>")
        for path, method, operation in _operations(described):
            if tag["name"] in operation.get("tags", ("",)):
                parts.append(_operation(path, method, operation))
    return "".join([*parts, f"<script>{_SCRIPT}</script>"])


def _operations(described: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield path, method.upper(), operation


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    parts = [
        f"<details><summary><b>{method}</b> <code>{escape(path)}</code> ",
        f"{escape(operation.get('summary', ''))}</summary>",
    ]
    if "description" in operation:
        parts.append(f"<p>{escape(operation['description'])}</p>")
    parts.append(f"<form data-method={method} data-path='{escape(path)}'>")
    for given in operation.get("parameters", ()):
        if given["in"] == "path":
            name = escape(given["name"])
            parts.append(f"<p><label>{name}: <input name='{name}' required></label></p>")
    content = operation.get("requestBody", {}).get("content", {})
    body = content.get("application/json")
    if body is not None:
        parts.append(f"<textarea>{escape(_shown(_example(body)))}</textarea>")
        parts.append(_schema("What it takes", body.get("schema", {})))
    parts.append("<p><button>Send</button></p><pre></pre></form>")
    for status, answer in operation.get("responses", {}).items():
        for kind, of_kind in answer.get("content", {"": {}}).items():
            told = f"{status} {answer.get('description', '')} {kind}"
            parts.append(_schema(told, of_kind.get("schema", {})))
    return "".join([*parts, "</details>"])


def _schema(title: str, schema: Mapping[str, Any]) -> str:
    if not schema:
        return f"<p>{escape(title)}</p>"
    shown = escape(_shown(schema))
    return f"<details><summary>{escape(title)}</summary><pre>{shown}</pre></details>"


def _example(body: Mapping[str, Any]) -> Any:
    if "example" in body:
        return body["example"]
    for each in body.get("examples", {}).values():
        return each.get("value", {})
    return body.get("schema", {}).get("example", {})


def _shown(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)

// /docs: Swagger's interface over /openapi.json, with the key of this tab on both it and what is tried out.

import { key } from "./local.js";

const $ = (id) => document.getElementById(id);
const authorized = (headers) => (key.get() ? { ...headers, authorization: `Bearer ${key.get()}` } : headers);

async function show() {
  const response = await fetch("openapi.json", { headers: authorized({}), cache: "no-store" });
  if (response.status === 401) {
    $("note").textContent = key.get() ? "This key is not valid." : "This server requires an API key: enter it above.";
    $("key").focus();
    return;
  }
  if (!response.ok) throw new Error(`the server responded with status ${response.status}`);
  const spec = await response.json();
  globalThis.SwaggerUIBundle({
    spec,
    dom_id: "#swagger",
    deepLinking: true,
    docExpansion: "list",
    defaultModelsExpandDepth: 0,
    displayRequestDuration: true,
    validatorUrl: null,
    requestInterceptor: (request) => ({ ...request, headers: authorized(request.headers) }),
  });
  $("note").hidden = true;
}

function start() {
  show().catch((error) => {
    $("note").textContent = `The description could not be loaded: ${error.message}`;
  });
}

$("key").value = key.get();
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key.set($("key").value.trim());
  start();
});
start();

// Talks to the server. All errors are Error objects with a message for people and a status.

const KEY = "kvasir.key";
export const key = {
  get: () => localStorage.getItem(KEY) || "",
  set: (text) => (text ? localStorage.setItem(KEY, text) : localStorage.removeItem(KEY)),
};

function headers(body) {
  const out = {};
  if (body !== undefined) out["Content-Type"] = "application/json";
  if (key.get()) out["Authorization"] = "Bearer " + key.get();
  return out;
}

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function errorOf(response) {
  let message = `the server answered ${response.status}`;
  try {
    message = (await response.json()).error.message;
  } catch {
    // no JSON: the status must do
  }
  const later = response.headers.get("Retry-After");
  return new ApiError(response.status, later ? `${message} (in ${later} s)` : message);
}

export async function getJson(path) {
  const response = await fetch(path, {headers: headers()});
  if (!response.ok) throw await errorOf(response);
  return response.json();
}

const endedEarly = () => new ApiError(0, "the connection ended early");

/** The data of server-sent events, as they come. Cut anywhere, whole events come out. An answer to a body must end with [DONE]. */
export async function* events(path, {body, signal} = {}) {
  const response = await fetch(path, {
    method: body === undefined ? "GET" : "POST",
    headers: headers(body),
    body: body === undefined ? undefined : JSON.stringify(body),
    signal,
  });
  if (!response.ok) throw await errorOf(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  while (true) {
    const {value, done} = await reader.read().catch((error) => {
      throw error.name === "AbortError" ? error : endedEarly();
    });
    if (done && body !== undefined) throw endedEarly();
    if (done) return;
    rest += value;
    const parts = rest.split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.split("\n").filter((l) => l.startsWith("data: ")).map((l) => l.slice(6)).join("\n");
      if (data === "[DONE]") return;
      if (data) yield JSON.parse(data);
    }
  }
}

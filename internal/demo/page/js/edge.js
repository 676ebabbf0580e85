// Asking the edge, as a customer's front end would: same origin, Clerk's cookie or a bearer header, nothing else.

import { freshen, session } from "./session.js";

const listeners = [];
export const onAnswer = (f) => listeners.push(f);

// ask sends one request and returns what came; no answer is one of status 0. The trace id is how the page finds it again in what the API received.
export async function ask({ method = "GET", path, body = "", auth = "cookie" }) {
	const trace = hex(16);
	const headers = { traceparent: `00-${trace}-${hex(8)}-01` };
	const sends = method === "POST" && body !== "";
	if (sends) headers["Content-Type"] = "application/json";
	const answer = { method, path, auth, body: sends ? body : "", trace, at: new Date(), status: 0, code: "", message: "", headers: {}, data: null, rows: null };
	let started = performance.now();
	try {
		if (auth !== "none") await freshen();
		if (auth === "bearer" && session.token) headers.Authorization = `Bearer ${session.token}`;
		started = performance.now();
		const response = await fetch(path, {
			method, headers, cache: "no-store",
			body: sends ? body : undefined,
			credentials: auth === "cookie" ? "same-origin" : "omit",
		});
		const text = await response.text();
		answer.status = response.status;
		answer.headers = Object.fromEntries(response.headers);
		read(answer, text);
	} catch (error) {
		answer.message = `No answer that can be read: ${error.message}.`;
	}
	answer.took = performance.now() - started;
	for (const f of listeners) f(answer);
	return answer;
}

function read(answer, text) {
	if (!answer.headers["content-type"]?.startsWith("application/json")) {
		answer.text = text;
		return;
	}
	const value = JSON.parse(text);
	answer.code = value.code ?? "";
	answer.message = value.error ?? "";
	answer.data = value.data ?? null;
	answer.rows = value.rows ?? null;
}

// received is what the API got for a request, or null if nothing reached it.
export async function received(trace) {
	const response = await fetch(`/demo/received?trace=${trace}`, { cache: "no-store" });
	if (!response.ok) return null;
	return (await response.json()).received;
}

function hex(bytes) {
	return Array.from(crypto.getRandomValues(new Uint8Array(bytes)), (b) => b.toString(16).padStart(2, "0")).join("");
}

// The claims of the token that the edge minted for the latest request that got through.

import { $, h, trying } from "./dom.js";
import { onAnswer, received } from "./edge.js";
import { onSession } from "./session.js";

const NOTES = [
	["workspace_id", () => "The Tinybird workspace, read from the signing key."],
	["name", () => "Whom Tinybird counts, and shows in its statistics: the organization, and for a limit of its own the pipe."],
	["exp", (c) => left(c.exp)],
	["resource", () => "The one pipe of the request. The same token reads no other."],
	["fixed_params", () => "From the verified session, by the config. Tinybird lets them win over whatever is in the URL."],
	["limits", (c) => (c.limits ? `Tinybird refuses more than ${c.limits.rps} a second under this name.` : null)],
];

let latest = "";
let pending = 0;
let claims = null;

export function startMinted() {
	nothing();
	onSession(nothing);
	onAnswer((answer) => {
		if (answer.status !== 200 || answer.headers["cache-status"]?.includes("; hit")) return; // from memory: nothing was minted for it
		latest = answer.trace;
		clearTimeout(pending);
		pending = setTimeout(() => trying(load), 200);
	});
	setInterval(() => {
		const note = $("minted").querySelector("[data-note=exp]");
		if (note && claims) note.textContent = left(claims.exp);
	}, 1000);
}

function nothing() {
	claims = null;
	latest = "";
	clearTimeout(pending);
	$("minted").replaceChildren(h("p", {}, "None yet: the edge mints one when a request is allowed, and none for a request that it refuses."));
}

async function load() {
	const trace = latest;
	const up = await received(trace);
	if (!up?.claims || trace !== latest) return;
	claims = ordered(up.claims);
	$("minted").replaceChildren(
		h("pre", { tabindex: "0", "aria-label": "Claims" }, ...lines(claims)),
		h("dl", {}, NOTES.map(([name, text]) => {
			const note = text(claims);
			return note && h("div", {}, h("dt", {}, name), h("dd", { "data-note": name }, note));
		})),
	);
}

// ordered puts the claims in the order in which one reads them; a claim that is not expected comes last.
function ordered({ workspace_id, name, exp, scopes, limits, ...rest }) {
	const list = (scopes ?? []).map(({ type, resource, ...more }) => ({ type, resource, ...more }));
	return { workspace_id, name, exp, scopes: list, limits, ...rest };
}

function left(exp) {
	const seconds = Math.round(exp - Date.now() / 1000);
	return seconds > 0 ? `Ends in ${seconds} s. Kept for at most two thirds of its minute, then minted anew.` : "Has ended. The next request gets a new one.";
}

// lines is the claims as indented JSON, names muted and the session's values in the organization's colour.
function lines(value) {
	const own = new Set(Object.values(value.scopes?.[0]?.fixed_params ?? {}).map(String));
	return JSON.stringify(value, null, 2).split(/("(?:[^"\\]|\\.)*":?)/).map((part) => {
		if (part.endsWith('":')) return h("span", { class: "key" }, part);
		return part.startsWith('"') && own.has(JSON.parse(part)) ? h("span", { class: "value-own" }, part) : part;
	});
}

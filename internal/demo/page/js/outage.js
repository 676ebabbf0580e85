// What goes wrong at Clerk's side, on purpose: the key rotates, the key server is away.

import { $, busy, h } from "./dom.js";
import { ask } from "./edge.js";
import { kind } from "./format.js";
import { freshen, onSession, post, session } from "./session.js";

let down = false;

export function startOutage(issuer) {
	down = issuer.down;
	press();
	$("rotate").addEventListener("click", () => busy($("rotate"), rotate));
	$("down").addEventListener("click", () => busy($("down"), toggle));
	onSession(() => $("outage-log").replaceChildren(h("li", {}, h("span", { class: "why" }, "Do one of the two: the page asks the edge right after, with the session it has."))));
}

async function rotate() {
	await fetch("/dev/rotate", post({}));
	await freshen(true);
	await report("The key was rotated and your session’s token signed with the new one.");
}

async function toggle() {
	await fetch("/demo/issuer", post({ down: !down }));
	down = !down;
	press();
	await report(down ? "The key server answers 503." : "The key server is back.");
}

function press() {
	$("down").dataset.down = String(down);
	$("down").textContent = down ? "Bring the key server back" : "Take the key server down";
}

async function report(what) {
	const before = await issuer();
	const answer = await ask({ path: "/v0/pipes/top_pages.json?limit=1" });
	const after = await issuer();
	const fetches = after.fetches - before.fetches;
	const cost = fetches === 0 ? "without asking the key server" : `after ${fetches === 1 ? "one fetch" : `${fetches} fetches`} of the keys`;
	const result = session.user ? `The next request was answered ${answer.status || "not at all"}${answer.code ? ` ${answer.code}` : ""} ${cost}.` : "Nobody is signed in.";
	const note = answer.code === "token_invalid" ? " A new key is looked for at most every ten seconds, and not found while the server is down." : "";
	const line = h("li", {}, h("span", { class: "status", "data-kind": kind(answer.status) }, String(answer.status || "–")), h("span", {}, `${what} ${result}${note}`));
	const list = $("outage-log");
	if (list.querySelector(".why")) list.replaceChildren(line);
	else list.prepend(line);
	while (list.children.length > 3) list.lastElementChild.remove();
}

async function issuer() {
	return (await fetch("/demo/issuer", { cache: "no-store" })).json();
}

// Trying to read the other organization: ready-made attempts, a form to make others, and what became of each.

import { $, announce, h, trying } from "./dom.js";
import { ask, received } from "./edge.js";
import { kind, whose } from "./format.js";
import { onSession, session } from "./session.js";
import { plain } from "./table.js";
import { why } from "./why.js";

let organizations = [];

const ATTEMPTS = [
	["Edit the parameter", (id) => ({ path: `/v0/pipes/top_pages.json?organization_id=${id}&limit=4` })],
	["Put it in the body", (id) => ({ method: "POST", path: "/v0/pipes/top_pages.json", body: JSON.stringify({ organization_id: id, limit: 4 }) })],
	["Spell it differently", (id) => ({ path: `/v0/pipes/top_pages.json?ORGANIZATION_ID=${id}&organization%5Fid=${id}&limit=4` })],
	["Bring a token", () => ({ path: "/v0/pipes/top_pages.json?token=p.eyJ1IjoiLi4uIn0.c3RvbGVu&limit=4" })],
	["Ask in SQL", () => ({ path: "/v0/pipes/top_pages.json?q=SELECT+*+FROM+events&limit=4" })],
	["Ask for another pipe", () => ({ path: "/v0/pipes/leaky_report.json" })],
	["Come without a session", () => ({ path: "/v0/pipes/top_pages.json", auth: "none" })],
];

export function startAttempts(all) {
	organizations = all;
	$("attempts").replaceChildren(...ATTEMPTS.map(([name, make]) => h("button", {
		type: "button", click: () => { fill(make(victim().id)); trying(send); },
	}, name)));
	$("request").addEventListener("submit", (event) => { event.preventDefault(); trying(send); });
	onSession(() => {
		$("victim").textContent = victim().name;
		$("victim").className = "org";
		$("victim").dataset.org = victim().slug;
		fill(ATTEMPTS[0][1](victim().id));
		empty();
	});
}

// victim is an organization that the user is not in.
function victim() {
	const own = session.user?.organization?.id;
	const first = own ? organizations : organizations.toReversed();
	return first.find((o) => o.id !== own) ?? { id: "", name: "another organization", slug: "none" };
}

function fill({ method = "GET", path, body = "", auth = "cookie" }) {
	const form = $("request").elements;
	form.method.value = method;
	form.path.value = path;
	form.path.setCustomValidity(""); // no input event tells of the new text
	form.body.value = body;
	form.auth.value = auth;
}

async function send() {
	const form = $("request").elements;
	const path = form.path.value.trim();
	if (!path.startsWith("/") || !sameOrigin(path)) {
		form.path.setCustomValidity("Start with /v0/pipes/: this page asks its own origin only.");
		form.path.reportValidity();
		form.path.addEventListener("input", () => form.path.setCustomValidity(""), { once: true });
		return;
	}
	const answer = await ask({ method: form.method.value, path, body: form.body.value, auth: form.auth.value });
	show(answer, await received(answer.trace));
	announce($("verdict").querySelector(".sentence").textContent);
}

// sameOrigin reports whether a path leads to this page's server. //host and /\host do not, and a bearer token would go there.
function sameOrigin(path) {
	return URL.canParse(path, location.origin) && new URL(path, location.origin).origin === location.origin;
}

function empty() {
	const nothing = [["request", ["–"]], ["credential", ["–"]], ["parameters", ["–"]]];
	$("verdict").replaceChildren(
		h("p", { class: "sentence" }, "Nothing tried yet."),
		h("p", { class: "why" }, "What you send, what Tinybird receives and what comes back will stand here."),
		h("div", { class: "stages" }, stage("You send", nothing), stage("Tinybird receives", nothing), stage("You get", [["status", ["–"]]])),
	);
}

function show(answer, up) {
	$("verdict").replaceChildren(
		sentence(answer),
		h("p", { class: "why" }, answer.status === 200 ? explained(answer, up) : `${answer.message} ${why(answer.code)}`),
		h("div", { class: "stages" }, sent(answer, up), arrived(up), came(answer)),
	);
}

function sentence(answer) {
	const text = h("p", { class: "sentence" });
	if (answer.status !== 200) {
		text.append(answer.status ? `Refused: ${answer.status} ${answer.code}.` : "No answer.");
		return text;
	}
	const owners = whose(answer.data ?? []);
	if (owners.length === 1) {
		text.append(`${answer.rows} rows, all of them `, h("span", { class: "org", "data-org": owners[0].slug }, owners[0].name), "’s.");
	} else {
		text.append(answer.rows === null ? "An answer." : `${answer.rows} rows.`);
	}
	return text;
}

function explained(answer, up) {
	const lost = dropped(answer, up);
	if (lost.length === 0) return "Nothing in this request was reserved, so all of it went up.";
	const names = [...new Set(lost.map((p) => p.name))];
	const text = `The edge dropped ${names.join(" and ")} and asked with the values of your session.`;
	return names.includes("token") ? `${text} That is no error: stock clients send a token with every request.` : text;
}

// parameters of a query and of a body that is a JSON object.
function parameters(query, body) {
	const list = [...new URLSearchParams(query)].map(([name, value]) => ({ name, value, place: "query" }));
	if (!body) return list;
	try {
		const object = JSON.parse(body);
		list.push(...Object.entries(object).map(([name, value]) => ({ name, value: String(value), place: "body" })));
	} catch {
		list.push({ name: "body", value: body, place: "raw" });
	}
	return list;
}

const queryOf = (path) => path.split("?").slice(1).join("?");

function dropped(answer, up) {
	if (!up) return [];
	const kept = new Set(parameters(up.raw_query, up.body).map((p) => `${p.place} ${p.name}`));
	return parameters(queryOf(answer.path), answer.body).filter((p) => !kept.has(`${p.place} ${p.name}`));
}

function sent(answer, up) {
	const lost = new Set(dropped(answer, up).map((p) => `${p.place} ${p.name} ${p.value}`));
	const credential = { cookie: "cookie __session", bearer: "Authorization: Bearer", none: "none" }[answer.auth];
	return stage("You sent", [
		["request", [`${answer.method} ${answer.path.split("?")[0]}`]],
		["credential", [session.user || answer.auth === "none" ? credential : "none"]],
		["parameters", parameters(queryOf(answer.path), answer.body).map((p) => {
			const text = `${p.name}=${p.value}`;
			return lost.has(`${p.place} ${p.name} ${p.value}`) ? h("del", {}, text) : text;
		})],
	]);
}

function arrived(up) {
	if (!up) return stage("Tinybird received", [["request", ["nothing"]]]);
	const scope = up.claims?.scopes?.[0] ?? {};
	return stage("Tinybird received", [
		["request", [`${up.method} ${up.path}`]],
		["credential", [`one token, for ${scope.resource} only`]],
		["parameters", [
			...parameters(up.raw_query, up.body).map((p) => `${p.name}=${p.value}`),
			...Object.entries(scope.fixed_params ?? {}).map(([name, value]) => h("ins", {}, `${name}=${value}`)),
		]],
	]);
}

function came(answer) {
	const node = stage("You got", [["status", [h("span", { class: "status", "data-kind": kind(answer.status) }, String(answer.status || "–")), answer.code && ` ${answer.code}`]]]);
	if (answer.data?.length) node.append(plain("Rows", answer.data.slice(0, 4)));
	return node;
}

function stage(title, facts) {
	return h("div", { class: "stage" }, h("h3", {}, title), h("dl", {}, facts.map(([name, values]) => h("div", {},
		h("dt", {}, name), name === "status" ? h("dd", {}, values) : (values.length ? values : ["none"]).map((v) => h("dd", {}, v))))));
}

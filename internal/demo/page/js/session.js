// What Clerk's script does in a customer's page: keep somebody signed in, and the 60-second token fresh.

import { $, announce, h, trying } from "./dom.js";

export const session = { user: null, token: "", expires: 0 };

const listeners = [];
export const onSession = (f) => listeners.push(f);

let turn = 0; // counts the clicks, so that a token which comes after the next one is nobody's

// freshen gets a new token when the one there is has less than ten seconds left.
export async function freshen(force = false) {
	if (!session.user || (!force && Date.now() < session.expires - 10_000)) return;
	const mine = turn;
	const response = await fetch("/dev/token", { cache: "no-store" });
	if (mine === turn) await adopt(response);
}

async function signIn(key) {
	const mine = ++turn;
	const response = await fetch("/dev/sign-in", post({ user: key }));
	if (mine !== turn) return;
	await adopt(response);
	changed();
}

async function signOut() {
	const mine = ++turn;
	await fetch("/dev/sign-out", post({}));
	if (mine !== turn) return;
	forget();
	changed();
}

// resume picks up the session of an earlier visit, if the cookies tell of one.
export async function resume() {
	if (/(^|; )__client_uat=[1-9]/.test(document.cookie)) {
		await adopt(await fetch("/dev/token", { cache: "no-store" }));
	}
	changed();
}

export function post(value) {
	return { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value) };
}

async function adopt(response) {
	if (!response.ok) return forget();
	const { user, token } = await response.json();
	session.user = user;
	session.token = token;
	session.expires = claims(token).exp * 1000;
}

function forget() {
	session.user = null;
	session.token = "";
	session.expires = 0;
}

function claims(token) {
	const payload = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
	return JSON.parse(atob(payload));
}

function changed() {
	const org = session.user?.organization;
	document.documentElement.dataset.org = org?.slug ?? "none";
	for (const button of $("people").children) {
		button.setAttribute("aria-pressed", String((button.dataset.key || null) === (session.user?.key ?? null)));
	}
	const name = session.user?.name;
	announce(name ? `Signed in as ${name}${org ? "" : ", without an organization"}.` : "Nobody is signed in.");
	for (const f of listeners) f(session);
}

// showPeople makes a button for everybody who can sign in, and one for nobody.
export function showPeople(users) {
	const everybody = [...users, null];
	$("people").replaceChildren(...everybody.map((u) => h("button", {
		type: "button", class: "person", "aria-pressed": "false",
		"data-key": u?.key ?? "", "data-org": u?.organization?.slug ?? "none",
		click: () => trying(() => (u ? signIn(u.key) : signOut())),
	},
	h("span", { class: "initial", "aria-hidden": "true" }, u ? u.name[0] : "–"),
	h("span", { class: "name" }, u ? u.name.split(" ")[0] : "Nobody"),
	h("span", { class: "role" }, role(u)))));
}

function role(u) {
	if (!u) return "signed out";
	if (!u.organization) return "no organization";
	return `${u.organization.name}, ${u.organization.role.replace("org:", "")}`;
}

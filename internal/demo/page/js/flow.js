// Three steps, from the session of whoever is signed in to whose rows came back.

import { $, h } from "./dom.js";
import { whose } from "./format.js";
import { onSession, session } from "./session.js";

export function startFlow() {
	onSession(() => show("…", "", "…", ""));
}

// showFlow tells what became of a request of the page.
export function showFlow(answer) {
	if (answer.status !== 200) {
		show(["refuses: ", answer.status, " ", answer.code], "and mints no token", "is not asked", "and no row leaves it");
		return;
	}
	const owners = whose(answer.data ?? []);
	show(["fixes organization_id to ", h("span", { class: "org" }, `${session.user.organization.name}’s`)], "in a token for one pipe and one minute",
		["answers with ", owners.map((o) => h("span", { class: "org", "data-org": o.slug }, `${o.name}’s`)), " rows"], "and with no others");
}

function show(edge, edgeNote, api, apiNote) {
	const user = session.user;
	const org = user?.organization;
	$("flow").replaceChildren(
		step("Clerk’s session", user ? [user.name.split(" ")[0], ", ", h("span", { class: "org" }, org?.name ?? "no organization")] : "none",
			org ? h("code", {}, org.id) : "with nothing to fix a parameter to"),
		step("The edge", edge, edgeNote),
		step("Tinybird", api, apiNote),
	);
}

function step(title, fact, note) {
	return h("li", { class: "stage" }, h("h3", {}, title), h("b", {}, fact), h("p", {}, note));
}

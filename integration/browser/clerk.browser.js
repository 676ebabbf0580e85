// Stands in for Clerk's script of that name, as far as the page of docs/quick-start.md uses it. Who may sign in, to which
// organizations they belong and the session token for each of them is in clerk.json, which the test writes beside this file.

window.Clerk = (() => {
	const listeners = new Set();
	let people; // { organizations: [{ id, name, token, created }], none: a token without an organization }
	let active = JSON.parse(sessionStorage.getItem("active") ?? "null"); // { organization } of the session; null without one

	const member = () => people.organizations.filter((o) => !o.created || sessionStorage.getItem(o.id));
	const update = (to) => {
		active = to;
		sessionStorage.setItem("active", JSON.stringify(to));
		for (const listener of listeners) listener({});
	};

	return {
		load: async () => { people = await (await fetch("/clerk.json")).json(); },
		addListener: (listener) => { listeners.add(listener); listener({}); },
		redirectToSignIn: async () => { update({ organization: null }); location.reload(); },
		signOut: async () => update(null),
		setActive: async ({ organization }) => update({ organization: organization?.id ?? organization }),
		createOrganization: async ({ name }) => {
			const organization = people.organizations.find((o) => o.created && o.name === name);
			sessionStorage.setItem(organization.id, "created");
			return organization;
		},
		get isSignedIn() { return Boolean(active); },
		get organization() { return active && (member().find((o) => o.id === active.organization) ?? null); },
		get user() { return active && { organizationMemberships: member().map((organization) => ({ organization })) }; },
		get session() { return active && { id: "sess_1", getToken: async () => Clerk.organization?.token ?? people.none }; },
	};
})();

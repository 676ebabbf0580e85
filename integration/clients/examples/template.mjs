// As it was for Clerk's template, but for the address. session is Clerk.session.
export async function topPages(session) {
	const token = await session.getToken({ template: "tinybird" });
	const answer = await fetch("https://analytics.example.com/v0/pipes/top_pages.json", {
		headers: { Authorization: `Bearer ${token}` },
	});
	const body = await answer.json();
	if (!answer.ok) throw new Error(body.error);
	return body.data;
}

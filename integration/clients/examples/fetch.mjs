// Reads a pipe from another site's page, for which the edge needs that page's origin in `cors`.
export async function read(pipe, params) {
	const url = `https://analytics.example.com/v0/pipes/${pipe}.json?${new URLSearchParams(params)}`;
	const answer = await fetch(url, { headers: { Authorization: `Bearer ${await Clerk.session.getToken()}` } });
	const body = await answer.json();
	if (!answer.ok) throw new Error(body.error);
	return body.data;
}

import { createClient } from "@tinybirdco/sdk";

// token is the visitor's session token: `await (await auth()).getToken()` in Clerk's server SDKs. It lives for a minute, so make
// a client for each request.
const analytics = (token) => createClient({ baseUrl: "https://analytics.example.com", token });

export async function topPages(token, params) {
	const { data } = await analytics(token).query("top_pages", params);
	return data;
}

export async function record(token, view) {
	return analytics(token).datasources.ingest("page_views", view);
}

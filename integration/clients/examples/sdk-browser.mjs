import { createTinybirdApi } from "@tinybirdco/sdk/api";

// One instance for the page's life: the token is given with each query. It must not be empty here.
const analytics = createTinybirdApi({ baseUrl: "https://analytics.example.com", token: "of each query" });

export async function topPages(params) {
	const { data } = await analytics.query("top_pages", params, { token: await Clerk.session.getToken() });
	return data;
}

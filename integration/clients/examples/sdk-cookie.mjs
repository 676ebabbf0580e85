import { createTinybirdApi } from "@tinybirdco/sdk/api";

// The SDK always sends its token as a header, and a header wins over Clerk's cookie. So it is taken out.
async function withCookie(url, { headers, ...init }) {
	headers.delete("Authorization");
	return fetch(url, { ...init, headers });
}

const analytics = createTinybirdApi({ baseUrl: location.origin, token: "cookie", fetch: withCookie });

export async function topPages(params) {
	const { data } = await analytics.query("top_pages", params);
	return data;
}

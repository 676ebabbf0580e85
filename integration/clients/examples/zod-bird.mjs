import { Tinybird } from "@chronark/zod-bird";
import { z } from "zod";

// token is the visitor's session token: `await (await auth()).getToken()` in Clerk's server SDKs. It lives for a minute, so make
// a client for each request.
const analytics = (token) => new Tinybird({ baseUrl: "https://analytics.example.com", token });

export async function topPages(token, params) {
	const read = analytics(token).buildPipe({
		pipe: "top_pages",
		parameters: z.object({ date_from: z.string().optional(), limit: z.number().optional() }),
		data: z.object({ path: z.string(), views: z.number(), visitors: z.number() }),
	});
	const { data } = await read(params);
	return data;
}

export async function record(token, view) {
	const send = analytics(token).buildIngestEndpoint({
		datasource: "page_views",
		event: z.object({ path: z.string(), visits: z.number() }),
		wait: true,
	});
	return send(view);
}

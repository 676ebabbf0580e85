// The page of the tests. It shows the dashboard that its query names, as in ?show=charts&params={"limit":5}, and has the functions of
// the other examples ready for the test to call.
import { useEffect, useState } from "react";
import { createRoot } from "react-dom/client";
import { Dashboard as Sentences } from "../examples/chart-error.jsx";
import { Dashboard as Charts } from "../examples/charts.jsx";
import { Dashboard as Bearer } from "../examples/charts-bearer.jsx";
import { Dashboard as CookieCORS } from "../examples/charts-cookie-cors.jsx";
import { Dashboard as Token } from "../examples/charts-token.jsx";
import { read } from "../examples/fetch.mjs";
import { topPages as sdkBearer } from "../examples/sdk-browser.mjs";
import { topPages as sdkCookie } from "../examples/sdk-cookie.mjs";
import { topPages as zodBird } from "../examples/zod-bird.mjs";

// The Clerk of the page: the test gives it the token.
const getToken = () => window.Clerk.session.getToken();

function WithToken({ params }) {
	const [token, setToken] = useState();
	useEffect(() => {
		getToken().then(setToken);
	}, []);
	return token && <Token token={token} params={params} />;
}

const dashboards = {
	charts: (params) => <Charts params={params} />,
	"chart-error": (params) => <Sentences params={params} />,
	"charts-bearer": (params) => <Bearer getToken={getToken} params={params} />,
	"charts-cookie-cors": (params) => <CookieCORS params={params} />,
	"charts-token": (params) => <WithToken params={params} />,
};

window.examples = { read, sdkBearer, sdkCookie, zodBird: async (params) => zodBird(await getToken(), params) };

const query = new URLSearchParams(location.search);
const show = dashboards[query.get("show")];
if (show) {
	const params = JSON.parse(query.get("params") ?? "{}");
	createRoot(document.querySelector("#root")).render(show(params));
}

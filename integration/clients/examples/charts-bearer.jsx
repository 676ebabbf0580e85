import { BarChart, ChartProvider, Table } from "@tinybirdco/charts";

const pipe = (name) => `https://analytics.example.com/v0/pipes/${name}.json`;

// getToken is that of Clerk's useAuth().
export function Dashboard({ getToken, params }) {
	const fetcher = async (url) => {
		const answer = await fetch(url, { headers: { Authorization: `Bearer ${await getToken()}` } });
		const body = await answer.json();
		if (!answer.ok) throw new Error(body.error);
		return body;
	};
	return (
		<ChartProvider queryConfig={{ token: "header", fetcher }}>
			<BarChart endpoint={pipe("sales_by_day")} params={params} index="day" categories={["amount"]} height="240px" title="Sales" />
			<Table endpoint={pipe("top_pages")} params={params} index="path" categories={["path", "views", "visitors"]} title="Pages" />
		</ChartProvider>
	);
}

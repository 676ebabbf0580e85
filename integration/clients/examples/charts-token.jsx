import { BarChart, ChartProvider, Table } from "@tinybirdco/charts";

const pipe = (name) => `https://analytics.example.com/v0/pipes/${name}.json`;

// token comes from getToken() of Clerk's useAuth(), and goes into the URL: the edge needs `token_from header cookie query token`.
export function Dashboard({ token, params }) {
	return (
		<ChartProvider queryConfig={{ token }}>
			<BarChart endpoint={pipe("sales_by_day")} params={params} index="day" categories={["amount"]} height="240px" title="Sales" />
			<Table endpoint={pipe("top_pages")} params={params} index="path" categories={["path", "views", "visitors"]} title="Pages" />
		</ChartProvider>
	);
}

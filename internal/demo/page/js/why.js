// What a refusal means, in terms of this page. The edge's own sentence is shown beside it.

const WHY = {
	token_missing: "Without a session there is nobody whose rows could be shown. Choose somebody above.",
	tenant_missing: "The config fixes organization_id to {clerk.org.id}. A user without an organization has no value for it, so the edge minted no token and asked nothing: no value never means all rows.",
	not_allowed: "The config asks for a permission that this session does not have.",
	not_found: "Only the pipes in the config exist. Everything else looks the same, whether Tinybird has it or not.",
	rate_limited: "This tenant has used up its share for now. Others are counted apart.",
	token_invalid: "The signature does not hold with the keys that the edge has.",
	token_expired: "Session tokens live for a minute. Reload to get a new one.",
	unsupported_body: "A raw SQL body would be run by Tinybird over the pipe. Only a JSON object of parameters goes up.",
	bad_query: "A query that two parsers could read differently is refused, not guessed at.",
	bad_body: "A body that two parsers could read differently is refused, not guessed at.",
	query_refused: "Tinybird did not accept a parameter. Its text can quote SQL, so the edge keeps it.",
};

export const why = (code) => WHY[code] ?? "";

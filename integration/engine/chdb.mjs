// Holds one session of ClickHouse, in this process, and answers on a loopback port. The first line on standard output says
// which. It ends with its standard input, so that it does not outlive whoever started it.
import { createServer } from 'node:http'
import { drainPending, Session } from 'chdb'

const session = new Session(process.argv[2])

const read = async (request) => {
  const parts = []
  for await (const part of request) parts.push(part)
  return Buffer.concat(parts)
}

const routes = {
  // The body is SQL. The answer is what ClickHouse writes in that format, byte for byte.
  '/query': async (request, url) => {
    const result = await session.queryAsync((await read(request)).toString(), { format: url.searchParams.get('format') })
    return Buffer.from(result.bytes())
  },
  // The body is NDJSON: all rows are taken, or none.
  '/append': async (request, url) => {
    await session.insert({
      table: url.searchParams.get('table'),
      values: await read(request),
      format: 'JSONEachRow',
      settings: { date_time_input_format: 'best_effort', input_format_json_read_objects_as_strings: 1 },
    })
    return Buffer.alloc(0)
  },
}

const server = createServer(async (request, response) => {
  const url = new URL(request.url, 'http://localhost')
  try {
    const body = await routes[url.pathname](request, url)
    response.writeHead(200, { 'Content-Length': body.length }).end(body)
  } catch (failure) {
    const body = Buffer.from(String(failure.message))
    response.writeHead(400, { 'Content-Length': body.length, 'X-Code': failure.clickhouseCode ?? 0 }).end(body)
  }
})

// A connection that this end closed for being idle is the one that the next request may just have been sent on.
server.keepAliveTimeout = 0

server.listen(0, '127.0.0.1', () => console.log(server.address().port))

process.stdin.resume().on('end', async () => {
  server.closeAllConnections()
  server.close()
  await drainPending()
  session.close()
})
